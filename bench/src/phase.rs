//! What all threads do together for a while: load the keys, run the workload, read everything back.
//!
//! The rule: a phase begins nothing after its end, and ends when all that it began has ended.
//!
//! Not here: the loop that does it (`worker`).

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use crate::workload::Workload;

/// What the clients do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Task {
    /// Each client inserts its share of the keys, again until it succeeded.
    Load,
    /// Operations as the workload draws them.
    Draw,
    /// Each client reads its share of all keys that were written, again until it sees what it must.
    Check,
}

/// One phase. Times are nanoseconds of the run.
#[derive(Debug)]
pub(crate) struct Phase {
    pub(crate) task: Task,
    /// When it began.
    pub(crate) start: u64,
    /// Operations meant to be sent before this do not count.
    pub(crate) measure_from: u64,
    /// Nothing begins after this; what fails after this is not tried again.
    pub(crate) end: u64,
    /// Nanoseconds between two operations of one thread; `None` is the closed loop.
    pub(crate) interval: Option<f64>,
    /// Operations under way per client.
    pub(crate) depth: usize,
    /// Counted operations that may still begin, if they are bounded.
    pub(crate) left: Option<AtomicI64>,
    /// Set to end the phase before its time.
    pub(crate) stop: AtomicBool,
}

impl Phase {
    /// Whether one more operation, meant for `intended`, may begin.
    pub(crate) fn permits(&self, intended: u64) -> bool {
        if self.is_over(intended) {
            return false;
        }
        match &self.left {
            Some(left) if intended >= self.measure_from => left.fetch_sub(1, Ordering::Relaxed) > 0,
            _ => true,
        }
    }

    /// Whether nothing begins any more.
    pub(crate) fn is_over(&self, now: u64) -> bool {
        now >= self.end || self.stop.load(Ordering::Relaxed)
    }

    /// Whether what fails is tried again.
    pub(crate) fn tries_again(&self) -> bool {
        self.task != Task::Draw
    }
}

impl Task {
    pub(crate) fn of(workload: Workload) -> Self {
        if workload == Workload::Load { Self::Load } else { Self::Draw }
    }
}
