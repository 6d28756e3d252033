//! The child processes of a round: one that works until it is killed, one that opens what it left behind and looks whether
//! all is there, and one that reads it uncached. They tell what they find as lines of JSON.
//!
//! The rule: only the engine's own calls are in a latency; a put has the latency of its group. Between two works it is
//! waited until nothing is written any more, so that each work pays for its own compactions and no other.
//!
//! Not here: starting and killing them (`rounds`).

use crate::{
    engine::{Engine, Error, Kind, Setup},
    files, process,
    workload::{Amount, Expected, Group, Operation, Operations, Values, Work, key_bytes},
};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

const LATENCY_MAX_NS: u64 = 600_000_000_000;
/// Nothing is written any more when so long nothing was.
const QUIET: Duration = Duration::from_millis(400);
const QUIET_MAX: Duration = Duration::from_secs(60);
const BLOCK_BYTES: u64 = 4096;
/// The page cache is dropped each time that so much of the data may have come in.
const SHARE_WARM: u64 = 10;

/// After the kill, so many keys are looked for at the least, and all that were put until then.
const CHECKED_MIN: u64 = 100_000;

/// What a child process is started for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Child {
    pub kind: Kind,
    pub setup: Setup,
    pub amount: Amount,
    /// Without the uncached gets.
    pub works: Vec<Work>,
    pub task: Task,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Do the works, then put until the end comes.
    Work,
    /// Open the store after a kill that let so many puts be acknowledged.
    Reopen { acknowledged: u64 },
    /// The uncached gets.
    ReadUncached,
}

/// What it tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Line {
    Done(Outcome),
    /// All works are done, and what they left is quiet.
    Resources {
        memory_bytes: u64,
        disk_bytes: u64,
    },
    /// So many puts of those until the kill.
    Acknowledged(u64),
    Reopened(Reopened),
}

/// One work.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub work: Work,
    pub operations: u64,
    pub seconds: f64,
    /// Of all threads, and of what they did afterwards in the background.
    pub cpu_seconds: f64,
    pub get: Option<Latency>,
    pub put: Option<Latency>,
    pub user_bytes: u64,
    /// Background work afterwards included.
    pub written_bytes: u64,
}

/// Microseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

/// What was found after the kill.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Reopened {
    /// From the call to open it until the first get was answered.
    pub seconds: f64,
    pub cpu_seconds: f64,
    /// Keys, of those looked for, that are missing or have an older version than the last acknowledged.
    pub lost: u64,
    /// Values that nobody wrote.
    pub wrong: u64,
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        (!histogram.is_empty()).then(|| Self {
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: histogram.max() as f64 / 1e3,
        })
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("sound bounds")
}

fn tell(line: &Line) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, line)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// Does what the child was started for, with its engine.
pub(crate) fn run<E: Engine>(child: &Child) -> Result<(), Error> {
    E::block_on(async {
        match child.task {
            Task::Work => work_until_killed::<E>(child).await,
            Task::Reopen { acknowledged } => reopen::<E>(child, acknowledged).await,
            Task::ReadUncached => read_uncached::<E>(child).await,
        }
    })
}

async fn work_until_killed<E: Engine>(child: &Child) -> Result<(), Error> {
    let engine = E::open(&child.setup).await?;
    let mut driver = Driver::new(engine, &child.amount);
    for &work in &child.works {
        driver.warm(work).await?;
        let outcome = driver.work(work).await?;
        tell(&Line::Done(outcome))?;
    }
    tell(&Line::Resources {
        memory_bytes: process::memory_bytes_max()?,
        disk_bytes: files::disk_bytes(&child.setup.dir)?,
    })?;
    let mut acknowledged = 0;
    for operation in Operations::until_killed(&child.amount) {
        let Operation::Put(key) = operation else { unreachable!("only puts come before the kill") };
        driver.add(key);
        if driver.group.is_full() {
            acknowledged += driver.group.len() as u64;
            driver.flush().await?;
            tell(&Line::Acknowledged(acknowledged))?;
        }
    }
    unreachable!("there is no end to them")
}

async fn reopen<E: Engine>(child: &Child, acknowledged: u64) -> Result<(), Error> {
    let expected = Expected::after(&child.works, acknowledged, &child.amount);
    let values = Values::new(&child.amount);
    let (start, cpu) = (Instant::now(), process::cpu());
    let mut engine = E::open(&child.setup).await?;
    engine.get(&key_bytes(0), |_| ()).await?;
    let (seconds, cpu_seconds) = (start.elapsed().as_secs_f64(), (process::cpu() - cpu).as_secs_f64());
    let mut found = Reopened { seconds, cpu_seconds, lost: 0, wrong: 0 };
    let stride = (child.amount.keys / CHECKED_MIN).max(1);
    for (number, version) in expected.of_some(stride) {
        match engine.get(&key_bytes(number), |value| values.verify(number, value)).await? {
            None => found.lost += 1,
            Some(None) => found.wrong += 1,
            Some(Some(found_version)) => found.lost += u64::from(found_version < version),
        }
    }
    engine.close().await?;
    tell(&Line::Reopened(found))
}

