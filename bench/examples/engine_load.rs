//! What one core's store does on a real disk: durable puts from many writers beside bare durable writes of the same size
//! and depth, then restarts with and without a checkpoint, and the memory of the index.
//!
//! `cargo run --release -p quorate-bench --example engine_load [DIR [SECONDS [KEYS]]]`; by default in the current
//! directory, 3 seconds a row, a million keys. A directory of its own is made there and removed at the end.

use glommio::{LocalExecutorBuilder, Placement};
use hdrhistogram::Histogram;
use io_uring::{IoUring, opcode, types::Fd};
use quorate_engine::{
    Append, AppendError, Commit, Config, Opened, Sequence, Store, Watermark,
    disk::dma::DmaDisk,
    versions::{Summary, Versions},
};
use std::{
    env, fs, io,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::Path,
    rc::Rc,
    time::{Duration, Instant},
};

const BODY: usize = 100;

struct FirstBytes;

impl Versions for FirstBytes {
    fn summarise(&self, body: &[u8]) -> Option<Summary> {
        Some(Summary(u64::from_le_bytes(body.get(..8)?.try_into().ok()?) >> 2))
    }
    fn stable_hash(&self, summary: Summary) -> u64 {
        summary.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
    fn is_tombstone(&self, _summary: Summary) -> bool {
        false
    }
    fn save(&self) -> Vec<u8> {
        Vec::new()
    }
    fn restore(&self, _saved: &[u8]) -> bool {
        true
    }
}

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

fn on_executor<T>(future: impl Future<Output = T>) -> T {
    LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(256 << 10)
        .preempt_timer(Duration::from_millis(10))
        .make()
        .expect("an executor")
        .run(async {
            // Executors stop for good without a timer that ticks.
            let ticking = glommio::spawn_local(async {
                loop {
                    glommio::timer::sleep(Duration::from_millis(1)).await;
                }
            });
            let result = future.await;
            ticking.cancel().await;
            result
        })
}

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

async fn open(path: &Path, config: Config) -> Opened<DmaDisk> {
    let disk = DmaDisk::open(path).await.expect("the directory");
    Store::open(disk, config, Rc::new(FirstBytes)).await.expect("the store")
}

fn config(commit: Commit, depth: usize) -> Config {
    let mut config = Config::new(1, 1024, 1);
    config.commit = commit;
    config.commits_in_flight = depth;
    config
}

fn append(store: &Store<DmaDisk>, key: u64, number: u64, body: &mut [u8]) -> Result<Sequence, AppendError> {
    body[..8].copy_from_slice(&(number << 2).to_le_bytes());
    let mut name = *b"key-000000000000";
    name[4..12].copy_from_slice(&key.to_le_bytes());
    let partition = (key % 1024) as u16;
    store.append(Append { partition, key: &name, body: &[body], summary: Summary(number) })
}

/// A closed loop: each writer has one put under way, and learns from the watermark that it is durable. One task plays
/// them all, as a core's event loop would.
fn puts(path: &Path, time: Duration, commit: Commit, depth: usize, writers: usize, body: usize) -> Row {
    let row = on_executor(async {
        let opened = open(path, config(commit, depth)).await;
        let tasks: Vec<_> = opened.tasks.into_iter().map(|task| glommio::spawn_local(task).detach()).collect();
        let store = opened.store;
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
                let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 1_000_000;
                match append(&store, key, number, &mut body) {
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
        store.close().await;
        for task in tasks {
            task.await;
        }
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
        let opened = open(path, config(Commit::Dsync, 4)).await;
        let tasks: Vec<_> = opened.tasks.into_iter().map(|task| glommio::spawn_local(task).detach()).collect();
        let store = opened.store;
        let mut body = [7; BODY];
        let start = Instant::now();
        for key in 0..keys {
            while let Err(error) = append(&store, key, key + 1, &mut body) {
                assert_eq!(error, AppendError::Busy, "{error}");
                glommio::timer::sleep(Duration::from_micros(200)).await;
            }
            if key % 64 == 0 {
                glommio::yield_if_needed().await;
            }
        }
        let Watermark::Durable(_) = store.advanced(Sequence(keys - 1)).await else { panic!("{:?}", store.failure()) };
        let statistics = store.statistics();
        println!(
            "load of {keys} keys of {BODY} B: {:.2} s, index {:.1} B a key",
            start.elapsed().as_secs_f64(),
            statistics.index_bytes as f64 / keys as f64
        );
        store.close().await;
        for task in tasks {
            task.await;
        }
    });
    let restart = |what: &str| {
        on_executor(async {
            let start = Instant::now();
            let mut opened = open(path, config(Commit::Dsync, 2)).await;
            println!(
                "restart {what}: {:.3} s; {} keys, {} records replayed, {} MB read, clean {}, damaged {}",
                start.elapsed().as_secs_f64(),
                opened.report.keys,
                opened.report.records_replayed,
                opened.report.bytes_read / 1_000_000,
                opened.report.clean,
                opened.report.damaged,
            );
            opened.tasks.clear();
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
