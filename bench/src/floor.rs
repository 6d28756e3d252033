//! Lower bounds: what this machine can do with nothing around it, so that every figure of the store stands beside one. A
//! commit, a read, and a round trip over loopback, by the bare io_uring.
//!
//! The rule: nobody spins. Whoever waits sleeps in the kernel, as a core of a node does, so that waking up is part of every
//! figure.
//!
//! Not here: the ring (`lanes`); other ways to write (`disk`).

use std::{
    fmt, io,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::PathBuf,
    sync::atomic::AtomicBool,
    thread,
    time::Instant,
};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    disk::{self, DiskArgs, Span, Way},
    lanes::{Lanes, Operation, expect_moved},
    process,
    random::Random,
    recorder::histogram,
    report::time,
    run::Error,
};

/// All lower bounds.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct FloorReport {
    /// Where the disk was measured.
    pub dir: PathBuf,
    /// One row for each.
    pub floors: Vec<Floor>,
    /// The machine's load average before and after.
    pub load_average: [f64; 2],
}

/// One lower bound. Times are microseconds.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Floor {
    /// What was done.
    pub name: String,
    /// How often.
    pub count: u64,
    /// The same per second.
    pub per_second: f64,
    /// Half are faster.
    pub p50_us: f64,
    /// 99 %
    pub p99_us: f64,
    /// 99.9 %
    pub p999_us: f64,
    /// The slowest.
    pub max_us: f64,
    /// CPU time for each, both ends of a round trip together.
    pub cpu_us: f64,
}

/// Measures them one after the other.
///
/// # Errors
/// When the directory cannot be written with O_DIRECT, or io_uring or loopback is missing.
pub(crate) fn run(args: &DiskArgs, stop: &AtomicBool) -> Result<FloorReport, Error> {
    let before = process::load_average();
    let span = Span { duration: args.duration, stop };
    let on_disk = [
        ("commit, 1 under way", Way::Dsync, 1),
        ("commit, 4 under way", Way::Dsync, 4),
        ("read, 1 under way", Way::Read, 1),
        ("read, 32 under way", Way::Read, 32),
    ];
    let over_loopback = [("round trip, 100 B", 100), ("round trip, 1 KiB", 1024)];
    let floors = args.during("floor", on_disk.len() + over_loopback.len(), || {
        let mut floors = disk::with_file(&args.dir, |path| {
            let row = |(name, way, depth)| Floor::of(name, || disk::measure(path, way, depth, span));
            on_disk.into_iter().map(row).collect::<io::Result<Vec<_>>>()
        })?;
        for (name, bytes) in over_loopback {
            let row = Floor::of(name, || round_trips(bytes, span));
            floors.push(row.map_err(|error| Error::Machine(format!("cannot measure loopback: {error}")))?);
        }
        Ok(floors)
    })?;
    span.check()?;
    let load_average = [before, process::load_average()];
    Ok(FloorReport { dir: args.dir.clone(), floors, load_average })
}

impl Floor {
    fn of(name: &str, measure: impl FnOnce() -> io::Result<Histogram<u64>>) -> io::Result<Self> {
        let (start, cpu) = (Instant::now(), process::own_cpu());
        let latency = measure()?;
        let (elapsed, cpu) = (start.elapsed(), process::own_cpu() - cpu);
        let at = |quantile: f64| latency.value_at_quantile(quantile) as f64 / 1e3;
        Ok(Self {
            name: name.to_owned(),
            count: latency.len(),
            per_second: latency.len() as f64 / elapsed.as_secs_f64(),
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: latency.max() as f64 / 1e3,
            cpu_us: cpu.as_secs_f64() * 1e6 / latency.len() as f64,
        })
    }
}

/// The lane that sends, and the one that receives, of either end.
const SEND: usize = 0;
const RECEIVE: usize = 1;

