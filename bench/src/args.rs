//! What can be asked of the load generator, and the checks that it makes sense.
//!
//! The rule: what cannot be done is refused before anything is sent.
//!
//! Not here: what the options do.

use std::{ops::Range, path::PathBuf, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};

use crate::{
    compare::{BoundArgs, CompareArgs},
    disk::DiskArgs,
    ledger,
    outage::OutageArgs,
    paper::PaperArgs,
    popularity::Shape,
    protocol::{Commands, Durability, Native, RequestOptions},
    value::STAMP_BYTES,
    worker::Target,
    workload::Workload,
};

/// What the options of load are told under.
const SERVERS: &str = "Servers";
const WORKLOAD: &str = "Workload";
const PACE: &str = "Pace";
const REQUESTS: &str = "Requests";
const VERIFICATION: &str = "Verification";
const ON_THIS_MACHINE: &str = "Servers on this machine";
const OUTPUT: &str = "Output";

/// Put load on Quorate, or on anything that speaks RESP, and measure it
///
/// Without a command: load on servers, by a YCSB workload, in a closed or an open loop.
#[derive(Parser, Clone, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  quorate bench --prepare                                        # puts all keys, then runs YCSB A for ten seconds
  quorate bench --target native --workload put --duration 20s    # durable puts, each sent to the core that owns the key
  quorate bench --workload b --rate 2000                         # open loop: 2,000 a second, whatever the servers do
  quorate bench --target native --workload put --verify          # fails if an acknowledged write is lost
  quorate bench --servers 127.0.0.1:6379 --workload get --json   # another store that speaks RESP; the report as JSON"
)]
pub struct Args {
    /// Another measurement than load on servers
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Load on servers
    #[command(flatten)]
    pub load: LoadArgs,
}

/// Another measurement than load on servers.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Measure the disk alone: small durable writes and random reads, one at a time
    #[command(after_help = "\
Examples:
  quorate bench disk                                 # the disk that this directory is on
  quorate bench disk /var/lib/quorate --duration 5s  # another one, for longer")]
    Disk(DiskArgs),
    /// Measure the machine's lower bounds by the bare io_uring: a commit, a 4 KiB read, a round trip over loopback
    #[command(after_help = "\
Examples:
  quorate bench floor                          # the disk that this directory is on
  quorate bench floor /var/lib/quorate --json  # another one, for a program")]
    Floor(DiskArgs),
    /// Run Quorate and other stores in turn under the same load, and tell the ratios
    #[command(after_help = "\
Examples:
  quorate bench compare                                        # durable puts, beside every peer that is installed
  quorate bench compare --peer redis-always,etcd --rounds 5    # these two, with more rounds
  quorate bench compare --workload mix --rate 2000             # half gets, half puts, at a fixed rate")]
    Compare(Box<CompareArgs>),
    /// Have one of three nodes go away under load and come back, and draw what clients felt of it
    #[command(after_help = "\
Examples:
  quorate bench outage                                            # a node is killed, and started again after 20 seconds
  quorate bench outage --how freeze --away 5s --out freeze.svg    # it stands still for five
  quorate bench outage --rate 5000 --json                         # under more load, for a program")]
    Outage(OutageArgs),
    /// Set the figures of the Dynamo paper beside ours, as tables and as pictures
    #[command(after_help = "\
Examples:
  quorate bench paper --out paper         # all of them; the pictures go to that directory
  quorate bench paper fig8 table2         # two of them
  quorate bench paper --quick --json      # whether it works at all, for a program")]
    Paper(PaperArgs),
    /// Become another program, which ends with its parent
    #[command(hide = true)]
    Bound(BoundArgs),
}

impl Args {
    /// Whether the result is to be printed as JSON.
    #[must_use]
    pub fn json(&self) -> bool {
        match &self.command {
            Some(Command::Disk(args) | Command::Floor(args)) => args.output.json,
            Some(Command::Compare(args)) => args.common.output.json,
            Some(Command::Outage(args)) => args.common.output.json,
            Some(Command::Paper(args)) => args.common.output.json,
            Some(Command::Bound(_)) => false,
            None => self.load.output.json,
        }
    }
}

