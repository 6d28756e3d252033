//! One frame: what one commit writes.
//!
//! ```text
//!  0  magic          u32   "QFRM"
//!  4  version        u16   1
//!  6  flags          u16   bit 0: the segment ends here; bit 1: of the survivors' stream
//!  8  generation     u64   of the segment
//! 16  number         u64   rising by one along the stream
//! 24  durable upto   u64   number of the last frame of the stream that was known durable when this one was built
//! 32  offset         u32   of the frame in its segment, so that a misdirected write is not taken for it
//! 36  payload        u32   bytes of records that follow
//! 40  records        u32   how many
//! 44  ordinal        u32   how many frames of the segment are before it
//! 48  last sequence  u64   the highest that was given out so far, so that none is given out twice
//! 56  reserved       u32   0
//! 60  crc            u32   of the 60 bytes before, seeded as a record's
//! 64  records, zeros up to a multiple of 4096
//! ```
//!
//! The rule: a frame is 4 KiB-aligned and never rewritten. It is sound when its header and each of its records validate.
//! A frame that ends a segment is the last one that counts there, whatever lies behind it: it is written when the
//! segment is full, and by recovery where a torn tail is cut.
//!
//! Not here: which frame is torn and which is corrupt (`recovery`).

use crate::{
    disk::BLOCK,
    planted::{Bug, planted},
    record::{self, Record, Salt, number},
    segment::Stream,
};

/// Bytes before the first record.
pub const HEADER: usize = 64;
const MAGIC: u32 = u32::from_le_bytes(*b"QFRM");
const VERSION: u16 = 1;
const FLAG_LAST: u16 = 1;
const FLAG_SURVIVORS: u16 = 2;

/// A frame's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Of the segment that it lies in.
    pub generation: u64,
    /// Its number in the stream.
    pub number: u64,
    /// The last frame of the stream that was known durable when this one was built.
    pub durable_upto: u64,
    /// Bytes from the start of the segment.
    pub offset: u32,
    /// Bytes of records.
    pub payload: u32,
    /// How many records.
    pub records: u32,
    /// How many frames of the segment are before it.
    pub ordinal: u32,
    /// The highest sequence given out so far.
    pub last_sequence: u64,
    /// Nothing of this segment counts behind this frame.
    pub last: bool,
    /// Which log it belongs to.
    pub stream: Stream,
}

impl Header {
    /// Bytes of the whole frame on the disk.
    #[must_use]
    pub fn frame_length(&self) -> usize {
        length(self.payload as usize)
    }

    /// The number of the segment's first frame.
    #[must_use]
    pub fn first_number(&self) -> u64 {
        self.number.saturating_sub(self.ordinal.into())
    }

    /// Writes the header into the first bytes of `into`.
    pub(crate) fn write(&self, into: &mut [u8], salt: Salt) {
        into[..4].copy_from_slice(&MAGIC.to_le_bytes());
        into[4..6].copy_from_slice(&VERSION.to_le_bytes());
        let last = if self.last { FLAG_LAST } else { 0 };
        let stream = if self.stream == Stream::Survivors { FLAG_SURVIVORS } else { 0 };
        into[6..8].copy_from_slice(&(last | stream).to_le_bytes());
        into[8..16].copy_from_slice(&self.generation.to_le_bytes());
        into[16..24].copy_from_slice(&self.number.to_le_bytes());
        into[24..32].copy_from_slice(&self.durable_upto.to_le_bytes());
        into[32..36].copy_from_slice(&self.offset.to_le_bytes());
        into[36..40].copy_from_slice(&self.payload.to_le_bytes());
        into[40..44].copy_from_slice(&self.records.to_le_bytes());
        into[44..48].copy_from_slice(&self.ordinal.to_le_bytes());
        into[48..56].copy_from_slice(&self.last_sequence.to_le_bytes());
        into[56..60].fill(0);
        let checksum = salt.checksum(self.offset, &into[..60]);
        into[60..64].copy_from_slice(&checksum.to_le_bytes());
    }