/// One message goes there and back at a time, on one connection, between two threads.
fn round_trips(bytes: usize, span: Span<'_>) -> io::Result<Histogram<u64>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let here = TcpStream::connect(listener.local_addr()?)?;
    let (there, _) = listener.accept()?;
    thread::scope(|scope| {
        let echoing = scope.spawn(|| echo(there, bytes));
        // The connection closes with it, which ends the echo, whatever happened.
        let measured = ping(here, bytes, span);
        let echoed = echoing.join().expect("the echo does not panic");
        measured.and_then(|latency| echoed.map(|()| latency))
    })
}

fn ping(stream: TcpStream, bytes: usize, span: Span<'_>) -> io::Result<Histogram<u64>> {
    stream.set_nodelay(true)?;
    let mut lanes = Lanes::new(stream, 2, bytes)?;
    let mut random = Random::new(2, 0);
    random.fill(lanes.buffer_mut(SEND));
    let mut latency = histogram();
    let begun = Instant::now();
    loop {
        let start = Instant::now();
        lanes.start(SEND, Operation::SendThen);
        lanes.start(RECEIVE, Operation::Receive);
        for _ in 0..2 {
            expect_moved(lanes.wait()?.1, bytes)?;
        }
        latency.saturating_record(start.elapsed().as_nanos() as u64);
        // What comes back is what was sent, or something else was measured.
        if latency.len() % 1024 == 1 {
            let sent = lanes.buffer_mut(SEND).to_vec();
            if lanes.buffer_mut(RECEIVE) != sent {
                return Err(io::Error::other("what came back is not what was sent"));
            }
            random.fill(lanes.buffer_mut(SEND));
        }
        if span.is_over(begun.elapsed()) {
            return Ok(latency);
        }
    }
}

/// Sends back all that comes until the other end closes.
fn echo(stream: TcpStream, bytes: usize) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut lanes = Lanes::new(stream, 2, bytes)?;
    let mut message = Vec::new();
    lanes.start(RECEIVE, Operation::Receive);
    loop {
        match lanes.wait()? {
            (RECEIVE, 0) => return Ok(()),
            (RECEIVE, moved) => {
                expect_moved(moved, bytes)?;
                message.clear();
                message.extend_from_slice(lanes.buffer_mut(RECEIVE));
                lanes.buffer_mut(SEND).copy_from_slice(&message);
                lanes.start(SEND, Operation::SendThen);
                lanes.start(RECEIVE, Operation::Receive);
            }
            (_, moved) => expect_moved(moved, bytes)?,
        }
    }
}

impl fmt::Display for FloorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [before, after] = self.load_average;
        writeln!(f, "disk: {}, 4 KiB, O_DIRECT, commits O_DSYNC over a zeroed file; round trips: TCP, loopback", {
            self.dir.display()
        })?;
        writeln!(f, "load average {before:.2} before, {after:.2} after\n")?;
        write!(f, "{:<20}", "lower bound")?;
        let columns = ["per second", "p50", "p99", "p99.9", "max", "CPU"];
        columns.iter().try_for_each(|column| write!(f, "{column:>12}"))?;
        writeln!(f)?;
        self.floors.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}

impl fmt::Display for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<20}{:>12.0}", self.name, self.per_second)?;
        let columns = [self.p50_us, self.p99_us, self.p999_us, self.max_us, self.cpu_us];
        columns.iter().try_for_each(|&us| write!(f, "{:>12}", time(us)))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use clap::Parser;

    use crate::Args;

    #[test]
    fn every_lower_bound_is_measured_and_nothing_stays_behind() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let place = dir.path().to_str().unwrap();
        let args = Args::try_parse_from(["bench", "floor", place, "--duration", "30ms", "--json"]).unwrap();
        let report = serde_json::to_value(crate::run(&args, &Arc::default()).unwrap()).unwrap();
        let rows = report["floors"].as_array().unwrap();
        assert_eq!(rows.len(), 6);
        for row in rows {
            let number = |name: &str| row[name].as_f64().unwrap();
            let (p50, max) = (number("p50_us"), number("max_us"));
            assert!(number("count") > 0.0 && number("per_second") > 0.0 && p50 > 1.0 && p50 <= max, "{report}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