/// What is shown of a measurement.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct OutputArgs {
    /// Print JSON
    #[arg(long, help_heading = OUTPUT)]
    pub json: bool,
    /// Show no progress
    #[arg(long, help_heading = OUTPUT)]
    pub quiet: bool,
}

impl OutputArgs {
    /// Of a measurement that is part of another one.
    pub const QUIET: Self = Self { json: false, quiet: true };

    /// Whether nothing but the result is to be told.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet || self.json
    }
}

/// What a measurement takes that starts servers of its own.
#[derive(clap::Args, Clone, Debug)]
pub struct OwnServersArgs {
    /// A directory on the disk to be measured; what is made in it is removed again. [default: the system's for large
    /// temporary files]
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// What is shown.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// How the servers are spoken to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum TargetKind {
    /// Redis's protocol: Quorate, redis-server and others.
    Resp,
    /// Quorate's own; clients go to the core that owns the key.
    Native,
    /// memcached's text protocol.
    Memcached,
    /// etcd's, by gRPC: linearizable gets, and puts.
    Etcd,
}

impl TargetKind {
    /// Whether only servers that are not Quorate speak it.
    fn is_foreign(self) -> bool {
        matches!(self, Self::Memcached | Self::Etcd)
    }
}

/// Load on servers.
#[derive(Parser, Clone, Debug)]
pub struct LoadArgs {
    /// The protocol.
    #[arg(long, help_heading = SERVERS, value_enum, default_value = "resp")]
    pub target: TargetKind,
    /// The servers, each as HOST:PORT; clients are spread over them and fail over to the others.
    #[arg(
        long,
        visible_alias = "node",
        help_heading = SERVERS,
        value_name = "ADDRESS",
        value_delimiter = ',',
        default_value = "127.0.0.1:7400"
    )]
    pub servers: Vec<String>,
    /// Ask CLUSTER SLOTS who owns which key, and go to the owners.
    #[arg(long, help_heading = SERVERS)]
    pub cluster: bool,
    /// KV.GET and KV.PUT instead of GET and SET; implied by --r, --w, --durability, --strict and --sloppy.
    #[arg(long, help_heading = SERVERS)]
    pub kv: bool,

    /// What is done.
    #[arg(long, help_heading = WORKLOAD, value_enum, default_value = "a")]
    pub workload: Workload,
    /// Reads in percent, for --workload mix.
    #[arg(long, help_heading = WORKLOAD, default_value_t = 50.0, value_parser = percent)]
    pub get_percent: f64,
    /// Insert all keys first, unmeasured.
    #[arg(long, help_heading = WORKLOAD)]
    pub prepare: bool,
    /// How many keys there are.
    #[arg(long, help_heading = WORKLOAD, default_value_t = 200_000)]
    pub keys: u64,
    /// What the keys begin with; a number of 12 digits follows.
    #[arg(long, help_heading = WORKLOAD, default_value = "key:")]
    pub key_prefix: String,
    /// Bytes of a value, such as 1KiB, or a range: 100B-4KiB.
    #[arg(long, help_heading = WORKLOAD, default_value = "1KiB", value_parser = value_bytes)]
    pub value_size: Range<u32>,
    /// Which keys are popular; each workload has its own default.
    #[arg(long, help_heading = WORKLOAD, value_enum)]
    pub distribution: Option<Shape>,
    /// The exponent of zipfian and latest, below 1.
    #[arg(long, help_heading = WORKLOAD, default_value_t = 0.99)]
    pub theta: f64,
    /// The share of the keys that is hot, for hotspot.
    #[arg(long, help_heading = WORKLOAD, default_value_t = 0.2)]
    pub hot_keys: f64,
    /// The share of the requests that hot keys get.
    #[arg(long, help_heading = WORKLOAD, default_value_t = 0.8)]
    pub hot_requests: f64,
    /// The seed of all keys, operations and values.
    #[arg(long, help_heading = WORKLOAD, default_value_t = 1)]
    pub seed: u64,

    /// Operations per second, sent when they are due whatever the servers do (open loop). Without it every client sends
    /// its next operation when the last was answered (closed loop).
    #[arg(long, help_heading = PACE, value_parser = positive)]
    pub rate: Option<f64>,
    /// Logical clients; each has one connection to each server that it needs.
    #[arg(long, help_heading = PACE, default_value_t = 32)]
    pub connections: u64,
    /// Requests that one client has under way at once.
    #[arg(long, help_heading = PACE, default_value_t = 1)]
    pub pipeline: usize,
    /// Threads of the generator.
    #[arg(long, help_heading = PACE, default_value_t = 1)]
    pub threads: usize,
    /// Cores that the generator's threads are bound to, in turn.
    #[arg(long, help_heading = PACE, value_delimiter = ',')]
    pub pin: Vec<usize>,
    /// How long to measure, such as 10s. [default: 10s, or until --operations are done]
    #[arg(long, help_heading = PACE, value_parser = duration)]
    pub duration: Option<Duration>,
    /// How many operations to measure.
    #[arg(long, help_heading = PACE)]
    pub operations: Option<u64>,
    /// Time before the measurement. [default: 1s, none for load]
    #[arg(long, help_heading = PACE, value_parser = duration)]
    pub warmup: Option<Duration>,

    /// R of each get. [default: the cluster's]
    #[arg(long, help_heading = REQUESTS)]
    pub r: Option<u8>,
    /// W of each put. [default: the cluster's]
    #[arg(long, help_heading = REQUESTS)]
    pub w: Option<u8>,
    /// What is on disk before a put is answered. [default: the cluster's]
    #[arg(long, help_heading = REQUESTS, value_enum)]
    pub durability: Option<Durability>,
    /// Only primaries count for the quorums.
    #[arg(long, help_heading = REQUESTS, conflicts_with = "sloppy")]
    pub strict: bool,
    /// Fallbacks count for the quorums.
    #[arg(long, help_heading = REQUESTS)]
    pub sloppy: bool,
    /// How long to wait for an answer: seconds, or with a unit, such as 500ms.
    #[arg(long, help_heading = REQUESTS, value_name = "TIME", default_value = "2s", value_parser = patience)]
    pub timeout: Duration,

    /// Check every read, and all keys at the end: no acknowledged write may be lost. Each key then has one client that
    /// writes it, so writes to a hot key go to its neighbours instead.
    #[arg(long, help_heading = VERIFICATION)]
    pub verify: bool,
    /// With --verify: reads may be stale while servers fail; at the end nothing may be missing.
    #[arg(long, help_heading = VERIFICATION, requires = "verify")]
    pub allow_stale: bool,
    /// With --verify: how long the servers may take at the end until every key can be read.
    #[arg(long, help_heading = VERIFICATION, default_value = "30s", value_parser = duration)]
    pub verify_wait: Duration,

    /// Servers on this machine whose CPU time, writes and memory are measured.
    #[arg(long, help_heading = ON_THIS_MACHINE, value_delimiter = ',', conflicts_with = "dir")]
    pub server_pids: Vec<u32>,
    /// The same for a local cluster, by its DIR/node-*/pid.
    #[arg(long, help_heading = ON_THIS_MACHINE)]
    pub dir: Option<PathBuf>,

    /// What is shown.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Write the report to this file too, as JSON.
    #[arg(long, help_heading = OUTPUT, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Write the histograms to this file: a percentile table if its name ends in .hgrm, else an HdrHistogram log.
    #[arg(long, help_heading = OUTPUT)]
    pub hdr: Option<PathBuf>,
}

