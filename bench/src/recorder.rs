//! What one thread measures: a histogram per kind of operation, errors by class, and ticks for the progress bar.
//!
//! The rule: recording allocates nothing and waits for nobody, so that watching does not slow what is watched.
//!
//! Not here: percentiles and tables (`report`).

use std::{collections::BTreeMap, sync::mpsc::Sender};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::workload::{KINDS, Kind};

/// Latencies beyond an hour count as an hour.
const LATENCY_MAX_NS: u64 = 3_600_000_000_000;
const TICK_NS: u64 = 250_000_000;
/// A server that makes up error classes must not fill the memory.
const CLASSES_MAX: usize = 64;

/// How often one class of error was seen.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ErrorCount {
    /// How often.
    pub count: u64,
    /// One of the messages.
    pub sample: String,
}

/// A few hundred milliseconds of one thread, for watching.
pub(crate) struct Tick {
    /// When it was taken, in nanoseconds of the run.
    pub at: u64,
    pub operations: u64,
    pub errors: u64,
    pub latency: Histogram<u32>,
}

/// What one thread measured in one phase.
pub(crate) struct Recorder {
    /// One per kind, in the order of [`KINDS`].
    pub latency: Vec<Histogram<u64>>,
    /// Of operations that failed.
    pub failed: Histogram<u64>,
    /// How much later than intended operations were taken up.
    pub late: Histogram<u64>,
    /// Gets that found nothing.
    pub absent: u64,
    /// Gets that found one value, two, three, and more.
    pub versions: [u64; 4],
    pub errors: BTreeMap<String, ErrorCount>,
    /// Operations that should have been sent before the end and were not.
    pub missed: u64,
    /// When the last measured operation ended.
    pub last: u64,
    tick: Tick,
    next_tick: u64,
}

/// A histogram of nanoseconds, exact to a thousandth.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(100, LATENCY_MAX_NS, 3).expect("sound bounds")
}

fn live() -> Histogram<u32> {
    Histogram::new_with_bounds(1000, LATENCY_MAX_NS, 2).expect("sound bounds")
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self {
            latency: KINDS.iter().map(|_| histogram()).collect(),
            failed: histogram(),
            late: histogram(),
            absent: 0,
            versions: [0; 4],
            errors: BTreeMap::new(),
            missed: 0,
            last: 0,
            tick: Tick { at: 0, operations: 0, errors: 0, latency: live() },
            next_tick: 0,
        }
    }

    /// An operation succeeded. `measured`: it counts, since it began after the warm-up.
    pub(crate) fn completed(&mut self, kind: Kind, latency_ns: u64, now: u64, measured: bool) {
        self.tick.operations += 1;
        self.tick.latency.saturating_record(latency_ns);
        if measured {
            self.latency[kind.index()].saturating_record(latency_ns);
            self.last = self.last.max(now);
        }
    }

    /// A get found so many values.
    pub(crate) fn found(&mut self, values: usize) {
        match values.checked_sub(1) {
            None => self.absent += 1,
            Some(more) => self.versions[more.min(self.versions.len() - 1)] += 1,
        }
    }

    /// A request failed; `latency_ns` when the operation ended with it.
    pub(crate) fn error(&mut self, class: &str, text: &str, latency_ns: Option<u64>, now: u64, measured: bool) {
        self.tick.errors += 1;
        if !measured {
            return;
        }
        if let Some(latency) = latency_ns {
            self.failed.saturating_record(latency);
            self.last = self.last.max(now);
        }
        let class = if self.errors.len() < CLASSES_MAX || self.errors.contains_key(class) { class } else { "other" };
        let fresh = || ErrorCount { count: 0, sample: text.chars().take(200).collect() };
        self.errors.entry(class.to_owned()).or_insert_with(fresh).count += 1;
    }

    /// Sends a tick when it is time.
    pub(crate) fn tick(&mut self, now: u64, ticks: &Sender<Tick>) {
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + TICK_NS;
        let fresh = Tick { at: now, operations: 0, errors: 0, latency: live() };
        let mut tick = std::mem::replace(&mut self.tick, fresh);
        tick.at = now;
        // Nobody watches: then nobody misses it.
        let _ = ticks.send(tick);
    }

    /// Adds what another thread measured.
    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.latency.iter_mut().zip(&other.latency) {
            mine.add(theirs).expect("same bounds");
        }
        self.failed.add(&other.failed).expect("same bounds");
        self.late.add(&other.late).expect("same bounds");
        self.absent += other.absent;
        self.versions.iter_mut().zip(other.versions).for_each(|(mine, theirs)| *mine += theirs);
        self.missed += other.missed;
        self.last = self.last.max(other.last);
        for (class, error) in &other.errors {
            let fresh = || ErrorCount { count: 0, sample: error.sample.clone() };
            self.errors.entry(class.clone()).or_insert_with(fresh).count += error.count;
        }
    }

    /// Operations that succeeded.
    pub(crate) fn operations(&self) -> u64 {
        self.latency.iter().map(Histogram::len).sum()
    }
}
