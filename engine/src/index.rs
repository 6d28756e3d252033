//! Where each key's newest record lies, and the summary of its version.

/// Where a record lies, in 64 bits: segment slot (20), offset in units of 16 bytes (22), length in units of 16 bytes (22).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Place(u64);

impl Place {
    /// Records start and end on multiples of this many bytes.
    pub const UNIT: u64 = 16;

    /// A place from byte figures. `offset` and `length` are multiples of [`Place::UNIT`], below 64 MiB.
    #[must_use]
    pub fn new(segment: u32, offset: u32, length: u32) -> Self {
        assert!(segment < 1 << 20, "segment slot {segment} out of range");
        let (offset, length) = (u64::from(offset), u64::from(length));
        assert!(offset.is_multiple_of(Self::UNIT) && offset / Self::UNIT < 1 << 22, "bad record offset {offset}");
        assert!(length.is_multiple_of(Self::UNIT) && length / Self::UNIT < 1 << 22, "bad record length {length}");
        Self(u64::from(segment) << 44 | (offset / Self::UNIT) << 22 | (length / Self::UNIT))
    }

    /// The slot number of the segment's file.
    #[must_use]
    pub fn segment(self) -> u32 {
        (self.0 >> 44) as u32
    }

    /// Bytes from the start of the segment's file.
    #[must_use]
    pub fn offset(self) -> u32 {
        ((self.0 >> 22 & 0x3f_ffff) * Self::UNIT) as u32
    }

    /// Bytes of the whole record, padding included.
    #[must_use]
    pub fn length(self) -> u32 {
        ((self.0 & 0x3f_ffff) * Self::UNIT) as u32
    }
}
