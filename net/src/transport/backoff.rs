//! How long to wait before the next attempt to connect.
//!
//! The rule: the delay doubles up to a limit, and is spread over its upper half by a seed, so that many who lost the
//! same peer do not return together. Pure: no clock.

use std::time::Duration;

/// The delays between attempts.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
    random: u64,
}

impl Backoff {
    /// Delays from `min` up to `max`.
    #[must_use]
    pub fn new(min: Duration, max: Duration, seed: u64) -> Self {
        assert!(!min.is_zero() && min <= max, "a delay between attempts, and its limit");
        Self { min, max, next: min, random: seed }
    }

    /// How long to wait before the next attempt: between half of the present delay and all of it.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(self.max);
        // SplitMix64: any seed will do, also 0.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let fraction = ((mixed ^ (mixed >> 31)) >> 40) as u32;
        delay / 2 + delay / 2 * fraction / (1 << 24)
    }

    /// An attempt was a success: the next delay is the shortest again.
    pub fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_and_are_spread() {
        let (min, max) = (Duration::from_millis(10), Duration::from_secs(1));
        let mut backoff = Backoff::new(min, max, 7);
        let mut expected = min;
        for _ in 0..20 {
            let delay = backoff.next_delay();
            assert!(delay >= expected / 2 && delay <= expected, "{delay:?} of {expected:?}");
            expected = (expected * 2).min(max);
        }
        backoff.reset();
        assert!(backoff.next_delay() <= min);
        let firsts: std::collections::BTreeSet<_> =
            (0..50).map(|seed| Backoff::new(max, max, seed).next_delay()).collect();
        assert!(firsts.len() > 45, "seeds spread: {firsts:?}");
    }
}
