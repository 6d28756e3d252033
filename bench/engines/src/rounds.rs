//! A round of one engine: three child processes one after the other on a fresh directory, the first of which is killed.
//!
//! The rule: rounds of different engines are interleaved (A B C A B C …), so that whatever the machine does meanwhile hits
//! all of them alike.
//!
//! Not here: what the children do (`drive`), what is made of it (`report`).

use crate::{
    drive::{Child, Line, Outcome, Reopened, Task},
    engine::{Error, Kind, Setup},
    files,
    workload::{Amount, Work},
};
use serde::Serialize;
use std::{
    env,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// The kill comes so long after the works are done: in the middle of putting.
const KILL_AFTER: Duration = Duration::from_millis(700);
/// Beside each pair in a cache that shall hold all of them: whatever an engine may keep with it.
const ENTRY_BYTES: u64 = 256;
/// Of the data, what fits into the cache of uncached gets.
const SHARE_CACHED: u64 = 16;

/// What is asked for.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Plan {
    pub engines: Vec<Kind>,
    pub works: Vec<Work>,
    pub amount: Amount,
    pub durable: bool,
    pub rounds: usize,
    pub cache_bytes: u64,
    pub uncached_cache_bytes: u64,
}

impl Plan {
    pub(crate) fn caches(amount: &Amount) -> (u64, u64) {
        (2 * amount.keys * (amount.pair_bytes() + ENTRY_BYTES), amount.data_bytes() / SHARE_CACHED)
    }
}

/// One engine, once.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Round {
    pub engine: Kind,
    pub round: usize,
    pub works: Vec<Outcome>,
    /// The most memory of the process that worked.
    pub memory_bytes: u64,
    /// The most memory of the process that read uncached.
    pub memory_uncached_bytes: Option<u64>,
    pub disk_bytes: u64,
    /// Puts that were acknowledged before the kill, after the works.
    pub acknowledged: u64,
    pub reopened: Reopened,
}

/// Runs one round in a directory below `base`, which is gone afterwards.
pub(crate) fn run(plan: &Plan, kind: Kind, round: usize, base: &Path) -> Result<Round, Error> {
    let dir = tempfile::Builder::new().prefix(&format!("engines-{}-", kind.name())).tempdir_in(base)?;
    let setup = Setup {
        dir: dir.path().to_owned(),
        cache_bytes: plan.cache_bytes as usize,
        durable: plan.durable,
        uncached: false,
        data_bytes: plan.amount.data_bytes(),
    };
    let works = plan.works.iter().copied().filter(|&work| work != Work::Uncached).collect();
    let mut child = Child { kind, setup, amount: plan.amount.clone(), works, task: Task::Work };
    let mut found = Found::default();

    start(&child, &mut found, Some(KILL_AFTER))?;
    let acknowledged = found.acknowledged;
    let (memory_bytes, disk_bytes) = found.resources.take().ok_or("the works did not come to their end")?;

    files::drop_page_cache(dir.path())?;
    child.task = Task::Reopen { acknowledged };
    start(&child, &mut found, None)?;
    let reopened = found.reopened.ok_or("nothing was told about the store after the kill")?;

    if plan.works.contains(&Work::Uncached) {
        files::drop_page_cache(dir.path())?;
        child.task = Task::ReadUncached;
        child.setup.uncached = true;
        child.setup.cache_bytes = plan.uncached_cache_bytes as usize;
        start(&child, &mut found, None)?;
    }
    let memory_uncached_bytes = found.resources.map(|(memory, _)| memory);
    dir.close()?;
    Ok(Round {
        engine: kind,
        round,
        works: found.works,
        memory_bytes,
        memory_uncached_bytes,
        disk_bytes,
        acknowledged,
        reopened,
    })
}

/// What the children told.
#[derive(Default)]
struct Found {
    works: Vec<Outcome>,
    resources: Option<(u64, u64)>,
    acknowledged: u64,
    reopened: Option<Reopened>,
}

/// Runs a child to its end, or kills it so long after it told its resources.
fn start(child: &Child, found: &mut Found, kill_after: Option<Duration>) -> Result<(), Error> {
    let mut process = Command::new(env::current_exe()?)
        .arg("child")
        .arg(serde_json::to_string(child)?)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
    let mut kill_at = None;
    let mut killed = false;
    // What it told before it died counts: the pipe is read to its end.
    for line in &mut lines {
        let line = line?;
        match serde_json::from_str(&line) {
            Ok(Line::Done(outcome)) => found.works.push(outcome),
            Ok(Line::Resources { memory_bytes, disk_bytes }) => {
                found.resources = Some((memory_bytes, disk_bytes));
                kill_at = kill_after.map(|after| Instant::now() + after);
            }
            Ok(Line::Acknowledged(puts)) => found.acknowledged = puts,
            Ok(Line::Reopened(reopened)) => found.reopened = Some(reopened),
            // The last line of a killed process may be cut.
            Err(_) if killed => {}
            Err(error) => return Err(format!("a child said {line:?}: {error}").into()),
        }
        if !killed && kill_at.is_some_and(|at| Instant::now() >= at) {
            process.kill()?;
            killed = true;
        }
    }
    let status = process.wait()?;
    if !killed && !status.success() {
        return Err(format!("{} failed: {status}", child.kind.name()).into());
    }
    Ok(())
}
