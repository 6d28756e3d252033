//! A node's figures for Prometheus: counters and gauges of each core, latency histograms of the node.
//!
//! The rule: base units, seconds and bytes; a counter ends in `_total`; every metric says what it is. The only labels are the
//! core, the kind of request, of failure and of work, and the other nodes: so the number of series follows from the cluster,
//! whatever the data is like. All names begin with `quorate_`, but for the three `process_…` that every exporter has.
//!
//! Pure. Not here: where the figures come from (`runtime/view`), who serves the text.

mod catalogue;

use std::{
    collections::BTreeMap,
    fmt::{Display, Write},
    time::Duration,
};

use quorate_net::{id::NodeId, message::Failure};

use crate::{
    admission::Work,
    recorder::{BOUNDS_US, Kind, Recorder},
};

/// What one core tells about itself.
#[derive(Clone, Debug, Default)]
pub struct CoreFigures {
    /// Its figures by name, as `INFO` lists them.
    pub figures: Vec<(&'static str, u64)>,
    /// How long its requests took, by kind.
    pub requests: Vec<Requests>,
    /// How many times as long background work rests as by itself, by kind.
    pub stretches: Vec<(Work, u32)>,
    /// Replies that said that something failed, by [`Failure::KINDS`].
    pub failures: [u64; Failure::KINDS.len()],
    /// How it sees the other nodes.
    pub peers: Vec<PeerFigures>,
}

/// How one core sees another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerFigures {
    /// Which.
    pub node: NodeId,
    /// Requests go to all of its cores.
    pub up: bool,
    /// Hints that it holds for partitions of which that node lacks some; the node may have others of them.
    pub hints: u64,
}

/// What the node tells about itself as a whole.
#[derive(Clone, Debug, Default)]
pub struct NodeFigures {
    /// Its partitions have their quorums, and its copies lack nothing.
    pub ready: bool,
    /// Its wall clock, since 1970.
    pub clock: Duration,
    /// When it started, since 1970.
    pub started: Duration,
    /// CPU time that it took.
    pub cpu: Duration,
    /// Its resident memory.
    pub memory_bytes: u64,
    /// Of a thousand requests one may take longer.
    pub service_level: Duration,
    /// The file system of each core's store, as far as it was looked at.
    pub disks: Vec<DiskSpace>,
}

/// A file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSpace {
    /// All of it.
    pub bytes: u64,
    /// What may still be written.
    pub free_bytes: u64,
}

/// How long the requests of one kind took since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requests {
    /// Which.
    pub kind: Kind,
    /// How many took at most as long as each of [`BOUNDS_US`], and how many there were.
    pub at_most: Vec<u64>,
    /// How long all of them took together.
    pub sum: Duration,
    /// How many took longer than the service level says.
    pub slow: u64,
}

impl Requests {
    /// Of all kinds.
    #[must_use]
    pub fn of(recorder: &Recorder) -> Vec<Self> {
        let requests = |kind| {
            let latencies = recorder.latencies(kind);
            Self { kind, at_most: latencies.at_most().collect(), sum: latencies.sum(), slow: latencies.slow() }
        };
        Kind::ALL.map(requests).to_vec()
    }
}

/// The text of a node and of its cores, of which each may not have told anything yet.
#[must_use]
pub fn text(node: &NodeFigures, cores: &[Option<CoreFigures>]) -> String {
    let mut text = Text::default();
    let told: Vec<(usize, &CoreFigures)> =
        cores.iter().enumerate().filter_map(|(core, told)| Some((core, told.as_ref()?))).collect();
    whole(&mut text, node);
    figures(&mut text, &told);
    failures(&mut text, &told);
    peers(&mut text, &told);
    text.gauge("quorate_background_stretch", "How many times as long background work rests as by itself, by its kind.");
    for (core, told) in &told {
        for (work, stretch) in &told.stretches {
            text.line(format_args!("{{core=\"{core}\",work=\"{}\"}}", work.name()), f64::from(*stretch));
        }
    }
    latencies(&mut text, &told.iter().flat_map(|(_, told)| &told.requests).collect::<Vec<_>>());
    text.text
}

