//! `quorate bench compare`: Quorate and a peer in turn (A B A B …), on one machine, under the same load.
//!
//! The rule: whatever differs is said. Keys, values, rates and clients are the same in both runs of a round; what a put is
//! worth once it is answered is not, and stands beside the figures.
//!
//! Not here: load (`run`), processes (`side`), ratios (`spread`).

mod child;
mod peer;
mod report;
mod side;
mod spread;

use std::{
    env, fs,
    net::Ipv4Addr,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use indicatif::HumanDuration;
use tempfile::TempDir;

use self::peer::{Installed, Missing};
pub use self::{
    child::BoundArgs,
    peer::Choice,
    report::{Compared, Comparison, Figure, Round, Run, Skipped},
    spread::Spread,
};
pub(crate) use self::{child::become_bound, side::Side};
use crate::{
    args::{LoadArgs, OutputArgs, OwnServersArgs, TargetKind, duration, percent, positive, value_bytes},
    protocol::Durability,
    report::{Report, Setup},
    run::{self, Error, LOAD_DEPTH},
    workload::Workload,
};

/// How long a side may take until it answers.
const START_MAX: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(50);
/// Of ours.
const NODES: u16 = 3;
/// Every peer takes values of this size.
const VALUE_BYTES_MAX: u32 = 1_000_000;
/// The type of tmpfs, as `statfs` tells it.
const IN_MEMORY: rustix::fs::FsWord = 0x0102_1994;

/// Quorate and a peer in turn, on this machine, under the same load.
#[derive(Parser, Clone, Debug)]
pub struct CompareArgs {
    /// The peers. One that is not installed is skipped.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "all")]
    pub peer: Vec<Choice>,
    /// Runs of each side.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub rounds: u16,
    /// How long to measure in each run, such as 10s.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub duration: Duration,
    /// Time before that.
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub warmup: Duration,

    /// What is done.
    #[arg(long, value_enum, default_value = "put")]
    pub workload: Workload,
    /// Reads in percent, for --workload mix.
    #[arg(long, default_value_t = 50.0, value_parser = percent)]
    pub get_percent: f64,
    /// Operations per second, sent when they are due (open loop). Without it: as fast as the answers come (closed loop).
    #[arg(long, value_parser = positive)]
    pub rate: Option<f64>,
    /// How many keys there are; all are put first, unmeasured.
    #[arg(long, default_value_t = 200_000)]
    pub keys: u64,
    /// Bytes of a value, such as 1KiB, or a range: 100B-4KiB.
    #[arg(long, default_value = "1KiB", value_parser = value_bytes)]
    pub value_size: Range<u32>,
    /// Logical clients; each has one connection to each server that it needs.
    #[arg(long, default_value_t = 32)]
    pub connections: u64,
    /// Requests that one client has under way at once.
    #[arg(long, default_value_t = 1)]
    pub pipeline: usize,
    /// Threads of the generator.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// The seed of the first round; each has its own.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// How Quorate is spoken to: resp (KV.GET and KV.PUT) or native; by either, clients go to the core that owns the key.
    #[arg(long, value_enum, default_value = "native")]
    pub target: TargetKind,
    /// What Quorate has on disk before a put is answered.
    #[arg(long, value_enum, default_value = "durable")]
    pub durability: Durability,
    /// Cores of each of Quorate's nodes.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub cores: u16,

    /// Where it is measured, and what is shown.
    #[command(flatten)]
    pub common: OwnServersArgs,
}

impl CompareArgs {
    /// What is wrong with these options, if anything is.
    fn check(&self) -> Result<(), String> {
        let rules = [
            (self.workload == Workload::Load, "--workload load: all keys are put first in any case; measure put"),
            (self.value_size.end - 1 > VALUE_BYTES_MAX, "--value-size: not every peer takes more than 1000000B"),
            (self.duration.is_zero(), "--duration must be more than 0"),
            (
                !matches!(self.target, TargetKind::Native | TargetKind::Resp),
                "--target is for Quorate, which speaks native and resp",
            ),
        ];
        if let Some((_, text)) = rules.into_iter().find(|(broken, _)| *broken) {
            return Err(text.to_owned());
        }
        self.load(TargetKind::Resp).check()
    }

    /// The load on one side, without its addresses.
    fn load(&self, target: TargetKind) -> LoadArgs {
        LoadArgs {
            target,
            workload: self.workload,
            get_percent: self.get_percent,
            rate: self.rate,
            keys: self.keys,
            value_size: self.value_size.clone(),
            connections: self.connections,
            pipeline: self.pipeline,
            threads: self.threads,
            duration: Some(self.duration),
            warmup: Some(self.warmup),
            output: self.common.output,
            ..LoadArgs::parse_from(["bench"])
        }
    }

    /// Room for all values, in a peer that keeps them in memory alone, in MiB.
    fn memory_mib(&self) -> u64 {
        // What a key costs besides, and what pages of a size waste.
        let each = u64::from(self.value_size.end) + 200;
        (self.keys.saturating_mul(each) >> 19) + 128
    }
}

/// Compares with every peer that was asked for and is there.
///
/// # Errors
/// When none is, or ours cannot be run; servers that fail while they are measured are part of the result.
pub(crate) fn run(args: &CompareArgs, stop: &Arc<AtomicBool>) -> Result<Comparison, Error> {
    args.check().map_err(Error::Usage)?;
    let path = env::var_os("PATH").unwrap_or_default();
    let found = peer::chosen(&args.peer).into_iter().map(|peer| peer.find(&path));
    let (installed, missing): (Vec<_>, Vec<_>) = found.partition(Result::is_ok);
    let installed: Vec<Installed> = installed.into_iter().flatten().collect();
    let mut skipped: Vec<Skipped> = missing.into_iter().filter_map(Result::err).map(Missing::into_skipped).collect();
    if installed.is_empty() {
        let why = skipped.iter().map(|Skipped { peer, why, .. }| format!("\n  {peer}: {why}"));
        return Err(Error::Machine(format!("there is no peer to compare with:{}", why.collect::<String>())));
    }
    let comparing = Comparing { args, stop, place: place(args.common.dir.as_deref())? };
    let mut ours = Side::quorate(comparing.place.path(), own_address(1), (NODES, args.cores), args.target, None)?;
    comparing.load_keys(&mut ours)?;
    let (mut peers, mut setup, comparisons) = (Vec::new(), None, installed.len());
    for (number, installed) in installed.iter().enumerate() {
        let peer = installed.peer;
        match comparing.rounds(&mut ours, installed, comparisons - number) {
            Ok((rounds, of_ours)) => {
                peers.push(Compared::new(peer.name(), &installed.version, peer.promise(), rounds));
                setup = Some(of_ours);
            }
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            // The others may still be compared, unless it was ours that failed.
            Err(error) => {
                ours.check_running()?;
                ours.freeze();
                skipped.push(Skipped { peer: peer.name().to_owned(), why: error.to_string(), failed: true });
            }
        }
    }
    let Some(setup) = setup else {
        let why = skipped.into_iter().filter(|skipped| skipped.failed).map(|skipped| skipped.why);
        return Err(Error::Servers(why.collect::<Vec<_>>().join("; ")));
    };
    Ok(Comparison {
        ours: comparing.describe_ours(),
        setup,
        rounds: args.rounds,
        seconds: args.duration.as_secs_f64(),
        cpus: thread::available_parallelism().map_or(1, usize::from),
        peers,
        skipped,
    })
}

/// What all of a comparison share.
struct Comparing<'a> {
    args: &'a CompareArgs,
    stop: &'a Arc<AtomicBool>,
    place: TempDir,
}