impl LoadArgs {
    /// What is wrong with these options, if anything is.
    pub(crate) fn check(&self) -> Result<(), String> {
        let native = self.target == TargetKind::Native;
        let foreign = self.target.is_foreign();
        let rules: [(bool, &str); 15] = [
            (self.keys == 0, "--keys must be at least 1"),
            (self.connections == 0 || self.connections > 100_000, "--connections must be 1 to 100000"),
            (self.pipeline == 0 || self.pipeline > 4096, "--pipeline must be 1 to 4096"),
            (self.threads == 0 || self.threads as u64 > self.connections, "--threads must be 1 to --connections"),
            (!(0.0..1.0).contains(&self.theta), "--theta must be at least 0 and below 1"),
            (!(0.0..=1.0).contains(&self.hot_keys), "--hot-keys is a share, 0 to 1"),
            (!(0.0..=1.0).contains(&self.hot_requests), "--hot-requests is a share, 0 to 1"),
            (self.r == Some(0) || self.w == Some(0), "--r and --w must be at least 1"),
            (native && self.cluster, "--target native always goes to the owners: --cluster is for resp"),
            (foreign && self.cluster, "--cluster is for --target resp"),
            (foreign && self.is_versioned(), "--target memcached and etcd have neither quorums nor contexts"),
            (
                self.target == TargetKind::Memcached
                    && (self.key_prefix.len() > 200 || self.key_prefix.contains(|c: char| c <= ' ' || c == '\x7f')),
                "memcached's keys are short and without blanks: --key-prefix must be at most 200 bytes",
            ),
            (self.key_prefix.len() > 1024, "--key-prefix must be at most 1024 bytes"),
            (
                self.verify && (self.value_size.start as usize) < STAMP_BYTES,
                "--verify stamps the values: --value-size must be at least 36B",
            ),
            (
                self.verify && self.keys > ledger::KEYS_MAX / 2,
                "--verify remembers every key: --keys must be at most 2147483648",
            ),
        ];
        debug_assert_eq!(STAMP_BYTES, 36, "the message names it");
        if let Some((_, text)) = rules.into_iter().find(|(broken, _)| *broken) {
            return Err(text.to_owned());
        }
        Ok(())
    }

