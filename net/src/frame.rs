//! Frames: how a [`Message`] becomes bytes on a connection, and what must hold before bytes are a message again.
//!
//! | bytes | field |
//! |---|---|
//! | 0–1 | magic `D1 F5`: the first byte is no ASCII, so a port tells frames from RESP by it |
//! | 2 | version of this format |
//! | 3 | kind of the message |
//! | 4–7 | length of the payload, little-endian |
//! | 8–11 | CRC-32 of bytes 0–7 and of the payload, little-endian |
//! | 12– | the message, archived |
//!
//! The rule: the length is checked against the kind's maximum before the payload is waited for; then the checksum, the
//! shape, the nesting, and the bounds of each part, in that order. A frame that fails ends its connection.
//!
//! Not here: sockets (`transport`), what a message means.

use std::{fmt, num::NonZeroUsize};

use rkyv::{
    api,
    rancor::{self, ResultExt},
    ser::Serializer,
    util,
    validation::archive::ArchiveValidator,
};

use crate::{
    bounds::{self, Violation},
    message::{ArchivedMessage, Kind, Message},
};

/// The first bytes of every frame.
pub const MAGIC: [u8; 2] = [0xd1, 0xf5];

/// The version of this format; another one is refused.
pub const VERSION: u8 = 1;

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 12;

/// Bytes of the header that the checksum covers.
const CHECKED_HEADER_BYTES: usize = 8;

/// Pointers within pointers. A message has no more than three levels (a map's lists of nodes).
const DEPTH_MAX: NonZeroUsize = NonZeroUsize::new(8).expect("eight");

/// One frame, where it was received. Its checksum is right.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    kind: Kind,
    payload: &'a [u8],
}

