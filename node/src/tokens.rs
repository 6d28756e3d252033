//! Tokens of recent writes: a retry of one logical write is recognised, through whichever replica it comes.
//!
//! The rule: bounded; the oldest go first. A token that was forgotten while its write is still live is found in the
//! object itself.
//!
//! Pure. Not here: collapsing two writes of one token that met (`object`).

use std::collections::VecDeque;

use ahash::AHashSet;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// How many writes are remembered.
const TOKENS_MAX: usize = 1 << 16;

/// The tokens that a core has seen lately, each for its key.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    seen: AHashSet<u128>,
    order: VecDeque<u128>,
}

impl Tokens {
    /// Remembers that a write of `key` carried `token`.
    pub(crate) fn insert(&mut self, key: &[u8], token: u128) {
        let entry = digest(key, token);
        if self.seen.insert(entry) {
            self.order.push_back(entry);
            if self.order.len() > TOKENS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.seen.remove(&oldest);
            }
        }
    }

    /// Whether a write of `key` with `token` was seen.
    #[must_use]
    pub(crate) fn contains(&self, key: &[u8], token: u128) -> bool {
        self.seen.contains(&digest(key, token))
    }
}

fn digest(key: &[u8], token: u128) -> u128 {
    token ^ xxh3_128_with_seed(key, token as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_kept_for_their_key_and_bounded() {
        let mut tokens = Tokens::default();
        tokens.insert(b"a", 1);
        assert!(tokens.contains(b"a", 1) && !tokens.contains(b"b", 1) && !tokens.contains(b"a", 2));
        (0..TOKENS_MAX as u128).for_each(|token| tokens.insert(b"b", token));
        assert!(!tokens.contains(b"a", 1) && tokens.contains(b"b", 0));
        assert_eq!((tokens.seen.len(), tokens.order.len()), (TOKENS_MAX, TOKENS_MAX));
    }
}