    /// The header at the start of `bytes`, of whatever generation of `store` it says that it is.
    pub(crate) fn read_any(bytes: &[u8], store: u64, offset: u32) -> Option<Self> {
        let generation = (bytes.len() >= HEADER).then(|| number::<8>(bytes, 8))?;
        Self::read(bytes, generation, Salt::new(store, generation), offset)
    }

    /// The header at the start of `bytes`, which lie at `offset` of the segment. `None` unless it is a frame of this very
    /// segment at this very place.
    #[must_use]
    pub fn read(bytes: &[u8], generation: u64, salt: Salt, offset: u32) -> Option<Self> {
        if bytes.len() < HEADER || number::<4>(bytes, 0) != u64::from(MAGIC) {
            return None;
        }
        let flags = number::<2>(bytes, 6) as u16;
        let header = Self {
            generation: number::<8>(bytes, 8),
            number: number::<8>(bytes, 16),
            durable_upto: number::<8>(bytes, 24),
            offset: number::<4>(bytes, 32) as u32,
            payload: number::<4>(bytes, 36) as u32,
            records: number::<4>(bytes, 40) as u32,
            ordinal: number::<4>(bytes, 44) as u32,
            last_sequence: number::<8>(bytes, 48),
            last: flags & FLAG_LAST != 0,
            stream: if flags & FLAG_SURVIVORS == 0 { Stream::Hot } else { Stream::Survivors },
        };
        let sound = number::<4>(bytes, 60) == salt.checksum(offset, &bytes[..60]).into()
            && number::<2>(bytes, 4) == u64::from(VERSION)
            && (header.generation == generation || planted(Bug::GenerationUnchecked))
            && header.offset == offset
            // No segment is as long: what adds such figures up must not overflow.
            && header.payload < 1 << 28
            && header.offset < 1 << 28;
        sound.then_some(header)
    }
}

/// Bytes on the disk of a frame with `payload` bytes of records.
#[must_use]
pub fn length(payload: usize) -> usize {
    (HEADER + payload).next_multiple_of(BLOCK)
}

/// Whether every record of the frame validates. `bytes` starts at the frame's header and may be longer than the frame.
#[must_use]
pub fn is_sound(header: &Header, bytes: &[u8], salt: Salt) -> bool {
    let end = HEADER + header.payload as usize;
    let Some(bytes) = bytes.get(..end) else { return false };
    let mut at = HEADER;
    for _ in 0..header.records {
        let Some((_, length)) = record::verify(&bytes[at..], salt, header.offset + at as u32) else { return false };
        at += length;
        if at > end {
            return false;
        }
    }
    at == end
}

/// The records of a frame that [`is_sound`], with their offsets in the segment.
pub(crate) fn records<'a>(header: &Header, bytes: &'a [u8]) -> impl Iterator<Item = (u32, usize, Record<'a>)> {
    let offset = header.offset;
    let bytes = &bytes[..HEADER + header.payload as usize];
    let mut at = HEADER;
    std::iter::from_fn(move || {
        let (record, length) = record::parse(bytes.get(at..)?)?;
        let found = (offset + at as u32, length, record);
        at += length;
        Some(found)
    })
}

/// What still validates of a frame that is not sound: each record, wherever the next one that validates begins.
pub(crate) fn salvage<'a>(
    header: &Header,
    bytes: &'a [u8],
    salt: Salt,
) -> impl Iterator<Item = (u32, usize, Record<'a>)> {
    let offset = header.offset;
    let bytes = &bytes[..bytes.len().min(HEADER + header.payload as usize)];
    let mut at = HEADER;
    std::iter::from_fn(move || {
        while at + record::HEADER <= bytes.len() {
            let here = at;
            if let Some((record, length)) = record::verify(&bytes[here..], salt, offset + here as u32) {
                at += length;
                return Some((offset + here as u32, length, record));
            }
            at += 16;
        }
        None
    })
}
