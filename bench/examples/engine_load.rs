//! What one core's store does on a real disk: durable puts from many writers beside bare durable writes of the same size
//! and depth, then restarts with and without a checkpoint, and the memory of the index.
//!
//! `cargo run --release -p quorate-bench --example engine_load [DIR [SECONDS [KEYS]]]`; by default in the current
//! directory, 3 seconds a row, a million keys. A directory of its own is made there and removed at the end.

use hdrhistogram::Histogram;
use io_uring::{IoUring, opcode, types::Fd};
use quorate_bare::{Bare, FirstBytes, key, on_executor, recover};
use quorate_engine::{Append, Commit, Config, Sequence, Watermark};
use std::{
    env, fs, io,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::Path,
    time::{Duration, Instant},
};

const BODY: usize = 100;

fn main() {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let base = arguments.first().map_or(".", |text| text);
    let seconds: u64 = arguments.get(1).map_or(3, |text| text.parse().expect("seconds"));
    let keys: u64 = arguments.get(2).map_or(1_000_000, |text| text.parse().expect("keys"));
    let directory = tempfile::tempdir_in(base).expect("a directory");
    print_load();
    println!(
        "{:<34} {:>9} {:>8} {:>7} {:>7} {:>7} {:>8} {:>8}",
        "", "ops/s", "CPU µs", "p50 µs", "p99", "p99.9", "bytes", "MB/s"
    );
    let time = Duration::from_secs(seconds);
    for (writers, body) in [(32, BODY), (1, BODY), (128, BODY), (32, 1024)] {
        let (dsync, fdatasync) = (Commit::Dsync, Commit::Fdatasync);
        for (commit, depth) in [(dsync, 1), (dsync, 2), (dsync, 4), (fdatasync, 1), (fdatasync, 2), (fdatasync, 4)] {
            let row = puts(&directory.path().join("puts"), time, commit, depth, writers, body);
            row.print(&format!("{writers} writers {body} B {commit:?} depth {depth}"));
            if commit == Commit::Dsync {
                let bytes = row.bytes_a_commit.next_multiple_of(4096);
                bare(&directory.path().join("bare"), time, bytes, depth)
                    .expect("bare writes")
                    .print(&format!("  bare DSYNC {bytes} B depth {depth}"));
            }
        }
    }
    print_load();
    restarts(&directory.path().join("restart"), keys);
}

