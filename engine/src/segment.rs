//! One segment: a file of fixed length that holds frames, written from its start to its end, then recycled.
//!
//! Its first block is the header:
//!
//! ```text
//!  0  magic       u32   "QSEG"
//!  4  version     u16   2; in 1 there were no records that forget or drop
//!  6  stream      u16   0 hot, 1 survivors
//!  8  store       u64   whose it is
//! 16  generation  u64   store-wide, rising: each use of a file is a new generation
//! 24  length      u32   of the file
//! 28  crc         u32   of the 28 bytes before
//! ```
//!
//! The rule: the header of a generation is durable before its first frame is written, so a frame is never without its
//! segment. It fits one sector: a crash leaves the old one or the new one.
//!
//! Not here: which segments are free (`space`).

use crate::{
    disk::{BLOCK, Disk, File},
    planted::{Bug, planted},
    record::{Salt, number},
};
use std::{io, rc::Rc};

const MAGIC: u32 = u32::from_le_bytes(*b"QSEG");
const VERSION: u16 = 2;
const VERSION_MIN: u16 = 1;
const HEADER: usize = 32;

/// Where the first frame lies.
pub(crate) const START: u32 = BLOCK as u32;

/// Which of the two logs a segment belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// What is appended.
    Hot,
    /// What compaction moved out of its way.
    Survivors,
}

/// What the first block of a segment's file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) stream: Stream,
    pub(crate) store: u64,
    pub(crate) generation: u64,
    pub(crate) length: u32,
}

/// What was found where a header should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    Sound(Header),
    /// Zeros: the file was made but never used.
    Blank,
    /// Written by a version of the store that is not known here.
    Version(u16),
    Rotten,
}

impl Header {
    pub(crate) fn write(&self, into: &mut [u8]) {
        into[..4].copy_from_slice(&MAGIC.to_le_bytes());
        into[4..6].copy_from_slice(&VERSION.to_le_bytes());
        into[6..8].copy_from_slice(&(self.stream as u16).to_le_bytes());
        into[8..16].copy_from_slice(&self.store.to_le_bytes());
        into[16..24].copy_from_slice(&self.generation.to_le_bytes());
        into[24..28].copy_from_slice(&self.length.to_le_bytes());
        let checksum = crc32fast::hash(&into[..28]);
        into[28..32].copy_from_slice(&checksum.to_le_bytes());
    }

    pub(crate) fn read(bytes: &[u8]) -> Found {
        let Some(bytes) = bytes.get(..HEADER) else { return Found::Blank };
        if bytes.iter().all(|byte| *byte == 0) {
            return Found::Blank;
        }
        let stream = match number::<2>(bytes, 6) {
            0 => Stream::Hot,
            1 => Stream::Survivors,
            _ => return Found::Rotten,
        };
        if number::<4>(bytes, 0) != MAGIC.into() || number::<4>(bytes, 28) != crc32fast::hash(&bytes[..28]).into() {
            return Found::Rotten;
        }
        let version = number::<2>(bytes, 4) as u16;
        if !(VERSION_MIN..=VERSION).contains(&version) {
            return Found::Version(version);
        }
        let (store, generation) = (number::<8>(bytes, 8), number::<8>(bytes, 16));
        Found::Sound(Self { stream, store, generation, length: number::<4>(bytes, 24) as u32 })
    }
}

/// One use of a segment's file. The file outlives it.
pub(crate) struct Segment<D: Disk> {
    pub(crate) slot: u32,
    pub(crate) stream: Stream,
    pub(crate) generation: u64,
    pub(crate) salt: Salt,
    pub(crate) file: Rc<D::File>,
}

/// The name of a slot's file.
pub(crate) fn name(slot: u32) -> String {
    format!("segment-{slot:06}")
}

/// The slot that a file's name stands for.
pub(crate) fn slot(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("segment-")?;
    (digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// How commits are made durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Commit {
    /// Each write is durable when it returns (`O_DSYNC`). The quickest on a quiet machine, but the kernel ends such a write
    /// in a worker bound to one CPU: beside busy processes the median commit waits for a time slice, 1 to 4 ms.
    Dsync,
    /// Each write is followed by an fdatasync, in a worker that goes where there is room: a third slower on a quiet
    /// machine. Beside busy processes its median stayed at 0.2 ms, its 99.9th percentile was the longer one.
    Fdatasync,
}

/// Writes durably, as `commit` says that this file does.
pub(crate) async fn write_durably<F: File>(
    file: &F,
    commit: Commit,
    buffer: Rc<F::Buffer>,
    position: u64,
) -> io::Result<()> {
    file.write(buffer, position).await?;
    match commit {
        Commit::Dsync => Ok(()),
        Commit::Fdatasync if planted(Bug::FsyncLeftOut) => Ok(()),
        Commit::Fdatasync => file.sync().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_slots_agree() {
        for slot_number in [0, 7, 999_999] {
            assert_eq!(slot(&name(slot_number)), Some(slot_number));
        }
        for wrong in ["segment-", "segment-1", "segment-0000001", "segment-+00001", "checkpoint-000001", ""] {
            assert_eq!(slot(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_found() {
        let header = Header { stream: Stream::Survivors, store: 5, generation: 6, length: 1 << 20 };
        let mut bytes = vec![0; BLOCK];
        assert_eq!(Header::read(&bytes), Found::Blank);
        header.write(&mut bytes);
        assert_eq!(Header::read(&bytes), Found::Sound(header));
        for bit in 0..HEADER * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(Header::read(&bytes), Found::Rotten), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
