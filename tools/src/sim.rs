//! `quorate sim`: runs the simulator over many seeds, or one again.
//!
//! The rule: a broken property is told with the seed and the command that repeats it, and fails the run; so does a class
//! of faults that never struck in a long run, since then nothing was proved of it.
//!
//! Not here: the simulator (`tests`).

#[cfg(feature = "planted")]
mod planted;

use std::{
    num::NonZero,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use quorate_bench::Bar;
use quorate_tests::{
    faults::Class,
    simulation::{Options, Outcome, Summary, run_many, run_seed},
};
use serde_json::json;

use crate::failure::{Failure, failed};

/// After so many seeds every class of faults must have struck.
const SEEDS_TELLING: u64 = 500;

/// Run whole clusters under virtual time, with faults drawn from seeds, and check every answer
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate sim                              # a thousand seeds
  quorate sim --minutes 10 --first 5000    # as many as ten minutes allow, from this one on
  quorate sim --seed 4711                  # one of them, twice: what it does is told, and must be the same
  quorate sim --planted --json             # whether bugs that were planted are found, for a program")]
pub(crate) struct Args {
    /// Run this seed alone, twice, and compare the two runs
    #[arg(long, conflicts_with_all = ["seeds", "minutes", "first", "planted"])]
    seed: Option<u64>,
    /// Look for planted bugs instead, each until a seed finds it: only in a program built for that
    #[arg(long, conflicts_with_all = ["seeds", "minutes"])]
    planted: bool,
    /// Only the planted bug of this name
    #[arg(long, requires = "planted")]
    bug: Option<String>,
    /// How many seeds [default: 1000, or as many as fit into --minutes]
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Stop after this time
    #[arg(long)]
    minutes: Option<f64>,
    /// Seeds at a time [default: as many as there are CPUs]
    #[arg(long)]
    threads: Option<NonZero<usize>>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show no progress
    #[arg(long)]
    quiet: bool,
}

impl Args {
    fn shows_progress(&self) -> bool {
        !(self.quiet || self.json)
    }

    fn threads(&self) -> usize {
        self.threads.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZero::get)
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    if let Some(seed) = args.seed {
        return run_one(seed, args.json);
    }
    if args.planted {
        return planted::run(args);
    }
    let limit = args.minutes.map(|minutes| Duration::try_from_secs_f64(minutes * 60.0));
    let limit = limit.transpose().map_err(|_| Failure::Usage("--minutes must be 0 or more".to_owned()))?;
    let count = args.seeds.unwrap_or(if limit.is_some() { u64::MAX } else { 1000 });
    let threads = args.threads();
    let bar = Bar::new("simulating", args.shows_progress());
    let watched = Watched { bar, begun: Instant::now(), done: AtomicU64::new(0), count, limit };
    let progress = |outcome: &Outcome| watched.tell(outcome, args.json);
    let summary = run_many(args.first, count, limit, threads, &Options::default(), progress);
    drop(watched);
    if args.json {
        println!("{}", as_json(&summary));
    } else {
        print(&summary);
    }
    let idle = idle_classes(&summary);
    match summary.failures.len() {
        0 if idle.is_empty() => Ok(()),
        0 => Err(failed(format!(
            "these faults never struck, so nothing was proved of them: {}; let more seeds run",
            idle.join(", ")
        ))),
        failures => Err(failed(format!(
            "{failures} of {} seeds broke a property; `quorate sim --seed {}` repeats the first",
            summary.seeds, summary.failures[0].seed
        ))),
    }
}

fn run_one(seed: u64, json: bool) -> Result<(), Failure> {
    let outcome = run_seed(seed, &Options { twice: true, ..Options::default() });
    if json {
        let violation = outcome.violation.as_ref().map(ToString::to_string);
        let trace = format!("{:016x}", outcome.trace_hash);
        println!("{}", json!({"seed": seed, "violation": violation, "trace": trace, "events": outcome.events}));
    } else {
        println!("{outcome}");
    }
    if outcome.violation.is_some() {
        Err(failed(format!("seed {seed} broke a property; what it says with it tells how")))
    } else {
        Ok(())
    }
}

/// A run of many seeds, as far as it is.
struct Watched {
    bar: Bar,
    begun: Instant,
    done: AtomicU64,
    count: u64,
    limit: Option<Duration>,
}

impl Watched {
    fn tell(&self, outcome: &Outcome, json: bool) {
        let (done, took) = (self.done.fetch_add(1, Ordering::Relaxed) + 1, self.begun.elapsed());
        if outcome.violation.is_some() && !json {
            self.bar.beside(|| eprintln!("\n{outcome}"));
        }
        let rate = done as f64 / took.as_secs_f64();
        // Whichever ends it first.
        match self.limit.filter(|limit| limit.as_secs_f64() * rate < self.count as f64) {
            Some(limit) => {
                let (took, limit) = (took.min(limit).as_millis() as u64, limit.as_millis() as u64);
                self.bar.show(took, limit, &format!("{done} seeds, {rate:.1}/s"));
            }
            None => self.bar.show(done, self.count, &format!("{done} of {} seeds, {rate:.1}/s", self.count)),
        }
    }
}

fn idle_classes(summary: &Summary) -> Vec<String> {
    if summary.seeds < SEEDS_TELLING {
        return Vec::new();
    }
    let mut idle: Vec<String> = summary.hits.missing().into_iter().map(|class| format!("{class:?}")).collect();
    if summary.dropped == 0 {
        idle.push("the drop of a tombstone".to_owned());
    }
    if summary.shortened == 0 {
        idle.push("the shortening of a clock".to_owned());
    }
    idle
}

fn print(summary: &Summary) {
    let minutes = summary.elapsed.as_secs_f64() / 60.0;
    println!(
        "{} seeds in {:.1} s ({:.0} a minute): {} operations, {} of them answered with success, {:.0} faults a seed, \
         {:.0} s of the worlds' time",
        summary.seeds,
        summary.elapsed.as_secs_f64(),
        summary.seeds as f64 / minutes,
        summary.operations,
        summary.successes,
        summary.hits.total() as f64 / summary.seeds.max(1) as f64,
        summary.simulated.as_secs_f64(),
    );
    for class in Class::ALL {
        println!("  {:<16} {:>10}", format!("{class:?}"), summary.hits.of(class));
    }
    println!("{} times a core dropped a tombstone, {} times the past in a clock", summary.dropped, summary.shortened);
    println!("{} seeds broke a property", summary.failures.len());
}

fn as_json(summary: &Summary) -> serde_json::Value {
    let hit = |class: Class| (format!("{class:?}"), json!(summary.hits.of(class)));
    let hits: serde_json::Map<_, _> = Class::ALL.into_iter().map(hit).collect();
    let failures: Vec<_> = summary.failures.iter().map(|failure| failure.seed).collect();
    let violations: Vec<_> = summary.failures.iter().map(ToString::to_string).collect();
    json!({
        "seeds": summary.seeds,
        "seconds": summary.elapsed.as_secs_f64(),
        "operations": summary.operations,
        "successes": summary.successes,
        "faults": hits,
        "tombstones_dropped": summary.dropped,
        "clocks_shortened": summary.shortened,
        "failures": failures,
        "violations": violations,
    })
}

#[cfg(not(feature = "planted"))]
mod planted {
    use super::{Args, Failure};

    pub(super) fn run(_: &Args) -> Result<(), Failure> {
        let how = "there is no planted bug in this program; build one that has them: cargo run --profile planted --features \
                   planted -- sim --planted";
        Err(Failure::Usage(how.to_owned()))
    }
}