async fn read_uncached<E: Engine>(child: &Child) -> Result<(), Error> {
    let mut driver = Driver::new(E::open(&child.setup).await?, &child.amount);
    let mut outcome: Option<Outcome> = None;
    let batch = (child.amount.data_bytes() / BLOCK_BYTES / SHARE_WARM).max(1);
    let mut left = child.amount.operations;
    let mut operations = Operations::new(Work::Uncached, &child.amount);
    while left > 0 {
        driver.engine = driver.engine.drop_page_cache(&child.setup).await?;
        let part = driver.measure(Work::Uncached, operations.by_ref().take(batch as usize)).await?;
        left -= part.operations;
        match &mut outcome {
            Some(outcome) => outcome.add(&part),
            none => *none = Some(part),
        }
    }
    let outcome = outcome.expect("there are operations");
    driver.engine.close().await?;
    tell(&Line::Done(outcome))?;
    tell(&Line::Resources {
        memory_bytes: process::memory_bytes_max()?,
        disk_bytes: files::disk_bytes(&child.setup.dir)?,
    })
}

struct Driver<E> {
    engine: E,
    amount: Amount,
    values: Values,
    group: Group,
    /// Of the last put.
    version: u64,
    gets: Histogram<u64>,
    puts: Histogram<u64>,
}

impl<E: Engine> Driver<E> {
    fn new(engine: E, amount: &Amount) -> Self {
        Self {
            engine,
            amount: amount.clone(),
            values: Values::new(amount),
            group: Group::new(amount),
            version: 0,
            gets: histogram(),
            puts: histogram(),
        }
    }

    /// One whole work, and what it leaves to be done in the background.
    async fn work(&mut self, work: Work) -> Result<Outcome, Error> {
        (self.gets, self.puts) = (histogram(), histogram());
        let (cpu, written) = (process::cpu(), process::written_bytes()?);
        let mut outcome = self.measure(work, Operations::new(work, &self.amount)).await?;
        if work.writes() {
            Self::wait_until_quiet().await?;
            outcome.cpu_seconds = (process::cpu() - cpu).as_secs_f64();
            outcome.written_bytes = process::written_bytes()? - written;
        }
        Ok(outcome)
    }

    async fn measure(&mut self, work: Work, operations: impl Iterator<Item = Operation>) -> Result<Outcome, Error> {
        let (start, cpu) = (Instant::now(), process::cpu());
        let (mut count, mut user_bytes) = (0, 0);
        for operation in operations {
            count += 1;
            match operation {
                Operation::Get(key) => self.get(key).await?,
                Operation::Put(key) => {
                    user_bytes += self.add(key);
                    if self.group.is_full() {
                        self.flush().await?;
                    }
                }
            }
        }
        if self.group.len() > 0 {
            self.flush().await?;
        }
        Ok(Outcome {
            work,
            operations: count,
            seconds: start.elapsed().as_secs_f64(),
            cpu_seconds: (process::cpu() - cpu).as_secs_f64(),
            get: Latency::of(&self.gets),
            put: Latency::of(&self.puts),
            user_bytes,
            written_bytes: 0,
        })
    }

    /// Adds a put to the group; gives its bytes.
    fn add(&mut self, key: u64) -> u64 {
        self.version += 1;
        self.group.push(key, self.version, &self.values);
        self.amount.pair_bytes()
    }

    async fn flush(&mut self) -> Result<(), Error> {
        let start = Instant::now();
        self.engine.put(&self.group).await?;
        let elapsed = start.elapsed().as_nanos() as u64;
        self.puts.saturating_record_n(elapsed, self.group.len() as u64);
        self.group.clear();
        Ok(())
    }

    async fn get(&mut self, number: u64) -> Result<(), Error> {
        let key = key_bytes(number);
        let start = Instant::now();
        let found = self.engine.get(&key, |value| self.values.belongs(number, value)).await?;
        self.gets.saturating_record(start.elapsed().as_nanos() as u64);
        match found {
            Some(true) => Ok(()),
            Some(false) => Err(format!("key {number} has a value of another key").into()),
            None => Err(format!("key {number} is not there").into()),
        }
    }

    /// Reads once what the work will get, so that it is in the caches.
    async fn warm(&mut self, work: Work) -> Result<(), Error> {
        for operation in Operations::new(work, &self.amount) {
            if let Operation::Get(key) = operation {
                self.get(key).await?;
            }
        }
        Ok(())
    }

    async fn wait_until_quiet() -> Result<(), Error> {
        let start = Instant::now();
        let mut written = process::written_bytes()?;
        while start.elapsed() < QUIET_MAX {
            E::sleep(QUIET).await;
            let now = process::written_bytes()?;
            if now == written {
                break;
            }
            written = now;
        }
        Ok(())
    }
}

impl Outcome {
    /// Adds another part of the same work; its latencies are of both parts already.
    fn add(&mut self, part: &Self) {
        self.operations += part.operations;
        self.seconds += part.seconds;
        self.cpu_seconds += part.cpu_seconds;
        (self.get, self.put) = (part.get, part.put);
    }
}
