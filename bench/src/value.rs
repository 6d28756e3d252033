//! The values that are written: incompressible bytes made cheaply and, where writes are verified, stamped so that a
//! reader can tell which write a value came from and that every byte of it is right.
//!
//! The rule: a value is a pure function of the run's seed and its [`Recipe`], so that a write that was never sent can be
//! made again.
//!
//! Not here: which stamps a read may show (`ledger`).

use std::ops::Range;

use crate::random::Random;

/// A stamp's bytes: magic, checksum of all that follows, run, key, sequence, writer.
pub(crate) const STAMP_BYTES: usize = 4 + 4 + 8 + 8 + 8 + 4;

const MAGIC: u32 = 0x5145_5251;

/// More random bytes than any machine's compressor looks back at within one value.
const POOL_BYTES: usize = 1 << 20;

/// How one value is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Recipe {
    /// Where in the pool it starts.
    offset: u32,
    /// Its length in bytes.
    length: u32,
}

/// Which write a value came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stamp {
    /// The run that wrote it, so that values left from another one are known as such.
    pub run: u64,
    /// The key's number.
    pub key: u64,
    /// Counts the writes of this key, from 1.
    pub sequence: u64,
    /// The client that wrote it.
    pub writer: u32,
}

/// Why bytes carry no sound stamp.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StampError {
    /// Too short or another magic: something else wrote this.
    Foreign,
    /// The checksum is wrong: the bytes are damaged.
    Damaged,
}

/// Makes values.
#[derive(Debug)]
pub(crate) struct Values {
    pool: Vec<u8>,
    bytes: Range<u32>,
}

impl Values {
    /// Values of `bytes.start` to `bytes.end` bytes (the end excluded).
    #[must_use]
    pub(crate) fn new(seed: u64, bytes: Range<u32>) -> Self {
        assert!(!bytes.is_empty(), "no value has a length in {bytes:?}");
        let mut pool = vec![0; POOL_BYTES + bytes.end as usize];
        Random::new(seed, u64::MAX).fill(&mut pool);
        Self { pool, bytes }
    }

    /// Draws the next value.
    pub(crate) fn draw(&self, random: &mut Random) -> Recipe {
        let bits = random.bits();
        let length = self.bytes.start + ((bits >> 32) % u64::from(self.bytes.end - self.bytes.start)) as u32;
        Recipe { offset: (bits as u32) % POOL_BYTES as u32, length }
    }

    /// The bytes of an unstamped value.
    #[must_use]
    pub(crate) fn plain(&self, recipe: Recipe) -> &[u8] {
        &self.pool[recipe.offset as usize..][..recipe.length as usize]
    }

    /// Writes a stamped value into `value`, in place of what it held.
    pub(crate) fn stamped(&self, recipe: Recipe, stamp: Stamp, value: &mut Vec<u8>) {
        value.clear();
        value.extend_from_slice(&MAGIC.to_le_bytes());
        value.extend_from_slice(&[0; 4]);
        value.extend_from_slice(&stamp.run.to_le_bytes());
        value.extend_from_slice(&stamp.key.to_le_bytes());
        value.extend_from_slice(&stamp.sequence.to_le_bytes());
        value.extend_from_slice(&stamp.writer.to_le_bytes());
        let rest = (recipe.length as usize).saturating_sub(STAMP_BYTES);
        value.extend_from_slice(&self.pool[recipe.offset as usize..][..rest]);
        let checksum = crc32fast::hash(&value[8..]);
        value[4..8].copy_from_slice(&checksum.to_le_bytes());
    }
}

impl Stamp {
    /// The stamp of `value`.
    ///
    /// # Errors
    /// When it has none, or when it is damaged.
    pub(crate) fn of(value: &[u8]) -> Result<Self, StampError> {
        let word = |at: usize| u64::from_le_bytes(value[at..at + 8].try_into().expect("eight bytes"));
        let half = |at: usize| u32::from_le_bytes(value[at..at + 4].try_into().expect("four bytes"));
        if value.len() < STAMP_BYTES || half(0) != MAGIC {
            return Err(StampError::Foreign);
        }
        if half(4) != crc32fast::hash(&value[8..]) {
            return Err(StampError::Damaged);
        }
        Ok(Self { run: word(8), key: word(16), sequence: word(24), writer: half(32) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { run: 9, key: 77, sequence: 3, writer: 5 };

    #[test]
    fn a_stamp_is_read_back_and_any_flipped_bit_is_seen() {
        let values = Values::new(1, 100..200);
        let mut value = Vec::new();
        values.stamped(values.draw(&mut Random::new(1, 1)), STAMP, &mut value);
        assert!((100..200).contains(&value.len()));
        assert_eq!(Stamp::of(&value), Ok(STAMP));
        for bit in 0..value.len() * 8 {
            value[bit / 8] ^= 1 << (bit % 8);
            assert!(Stamp::of(&value).is_err(), "bit {bit}");
            value[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(Stamp::of(b"short"), Err(StampError::Foreign));
    }

    #[test]
    fn lengths_are_kept_and_values_differ() {
        let values = Values::new(1, 1024..1025);
        let mut random = Random::new(2, 2);
        let (a, b) = (values.draw(&mut random), values.draw(&mut random));
        assert_eq!((values.plain(a).len(), values.plain(b).len()), (1024, 1024));
        assert_ne!(values.plain(a), values.plain(b));
        let mut value = Vec::new();
        values.stamped(a, STAMP, &mut value);
        assert_eq!(value.len(), 1024);
    }
}
