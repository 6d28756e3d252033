//! Our engine beside others: the same work, from one thread, in interleaved rounds.
//!
//! The rule: every engine's round runs in processes of its own on a fresh directory; figures are medians of the rounds with
//! their spread, beside the machine's load.
//!
//! The floor plan: `engine` (what each of them is and how it is set), `workload` (what they are asked to do), `drive` (doing
//! and measuring it, in a child process), `rounds` (starting and killing the children), `report`.
//!
//! Not here: servers (`quorate bench`), the disk alone (`quorate bench floor`).

mod drive;
mod engine;
mod files;
mod process;
mod report;
mod rounds;
mod workload;

use crate::{
    drive::Child,
    engine::{Error, Kind},
    report::Report,
    rounds::Plan,
    workload::{Amount, VALUE_BYTES_MIN, Work},
};
use clap::{Parser, Subcommand, ValueEnum};
use std::{path::PathBuf, process::ExitCode, time::Instant};

/// A group needs keys that differ.
const KEYS_A_PUT: u64 = 4;

/// Sets our storage engine beside others.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Hidden>,
    /// Which engines, or all
    #[arg(long, value_delimiter = ',', default_value = "all")]
    engine: Vec<Engines>,
    /// Which works; the load is always done
    #[arg(long, value_delimiter = ',', default_value = "load,get,overwrite,mix,uncached")]
    work: Vec<Work>,
    /// How many keys are loaded
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Bytes of a value, at least 16
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(VALUE_BYTES_MIN as i64..=1 << 20))]
    value_size: u32,
    /// Operations of each work but the load
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..))]
    operations: u64,
    /// Puts of one batch
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    group: u32,
    /// A batch is on the disk before the next begins
    #[arg(long)]
    durable: bool,
    /// How often each engine has its turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// On the disk that is meant; directories are made in it and removed again
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Bytes of each engine's cache. [default: twice what all pairs need]
    #[arg(long)]
    cache: Option<u64>,
    /// The same for uncached gets. [default: a sixteenth of the data]
    #[arg(long)]
    uncached_cache: Option<u64>,
    /// The seed of all keys and values
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write all figures to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Hidden {
    /// What this program starts itself with
    #[command(hide = true)]
    Child { what: String },
}

#[derive(Clone, Debug)]
enum Engines {
    All,
    One(Kind),
}

impl ValueEnum for Engines {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::All,
            Self::One(Kind::Quorate),
            Self::One(Kind::Fjall),
            Self::One(Kind::Redb),
            #[cfg(feature = "rocksdb")]
            Self::One(Kind::RocksDb),
            Self::One(Kind::Lmdb),
        ]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        match self {
            Self::All => Some(clap::builder::PossibleValue::new("all")),
            Self::One(kind) => kind.to_possible_value(),
        }
    }
}

impl Args {
    fn plan(&self) -> Result<Plan, Error> {
        let amount = Amount {
            keys: self.keys,
            value_bytes: self.value_size as usize,
            group: self.group as usize,
            operations: self.operations,
            seed: self.seed,
        };
        if self.keys < KEYS_A_PUT * u64::from(self.group) {
            return Err(format!("--keys must be at least {KEYS_A_PUT} times --group").into());
        }
        let mut works = self.work.clone();
        works.push(Work::Load);
        works.sort_unstable();
        works.dedup();
        let mut engines: Vec<Kind> = Vec::new();
        for wanted in &self.engine {
            let kinds =
                if let Engines::One(kind) = wanted { std::slice::from_ref(kind) } else { Kind::value_variants() };
            for &kind in kinds {
                if !engines.contains(&kind) {
                    engines.push(kind);
                }
            }
        }
        let (cache_bytes, uncached_cache_bytes) = Plan::caches(&amount);
        Ok(Plan {
            engines,
            works,
            amount,
            durable: self.durable,
            rounds: self.rounds as usize,
            cache_bytes: self.cache.unwrap_or(cache_bytes),
            uncached_cache_bytes: self.uncached_cache.unwrap_or(uncached_cache_bytes),
        })
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.command {
        Some(Hidden::Child { what }) => run_child(what).map(|()| true),
        None => run(&args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// All rounds; false when an engine lost what it had promised to keep.
fn run(args: &Args) -> Result<bool, Error> {
    let plan = args.plan()?;
    let (before, start) = (process::load_average(), Instant::now());
    let mut rounds = Vec::new();
    for round in 1..=plan.rounds {
        for &kind in &plan.engines {
            eprintln!("{:>6.0} s: round {round} of {}, {}", start.elapsed().as_secs_f64(), plan.rounds, kind.name());
            rounds.push(rounds::run(&plan, kind, round, &args.dir)?);
        }
    }
    let load_average = [before, process::load_average()];
    let report = Report::new(plan, rounds, load_average, start.elapsed().as_secs_f64());
    print!("{report}");
    if let Some(path) = &args.json {
        report.write_json(path)?;
    }
    if !report.is_sound() {
        eprintln!("error: after a kill something was lost that was durable, or there was something that nobody wrote");
    }
    Ok(report.is_sound())
}

fn run_child(what: &str) -> Result<(), Error> {
    let child: Child = serde_json::from_str(what)?;
    match child.kind {
        Kind::Quorate => drive::run::<engine::Quorate>(&child),
        Kind::Fjall => drive::run::<engine::Fjall>(&child),
        Kind::Redb => drive::run::<engine::Redb>(&child),
        #[cfg(feature = "rocksdb")]
        Kind::RocksDb => drive::run::<engine::RocksDb>(&child),
        Kind::Lmdb => drive::run::<engine::Lmdb>(&child),
    }
}