    /// Whether requests carry contexts and quorums.
    pub(crate) fn is_versioned(&self) -> bool {
        let options = self.r.is_some() || self.w.is_some() || self.durability.is_some();
        self.target == TargetKind::Native || self.kv || options || self.strict || self.sloppy
    }

    pub(crate) fn options(&self) -> RequestOptions {
        RequestOptions {
            read_quorum: self.r,
            write_quorum: self.w,
            durability: self.durability,
            strict: (self.strict || self.sloppy).then_some(self.strict),
            timeout: self.timeout,
        }
    }

    pub(crate) fn target(&self) -> Target {
        match self.target {
            TargetKind::Native => Target::Native(Native::new(&self.options())),
            TargetKind::Memcached => Target::Memcached,
            TargetKind::Etcd => Target::Etcd,
            TargetKind::Resp if self.is_versioned() => Target::Resp(Commands::versioned(&self.options())),
            TargetKind::Resp => Target::Resp(Commands::Plain),
        }
    }

    /// How long to measure; `None`: until the operations or the keys are done.
    pub(crate) fn measured_duration(&self) -> Option<Duration> {
        let bounded = self.operations.is_some() || self.workload == Workload::Load;
        self.duration.or_else(|| (!bounded).then_some(Duration::from_secs(10)))
    }

    pub(crate) fn warmup_duration(&self) -> Duration {
        self.warmup.unwrap_or(Duration::from_secs(u64::from(self.workload != Workload::Load)))
    }
}

/// A time with its unit: 500us, 5ms, 2s, 1m.
///
/// # Errors
/// When the unit is missing or unknown.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text)?;
    let seconds = match unit {
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("'{text}' needs a unit: us, ms, s, m or h")),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| format!("'{text}' is no time"))
}