impl Comparing<'_> {
    fn describe_ours(&self) -> String {
        let cores = self.args.cores;
        let durability = match self.args.durability {
            Durability::Durable => "on the disks of two before the answer",
            Durability::One => "on one disk and in two memories before the answer",
            Durability::Buffered => "in two memories before the answer",
        };
        let plural = if cores == 1 { "" } else { "s" };
        let version = env!("CARGO_PKG_VERSION");
        format!("Quorate {version}: three nodes of {cores} core{plural}, N=3 R=2 W=2, {durability}; gets ask two")
    }

    /// Both in turn, round by round. Also gives what was asked of ours. So many peers are `left`, this one included.
    fn rounds(&self, ours: &mut Side, installed: &Installed, left: usize) -> Result<(Vec<Round>, Setup), Error> {
        let memory_mib = self.args.memory_mib();
        let mut theirs = Side::peer(installed, self.place.path(), own_address(16), memory_mib)?;
        self.load_keys(&mut theirs)?;
        let mut rounds = Vec::new();
        let mut setup = None;
        for number in 1..=self.args.rounds {
            let all = self.args.rounds;
            let rounds_left = u32::from(all) * left as u32 - u32::from(number - 1);
            let time = HumanDuration((self.args.warmup + self.args.duration) * 2 * rounds_left);
            self.tell(&format!("{}: round {number} of {all}; at least {time:#} of load left", theirs.name));
            let report = self.turn(ours, number)?;
            rounds.push(Round { ours: Run::of(&report), theirs: Run::of(&self.turn(&mut theirs, number)?) });
            setup = Some(report.setup);
        }
        Ok((rounds, setup.expect("there is a round")))
    }

    /// One run, while the other side is frozen.
    fn turn(&self, side: &mut Side, round: u16) -> Result<Report, Error> {
        side.thaw();
        wait_until_ready(side, &self.load(side), self.stop)?;
        let load = LoadArgs { seed: self.args.seed + u64::from(round), ..self.load(side) };
        let report = run::run(&load, self.stop)?;
        self.rest(side)?;
        Ok(report)
    }

    /// Puts every key once on a side that has just started.
    fn load_keys(&self, side: &mut Side) -> Result<(), Error> {
        self.tell(&format!("{}: starts, and gets {} keys", side.name, self.args.keys));
        put_all_keys(side, &self.load(side), self.stop)?;
        self.rest(side)
    }

    /// Freezes a side whose turn is over.
    fn rest(&self, side: &mut Side) -> Result<(), Error> {
        side.check_running()?;
        side.freeze();
        // What it left for the disk must not be written in the other's time.
        let synced = fs::File::open(self.place.path()).and_then(|place| Ok(rustix::fs::syncfs(&place)?));
        synced.map_err(|error| Error::Machine(format!("cannot sync {}: {error}", self.place.path().display())))
    }

    /// The load on a side that runs.
    fn load(&self, side: &Side) -> LoadArgs {
        let mut load = self.args.load(side.speaks);
        load.servers.clone_from(&side.addresses);
        load.server_pids = side.servers().into_iter().map(|pid| pid.as_raw_nonzero().get().cast_unsigned()).collect();
        if side.is_ours() {
            load.durability = Some(self.args.durability);
            load.cluster = side.speaks == TargetKind::Resp;
        }
        load
    }

    fn tell(&self, text: &str) {
        if !self.args.common.output.is_quiet() {
            eprintln!("{text}");
        }
    }
}