fn whole(text: &mut Text, node: &NodeFigures) {
    for (name, help, value) in [
        (
            "quorate_ready",
            "1 when the node's partitions have their quorums and its copies lack nothing.",
            u8::from(node.ready).into(),
        ),
        ("quorate_clock_seconds", "The node's wall clock, in seconds since 1970.", node.clock.as_secs_f64()),
        (
            "quorate_service_level_seconds",
            "Of a thousand requests one may take longer.",
            node.service_level.as_secs_f64(),
        ),
        ("process_start_time_seconds", "When the process started, in seconds since 1970.", node.started.as_secs_f64()),
        ("process_resident_memory_bytes", "Resident memory of the process.", node.memory_bytes as f64),
    ] {
        text.gauge(name, help);
        text.line("", value);
    }
    text.counter("process_cpu_seconds_total", "CPU time that the process took.");
    text.line("", node.cpu.as_secs_f64());
    text.gauge("quorate_build_info", "1, with the version of the program.");
    text.line(format_args!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1.0);
    let disk = |text: &mut Text, name, help, bytes: fn(&DiskSpace) -> u64| {
        text.gauge(name, help);
        for (core, disk) in node.disks.iter().enumerate() {
            text.line(format_args!("{{core=\"{core}\"}}"), bytes(disk) as f64);
        }
    };
    disk(text, "quorate_disk_bytes", "Size of the file system that a core's store is in.", |disk| disk.bytes);
    disk(text, "quorate_disk_free_bytes", "What of it may still be written.", |disk| disk.free_bytes);
}

/// Each core's own.
fn figures(text: &mut Text, told: &[(usize, &CoreFigures)]) {
    let mut figures: BTreeMap<&str, Vec<(usize, u64)>> = BTreeMap::new();
    for (core, told) in told {
        for &(name, value) in &told.figures {
            figures.entry(name).or_default().push((*core, value));
        }
    }
    // Failures are told by their kinds.
    for (name, values) in figures.into_iter().filter(|(name, _)| *name != "failures") {
        let Some(figure) = catalogue::find(name) else { continue };
        let (stem, unit) = match name.strip_suffix("_us") {
            Some(stem) => (stem.strip_suffix("_total").unwrap_or(stem).to_owned() + "_seconds", 1e-6),
            None => (name.strip_suffix("_now").unwrap_or(name).to_owned(), 1.0),
        };
        match figure.rises {
            true => text.counter(&format!("quorate_{stem}_total"), figure.help),
            false => text.gauge(&format!("quorate_{stem}"), figure.help),
        }
        for (core, value) in values {
            text.line(format_args!("{{core=\"{core}\"}}"), value as f64 * unit);
        }
    }
}

fn failures(text: &mut Text, told: &[(usize, &CoreFigures)]) {
    text.counter("quorate_failures_total", "Replies that said that something failed, by its kind.");
    for (core, told) in told {
        for (kind, count) in Failure::KINDS.iter().zip(told.failures) {
            text.line(format_args!("{{core=\"{core}\",kind=\"{kind}\"}}"), count as f64);
        }
    }
}

/// The other nodes, as all cores together see them.
fn peers(text: &mut Text, told: &[(usize, &CoreFigures)]) {
    let mut peers: BTreeMap<u16, PeerFigures> = BTreeMap::new();
    for seen in told.iter().flat_map(|(_, told)| &told.peers) {
        let peer = peers.entry(seen.node.0).or_insert(PeerFigures { node: seen.node, up: true, hints: 0 });
        peer.up &= seen.up;
        peer.hints += seen.hints;
    }
    text.gauge("quorate_peer_up", "1 when every core of this node sends requests to every core of the other node.");
    peers.iter().for_each(|(peer, seen)| text.line(format_args!("{{peer=\"{peer}\"}}"), u8::from(seen.up).into()));
    text.gauge("quorate_peer_hints", "Hints held here in partitions of which the other node has not got all.");
    peers.iter().for_each(|(peer, seen)| text.line(format_args!("{{peer=\"{peer}\"}}"), seen.hints as f64));
}

/// The histograms of the whole node: what a percentile is taken of must be added up first.
fn latencies(text: &mut Text, requests: &[&Requests]) {
    text.head("quorate_request_duration_seconds", "histogram", "How long requests took, by their kind.");
    for kind in Kind::ALL {
        let of_kind = || requests.iter().filter(|requests| requests.kind == kind);
        let at_most = |bound: usize| of_kind().filter_map(|requests| requests.at_most.get(bound)).sum::<u64>();
        let request = kind.name();
        for (bound, us) in BOUNDS_US.iter().enumerate() {
            let le = *us as f64 / 1e6;
            text.line(format_args!("_bucket{{request=\"{request}\",le=\"{le}\"}}"), at_most(bound) as f64);
        }
        let all = at_most(BOUNDS_US.len()) as f64;
        text.line(format_args!("_bucket{{request=\"{request}\",le=\"+Inf\"}}"), all);
        let sum: Duration = of_kind().map(|requests| requests.sum).sum();
        text.line(format_args!("_sum{{request=\"{request}\"}}"), sum.as_secs_f64());
        text.line(format_args!("_count{{request=\"{request}\"}}"), all);
    }
    text.counter(
        "quorate_requests_slow_total",
        "Requests that took longer than the service level says, by their kind.",
    );
    for kind in Kind::ALL {
        let slow: u64 = requests.iter().filter(|requests| requests.kind == kind).map(|requests| requests.slow).sum();
        text.line(format_args!("{{request=\"{}\"}}", kind.name()), slow as f64);
    }
}

