//! The real disk: glommio files, `O_DIRECT`, one directory per core.
//!
//! The rule: one directory belongs to one process. [`DmaDisk::open`] takes the lock or fails, and holds it until the last
//! clone is dropped; the kernel drops it when the process dies.
//!
//! Not here: formats; pacing; what to do about errors.

use super::{BLOCK, Buffer, Disk, File};
use glommio::{
    GlommioError,
    io::{Directory, DmaBuffer, DmaFile, OpenOptions, ReadResult},
};
use std::{
    fs, io,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, Instant},
};

/// Held under an advisory lock while the store is in use.
const LOCK: &str = "LOCK";
/// Holds one block, see [`DmaDisk::open`].
const PROBE: &str = "PROBE";

/// A directory of `O_DIRECT` files on the executor that opened it.
#[derive(Clone)]
pub struct DmaDisk {
    inner: Rc<Inner>,
}

struct Inner {
    path: PathBuf,
    directory: Directory,
    started: Instant,
    /// Dropping it releases the directory to the next process.
    _lock: fs::File,
}

impl DmaDisk {
    /// Makes the directory if it is missing, and locks it. Must run on a glommio executor.
    ///
    /// # Errors
    /// `WouldBlock` when another store has the directory open; any other error of the file system. Nothing but the
    /// directory itself, its lock and its probe file were touched.
    pub async fn open(path: &Path) -> io::Result<Self> {
        let owned = path.to_owned();
        let lock = glommio::executor().spawn_blocking(move || prepare(&owned)).await?;
        // The first file that glommio opens on a device decides, by reading its start, whether the device polls for
        // completions. An empty file would let it choose polling where it does not work, and every append would take
        // 4 ms: it must find one block.
        let probe = OpenOptions::new().read(true).dma_open(path.join(PROBE)).await.map_err(plain)?;
        probe.close().await.map_err(plain)?;
        let directory = Directory::open(path).await.map_err(plain)?;
        Ok(Self { inner: Rc::new(Inner { path: path.to_owned(), directory, started: Instant::now(), _lock: lock }) })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }
}

/// The part of opening that glommio cannot do without blocking.
fn prepare(path: &Path) -> io::Result<fs::File> {
    fs::create_dir_all(path)?;
    let lock = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK))?;
    lock.try_lock().map_err(|error| match error {
        fs::TryLockError::WouldBlock => io::Error::new(
            io::ErrorKind::WouldBlock,
            format!("{} is in use by another process; stop it, or give this one another directory", path.display()),
        ),
        fs::TryLockError::Error(error) => error,
    })?;
    fs::write(path.join(PROBE), [0; BLOCK])?;
    Ok(lock)
}

/// glommio wraps errors; the code of the operating system inside decides what is done about them.
fn plain(error: GlommioError<()>) -> io::Error {
    match error {
        GlommioError::EnhancedIoError { source, .. } => source,
        other => other.into(),
    }
}

impl Disk for DmaDisk {
    type File = DmaFileHandle;
    type Buffer = DmaMemory;

    fn buffer(&self, length: usize) -> DmaMemory {
        assert!(length > 0 && length.is_multiple_of(BLOCK), "a buffer of {length} bytes is not whole blocks");
        let mut buffer = glommio::allocate_dma_buffer(length);
        buffer.as_bytes_mut().fill(0);
        DmaMemory(Rc::new(buffer))
    }

    async fn open(&self, name: &str, durable_writes: bool) -> io::Result<DmaFileHandle> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true);
        if durable_writes {
            options.custom_flags(libc::O_DSYNC);
        }
        let file = options.dma_open(self.inner.path.join(name)).await.map_err(plain)?;
        Ok(DmaFileHandle { file })
    }

    async fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let path = self.inner.path.clone();
        let list = move || {
            let mut names = Vec::new();
            for entry in fs::read_dir(path)? {
                let entry = entry?;
                let metadata = entry.metadata()?;
                if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                    names.push((name, metadata.len()));
                }
            }
            names.sort_unstable();
            Ok(names)
        };
        glommio::executor().spawn_blocking(list).await
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        glommio::io::rename(self.inner.path.join(from), self.inner.path.join(to)).await.map_err(plain)
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        glommio::io::remove(self.inner.path.join(name)).await.map_err(plain)
    }

    async fn sync_directory(&self) -> io::Result<()> {
        self.inner.directory.sync().await.map_err(plain)
    }

    async fn sleep(&self, duration: Duration) {
        glommio::timer::sleep(duration).await;
    }

    fn now(&self) -> Duration {
        self.inner.started.elapsed()
    }
}

/// Aligned memory from glommio's registered pool while that lasts, else from the heap.
pub struct DmaMemory(Rc<DmaBuffer>);

impl DmaMemory {
    /// A write in flight holds the outer `Rc` of [`File::write`] as well, so nobody has `&mut` while it runs.
    fn exclusive(&mut self) -> &mut DmaBuffer {
        Rc::get_mut(&mut self.0).expect("a buffer is changed while a write reads it")
    }
}

impl Deref for DmaMemory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl DerefMut for DmaMemory {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.exclusive().as_bytes_mut()
    }
}

impl Buffer for DmaMemory {
    fn truncate(&mut self, length: usize) {
        assert!(length.is_multiple_of(BLOCK), "a buffer of {length} bytes is not whole blocks");
        self.exclusive().trim_to_size(length);
    }
}

/// An `O_DIRECT` file.
pub struct DmaFileHandle {
    file: DmaFile,
}

impl File for DmaFileHandle {
    type Buffer = DmaMemory;
    type Bytes = ReadResult;

    async fn length(&self) -> io::Result<u64> {
        self.file.file_size().await.map_err(plain)
    }

    async fn write(&self, buffer: Rc<DmaMemory>, position: u64) -> io::Result<()> {
        let wanted = buffer.len();
        let written = self.file.write_rc_at(buffer.0.clone(), position).await.map_err(plain)?;
        if written < wanted {
            // A disk or a limit that fills up in the middle of a write says so only in the next one.
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        Ok(())
    }

    async fn read(&self, position: u64, length: usize) -> io::Result<ReadResult> {
        self.file.read_at_aligned(position, length).await.map_err(plain)
    }

    async fn sync(&self) -> io::Result<()> {
        self.file.fdatasync().await.map_err(plain)
    }

    async fn allocate(&self, length: u64) -> io::Result<()> {
        self.file.pre_allocate(length, false).await.map_err(plain)
    }

    async fn truncate(&self, length: u64) -> io::Result<()> {
        self.file.truncate(length).await.map_err(plain)
    }
}