/// Loopback addresses of this process's own: 127.128.0.0 to 127.191.255.255, by its id.
pub(crate) fn own_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::from(0x7f80_0000 | (std::process::id() & 0x3fff) << 8 | u32::from(number))
}

/// Waits until a side serves, and puts every key of the load once.
pub(crate) fn put_all_keys(side: &mut Side, load: &LoadArgs, stop: &Arc<AtomicBool>) -> Result<(), Error> {
    wait_until_ready(side, load, stop)?;
    let (keys, pipeline) = (load.keys, load.pipeline.max(LOAD_DEPTH));
    let load = LoadArgs { workload: Workload::Load, rate: None, duration: None, warmup: None, ..load.clone() };
    let report = run::run(&LoadArgs { pipeline, ..load }, stop)?;
    if report.operations < keys {
        let why: Vec<&str> = report.errors.values().map(|error| error.sample.as_str()).collect();
        let Report { operations, .. } = report;
        return Err(Error::Servers(format!("{} took {operations} of {keys} keys: {}", side.name, why.join("; "))));
    }
    Ok(())
}

/// Waits until each of a side's servers gives an answer to what is like the load.
pub(crate) fn wait_until_ready(side: &mut Side, load: &LoadArgs, stop: &Arc<AtomicBool>) -> Result<(), Error> {
    let deadline = Instant::now() + START_MAX;
    let mut last = String::new();
    while Instant::now() < deadline {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        side.check_running()?;
        if side.is_whole() {
            let each = side.addresses.len() as u64;
            let once = LoadArgs { operations: Some(each), connections: each, duration: None, ..load.clone() };
            let once = LoadArgs { workload: Workload::Get, warmup: Some(Duration::ZERO), rate: None, ..once };
            let once = LoadArgs { threads: 1, output: OutputArgs::QUIET, server_pids: Vec::new(), ..once };
            match run::run(&once, stop) {
                Ok(report) if report.errors.is_empty() && report.operations == each => return Ok(()),
                Ok(report) => {
                    last = report.errors.into_values().map(|error| error.sample).next().unwrap_or_default();
                }
                Err(Error::Servers(text)) => last = text,
                Err(error) => return Err(error),
            }
        }
        thread::sleep(TICK);
    }
    Err(Error::Servers(format!("{} does not serve after {} s: {last}", side.name, START_MAX.as_secs())))
}

