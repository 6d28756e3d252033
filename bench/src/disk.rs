//! What the disk itself can do, so that figures stand beside it: small durable writes, one at a time, by io_uring as the
//! engine does them.
//!
//! The rule: the file is zeroed and durable before anything is timed, so that no write allocates; it is removed at the
//! end.
//!
//! Not here: the engine's own log (`engine/benches`).

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Parser;
use hdrhistogram::Histogram;
use io_uring::{IoUring, opcode, types::Fd};
use serde::Serialize;

use crate::{args::duration, process, random::Random, recorder::histogram, report::Latency, run::Error};

const BLOCK_BYTES: usize = 4096;
const FILE_BYTES: usize = 64 << 20;
const ZERO_BYTES: usize = 1 << 20;

/// The disk alone.
#[derive(Parser, Clone, Debug)]
pub struct DiskArgs {
    /// A directory on the disk; a file of 64 MiB is made there and removed again.
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// How long each way of writing is measured.
    #[arg(long, default_value = "3s", value_parser = duration)]
    pub duration: Duration,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Latencies of the disk. All writes are 4 KiB, O_DIRECT, in sequence over a zeroed file.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct DiskReport {
    /// Where.
    pub dir: PathBuf,
    /// One row per way of writing.
    pub latencies: Vec<Latency>,
    /// The machine's load average at the start.
    pub load_average: f64,
    #[serde(skip)]
    as_json: bool,
}

/// How a write becomes durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// The file is open with `O_DSYNC`.
    Dsync,
    /// `write`, then `fdatasync`.
    Fdatasync,
    /// Not a write: one random 4 KiB read.
    Read,
}

/// Measures the disk.
///
/// # Errors
/// When the directory cannot be written with O_DIRECT, or io_uring is missing.
pub(crate) fn run(args: &DiskArgs) -> Result<DiskReport, Error> {
    let path = args.dir.join(format!(".quorate-bench-disk-{}", std::process::id()));
    let load_average = process::load_average();
    let result = measure_all(&path, args.duration);
    // Whatever went wrong, nothing stays behind.
    let removed = fs::remove_file(&path);
    let latencies = result.and_then(|latencies| removed.map(|()| latencies));
    let cannot = |error| Error::Machine(format!("cannot measure the disk in {}: {error}", args.dir.display()));
    Ok(DiskReport { dir: args.dir.clone(), latencies: latencies.map_err(cannot)?, load_average, as_json: args.json })
}

fn measure_all(path: &Path, duration: Duration) -> io::Result<Vec<Latency>> {
    let ways = [("O_DSYNC write", Way::Dsync), ("write, fdatasync", Way::Fdatasync), ("random read", Way::Read)];
    zero(path)?;
    let row = |(name, way)| Ok(Latency::of(name, &measure(path, way, duration)?));
    ways.into_iter().map(row).collect()
}

fn open(path: &Path, flags: i32) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(path)
}

/// Blocks that nothing has been written to cost more the first time.
fn zero(path: &Path) -> io::Result<()> {
    let file = open(path, libc::O_DIRECT)?;
    let block = Aligned::new(ZERO_BYTES);
    let mut ring = IoUring::new(1)?;
    for offset in (0..FILE_BYTES).step_by(ZERO_BYTES) {
        write(&mut ring, &file, &block, offset)?;
    }
    file.sync_all()
}

