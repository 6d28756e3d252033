//! One record: a key's opaque body as it lies in a frame.
//!
//! ```text
//!  0  crc           u32   over all that follows, up to the end of the body, seeded with where the record lies
//!  4  body length   u32
//!  8  key length    u16
//! 10  partition     u16
//! 12  kind          u16   0 a body, 1 the key is forgotten, 2 a part of the partition is dropped, 3 the key is lost
//! 14  reserved      u16   0
//! 16  sequence      u64   when it was appended; a relocated copy keeps it
//! 24  stable hash   u64   of the version in the body, the same on every node
//! 32  key, body, zeros up to a multiple of 16
//! ```
//!
//! The rule: a record is proven by its own bytes and its place alone. The checksum's seed holds the store, the segment's
//! generation and the offset, so neither a stale record of a recycled segment nor one that was written to a wrong
//! place ever validates.
//!
//! A forgetting record holds the key and no body. A dropping record holds no key; its body says which Merkle leaf of the
//! partition: level u32, leaf u64. A losing record holds no key either, since what was lost may have been all that knew it;
//! its body is what the index knows the key by: fingerprint u64, tag u8.
//!
//! Not here: what is in the body of a key; where records are put; how long forgetting records are needed (`forget`).

use crate::{
    index::{Index, KeyHash, Place},
    planted::{Bug, planted},
};

/// Bytes before the key.
pub const HEADER: usize = 32;
/// The longest key: 4 KiB of the user's, and room for its bucket.
pub const KEY_MAX: usize = (4 << 10) + 256;

const UNIT: usize = Place::UNIT as usize;

/// Seeds checksums with the store and the generation of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Salt(u32);

impl Salt {
    /// For one generation of one store. Two generations less than 2^32 apart never share a salt.
    #[must_use]
    pub fn new(store: u64, generation: u64) -> Self {
        let generation = if planted(Bug::GenerationUnchecked) { 0 } else { generation };
        Self(((store >> 32) as u32 ^ store as u32 ^ generation as u32).wrapping_mul(0x9e37_79b1))
    }

    /// The checksum of `bytes`, which lie at `offset` of the segment.
    pub(crate) fn checksum(self, offset: u32, bytes: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0 ^ (offset / UNIT as u32));
        hasher.update(bytes);
        hasher.finalize()
    }
}

/// What a record says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The key has this body.
    Body,
    /// The key is forgotten: nothing that was appended for it before counts.
    Forget,
    /// All keys of a Merkle leaf of the partition are forgotten.
    Drop,
    /// The key's newest record could not be read any more (`lost`).
    Lost,
}

impl Kind {
    fn from_bits(bits: u64) -> Option<Self> {
        [Self::Body, Self::Forget, Self::Drop, Self::Lost].into_iter().find(|kind| *kind as u64 == bits)
    }
}

/// A record that was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// What it says.
    pub kind: Kind,
    /// Of the ring.
    pub partition: u16,
    /// When it was appended, store-wide.
    pub sequence: u64,
    /// `Versions::stable_hash` of its version.
    pub stable_hash: u64,
    /// Whose it is.
    pub key: &'a [u8],
    /// What was stored.
    pub body: &'a [u8],
}

/// Bytes of a record in the log, padding included.
#[must_use]
pub fn length(key: usize, body: usize) -> usize {
    (HEADER + key + body).next_multiple_of(UNIT)
}

/// What the header of a record says.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) partition: u16,
    pub(crate) sequence: u64,
    pub(crate) stable_hash: u64,
}

/// Writes a record into `into`, which is exactly as long as the record and zeroed at its end; it lies at `offset` of its
/// segment. The body may come in pieces.
pub(crate) fn write(into: &mut [u8], head: Head, key: &[u8], body: &[&[u8]], salt: Salt, offset: u32) {
    let body_length: usize = body.iter().map(|piece| piece.len()).sum();
    assert!(key.len() <= KEY_MAX, "a key of {} bytes", key.len());
    assert_eq!(into.len(), length(key.len(), body_length), "the room for a record is its exact length");
    into[4..8].copy_from_slice(&(body_length as u32).to_le_bytes());
    into[8..10].copy_from_slice(&(key.len() as u16).to_le_bytes());
    into[10..12].copy_from_slice(&head.partition.to_le_bytes());
    into[12..14].copy_from_slice(&(head.kind as u16).to_le_bytes());
    into[14..16].fill(0);
    into[16..24].copy_from_slice(&head.sequence.to_le_bytes());
    into[24..32].copy_from_slice(&head.stable_hash.to_le_bytes());
    into[HEADER..HEADER + key.len()].copy_from_slice(key);
    let mut at = HEADER + key.len();
    for piece in body {
        into[at..at + piece.len()].copy_from_slice(piece);
        at += piece.len();
    }
    let checksum = salt.checksum(offset, &into[4..at]);
    into[..4].copy_from_slice(&checksum.to_le_bytes());
}

