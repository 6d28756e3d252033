//! What the disk itself can do, so that figures stand beside it: small durable writes and random reads by io_uring as the
//! engine does them.
//!
//! The rule: the file is zeroed and durable before anything is timed, so that no write allocates; it is removed at the
//! end.
//!
//! Not here: the ring (`lanes`), the network's part (`floor`), the engine's own log (`benches/engine`).

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use clap::Parser;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    args::{OutputArgs, duration},
    bar::Bar,
    lanes::{BLOCK_BYTES, Lanes, Operation, expect_moved},
    process,
    random::Random,
    recorder::histogram,
    report::Latency,
    run::Error,
};

const FILE_BYTES: usize = 64 << 20;
const ZERO_BYTES: usize = 1 << 20;

/// Where the machine is measured, and for how long
#[derive(Parser, Clone, Debug)]
pub struct DiskArgs {
    /// A directory on the disk; a file of 64 MiB is made there and removed again.
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// How long each row is measured.
    #[arg(long, default_value = "3s", value_parser = duration)]
    pub duration: Duration,
    /// What is shown.
    #[command(flatten)]
    pub output: OutputArgs,
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
}

/// What is done with the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// Writes in sequence; the file is open with `O_DSYNC`.
    Dsync,
    /// Writes in sequence, each with an `fdatasync` after it.
    Fdatasync,
    /// One random block after the other.
    Read,
}

/// How long something is measured: so long, or until it is told to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span<'a> {
    pub(crate) duration: Duration,
    pub(crate) stop: &'a AtomicBool,
}

impl DiskArgs {
    /// Measures so many rows, and shows how far that is.
    pub(crate) fn during<T>(&self, doing: &str, rows: usize, measure: impl FnOnce() -> T) -> T {
        Bar::during_time(doing, !self.output.is_quiet(), self.duration * rows as u32, measure)
    }
}

impl Span<'_> {
    pub(crate) fn is_over(self, elapsed: Duration) -> bool {
        elapsed >= self.duration || self.stop.load(Ordering::Relaxed)
    }

    /// An error if it was told to stop: what was measured is not what was asked for.
    pub(crate) fn check(self) -> Result<(), Error> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }
}

/// Measures the disk.
///
/// # Errors
/// When the directory cannot be written with O_DIRECT, or io_uring is missing.
pub fn run(args: &DiskArgs, stop: &AtomicBool) -> Result<DiskReport, Error> {
    let load_average = process::load_average();
    let span = Span { duration: args.duration, stop };
    let ways = [("O_DSYNC write", Way::Dsync), ("write, fdatasync", Way::Fdatasync), ("random read", Way::Read)];
    let latencies = args.during("disk", ways.len(), || {
        with_file(&args.dir, |path| {
            let row = |(name, way)| Ok(Latency::of(name, &measure(path, way, 1, span)?));
            ways.into_iter().map(row).collect()
        })
    })?;
    span.check()?;
    Ok(DiskReport { dir: args.dir.clone(), latencies, load_average })
}

/// Lets `measure` have a zeroed file in `dir`.
pub(crate) fn with_file<T>(dir: &Path, measure: impl FnOnce(&Path) -> io::Result<T>) -> Result<T, Error> {
    let path = dir.join(format!(".quorate-bench-disk-{}", std::process::id()));
    let result = zero(&path).and_then(|()| measure(&path));
    // Whatever went wrong, nothing stays behind.
    let removed = fs::remove_file(&path);
    let cannot = |error| {
        Error::Machine(format!(
            "cannot measure the disk in {}: {error}; name a directory on it that can be written",
            dir.display()
        ))
    };
    result.and_then(|measured| removed.map(|()| measured)).map_err(cannot)
}

fn open(path: &Path, flags: i32) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(path)
}

/// Blocks that nothing has been written to cost more the first time.
fn zero(path: &Path) -> io::Result<()> {
    let mut lanes = Lanes::new(open(path, libc::O_DIRECT)?, 1, ZERO_BYTES)?;
    for offset in (0..FILE_BYTES).step_by(ZERO_BYTES) {
        lanes.run(0, Operation::Write(offset as u64), ZERO_BYTES)?;
    }
    lanes.run(0, Operation::Sync, 0)
}

/// Keeps `depth` operations of 4 KiB, O_DIRECT, under way on a file made by [`with_file`].
pub(crate) fn measure(path: &Path, way: Way, depth: usize, span: Span<'_>) -> io::Result<Histogram<u64>> {
    let file = open(path, libc::O_DIRECT | if way == Way::Dsync { libc::O_DSYNC } else { 0 })?;
    let mut lanes = Lanes::new(file, depth, BLOCK_BYTES)?;
    let mut random = Random::new(1, 0);
    (0..depth).for_each(|lane| random.fill(lanes.buffer_mut(lane)));
    let mut latency = histogram();
    let begun = Instant::now();
    let mut started = vec![begun; depth];
    let mut syncing = vec![false; depth];
    let mut offset = 0;
    let mut next = || match way {
        Way::Read => {
            let block_number = random.below((FILE_BYTES / BLOCK_BYTES) as u64);
            Operation::Read(block_number * BLOCK_BYTES as u64)
        }
        Way::Dsync | Way::Fdatasync => {
            let here = offset;
            offset = (offset + BLOCK_BYTES) % FILE_BYTES;
            Operation::Write(here as u64)
        }
    };
    (0..depth).for_each(|lane| lanes.start(lane, next()));
    let mut under_way = depth;
    while under_way > 0 {
        let (lane, moved) = lanes.wait()?;
        expect_moved(moved, if syncing[lane] { 0 } else { BLOCK_BYTES })?;
        syncing[lane] = way == Way::Fdatasync && !syncing[lane];
        if syncing[lane] {
            lanes.start(lane, Operation::Sync);
            continue;
        }
        let now = Instant::now();
        latency.saturating_record((now - started[lane]).as_nanos() as u64);
        if !span.is_over(now - begun) {
            started[lane] = now;
            lanes.start(lane, next());
        } else {
            under_way -= 1;
        }
    }
    Ok(latency)
}

impl fmt::Display for DiskReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
        let args =
            DiskArgs { dir: dir.path().to_owned(), duration: Duration::from_millis(20), output: OutputArgs::QUIET };
        let report = run(&args, &AtomicBool::new(false)).unwrap();
        assert_eq!(report.latencies.len(), 3);
        assert!(report.latencies.iter().all(|row| row.count > 0 && row.p50_us > 1.0), "{report}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let args = DiskArgs { duration: Duration::from_secs(3600), ..args };
        assert!(matches!(run(&args, &AtomicBool::new(true)), Err(Error::Interrupted)));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