fn measure(path: &Path, way: Way, duration: Duration) -> io::Result<Histogram<u64>> {
    let file = open(path, libc::O_DIRECT | if way == Way::Dsync { libc::O_DSYNC } else { 0 })?;
    let mut block = Aligned::new(BLOCK_BYTES);
    let mut random = Random::new(1, 0);
    random.fill(block.bytes_mut());
    let mut ring = IoUring::new(1)?;
    let mut latency = histogram();
    let begun = Instant::now();
    let mut offset = 0;
    while begun.elapsed() < duration {
        let start = Instant::now();
        match way {
            Way::Dsync => write(&mut ring, &file, &block, offset)?,
            Way::Fdatasync => {
                write(&mut ring, &file, &block, offset)?;
                sync(&mut ring, &file)?;
            }
            Way::Read => {
                let block_number = random.below((FILE_BYTES / BLOCK_BYTES) as u64) as usize;
                read(&mut ring, &file, &mut block, block_number * BLOCK_BYTES)?;
            }
        }
        latency.saturating_record(start.elapsed().as_nanos() as u64);
        offset = (offset + BLOCK_BYTES) % FILE_BYTES;
    }
    Ok(latency)
}

/// Memory aligned as O_DIRECT wants it: the aligned part of a larger vector.
struct Aligned {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    fn new(length: usize) -> Self {
        let memory = vec![0; length + BLOCK_BYTES];
        let start = memory.as_ptr().align_offset(BLOCK_BYTES);
        assert!(start <= BLOCK_BYTES, "bytes can be aligned");
        Self { memory, start, length }
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..][..self.length]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..][..self.length]
    }
}

fn write(ring: &mut IoUring, file: &File, block: &Aligned, offset: usize) -> io::Result<()> {
    let bytes = block.bytes();
    let entry =
        opcode::Write::new(Fd(file.as_raw_fd()), bytes.as_ptr(), bytes.len() as u32).offset(offset as u64).build();
    complete(ring, &entry, bytes.len())
}

fn read(ring: &mut IoUring, file: &File, block: &mut Aligned, offset: usize) -> io::Result<()> {
    let bytes = block.bytes_mut();
    let length = bytes.len();
    let entry =
        opcode::Read::new(Fd(file.as_raw_fd()), bytes.as_mut_ptr(), length as u32).offset(offset as u64).build();
    complete(ring, &entry, length)
}

fn sync(ring: &mut IoUring, file: &File) -> io::Result<()> {
    let flags = io_uring::types::FsyncFlags::DATASYNC;
    complete(ring, &opcode::Fsync::new(Fd(file.as_raw_fd())).flags(flags).build(), 0)
}

/// Submits one entry and waits for it. `length` is what it must have moved.
fn complete(ring: &mut IoUring, entry: &io_uring::squeue::Entry, length: usize) -> io::Result<()> {
    #[expect(
        unsafe_code,
        reason = "the callers' borrows of file and buffer last until this returns, and this returns only \
                                    when the kernel is done with them: each wait is for the one entry in the ring"
    )]
    // SAFETY: see above; on an error of `submit_and_wait` the loop goes on, so the entry never outlives the call.
    unsafe {
        ring.submission().push(entry).expect("a ring of one entry is empty between two calls");
    }
    let result = loop {
        match ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => panic!("io_uring lost an entry: {error}"),
        }
        if let Some(done) = ring.completion().next() {
            break done.result();
        }
    };
    match usize::try_from(result) {
        Ok(moved) if moved == length => Ok(()),
        Ok(moved) => Err(io::Error::other(format!("moved {moved} of {length} bytes"))),
        Err(_) => Err(io::Error::from_raw_os_error(-result)),
    }
}

impl fmt::Display for DiskReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.as_json {
            return writeln!(f, "{}", serde_json::to_string_pretty(self).map_err(|_| fmt::Error)?);
        }
        writeln!(
            f,
            "{}: 4 KiB, O_DIRECT, one at a time · load average {:.2}\n",
            self.dir.display(),
            self.load_average
        )?;
        Latency::head(f)?;
        self.latencies.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_is_measured_and_nothing_stays_behind() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let args = DiskArgs { dir: dir.path().to_owned(), duration: Duration::from_millis(20), json: false };
        let report = run(&args).unwrap();
        assert_eq!(report.latencies.len(), 3);
        assert!(report.latencies.iter().all(|row| row.count > 0 && row.p50_us > 1.0), "{report}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
