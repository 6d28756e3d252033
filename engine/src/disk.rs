//! The one door to files, and to waiting: [`Disk`] and [`File`].
//!
//! The rule: after [`File::sync`] returned `Ok` (or [`File::write`] on a file opened with durable writes), the bytes
//! survive a crash; before, any part of them may or may not. After an error from either, nothing may be assumed of that
//! file: an fsync is never retried.
//!
//! A write borrows its buffer by `Rc`, so that a record in flight can still be read from RAM.
//!
//! Two implementations: `dma` (glommio, `O_DIRECT`) and `simulated` (crashes, torn writes, rot, full disk, slow disk); and
//! `prefixed`, a part of either's directory.
//! Not here: formats; what to do about errors.

pub mod dma;
pub mod prefixed;
pub mod simulated;

use std::{
    future::Future,
    io,
    ops::{Deref, DerefMut},
    rc::Rc,
    time::Duration,
};

/// Positions, lengths and buffers of all reads and writes are multiples of this many bytes.
pub const BLOCK: usize = 4096;

/// Background reads and writes are no larger than this, so that a foreground read never waits behind a long one.
pub const BACKGROUND_CHUNK: usize = 128 << 10;

/// One core's directory of files.
pub trait Disk: Clone + 'static {
    /// An open file. Dropping it closes it in the background.
    type File: File<Buffer = Self::Buffer> + 'static;
    /// Aligned memory to write from.
    type Buffer: Buffer;

    /// A zeroed buffer of `length` bytes (a multiple of [`BLOCK`]), so that padding never carries old bytes.
    fn buffer(&self, length: usize) -> Self::Buffer;

    /// Opens `name` for reading and writing, creating it if it is missing. `durable_writes` asks for a file whose every
    /// write is durable when it returns (`O_DSYNC`).
    fn open(&self, name: &str, durable_writes: bool) -> impl Future<Output = io::Result<Self::File>>;

    /// The names in the directory with their lengths in bytes, sorted by name.
    fn list(&self) -> impl Future<Output = io::Result<Vec<(String, u64)>>>;

    /// Renames atomically, replacing `to`. Durable after [`Disk::sync_directory`].
    fn rename(&self, from: &str, to: &str) -> impl Future<Output = io::Result<()>>;

    /// Removes the name. Durable after [`Disk::sync_directory`].
    fn remove(&self, name: &str) -> impl Future<Output = io::Result<()>>;

    /// Makes creations, renames and removals durable.
    fn sync_directory(&self) -> impl Future<Output = io::Result<()>>;

    /// Lets `duration` pass: background work paces itself with it.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()>;

    /// Time since some fixed moment in the past, never going back: for pacing and for measuring, not for meaning.
    fn now(&self) -> Duration;
}

/// Aligned memory to write from.
pub trait Buffer: DerefMut<Target = [u8]> + 'static {
    /// Cuts the buffer to its first `length` bytes (a multiple of [`BLOCK`], no more than it has): what is written.
    fn truncate(&mut self, length: usize);
}

/// An open file of a [`Disk`].
pub trait File {
    /// Aligned memory to write from.
    type Buffer: Buffer;
    /// What a read gives.
    type Bytes: Deref<Target = [u8]> + 'static;

    /// Bytes in the file.
    fn length(&self) -> impl Future<Output = io::Result<u64>>;

    /// Writes the whole buffer at `position`, or fails: a short write is an error. Durable only after [`File::sync`],
    /// unless the file was opened with durable writes.
    fn write(&self, buffer: Rc<Self::Buffer>, position: u64) -> impl Future<Output = io::Result<()>>;

    /// Reads `length` bytes at `position`; fewer only at the end of the file.
    fn read(&self, position: u64, length: usize) -> impl Future<Output = io::Result<Self::Bytes>>;

    /// Makes all completed writes durable (fdatasync).
    fn sync(&self) -> impl Future<Output = io::Result<()>>;

    /// Reserves space up to `length` bytes, which also makes the file that long.
    fn allocate(&self, length: u64) -> impl Future<Output = io::Result<()>>;

    /// Cuts the file to `length` bytes.
    fn truncate(&self, length: u64) -> impl Future<Output = io::Result<()>>;
}

/// True when the error says that there is no room: the disk, the quota or the limit on file sizes.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG))
}