/// The record at the start of `bytes`, which lies at `offset` of its segment, and its length with padding. `None` unless
/// every byte of it is as it was written.
#[must_use]
pub fn verify(bytes: &[u8], salt: Salt, offset: u32) -> Option<(Record<'_>, usize)> {
    let (record, length) = parse(bytes)?;
    let end = HEADER + record.key.len() + record.body.len();
    let sound = number::<4>(bytes, 0) == salt.checksum(offset, &bytes[4..end]).into();
    (sound || planted(Bug::ChecksumUnchecked)).then_some((record, length))
}

/// The same without the checksum: only for bytes that were verified before.
pub(crate) fn parse(bytes: &[u8]) -> Option<(Record<'_>, usize)> {
    if bytes.len() < HEADER {
        return None;
    }
    let body_length = number::<4>(bytes, 4) as usize;
    let key_length = number::<2>(bytes, 8) as usize;
    if key_length > KEY_MAX || number::<2>(bytes, 14) != 0 {
        return None;
    }
    let kind = Kind::from_bits(number::<2>(bytes, 12))?;
    let end = HEADER + key_length + body_length;
    let key = bytes.get(HEADER..HEADER + key_length)?;
    let body = bytes.get(HEADER + key_length..end)?;
    let record = Record {
        kind,
        partition: number::<2>(bytes, 10) as u16,
        sequence: number::<8>(bytes, 16),
        stable_hash: number::<8>(bytes, 24),
        key,
        body,
    };
    Some((record, end.next_multiple_of(UNIT)))
}

/// The body of a dropping record: which Merkle leaf.
pub(crate) fn leaf_bytes(level: u32, leaf: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&level.to_le_bytes());
    bytes[4..].copy_from_slice(&leaf.to_le_bytes());
    bytes
}

/// The Merkle leaf (level and number) that [`leaf_bytes`] stands for; `None` when there is no such leaf.
pub(crate) fn leaf_of(body: &[u8]) -> Option<(u32, u64)> {
    let (level, leaf) = (body.len() == 12).then(|| (number::<4>(body, 0) as u32, number::<8>(body, 4)))?;
    (level <= Index::LEVEL_MAX && leaf >> level == 0).then_some((level, leaf))
}

/// The body of a losing record: whose it is.
pub(crate) fn hash_bytes(hash: KeyHash) -> [u8; 9] {
    let mut bytes = [0; 9];
    bytes[..8].copy_from_slice(&hash.fingerprint().to_le_bytes());
    bytes[8] = hash.tag();
    bytes
}

/// What the index knows the record's key by; `None` when the record is not one key's.
pub(crate) fn hash_of(record: &Record<'_>, index: &Index) -> Option<KeyHash> {
    match record.kind {
        Kind::Body | Kind::Forget => Some(index.hash(record.key)),
        Kind::Drop => None,
        Kind::Lost if record.body.len() != 9 => None,
        Kind::Lost => KeyHash::from_parts(number::<8>(record.body, 0), record.body[8]),
    }
}

/// The little-endian number in `N` bytes at `at`.
pub(crate) fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut wide = [0; 8];
    wide[..N].copy_from_slice(&bytes[at..at + N]);
    u64::from_le_bytes(wide)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(salt: Salt, offset: u32) -> Vec<u8> {
        let mut bytes = vec![0; length(5, 11)];
        let head = Head { kind: Kind::Body, partition: 7, sequence: 42, stable_hash: 99 };
        write(&mut bytes, head, b"apple", &[b"hello ", b"world"], salt, offset);
        bytes
    }

    #[test]
    fn what_was_written_is_read() {
        let salt = Salt::new(1, 2);
        let bytes = sample(salt, 4160);
        let (record, length) = verify(&bytes, salt, 4160).unwrap();
        assert_eq!((record.partition, record.sequence, record.stable_hash), (7, 42, 99));
        assert_eq!((record.key, record.body), (&b"apple"[..], &b"hello world"[..]));
        assert_eq!(length, bytes.len());
    }

    #[test]
    fn a_record_of_another_generation_store_or_place_does_not_validate() {
        let bytes = sample(Salt::new(1, 2), 4160);
        for generation in (0..1000).filter(|generation| *generation != 2) {
            assert!(verify(&bytes, Salt::new(1, generation), 4160).is_none(), "generation {generation}");
        }
        assert!(verify(&bytes, Salt::new(5, 2), 4160).is_none());
        for offset in (0..65536).step_by(16).filter(|offset| *offset != 4160) {
            assert!(verify(&bytes, Salt::new(1, 2), offset).is_none(), "offset {offset}");
        }
    }

    #[test]
    fn every_flipped_bit_before_the_padding_is_found() {
        let salt = Salt::new(1, 2);
        let bytes = sample(salt, 4160);
        for bit in 0..(HEADER + 5 + 11) * 8 {
            let mut rotten = bytes.clone();
            rotten[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(&rotten, salt, 4160).is_none(), "bit {bit}");
        }
    }

    #[test]
    fn a_record_that_is_cut_short_does_not_validate() {
        let salt = Salt::new(1, 2);
        let bytes = sample(salt, 4160);
        for length in 0..HEADER + 5 + 11 {
            assert!(verify(&bytes[..length], salt, 4160).is_none(), "length {length}");
        }
    }
}