fn print_load() {
    println!("load average {}", fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
}

struct Row {
    latency: Histogram<u64>,
    elapsed: Duration,
    cpu: Duration,
    bytes_a_commit: usize,
    bytes: u64,
}

impl Row {
    fn print(&self, name: &str) {
        let count = self.latency.len() as f64;
        let micros = |quantile| self.latency.value_at_quantile(quantile) / 1000;
        println!(
            "{name:<34} {:>9.0} {:>8.2} {:>7} {:>7} {:>7} {:>8} {:>8.1}",
            count / self.elapsed.as_secs_f64(),
            self.cpu.as_secs_f64() * 1e6 / count,
            micros(0.5),
            micros(0.99),
            micros(0.999),
            self.bytes_a_commit,
            self.bytes as f64 / self.elapsed.as_secs_f64() / 1e6,
        );
    }
}

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn config(commit: Commit, depth: usize) -> Config {
    let mut config = Config::new(1, 1024, 1);
    config.commit = commit;
    config.commits_in_flight = depth;
    config
}

fn partition(number: u64) -> u16 {
    (number % 1024) as u16
}

/// A closed loop: each writer has one put under way, and learns from the watermark that it is durable. One task plays
/// them all, as a core's event loop would.
fn puts(path: &Path, time: Duration, commit: Commit, depth: usize, writers: usize, body: usize) -> Row {
    let row = on_executor(async {
        let bare = Bare::open(path, config(commit, depth)).await.expect("the store");
        let store = &bare.store;
        glommio::timer::sleep(Duration::from_millis(500)).await;
        let mut latency = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("three digits");
        let mut body = vec![7; body];
        let mut under_way: Vec<(Sequence, Instant)> = Vec::new();
        let mut number = 0_u64;
        let mut seen = Sequence(0);
        let before = store.statistics();
        let (start, cpu_start) = (Instant::now(), cpu());
        while start.elapsed() < time {
            let now = Instant::now();
            while under_way.len() < writers {
                number += 1;
                let name = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 1_000_000;
                let summary = FirstBytes::stamp(number, &mut body);
                let append = Append { partition: partition(name), key: &key(name), body: &[&body], summary };
                match store.append(append) {
                    Ok(sequence) => under_way.push((sequence, now)),
                    Err(error) => panic!("{error}"),
                }
            }
            let Watermark::Durable(upto) = store.advanced(seen).await else { panic!("{:?}", store.failure()) };
            seen = upto;
            let now = Instant::now();
            under_way.retain(|(sequence, since)| {
                if *sequence <= upto {
                    latency.saturating_record((now - *since).as_nanos() as u64);
                }
                *sequence > upto
            });
        }
        let (elapsed, cpu) = (start.elapsed(), cpu() - cpu_start);
        let after = store.statistics();
        let commits = after.commits - before.commits;
        let bytes = after.log_bytes - before.log_bytes;
        bare.close().await;
        Row { latency, elapsed, cpu, bytes_a_commit: (bytes / commits.max(1)) as usize, bytes }
    });
    fs::remove_dir_all(path).expect("the directory goes");
    row
}

/// Bare durable writes, `depth` at a time, in sequence over a zeroed file: the lower bound of a commit.
fn bare(path: &Path, time: Duration, length: usize, depth: usize) -> io::Result<Row> {
    const FILE: usize = 64 << 20;
    let flags = libc::O_DIRECT | libc::O_DSYNC;
    {
        let zeros = vec![0; 1 << 20];
        let mut file = fs::File::create(path)?;
        for _ in 0..FILE / zeros.len() {
            io::Write::write_all(&mut file, &zeros)?;
        }
        file.sync_all()?;
    }
    let file = fs::OpenOptions::new().write(true).custom_flags(flags).open(path)?;
    let mut ring = IoUring::new(8)?;
    // Aligned by hand: one page more than is needed.
    let memory = vec![1_u8; length + 4096];
    let aligned = memory.as_ptr().addr().next_multiple_of(4096) - memory.as_ptr().addr();
    let data = &memory[aligned..aligned + length];
    let mut latency = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("three digits");
    let mut started = vec![Instant::now(); depth];
    let mut position = 0;
    let (start, cpu_start) = (Instant::now(), cpu());
    let mut submit = |ring: &mut IoUring, lane: usize, started: &mut [Instant]| {
        if position + length > FILE {
            position = 0;
        }
        let entry = opcode::Write::new(Fd(file.as_raw_fd()), data.as_ptr(), length as u32)
            .offset(position as u64)
            .build()
            .user_data(lane as u64);
        position += length;
        started[lane] = Instant::now();
        // SAFETY: the file and the memory outlive the write: all writes are waited for before this function returns.
        #[expect(unsafe_code, reason = "io_uring takes raw memory")]
        unsafe {
            ring.submission().push(&entry).expect("the ring has room for every lane");
        }
    };
    for lane in 0..depth {
        submit(&mut ring, lane, &mut started);
    }
    let mut under_way = depth;
    let mut bytes = 0;
    while under_way > 0 {
        ring.submit_and_wait(1)?;
        let done: Vec<_> = ring.completion().map(|entry| (entry.user_data() as usize, entry.result())).collect();
        for (lane, result) in done {
            if result != length as i32 {
                return Err(io::Error::from_raw_os_error(-result));
            }
            bytes += length as u64;
            latency.saturating_record(started[lane].elapsed().as_nanos() as u64);
            if start.elapsed() < time {
                submit(&mut ring, lane, &mut started);
            } else {
                under_way -= 1;
            }
        }
    }
    let row = Row { latency, elapsed: start.elapsed(), cpu: cpu() - cpu_start, bytes_a_commit: length, bytes };
    fs::remove_file(path)?;
    Ok(row)
}

fn restarts(path: &Path, keys: u64) {
    on_executor(async {
        let bare = Bare::open(path, config(Commit::Dsync, 4)).await.expect("the store");
        let mut body = [7; BODY];
        let start = Instant::now();
        for number in 0..keys {
            let summary = FirstBytes::stamp(number + 1, &mut body);
            let append = Append { partition: partition(number), key: &key(number), body: &[&body], summary };
            bare.append(append).await.expect("room");
            if number % 64 == 0 {
                glommio::yield_if_needed().await;
            }
        }
        bare.durable(Sequence(keys)).await.expect("the log");
        let statistics = bare.store.statistics();
        println!(
            "load of {keys} keys of {BODY} B: {:.2} s, index {:.1} B a key",
            start.elapsed().as_secs_f64(),
            statistics.index_bytes as f64 / keys as f64
        );
        bare.close().await;
    });
    let restart = |what: &str| {
        on_executor(async {
            let start = Instant::now();
            let opened = recover(path, config(Commit::Dsync, 2)).await.expect("the store");
            println!(
                "restart {what}: {:.3} s; {} keys, {} records replayed, {} MB read, clean {}, damaged {}",
                start.elapsed().as_secs_f64(),
                opened.report.keys,
                opened.report.records_replayed,
                opened.report.bytes_read / 1_000_000,
                opened.report.clean,
                opened.report.damaged,
            );
        });
    };
    restart("from the checkpoint, closed in order");
    restart("from the checkpoint, after a crash");
    for entry in fs::read_dir(path).expect("the directory") {
        let entry = entry.expect("an entry");
        if entry.file_name().to_string_lossy().starts_with("checkpoint") {
            fs::remove_file(entry.path()).expect("it goes");
        }
    }
    restart("without a checkpoint");
    print_load();
}
