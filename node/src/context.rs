//! Contexts: what a client has seen, sealed, as text that it hands back.
//!
//! The rule: a client is not trusted. A context counts only if this cluster sealed it for this very key, so a forged
//! `(actor, u64::MAX)` cannot erase a key's future.
//!
//! Layout before base64: format (1), seal (16), version hash (8), count of vector entries (2), then 20 bytes for each entry
//! of the vector and each dot beyond it. The seal is BLAKE3 keyed by the cluster's secret over the key and the rest. Pure.
//! Not here: what a context does to an object (`object`).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use quorate_engine::planted::{Bug, planted};
use smallvec::SmallVec;

use crate::{
    object::{ArchivedObject, VersionHash},
    version::{Actor, Clock, Dot, VersionVector},
};

/// What a client has seen of a key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Context {
    /// The writes it has seen.
    pub seen: Clock,
    /// The version that was the whole of what it has seen, so that a replica that holds this very version knows its clock
    /// without reading it; [`VersionHash::ABSENT`] when there is none such.
    pub version: VersionHash,
}

const FORMAT: u8 = 1;
const SEAL_BYTES: usize = 16;
const HEADER_BYTES: usize = 1 + SEAL_BYTES;
const FIXED_BYTES: usize = HEADER_BYTES + 8 + 2;
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

    /// The text that says: of `key`, this was seen.
    #[must_use]
    pub fn seal(&self, key: &[u8], context: &Context) -> Bytes {
        let (vector, beyond) = (context.seen.vector().entries(), context.seen.beyond());
        self.seal_parts(key, context.version, vector.iter().copied(), beyond.iter().copied())
    }

    /// The same of an object, of this version, as it is encoded: that it was seen, and nothing else.
    #[must_use]
    pub fn seal_object(&self, key: &[u8], object: &ArchivedObject, version: VersionHash) -> Bytes {
        let (vector, beyond) = object.clock.parts();
        self.seal_parts(key, version, vector, beyond)
    }

    fn seal_parts(
        &self,
        key: &[u8],
        version: VersionHash,
        vector: impl ExactSizeIterator<Item = Dot>,
        beyond: impl ExactSizeIterator<Item = Dot>,
    ) -> Bytes {
        let mut raw: SmallVec<[u8; FIXED_BYTES + 8 * ENTRY_BYTES]> = SmallVec::new();
        raw.push(FORMAT);
        raw.resize(HEADER_BYTES, 0);
        raw.extend_from_slice(&version.0.to_le_bytes());
        raw.extend_from_slice(&(vector.len() as u16).to_le_bytes());
        for dot in vector.chain(beyond) {
            raw.extend_from_slice(&dot.actor.node.to_le_bytes());
            raw.extend_from_slice(&dot.actor.core.to_le_bytes());
            raw.extend_from_slice(&dot.actor.incarnation.to_le_bytes());
            raw.extend_from_slice(&dot.counter.to_le_bytes());
        }
        let seal = self.seal_of(key, &raw[HEADER_BYTES..]);
        raw[1..HEADER_BYTES].copy_from_slice(&seal);
        Bytes::from(URL_SAFE_NO_PAD.encode(raw))
    }

    /// What the sealed text says of `key`. The empty text has seen nothing.
    ///
    /// # Errors
    /// When this cluster did not seal it for this key.
    pub fn open(&self, key: &[u8], text: &[u8]) -> Result<Context, BadContext> {
        if text.is_empty() {
            return Ok(Context::default());
        }
        let raw = URL_SAFE_NO_PAD.decode(text).map_err(|_| BadContext)?;
        if raw.len() < FIXED_BYTES || raw[0] != FORMAT {
            return Err(BadContext);
        }
        // `blake3::Hash` compares in constant time; the missing half is the same on both sides.
        let widen = |seal: &[u8]| {
            let mut wide = [0; blake3::OUT_LEN];
            wide[..SEAL_BYTES].copy_from_slice(seal);
            blake3::Hash::from_bytes(wide)
        };
        let sealed = widen(&raw[1..HEADER_BYTES]) == widen(&self.seal_of(key, &raw[HEADER_BYTES..]));
        if !sealed && !planted(Bug::ContextUnsealed) {
            return Err(BadContext);
        }
        let version = VersionHash(number(&raw[HEADER_BYTES..HEADER_BYTES + 8]));
        let vector_length = number(&raw[HEADER_BYTES + 8..FIXED_BYTES]) as usize;
        let (dots, rest) = raw[FIXED_BYTES..].as_chunks::<ENTRY_BYTES>();
        if !rest.is_empty() || dots.len() < vector_length {
            return Err(BadContext);
        }
        let (vector, beyond) = dots.split_at(vector_length);
        let vector = VersionVector::from_entries(vector.iter().map(dot)).ok_or(BadContext)?;
        let seen = Clock::from_parts(vector, beyond.iter().map(dot).collect()).ok_or(BadContext)?;
        Ok(Context { seen, version })
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

fn dot(bytes: &[u8; ENTRY_BYTES]) -> Dot {
    let actor = Actor {
        node: number(&bytes[..2]) as u16,
        core: number(&bytes[2..4]) as u16,
        incarnation: number(&bytes[4..12]),
    };
    Dot { actor, counter: number(&bytes[12..]) }
}

fn number(little_endian: &[u8]) -> u64 {
    let mut wide = [0; 8];
    wide[..little_endian.len()].copy_from_slice(little_endian);
    u64::from_le_bytes(wide)
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(counters: &[u64], beyond: &[u64]) -> Context {
        let actor = |node: usize| Actor { node: node as u16, core: 1, incarnation: u64::MAX - node as u64 };
        let entries = counters.iter().enumerate().map(|(node, &counter)| Dot { actor: actor(node), counter });
        let mut seen = Clock::from(VersionVector::from_entries(entries).unwrap());
        for &counter in beyond {
            seen.add(Dot { actor: actor(99), counter });
        }
        Context { seen, version: VersionHash(17) }
    }

    #[test]
    fn a_sealed_context_opens_for_its_key_alone() {
        let sealer = Sealer::new("secret");
        for given in [context(&[3, 1, u64::MAX], &[4, 9]), context(&[], &[1]), Context::default()] {
            let text = sealer.seal(b"k", &given);
            assert_eq!(sealer.open(b"k", &text), Ok(given));
            assert_eq!(sealer.open(b"l", &text), Err(BadContext));
            assert_eq!(Sealer::new("another").open(b"k", &text), Err(BadContext));
        }
        assert_eq!(sealer.open(b"k", b""), Ok(Context::default()));
    }

    #[test]
    fn a_changed_context_is_refused() {
        let sealer = Sealer::new("secret");
        let text = sealer.seal(b"k", &context(&[3, 1], &[2]));
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut forged = text.to_vec();
                forged[at] ^= 1 << bit;
                assert_eq!(sealer.open(b"k", &forged), Err(BadContext), "byte {at} bit {bit}");
            }
            assert_eq!(sealer.open(b"k", &text[..at.max(1)]), Err(BadContext));
        }
    }
}