/// How long to wait for an answer, more than nothing and an hour at most: a bare number is seconds.
///
/// # Errors
/// When it is neither that nor a time with its unit.
pub fn patience(text: &str) -> Result<Duration, String> {
    let bare = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let time = bare.map_or_else(|| duration(text), Ok)?;
    if time.is_zero() || time > Duration::from_secs(3600) {
        return Err("must be more than 0, an hour at most".to_owned());
    }
    Ok(time)
}

/// Bytes with their unit: 100B, 1KiB, 4MiB; a bare number is bytes.
///
/// # Errors
/// When the unit is unknown, or beyond 1 GiB.
pub(crate) fn bytes(text: &str) -> Result<u32, String> {
    let (number, unit) = split_unit(text)?;
    let factor = match unit {
        "" | "B" => 1.0,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        _ => return Err(format!("'{text}' has an unknown unit: B, KiB and MiB are known")),
    };
    let bytes = number * factor;
    if (0.0..=1e9).contains(&bytes) { Ok(bytes as u32) } else { Err(format!("'{text}' is too much")) }
}

pub(crate) fn value_bytes(text: &str) -> Result<Range<u32>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (bytes(first)?, bytes(last)?);
    if first > last {
        return Err(format!("'{text}' ends before it begins"));
    }
    Ok(first..last + 1)
}

fn split_unit(text: &str) -> Result<(f64, &str), String> {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = text[..at].parse().map_err(|_| format!("'{text}' does not start with a number"))?;
    Ok((number, &text[at..]))
}

pub(crate) fn percent(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("'{text}' is no number"))?;
    if (0.0..=100.0).contains(&number) { Ok(number) } else { Err("a percentage is 0 to 100".to_owned()) }
}

pub(crate) fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("'{text}' is no number"))?;
    if number > 0.0 && number <= 1e8 { Ok(number) } else { Err("a rate is above 0, at most 100000000".to_owned()) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn load(line: &str) -> LoadArgs {
        Args::try_parse_from(line.split_whitespace()).unwrap().load
    }

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn units() {
        assert_eq!(duration("500us"), Ok(Duration::from_micros(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!([patience("5"), patience("500ms")], [5000, 500].map(|ms| Ok(Duration::from_millis(ms))));
        assert!(patience("0").is_err() && patience("2h").is_err() && patience("-1").is_err());
        assert!(duration("5").is_err() && duration("s").is_err() && duration("5 parsecs").is_err());
        assert_eq!(value_bytes("1KiB"), Ok(1024..1025));
        assert_eq!(value_bytes("100-1KiB"), Ok(100..1025));
        assert!(value_bytes("2KiB-1KiB").is_err() && value_bytes("1KB").is_err() && value_bytes("9999MiB").is_err());
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for (line, expected) in [
            ("bench --keys 0", "--keys"),
            ("bench --threads 33", "--threads"),
            ("bench --theta 1", "--theta"),
            ("bench --verify --value-size 20B", "--value-size"),
            ("bench --r 0", "--r"),
            ("bench --target memcached --w 2", "quorums"),
            ("bench --target etcd --cluster", "--cluster"),
            ("bench --target memcached --key-prefix a\u{7f}b", "--key-prefix"),
        ] {
            assert!(load(line).check().unwrap_err().contains(expected), "{line}");
        }
        assert_eq!(load("bench").check(), Ok(()));
        assert!(Args::try_parse_from(["bench", "--strict", "--sloppy"]).is_err());
    }

    #[test]
    fn options_of_requests_imply_versioned_commands() {
        assert_eq!(load("bench").target(), Target::Resp(Commands::Plain));
        assert_ne!(load("bench --w 2").target(), Target::Resp(Commands::Plain));
        assert_eq!(load("bench --operations 5").measured_duration(), None);
        assert_eq!(load("bench").measured_duration(), Some(Duration::from_secs(10)));
    }
}
