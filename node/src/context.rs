//! Contexts: what a client has seen, sealed, as text that it hands back.
//!
//! The rule: a client is not trusted. A context counts only if this cluster sealed it for this very key, so a forged
//! `(actor, u64::MAX)` cannot erase a key's future.
//!
//! Layout before base64: format (1), seal (16), then 20 bytes for each entry of the version vector. The seal is BLAKE3
//! keyed by the cluster's secret over the key and the rest. Pure. Not here: what a context does to an object (`object`).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;

use crate::version::{Actor, Dot, VersionVector};

const FORMAT: u8 = 1;
const SEAL_BYTES: usize = 16;
const HEADER_BYTES: usize = 1 + SEAL_BYTES;
const ENTRY_BYTES: usize = 20;

/// Seals and opens contexts. Two nodes with the same secret accept each other's.
#[derive(Clone)]
pub struct Sealer {
    key: [u8; blake3::KEY_LEN],
}

/// The bytes are no context that this cluster gave out for the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadContext;

impl Sealer {
    /// A sealer for the cluster's secret.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        Self { key: blake3::derive_key("quorate 2026 contexts of keys", secret.as_bytes()) }
    }

    /// The context that says: of `key`, all of `seen` was seen.
    #[must_use]
    pub fn seal(&self, key: &[u8], seen: &VersionVector) -> Bytes {
        let mut raw = Vec::with_capacity(HEADER_BYTES + ENTRY_BYTES * seen.entries().len());
        raw.push(FORMAT);
        raw.resize(HEADER_BYTES, 0);
        for entry in seen.entries() {
            raw.extend_from_slice(&entry.actor.node.to_le_bytes());
            raw.extend_from_slice(&entry.actor.core.to_le_bytes());
            raw.extend_from_slice(&entry.actor.incarnation.to_le_bytes());
            raw.extend_from_slice(&entry.counter.to_le_bytes());
        }
        let seal = self.seal_of(key, &raw[HEADER_BYTES..]);
        raw[1..HEADER_BYTES].copy_from_slice(&seal);
        Bytes::from(URL_SAFE_NO_PAD.encode(raw))
    }

    /// What the context of `key` has seen. The empty context has seen nothing.
    ///
    /// # Errors
    /// When this cluster did not seal it for this key.
    pub fn open(&self, key: &[u8], context: &[u8]) -> Result<VersionVector, BadContext> {
        if context.is_empty() {
            return Ok(VersionVector::new());
        }
        let raw = URL_SAFE_NO_PAD.decode(context).map_err(|_| BadContext)?;
        if raw.len() < HEADER_BYTES || raw[0] != FORMAT {
            return Err(BadContext);
        }
        let seal: [u8; SEAL_BYTES] = raw[1..HEADER_BYTES].try_into().map_err(|_| BadContext)?;
        // Compared as BLAKE3 hashes, which takes the same time wherever they differ.
        let widen = |seal: [u8; SEAL_BYTES]| {
            let mut wide = [0; blake3::OUT_LEN];
            wide[..SEAL_BYTES].copy_from_slice(&seal);
            blake3::Hash::from_bytes(wide)
        };
        if widen(seal) != widen(self.seal_of(key, &raw[HEADER_BYTES..])) {
            return Err(BadContext);
        }
        let (entries, rest) = raw[HEADER_BYTES..].as_chunks::<ENTRY_BYTES>();
        if !rest.is_empty() {
            return Err(BadContext);
        }
        VersionVector::from_entries(entries.iter().map(entry).collect()).ok_or(BadContext)
    }

    fn seal_of(&self, key: &[u8], entries: &[u8]) -> [u8; SEAL_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&(key.len() as u64).to_le_bytes());
        hasher.update(key);
        hasher.update(&[FORMAT]);
        hasher.update(entries);
        let mut seal = [0; SEAL_BYTES];
        seal.copy_from_slice(&hasher.finalize().as_bytes()[..SEAL_BYTES]);
        seal
    }
}

fn entry(bytes: &[u8; ENTRY_BYTES]) -> Dot {
    let number = |from: usize, count: usize| {
        let mut wide = [0; 8];
        wide[..count].copy_from_slice(&bytes[from..from + count]);
        u64::from_le_bytes(wide)
    };
    let actor = Actor { node: number(0, 2) as u16, core: number(2, 2) as u16, incarnation: number(4, 8) };
    Dot { actor, counter: number(12, 8) }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(counters: &[u64]) -> VersionVector {
        let dot = |(node, &counter): (usize, &u64)| Dot {
            actor: Actor { node: node as u16, core: 1, incarnation: u64::MAX - node as u64 },
            counter,
        };
        VersionVector::from_entries(counters.iter().enumerate().map(dot).collect()).unwrap()
    }

    #[test]
    fn a_sealed_context_opens_for_its_key_alone() {
        let sealer = Sealer::new("secret");
        let seen = vector(&[3, 1, u64::MAX]);
        let context = sealer.seal(b"k", &seen);
        assert_eq!(sealer.open(b"k", &context), Ok(seen.clone()));
        assert_eq!(sealer.open(b"l", &context), Err(BadContext));
        assert_eq!(Sealer::new("another").open(b"k", &context), Err(BadContext));
        assert_eq!(sealer.open(b"k", b""), Ok(VersionVector::new()));
        assert_eq!(sealer.open(b"k", &sealer.seal(b"k", &VersionVector::new())), Ok(VersionVector::new()));
    }

    #[test]
    fn a_changed_context_is_refused() {
        let sealer = Sealer::new("secret");
        let context = sealer.seal(b"k", &vector(&[3, 1]));
        for at in 0..context.len() {
            for bit in 0..8 {
                let mut forged = context.to_vec();
                forged[at] ^= 1 << bit;
                assert_eq!(sealer.open(b"k", &forged), Err(BadContext), "byte {at} bit {bit}");
            }
            assert_eq!(sealer.open(b"k", &context[..at.max(1)]), Err(BadContext));
        }
    }
}