/// What is written, and the metric that it is at.
#[derive(Default)]
struct Text {
    text: String,
    name: String,
}

impl Text {
    fn counter(&mut self, name: &str, help: &str) {
        self.head(name, "counter", help);
    }

    fn gauge(&mut self, name: &str, help: &str) {
        self.head(name, "gauge", help);
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        name.clone_into(&mut self.name);
        writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("memory takes all");
    }

    /// A series of the metric; `labels` come with their braces.
    fn line(&mut self, labels: impl Display, value: f64) {
        writeln!(self.text, "{}{labels} {value}", self.name).expect("memory takes all");
    }
}

#[cfg(test)]
mod tests {
    use quorate_engine::Chore;

    use super::*;
    use crate::{
        clock::Instant,
        recorder::{Stage, Trace},
    };

    fn core(gets: u64) -> CoreFigures {
        let mut recorder = Recorder::new(Instant(0), Duration::from_millis(1));
        for get in 0..gets {
            let mut trace = Trace::new(Instant(0));
            let ended = Instant(0) + Duration::from_micros(30 + get * 1_000_000);
            trace.mark(ended, Stage::Read);
            recorder.record(ended, Kind::Get, &trace, None, false);
        }
        CoreFigures {
            figures: vec![
                ("gets", gets),
                ("hints_held", 3),
                ("stalls_total_us", 1_500_000),
                ("tombstones_oldest_seconds_now", 9),
            ],
            requests: Requests::of(&recorder),
            stretches: vec![(Work::Store(Chore::Scrub), 8)],
            failures: std::array::from_fn(|kind| kind as u64),
            peers: vec![
                PeerFigures { node: NodeId(2), up: true, hints: 0 },
                PeerFigures { node: NodeId(3), up: gets > 1, hints: gets },
            ],
        }
    }

    #[test]
    fn names_units_and_sums_are_as_prometheus_wants_them() {
        let node = NodeFigures {
            memory_bytes: 4096,
            disks: vec![DiskSpace { bytes: 100, free_bytes: 7 }],
            ..NodeFigures::default()
        };
        let text = text(&node, &[Some(core(1)), None, Some(core(2))]);
        for wanted in [
            "# TYPE quorate_gets_total counter\nquorate_gets_total{core=\"0\"} 1\nquorate_gets_total{core=\"2\"} 2\n",
            "# TYPE quorate_hints_held gauge\nquorate_hints_held{core=\"0\"} 3\n",
            "# TYPE quorate_stalls_seconds_total counter\nquorate_stalls_seconds_total{core=\"0\"} 1.5\n",
            "# TYPE quorate_tombstones_oldest_seconds gauge\n",
            "# HELP quorate_hints_held Hints that are held for others.\n",
            "quorate_failures_total{core=\"2\",kind=\"disk_full\"} 3\n",
            "quorate_peer_up{peer=\"2\"} 1\nquorate_peer_up{peer=\"3\"} 0\n",
            "quorate_peer_hints{peer=\"3\"} 3\n",
            "quorate_ready 0\n",
            "process_resident_memory_bytes 4096\n",
            "quorate_disk_free_bytes{core=\"0\"} 7\n",
            "quorate_background_stretch{core=\"2\",work=\"scrub\"} 8\n",
            "quorate_request_duration_seconds_bucket{request=\"get\",le=\"0.00002\"} 0\n",
            "quorate_request_duration_seconds_bucket{request=\"get\",le=\"0.00005\"} 2\n",
            "quorate_request_duration_seconds_bucket{request=\"get\",le=\"+Inf\"} 3\n",
            "quorate_request_duration_seconds_count{request=\"get\"} 3\n",
            "quorate_requests_slow_total{request=\"get\"} 1\n",
            "quorate_request_duration_seconds_count{request=\"put\"} 0\n",
        ] {
            assert!(text.contains(wanted), "{wanted} is not in\n{text}");
        }
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').expect("a series and a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(series.starts_with("quorate_") || series.starts_with("process_"), "{line}");
        }
    }

    #[test]
    fn a_core_that_has_told_nothing_yet_is_left_out() {
        assert!(!text(&NodeFigures::default(), &[None]).contains("core="));
    }
}
