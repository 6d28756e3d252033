//! `quorate doctor`: what of this machine keeps a node from running, or from running evenly.
//!
//! The rule: it changes nothing, and a finding says what was measured, what is wanted, why, and what mends it. Only to
//! measure the disk it makes files in the data directory, which it removes again.
//!
//! To look (`facts`, `place`, `jitter`) and to judge (`checks`) are apart, so that what is judged can be another machine's.
//!
//! Not here: what a node itself asks before it starts (`probe`, `ports`), which this asks too; the disk's measurement
//! (`bench/disk`).

mod checks;
mod facts;
mod finding;
mod jitter;
mod kernel;
mod place;

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use facts::Facts;
use finding::{Finding, Verdict, describe};
use quorate_bench::{Bar, DiskArgs, OutputArgs};
use quorate_node::config::Config;
use serde_json::json;

use crate::{
    config_file,
    failure::{Failure, failed},
    pid_file,
    signals::{self, SIGHUP, SIGINT, SIGTERM},
};

/// The disk is measured in so many ways, each for a time of its own.
const DISK_WAYS: u32 = 3;

/// Without a configuration a node of a core for each CPU is meant, up to so many.
const CORES_ASSUMED_MAX: usize = 64;

/// Check whether this machine suits a node, and say how to put right what does not
///
/// It changes nothing. To measure the disk it makes a file of 64 MiB in the data directory, and removes it again.
#[derive(clap::Args)]
#[command(after_help = "\
Exit code 0: a node can run here, perhaps with warnings. 1: a check failed.

Examples:
  quorate doctor                                      # for a node with a core for each CPU, data below this directory
  quorate doctor --config /etc/quorate/quorate.toml   # for this node
  quorate doctor --quick --json                       # in three seconds, for a program")]
pub(crate) struct Args {
    /// The node's configuration [default: a core for each CPU, data below this directory, the usual ports]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show no progress
    #[arg(long)]
    quiet: bool,
    /// Measure for a second, not for ten
    #[arg(long)]
    quick: bool,
    /// Take /proc and /sys from below this directory, and measure nothing
    #[arg(long, value_name = "DIR", hide = true)]
    root: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let stop = signals::stop_flag(&[SIGINT, SIGTERM, SIGHUP])?;
    let root = args.root.as_deref().unwrap_or(Path::new("/"));
    let config = match &args.config {
        Some(path) => config_file::load(path)?,
        None => assumed(facts::cpus_of(root).len())?,
    };
    let runs = args.config.as_deref().and_then(pid_file::running);
    let facts = Facts::gather(root, &config, runs);
    let mut findings = checks::all(&facts, &config);
    if args.root.is_none() {
        findings.extend(measure(&facts, &config, args, &stop)?);
    }
    let worst = findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok);
    if args.json {
        println!("{:#}", json!({"verdict": worst, "findings": findings}));
    } else {
        print!("{}", describe(&findings));
    }
    let what_then = "a node would not run here, or not keep what it is given; do what stands there as `fix`";
    match findings.iter().filter(|finding| finding.verdict == Verdict::Fail).count() {
        0 => Ok(()),
        1 => Err(failed(format!("a check failed: {what_then}"))),
        many => Err(failed(format!("{many} checks failed: {what_then}"))),
    }
}

/// A node as somebody would begin with.
fn assumed(cpus: usize) -> Result<Config, Failure> {
    let cores = cpus.clamp(1, CORES_ASSUMED_MAX);
    let text = format!(
        "[node]\nid = 1\n[cluster]\nname = \"none\"\nsecret = \"of no cluster at all\"\nread_quorum = 1\n\
         write_quorum = 1\n[[cluster.node]]\nid = 1\naddress = \"127.0.0.1\"\ncores = {cores}\n"
    );
    let config = Config::parse(&text).expect("it is one");
    Ok(config.relative_to(&config_file::directory_of(Path::new("quorate.toml"))?))
}

/// First each disk, then the CPUs, so that one does not disturb the other.
fn measure(facts: &Facts, config: &Config, args: &Args, stop: &AtomicBool) -> Result<Vec<Finding>, Failure> {
    let (each_way, jitter) = match args.quick {
        true => (Duration::from_millis(200), Duration::from_secs(1)),
        false => (Duration::from_secs(3), Duration::from_secs(10)),
    };
    let all = each_way * DISK_WAYS * facts.places.len() as u32 + jitter;
    let findings = Bar::during_time("measuring disk and CPUs", !(args.quiet || args.json), all, || {
        let disk = |path: &Path| {
            let args = DiskArgs { dir: path.to_owned(), duration: each_way, output: OutputArgs::QUIET };
            quorate_bench::measure_disk(&args, stop).map(|report| report.latencies).map_err(|error| error.to_string())
        };
        let disks = facts.places.iter().map(|place| checks::latency(place, &disk(&place.path), config));
        let mut findings: Vec<Finding> = disks.collect();
        let jitters = jitter::measure(&facts.cpus, jitter, stop);
        findings.extend(facts.cpus.iter().zip(&jitters).map(|(&cpu, jitter)| checks::jitter(cpu, jitter, config)));
        findings
    });
    if stop.load(Ordering::Relaxed) { Err(failed("interrupted before its end")) } else { Ok(findings) }
}
