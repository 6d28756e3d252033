//! A node's figures for Prometheus: counters and gauges of each core, latency histograms of the node.
//!
//! The rule: base units, seconds and bytes; a counter ends in `_total`; the only labels are the core, the kind of request and the
//! kind of work, so that there is a fixed number of series whatever the data is like.
//!
//! Pure. Not here: where the figures come from (`runtime/view`), who serves the text.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

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

/// Figures that rise and fall; all others only rise.
const GAUGES: &[&str] = &[
    "copies_unhealed",
    "exchanges_underway",
    "exchanges_underway_bytes",
    "gossip_epoch",
    "handoff_underway",
    "handoff_underway_bytes",
    "hints_damaged",
    "hints_held",
    "hints_live_bytes",
    "hints_lost",
    "hints_segments",
    "partitions_without_quorum",
    "peers_alive",
    "peers_avoided",
    "peers_dead",
    "peers_down",
    "peers_suspect",
    "queue_length",
    "store_cache_bytes",
    "store_damaged",
    "store_full",
    "store_index_bytes",
    "store_keys",
    "store_live_bytes",
    "store_lost",
    "store_queued_bytes",
    "store_segment_bytes",
    "store_segments",
    "store_segments_free",
    "store_tombstones",
    "tombstones_oldest_seconds_now",
];

/// The text of a node's cores, of which each may not have told anything yet.
#[must_use]
pub fn text(cores: &[Option<CoreFigures>]) -> String {
    let mut text = String::new();
    let told = || cores.iter().enumerate().filter_map(|(core, told)| Some((core, told.as_ref()?)));
    let mut figures: BTreeMap<&str, Vec<(usize, u64)>> = BTreeMap::new();
    for (core, told) in told() {
        for &(name, value) in &told.figures {
            figures.entry(name).or_default().push((core, value));
        }
    }
    for (name, values) in figures {
        let (name, kind, unit) = metric(name);
        head(&mut text, &name, kind);
        for (core, value) in values {
            line(&mut text, format_args!("{name}{{core=\"{core}\"}}"), value as f64 * unit);
        }
    }
    head(&mut text, "quorate_background_stretch", "gauge");
    for (core, told) in told() {
        for (work, stretch) in &told.stretches {
            let labels = format_args!("quorate_background_stretch{{core=\"{core}\",work=\"{}\"}}", work.name());
            line(&mut text, labels, f64::from(*stretch));
        }
    }
    latencies(&mut text, &told().flat_map(|(_, told)| &told.requests).collect::<Vec<_>>());
    text
}

/// What a figure is called, whether it only rises, and what its unit is in base units.
fn metric(figure: &str) -> (String, &'static str, f64) {
    let (stem, unit) = match figure.strip_suffix("_us") {
        Some(stem) => (stem.strip_suffix("_total").unwrap_or(stem).to_owned() + "_seconds", 1e-6),
        None => (figure.strip_suffix("_now").unwrap_or(figure).to_owned(), 1.0),
    };
    match GAUGES.contains(&figure) {
        true => (format!("quorate_{stem}"), "gauge", unit),
        false => (format!("quorate_{stem}_total"), "counter", unit),
    }
}

/// The histograms of the whole node: what a percentile is taken of must be added up first.
fn latencies(text: &mut String, requests: &[&Requests]) {
    const NAME: &str = "quorate_request_duration_seconds";
    head(text, NAME, "histogram");
    for kind in Kind::ALL {
        let of_kind = || requests.iter().filter(|requests| requests.kind == kind);
        let at_most = |bound: usize| of_kind().filter_map(|requests| requests.at_most.get(bound)).sum::<u64>();
        let request = kind.name();
        for (bound, us) in BOUNDS_US.iter().enumerate() {
            let le = *us as f64 / 1e6;
            line(text, format_args!("{NAME}_bucket{{request=\"{request}\",le=\"{le}\"}}"), at_most(bound) as f64);
        }
        let all = at_most(BOUNDS_US.len()) as f64;
        line(text, format_args!("{NAME}_bucket{{request=\"{request}\",le=\"+Inf\"}}"), all);
        let sum: Duration = of_kind().map(|requests| requests.sum).sum();
        line(text, format_args!("{NAME}_sum{{request=\"{request}\"}}"), sum.as_secs_f64());
        line(text, format_args!("{NAME}_count{{request=\"{request}\"}}"), all);
    }
    head(text, "quorate_requests_slow_total", "counter");
    for kind in Kind::ALL {
        let slow: u64 = requests.iter().filter(|requests| requests.kind == kind).map(|requests| requests.slow).sum();
        line(text, format_args!("quorate_requests_slow_total{{request=\"{}\"}}", kind.name()), slow as f64);
    }
}

fn head(text: &mut String, name: &str, kind: &str) {
    writeln!(text, "# TYPE {name} {kind}").expect("memory takes all");
}

fn line(text: &mut String, series: std::fmt::Arguments<'_>, value: f64) {
    writeln!(text, "{series} {value}").expect("memory takes all");
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
        }
    }

    #[test]
    fn names_units_and_sums_are_as_prometheus_wants_them() {
        let text = text(&[Some(core(1)), None, Some(core(2))]);
        for wanted in [
            "# TYPE quorate_gets_total counter\nquorate_gets_total{core=\"0\"} 1\nquorate_gets_total{core=\"2\"} 2\n",
            "# TYPE quorate_hints_held gauge\nquorate_hints_held{core=\"0\"} 3\n",
            "# TYPE quorate_stalls_seconds_total counter\nquorate_stalls_seconds_total{core=\"0\"} 1.5\n",
            "# TYPE quorate_tombstones_oldest_seconds gauge\n",
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
            assert!(value.parse::<f64>().is_ok() && series.starts_with("quorate_"), "{line}");
        }
    }

    #[test]
    fn a_core_that_has_told_nothing_yet_is_left_out() {
        assert!(!text(&[None]).contains("core="));
    }
}
