//! `quorate rehome`: lays a node's data out for another number of cores.
//!
//! The rule: the node is down meanwhile; what was interrupted is finished by the same command.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use quorate_bench::Bar;
use quorate_node::rehome::{self, Progress};
use serde_json::json;

use crate::{
    config_file,
    failure::{Failure, failed},
    pid_file, probe,
};

/// Move a stopped node's data to the number of cores that its configuration names
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate rehome --config quorate.toml            # after `cores` of this node was changed on all nodes
  quorate rehome --config quorate.toml --json     # for a program; again, if it was interrupted")]
pub(crate) struct Args {
    /// The node's configuration, with the new number of `cores`
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show no progress
    #[arg(long)]
    quiet: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let config = config_file::load(&args.config)?;
    pid_file::check_not_running(&args.config)?;
    probe::check(&config.cores[..1]).map_err(|problem| failed(problem.to_string()))?;
    let finishes = rehome::is_unfinished(&config);
    let progress = Arc::<Progress>::default();
    let look = || {
        let [done, all] = [&progress.done, &progress.all].map(|number| number.load(Ordering::Relaxed));
        (done, all, format!("{done} of {all} partitions"))
    };
    let report = Bar::during("moving", !(args.quiet || args.json), look, |_| rehome::rehome(&config, &progress));
    let report = report.map_err(|error| failed(error.to_string()))?;
    let cores = config.member().cores;
    if args.json {
        let (before, records, damaged) = (report.cores_before, report.records, report.damaged);
        println!("{}", json!({"cores_before": before, "cores": cores, "records": records, "damaged": damaged}));
    } else {
        match report.cores_before {
            Some(before) => println!("Moved {} records from {before} to {cores} cores.", report.records),
            None if finishes => println!("Finished the move to {cores} cores that was begun."),
            None => println!("Nothing to move: the data is laid out for {cores} cores."),
        }
        println!("The other nodes' configurations must name the same number of cores for this node.");
    }
    if report.damaged > 0 {
        let damaged = report.damaged;
        return Err(failed(format!(
            "{damaged} records were damaged and not moved; the other replicas still have them: start the node, then \
             `quorate repair --wait`"
        )));
    }
    Ok(())
}
