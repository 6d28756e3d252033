//! The load generator: open and closed loops over Quorate, and over what speaks RESP, memcached's protocol or etcd's, with
//! YCSB's workloads, honest latencies, and the check that no acknowledged write is lost. `quorate bench` is this.
//!
//! The rule: the generator must not be what is measured. It sleeps in epoll, allocates next to nothing per request, and
//! reports its own CPU time beside the servers'.
//!
//! Not here: the servers, and the benches of single parts (`benches/`).

mod args;
mod bar;
mod client;
mod compare;
mod connection;
mod disk;
mod floor;
mod lanes;
mod ledger;
mod outage;
mod paper;
mod phase;
pub mod plot;
mod popularity;
mod process;
mod progress;
mod protocol;
mod random;
mod recorder;
mod report;
mod route;
mod run;
mod value;
mod worker;
mod workload;

use std::{
    fmt,
    sync::{Arc, atomic::AtomicBool},
};

use serde::Serialize;

pub use args::{Args, Command, LoadArgs, OutputArgs, OwnServersArgs, TargetKind, patience};
pub use bar::Bar;
pub use compare::{BoundArgs, Choice, CompareArgs, Compared, Comparison, Figure, Round, Run, Skipped, Spread};
pub use disk::{DiskArgs, DiskReport, run as measure_disk};
pub use floor::{Floor, FloorReport};
pub use ledger::Verdict;
pub use outage::{How, OutageArgs, OutageReport, Part};
pub use paper::{Beside, PaperArgs, PaperFigure, PaperReport, Placement, paper};
pub use popularity::Shape;
pub use process::Used;
pub use protocol::Durability;
pub use recorder::ErrorCount;
pub use report::{Generator, Latency, Report, Second, ServersUsed, Setup};
pub use run::Error;
pub use workload::{Kind, Workload};

/// The result of any measurement. Prints as a table; as JSON it is what was measured.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Outcome {
    /// Of load on servers.
    Load(Box<Report>),
    /// Of the disk alone.
    Disk(DiskReport),
    /// Of what the machine can do at best.
    Floor(FloorReport),
    /// Of Quorate beside others.
    Comparison(Box<Comparison>),
    /// Of a node that went away under load.
    Outage(Box<OutageReport>),
    /// Of Quorate beside the Dynamo paper.
    Paper(PaperReport),
}

impl Outcome {
    /// Whether what was to be verified holds; a process should fail otherwise.
    #[must_use]
    pub fn passed(&self) -> bool {
        match self {
            Self::Load(report) => report.passed(),
            Self::Disk(_) | Self::Floor(_) | Self::Paper(_) => true,
            Self::Comparison(comparison) => comparison.passed(),
            Self::Outage(report) => report.passed(),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load(report) => report.fmt(f),
            Self::Disk(report) => report.fmt(f),
            Self::Floor(report) => report.fmt(f),
            Self::Comparison(comparison) => comparison.fmt(f),
            Self::Outage(report) => report.fmt(f),
            Self::Paper(report) => report.fmt(f),
        }
    }
}

/// Measures what `args` ask for, all but the paper's figures, which are [`paper()`]'s; once `stop` is set it ends soon, with
/// [`Error::Interrupted`].
///
/// # Errors
/// When it cannot be run; servers that fail while they are measured are part of the outcome.
pub fn run(args: &Args, stop: &Arc<AtomicBool>) -> Result<Outcome, Error> {
    match &args.command {
        Some(Command::Disk(disk)) => disk::run(disk, stop).map(Outcome::Disk),
        Some(Command::Floor(floor)) => floor::run(floor, stop).map(Outcome::Floor),
        Some(Command::Compare(compare)) => {
            compare::run(compare, stop).map(|result| Outcome::Comparison(Box::new(result)))
        }
        Some(Command::Outage(args)) => outage::run(args, stop).map(|report| Outcome::Outage(Box::new(report))),
        Some(Command::Paper(_)) => {
            Err(Error::Usage("the ring that ships is not in here: ask `quorate bench paper`".to_owned()))
        }
        Some(Command::Bound(bound)) => Err(compare::become_bound(bound)),
        None => run::run(&args.load, stop).map(|report| Outcome::Load(Box::new(report))),
    }
}