/// A directory for everything, removed at the end. On a real disk: what is durable in memory costs nothing.
pub(crate) fn place(dir: Option<&Path>) -> Result<TempDir, Error> {
    let parent = match (dir, env::var_os("TMPDIR")) {
        (Some(dir), _) => dir.to_owned(),
        (None, Some(dir)) => PathBuf::from(dir),
        (None, None) => PathBuf::from("/var/tmp"),
    };
    let shown = parent.display();
    let made = fs::create_dir_all(&parent).and_then(|()| fs::canonicalize(&parent));
    let parent = made.map_err(|error| Error::Machine(format!("cannot make {shown}: {error}")))?;
    let cannot = |error: std::io::Error| Error::Machine(format!("cannot use {shown}: {error}; give a --dir"));
    if rustix::fs::statfs(&parent).map_err(|error| cannot(error.into()))?.f_type == IN_MEMORY {
        return Err(Error::Usage(format!("{shown} lies in memory: give a directory on a disk by --dir")));
    }
    tempfile::Builder::new().prefix("quorate-bench-").tempdir_in(&parent).map_err(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(line: &str) -> CompareArgs {
        CompareArgs::try_parse_from(line.split_whitespace()).unwrap()
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        for (line, expected) in [
            ("compare --workload load", "measure put"),
            ("compare --value-size 1MiB", "--value-size"),
            ("compare --duration 0s", "--duration"),
            ("compare --target memcached", "--target"),
            ("compare --keys 0", "--keys"),
            ("compare --threads 33", "--threads"),
        ] {
            let Err(Error::Usage(text)) = run(&compare(line), &Arc::default()) else { panic!("{line} is refused") };
            assert!(text.contains(expected), "{line}: {text}");
        }
        for line in ["compare --peer postgres", "compare --rounds 0", "compare --rate 0", "compare --duration 5"] {
            assert!(CompareArgs::try_parse_from(line.split_whitespace()).is_err(), "{line}");
        }
        assert_eq!(compare("compare --peer redis-always,etcd").check(), Ok(()));
        assert_eq!(compare("compare --peer redis-always,etcd").peer, [Choice::RedisAlways, Choice::Etcd]);
    }

    #[test]
    fn both_sides_get_the_same_load() {
        let args =
            compare("compare --workload mix --get-percent 90 --rate 500 --keys 7 --value-size 10-20 --connections 3");
        let load = args.load(TargetKind::Etcd);
        assert_eq!((load.workload, load.get_percent, load.rate), (Workload::Mix, 90.0, Some(500.0)));
        assert_eq!((load.keys, load.value_size.clone(), load.connections), (7, 10..21, 3));
        assert_eq!((load.measured_duration(), load.warmup_duration()), (Some(args.duration), args.warmup));
        assert_eq!(load.check(), Ok(()));
    }

    #[test]
    fn there_is_room_for_all_values() {
        assert!(compare("compare --keys 1000000 --value-size 1KiB").memory_mib() > 1500);
        assert!(compare("compare --keys 1").memory_mib() >= 64);
    }

    #[test]
    fn what_lies_in_memory_is_no_place() {
        let shm = Path::new("/dev/shm");
        // Where it is no file system of its own it is no example.
        if rustix::fs::statfs(shm).is_ok_and(|found| found.f_type == IN_MEMORY) {
            assert!(matches!(place(Some(shm)), Err(Error::Usage(text)) if text.contains("--dir")));
        }
    }
}
