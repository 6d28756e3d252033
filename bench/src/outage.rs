//! `quorate bench outage`: one of three nodes goes away under load and comes back; latencies second by second, as a picture.
//!
//! The rule: clients know all three nodes, and send when an operation is due, whatever the nodes do: who waits for the one
//! that is gone is counted from then. Afterwards every key is read again, and no acknowledged write may be missing.
//!
//! Not here: load (`run`), processes (`compare`), shapes (`plot`).

mod report;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver},
    },
    thread,
    time::{Duration, Instant},
};

use clap::{Parser, ValueEnum};
use rustix::process::Signal;
use serde::Serialize;

pub use self::report::{OutageReport, Part};
use crate::{
    args::{LoadArgs, OwnServersArgs, TargetKind, duration, positive},
    bar::Bar,
    compare::{self, Side},
    protocol::Durability,
    run::{self, Error},
    workload::Workload,
};

const NODES: u16 = 3;
/// The one that goes.
const VICTIM: u16 = 3;
const WARMUP: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(20);
/// How often copies are compared: seldom enough not to be felt.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Nodes compare all copies with each other once a minute.
const EQUAL_MAX: Duration = Duration::from_secs(180);

/// One of three nodes goes away under load and comes back.
#[derive(Parser, Clone, Debug)]
pub struct OutageArgs {
    /// How it goes.
    #[arg(long, value_enum, default_value = "kill")]
    pub how: How,
    /// How long all three serve first, such as 15s.
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub before: Duration,
    /// How long it is away.
    #[arg(long, default_value = "20s", value_parser = duration)]
    pub away: Duration,
    /// How long the load goes on after its return.
    #[arg(long, default_value = "25s", value_parser = duration)]
    pub after: Duration,
    /// Operations per second, half of them gets, half durable puts, sent when they are due (open loop).
    #[arg(long, default_value = "1000", value_parser = positive)]
    pub rate: f64,
    /// How many keys there are; all are put first, unmeasured.
    #[arg(long, default_value_t = 20_000)]
    pub keys: u64,
    /// Where the picture is written, an SVG.
    #[arg(long, default_value = "outage.svg")]
    pub out: PathBuf,

    /// Where it is measured, and what is shown.
    #[command(flatten)]
    pub common: OwnServersArgs,
}

/// How a node goes away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// By kill -9; it is started again.
    Kill,
    /// By SIGSTOP: its connections stay open, and nobody answers; then SIGCONT.
    Freeze,
}

/// When what happened, from the first measured second on.
struct Times {
    gone: Duration,
    back: Duration,
    /// Each partition had been the same on all nodes since then.
    equal: Option<Duration>,
}

/// Measures, draws.
///
/// # Errors
/// When servers cannot be run, or the picture cannot be written.
pub(crate) fn run(args: &OutageArgs, stop: &Arc<AtomicBool>) -> Result<OutageReport, Error> {
    // Each part must show seconds of its own.
    if [args.before, args.away, args.after].iter().any(|part| *part < Duration::from_secs(1)) {
        return Err(Error::Usage("--before, --away and --after must each be 1s or more".to_owned()));
    }
    let place = compare::place(args.common.dir.as_deref())?;
    let mut side = Side::quorate(place.path(), compare::own_address(1), (NODES, 1), TargetKind::Native, None)?;
    let load = LoadArgs {
        target: TargetKind::Native,
        servers: side.addresses.clone(),
        workload: Workload::Mix,
        rate: Some(args.rate),
        keys: args.keys,
        durability: Some(Durability::Durable),
        duration: Some(args.before + args.away + args.after),
        warmup: Some(WARMUP),
        verify: true,
        output: args.common.output,
        ..LoadArgs::parse_from(["bench"])
    };
    compare::put_all_keys(&mut side, &LoadArgs { verify: false, ..load.clone() }, stop)?;
    let (report, times) = thread::scope(|scope| {
        let (begins, begun) = mpsc::channel();
        // Nobody waits for it if the outage was given up.
        let load = scope.spawn(|| run::run_telling(&load, stop, move |first| begins.send(first).unwrap_or_default()));
        // Processes are started by this thread, with which they would end.
        let times = outage(args, &mut side, stop, &begun, &|| load.is_finished());
        (load.join().expect("a panic aborts"), times)
    });
    let report = report?;
    let times = times?.ok_or_else(|| Error::Servers("the load ended before the node was back".to_owned()))?;
    OutageReport::new(args, &report, &times).drawn(&args.out)
}

/// Has the node go and come back, and waits until it has what the others have. None if the load ends before its return.
/// `begun`: the load's first measured moment.
fn outage(
    args: &OutageArgs,
    side: &mut Side,
    stop: &AtomicBool,
    begun: &Receiver<Instant>,
    load_ended: &dyn Fn() -> bool,
) -> Result<Option<Times>, Error> {
    let Ok(start) = begun.recv() else { return Ok(None) };
    let wait_until = |time: Instant| {
        while Instant::now() < time && !load_ended() {
            thread::sleep(TICK);
        }
        !load_ended()
    };
    let gone = args.before;
    if !wait_until(start + gone) {
        return Ok(None);
    }
    match args.how {
        How::Kill => side.signal_node(VICTIM, Signal::KILL)?,
        How::Freeze => side.signal_node(VICTIM, Signal::STOP)?,
    }
    let back = gone + args.away;
    if !wait_until(start + back) {
        return Ok(None);
    }
    match args.how {
        How::Kill => side.serve(VICTIM)?,
        How::Freeze => side.signal_node(VICTIM, Signal::CONT)?,
    }
    let stopped = || stop.load(Ordering::Relaxed);
    let bar = Bar::new("comparing copies", !args.common.output.is_quiet());
    let progress = |equal: usize, all: usize| {
        // Until then the load has its own.
        if load_ended() {
            bar.show(equal as u64, all as u64, &format!("{equal} of {all} partitions were equal"));
        }
    };
    Ok(Some(Times { gone, back, equal: until_equal(side, &stopped, &progress).map(|equal| equal - start) }))
}

/// When each partition had been seen to be the same on all nodes. Writes under way make some differ at any moment.
fn until_equal(side: &Side, stopped: &dyn Fn() -> bool, progress: &dyn Fn(usize, usize)) -> Option<Instant> {
    let deadline = Instant::now() + EQUAL_MAX;
    let mut equal = BTreeSet::new();
    while Instant::now() < deadline && !stopped() {
        if let Some((now_equal, all)) = side.equal_partitions() {
            equal.extend(now_equal);
            if equal.len() == all {
                return Some(Instant::now());
            }
            progress(equal.len(), all);
        }
        thread::sleep(LOOK_EVERY);
    }
    None
}