/// Why bytes are no frame, or a frame no message. Nothing was done with it; the connection is of no use any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// The bytes are something else.
    Magic,
    /// Another version of the format.
    Version(u8),
    /// A kind that this version does not know.
    Kind(u8),
    /// The payload is longer than its kind may be here.
    TooLong {
        /// The kind.
        kind: Kind,
        /// The payload's bytes.
        length: usize,
        /// What is allowed.
        max: usize,
    },
    /// The bytes changed on their way.
    Checksum,
    /// The payload has not the shape of a message.
    Malformed,
    /// The payload is another kind than the header says.
    KindMismatch,
    /// A part is over its bound.
    Bounds(Violation),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => f.write_str("not a frame"),
            Self::Version(version) => write!(f, "frame of version {version}, this node speaks {VERSION}"),
            Self::Kind(kind) => write!(f, "frame of unknown kind {kind}"),
            Self::TooLong { kind, length, max } => {
                write!(f, "{kind:?} frame of {length} bytes, at most {max} are allowed")
            }
            Self::Checksum => f.write_str("frame with a wrong checksum"),
            Self::Malformed => f.write_str("frame without a message"),
            Self::KindMismatch => f.write_str("frame whose header names another kind than it holds"),
            Self::Bounds(violation) => write!(f, "message out of bounds: {violation}"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Appends `message` as one frame. It is archived in place: no copy is made on the way.
///
/// # Errors
///
/// The message is over its kind's maximum; `out` is then as it was.
///
/// # Panics
///
/// Never for messages that fit into memory: archiving into a `Vec` has no other way to fail.
pub fn encode(message: &Message, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let kind = message.kind();
    let start = out.len();
    out.extend_from_slice(&[MAGIC[0], MAGIC[1], VERSION, kind as u8]);
    out.extend_from_slice(&[0; HEADER_BYTES - 4]);
    util::with_arena(|arena| {
        let mut serializer = Serializer::new(&mut *out, arena.acquire(), ());
        api::serialize_using::<_, rancor::Panic>(message, &mut serializer).always_ok();
    });
    let length = out.len() - start - HEADER_BYTES;
    let max = bounds::payload_bytes_max(kind);
    if length > max {
        out.truncate(start);
        return Err(FrameError::TooLong { kind, length, max });
    }
    let length = u32::try_from(length).expect("a kind's maximum is below 4 GiB");
    out[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
    let (header, payload) = out[start..].split_at(HEADER_BYTES);
    let checksum = checksum(header, payload);
    out[start + 8..start + HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    Ok(())
}

/// The frame at the start of `input`, or `None` when more bytes are needed: [`bytes_wanted`] says how many.
/// `payload_max` is a limit of the connection's state, such as [`bounds::HANDSHAKE_BYTES_MAX`].
///
/// # Errors
///
/// As soon as the bytes that are there cannot begin an acceptable frame.
pub fn decode(input: &[u8], payload_max: usize) -> Result<Option<Frame<'_>>, FrameError> {
    let Some(header) = parse_header(input, payload_max)? else { return Ok(None) };
    let Some(payload) = input.get(HEADER_BYTES..HEADER_BYTES + header.length) else { return Ok(None) };
    if checksum(input, payload) != header.checksum {
        return Err(FrameError::Checksum);
    }
    Ok(Some(Frame { kind: header.kind, payload }))
}

/// Bytes that the incomplete frame at the start of `input` takes as a whole, as far as is known. Its header was
/// accepted by [`decode`].
#[must_use]
pub fn bytes_wanted(input: &[u8]) -> usize {
    match parse_header(input, usize::MAX) {
        Ok(Some(header)) => HEADER_BYTES + header.length,
        _ => HEADER_BYTES,
    }
}

impl<'a> Frame<'a> {
    /// What the header says that this is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Bytes of input that the frame took.
    #[must_use]
    pub fn consumed(&self) -> usize {
        HEADER_BYTES + self.payload.len()
    }

    /// The message in place, checked in shape, nesting and bounds.
    ///
    /// # Errors
    ///
    /// The payload is no message that may be used.
    pub fn access(&self) -> Result<&'a ArchivedMessage, FrameError> {
        let mut validator = ArchiveValidator::with_max_depth(self.payload, Some(DEPTH_MAX));
        let message = api::access_with_context::<ArchivedMessage, _, rancor::Failure>(self.payload, &mut validator)
            .map_err(|_| FrameError::Malformed)?;
        if message.kind() != self.kind {
            return Err(FrameError::KindMismatch);
        }
        bounds::check(message).map_err(FrameError::Bounds)?;
        Ok(message)
    }

    /// The message by itself: strings of bytes are copied out of the receive buffer.
    ///
    /// # Errors
    ///
    /// As [`Frame::access`].
    pub fn message(&self) -> Result<Message, FrameError> {
        let archived = self.access()?;
        Ok(api::deserialize_using::<Message, (), rancor::Panic>(archived, &mut ()).always_ok())
    }
}

struct Header {
    kind: Kind,
    length: usize,
    checksum: u32,
}

fn parse_header(input: &[u8], payload_max: usize) -> Result<Option<Header>, FrameError> {
    // Each byte is judged as soon as it is there, so that nobody waits for the rest of garbage.
    if input.iter().zip(MAGIC).any(|(&byte, magic)| byte != magic) {
        return Err(FrameError::Magic);
    }
    match input.get(2) {
        Some(&version) if version != VERSION => return Err(FrameError::Version(version)),
        _ => {}
    }
    let Some(&kind) = input.get(3) else { return Ok(None) };
    let kind = Kind::from_byte(kind).ok_or(FrameError::Kind(kind))?;
    let Some(length) = input.get(4..8) else { return Ok(None) };
    let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
    let max = bounds::payload_bytes_max(kind).min(payload_max);
    if length > max {
        return Err(FrameError::TooLong { kind, length, max });
    }
    let Some(checksum) = input.get(8..HEADER_BYTES) else { return Ok(None) };
    let checksum = u32::from_le_bytes(checksum.try_into().expect("four bytes"));
    Ok(Some(Header { kind, length, checksum }))
}

fn checksum(header: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..CHECKED_HEADER_BYTES]);
    hasher.update(payload);
    hasher.finalize()
}

#[cfg(test)]
mod tests;
