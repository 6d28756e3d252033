//! The figures that are measured on servers: 4, 5, table 2, the versions of section 6.3, and section 6.5.
//!
//! The rule: a figure of several windows stands with its spread; both ways of one thing take turns, and take turns in
//! being first.
//!
//! Not here: the figures that are computed (`computed`), tables (`report`).

use std::f64::consts::TAU;

use super::{
    PaperFigure, Plan,
    report::Beside,
    servers::{Lab, Servers},
};
use crate::{
    args::{LoadArgs, TargetKind},
    compare::Spread,
    plot::{Axis, BarPanel, Bars, Lines, Panel, Picture, Series, Style},
    popularity::Shape,
    protocol::Durability,
    report::{Report, time},
    run::Error,
    workload::Workload,
};

/// The paper's machines, and what stands in for them.
const ONE_MACHINE: &str = "The paper: hundreds of nodes in several data centres, Amazon's own load, days, disks of 2007. Here \
                           all nodes and the clients share one machine and its loopback, and the load is drawn: the shapes \
                           can be compared, the milliseconds cannot.";

const COLUMNS: [&str; 3] = ["median window (least to most)", "paper", "ours"];

/// Of figure 4: how far the load rises and falls around its mean.
const SWING: f64 = 0.5;
const DAYS: f64 = 2.0;
/// What Amazon's services agree on for p99.9.
const SLA_US: f64 = 300e3;

/// Figure 4.
pub(super) fn latencies(servers: &mut Servers<'_>) -> Result<Beside, Error> {
    let plan = servers.plan;
    let mut windows = Vec::new();
    for number in 0..plan.windows {
        let rate = plan.rate * (1.0 + SWING * (f64::from(number) / f64::from(plan.windows) * DAYS * TAU).sin());
        let report =
            servers.window(&format!("window {}", number + 1), LoadArgs { rate: Some(rate), ..servers.load() })?;
        windows.push((f64::from(number) * plan.window.as_secs_f64(), report));
    }
    let values =
        |name: &str, figure: Figure| -> Vec<f64> { windows.iter().map(|(_, report)| figure(report, name)).collect() };
    let spread = |name: &str, figure: Figure| times(Spread::of(&values(name, figure)));
    let tail = |name: &str| ratio(Spread::of_ratios(&values(name, p999), &values(name, average)));
    let mut beside = Beside::new(PaperFigure::Fig4, "average and p99.9 of reads and writes over time", &COLUMNS);
    let mut row = |name: &str, paper: &str, ours: String| beside.row(name, [paper.to_owned(), ours]);
    row("p99.9 of reads", "about 200 ms", spread("read", p999));
    row("p99.9 of writes", "about 200 ms", spread("update", p999));
    row("average of reads", "about 20 ms", spread("read", average));
    row("average of writes", "about 20 ms", spread("update", average));
    row("p99.9 over average, reads", "about 10", tail("read"));
    row("p99.9 over average, writes", "about 10", tail("update"));
    let by_writes = Spread::of_ratios(&values("read", average), &values("update", average));
    row("reads over writes, average", "below 1", ratio(by_writes));
    let slowest = values("read", p999).into_iter().zip(values("update", p999)).map(|(read, update)| read.max(update));
    let kept = slowest.filter(|us| *us <= SLA_US).count();
    row("p99.9 within 300 ms (the SLA)", "always", format!("{kept} of {} windows", windows.len()));
    beside.notes = vec![
        ONE_MACHINE.to_owned(),
        format!("{} here stand for the days there: the load swings by half around its mean, twice.", lasting(plan)),
    ];
    beside.doubts = servers.take_doubts();
    beside.picture = Some(latencies_picture(&windows, &servers.describe()));
    Ok(beside)
}

/// `windows`: when each began, and what it measured.
fn latencies_picture(windows: &[(f64, Report)], setup: &str) -> Picture {
    let series = |name, label: &str, colour, figure: Figure| {
        let points = windows.iter().map(|(at, report)| (*at, figure(report, name) / 1e3));
        Series::new(label, colour, points.collect())
    };
    let rates = windows.iter().map(|(at, report)| (*at, report.operations_per_second)).collect();
    let latencies = vec![
        series("read", "reads, average", 0, average).drawn(Style::Dashed),
        series("update", "writes, average", 1, average).drawn(Style::Dashed),
        series("read", "reads, p99.9", 0, p999),
        series("update", "writes, p99.9", 1, p999),
    ];
    Picture::Lines(Lines {
        title: "Latency of reads and durable writes while the load rises and falls".to_owned(),
        subtitle: format!("{setup} · after figure 4 of Dynamo (2007)"),
        x: Axis::linear("time, s"),
        panels: vec![
            Panel { y: Axis::log("latency, ms"), series: latencies, height: 280 },
            Panel { y: Axis::linear("operations/s"), series: vec![Series::new("load", 2, rates)], height: 90 },
        ],
        events: Vec::new(),
    })
}

/// Figure 5.
pub(super) fn buffered_writes(servers: &mut Servers<'_>) -> Result<Beside, Error> {
    let plan = servers.plan;
    let sides = [("direct", Durability::Durable), ("buffered", Durability::Buffered)];
    let windows = in_turn(servers, sides.map(|(name, _)| name), |load, side| LoadArgs {
        durability: Some(sides[side].1),
        ..load
    })?;
    let of = |side: usize, figure: Figure| -> Vec<f64> {
        windows[side].iter().map(|report| figure(report, "update")).collect()
    };
    let mut beside = Beside::new(PaperFigure::Fig5, "writes to a buffer in memory, and to the disk", &COLUMNS);
    let mut row = |name: &str, paper: &str, ours: String| beside.row(name, [paper.to_owned(), ours]);
    row("p99.9 of direct writes", "", times(Spread::of(&of(0, p999))));
    row("p99.9 of buffered writes", "", times(Spread::of(&of(1, p999))));
    row("direct over buffered, p99.9", "about 5 at peak", ratio(Spread::of_ratios(&of(0, p999), &of(1, p999))));
    row("direct over buffered, average", "", ratio(Spread::of_ratios(&of(0, average), &of(1, average))));
    beside.notes = vec![
        ONE_MACHINE.to_owned(),
        "The paper's buffer held up to 1,000 objects, written out in time; one of N wrote durably. Here \"buffered\" has no disk \
         wait at all before the answer, and \"direct\" waits for the disks of W=2 nodes: more than the paper's, by a log with \
         group commit."
            .to_owned(),
        format!("Both take turns on the same servers, window by window, {} each.", lasting(plan)),
    ];
    beside.doubts = servers.take_doubts();
    let series = |side: usize, label: &str, figure: Figure| {
        let points = of(side, figure).into_iter().enumerate();
        let seconds = plan.window.as_secs_f64();
        Series::new(label, side, points.map(|(number, us)| (number as f64 * seconds, us / 1e3)).collect())
    };
    beside.picture = Some(Picture::Lines(Lines {
        title: "Writes to a buffer in memory, and to the disk".to_owned(),
        subtitle: format!("{} · after figure 5 of Dynamo (2007)", servers.describe()),
        x: Axis::linear("time of each, s (they take turns)"),
        panels: vec![Panel {
            y: Axis::log("latency of writes, ms"),
            series: vec![
                series(0, "direct, average", average).drawn(Style::Dashed),
                series(1, "buffered, average", average).drawn(Style::Dashed),
                series(0, "direct, p99.9", p999),
                series(1, "buffered, p99.9", p999),
            ],
            height: 300,
        }],
        events: Vec::new(),
    }));
    Ok(beside)
}

/// Table 2.
pub(super) fn coordination(servers: &mut Servers<'_>) -> Result<Beside, Error> {
    /// Of the paper: p99.9 of reads, of writes, average of reads, of writes, in milliseconds.
    const PAPER: [[f64; 4]; 2] = [[68.9, 68.5, 3.9, 4.02], [30.4, 30.4, 1.55, 1.9]];
    let names = ["server-driven", "client-driven"];
    let windows = in_turn(servers, names, |load, side| LoadArgs {
        target: TargetKind::Resp,
        kv: true,
        cluster: side == 1,
        ..load
    })?;
    let cells: [Cell; 4] = [
        ("p99.9 of reads", "read", p999),
        ("p99.9 of writes", "update", p999),
        ("average of reads", "read", average),
        ("average of writes", "update", average),
    ];
    let of = |side: usize, (_, kind, figure): Cell| -> Vec<f64> {
        windows[side].iter().map(|report| figure(report, kind)).collect()
    };
    let head = ["median window (least to most)", "paper: server", "client", "by", "ours: server", "client", "by"];
    let title = "coordination by servers, and by clients that know the owners";
    let mut beside = Beside::new(PaperFigure::Table2, title, &head);
    for (number, cell) in cells.into_iter().enumerate() {
        let [server, client] = PAPER.map(|row| row[number]);
        let paper = [format!("{server:.2} ms"), format!("{client:.2} ms"), format!("{:.2}", server / client)];
        let (server, client) = (of(0, cell), of(1, cell));
        let by = ratio(Spread::of_ratios(&server, &client));
        beside.row(cell.0, paper.into_iter().chain([times(Spread::of(&server)), times(Spread::of(&client)), by]));
    }
    // In milliseconds, as the paper's.
    let median = |side, cell| Spread::of(&of(side, cell)).map_or(f64::NAN, |spread| spread.median / 1e3);
    let ours = [0, 1].map(|side| cells.map(|cell| median(side, cell)));
    beside.notes = vec![
        ONE_MACHINE.to_owned(),
        "Server-driven in the paper: a load balancer, then any node, which forwards to one of the key's. Here clients speak Redis's \
         protocol to a node of their own (no load balancer), and half of the requests have one hop more, since a node keeps half of \
         the keys. Client-driven: the clients go to the owning core, by CLUSTER SLOTS."
            .to_owned(),
        format!("Both take turns on the same servers, window by window, {} each.", lasting(servers.plan)),
    ];
    beside.doubts = servers.take_doubts();
    let panel = |title: &str, values: [[f64; 4]; 2]| BarPanel {
        title: title.to_owned(),
        groups: cells
            .iter()
            .zip(0..)
            .map(|((name, ..), at): (_, usize)| (broken(name), values.map(|row| row[at]).to_vec()))
            .collect(),
    };
    beside.picture = Some(Picture::Bars(Bars {
        title: "Coordination by servers, and by clients that know the owners".to_owned(),
        subtitle: format!("{} · after table 2 of Dynamo (2007)", servers.describe()),
        y: "latency, ms".to_owned(),
        series: names.map(str::to_owned).to_vec(),
        panels: vec![panel("the paper", PAPER), panel("ours", ours)],
    }));
    Ok(beside)
}

/// Section 6.3.
pub(super) fn versions(servers: &mut Servers<'_>) -> Result<Beside, Error> {
    const PAPER: [&str; 4] = ["99.94 %", "0.00057 %", "0.00047 %", "0.00009 %"];
    let plan = servers.plan;
    let shapes = [("uniform", Shape::Uniform), ("zipfian", Shape::Zipfian)];
    let mut found = Vec::new();
    for (name, shape) in shapes {
        let load = servers.load();
        let report = servers.window(
            name,
            LoadArgs {
                workload: Workload::F,
                distribution: Some(shape),
                key_prefix: format!("cart:{name}:"),
                prepare: true,
                duration: Some(plan.window * plan.windows),
                ..load
            },
        )?;
        found.push(report.versions);
    }
    let head = ["share of reads", "paper", "ours: uniform", "ours: zipfian"];
    let mut beside = Beside::new(PaperFigure::Versions, "versions that reads returned (section 6.3)", &head);
    let share = |versions: &[u64; 4], number: usize| {
        let all: u64 = versions.iter().sum();
        format!("{:.5} %", versions[number] as f64 * 100.0 / all.max(1) as f64)
    };
    for (number, (name, paper)) in ["one version", "two", "three", "four or more"].iter().zip(PAPER).enumerate() {
        let ours = found.iter().map(|versions| share(versions, number));
        beside.row(name, [paper.to_owned()].into_iter().chain(ours));
    }
    let reads = found.iter().map(|versions| versions.iter().sum::<u64>().to_string());
    beside.row("reads", ["24 hours".to_owned()].into_iter().chain(reads));
    let Plan { keys, rate, .. } = plan;
    beside.notes = vec![
        format!(
            "The workload: {keys} keys, like shopping carts; {rate} operations/s by 32 clients, half of them reads, half \
             read-modify-writes that hand back the context of what they read. Two clients that change one key at the same time \
             make two versions; the next to change it puts them together again. Uniform: all keys alike. Zipfian (0.99): the \
             hottest key gets about 4 % of all."
        ),
        "The paper's shares are Amazon's shopping carts over a day, failures included, as printed (they do not add up to 100 %). \
         It blames divergence on automated clients that write at the same time: so does this workload, and it has many more of \
         them a key."
            .to_owned(),
    ];
    beside.doubts = servers.take_doubts();
    Ok(beside)
}

/// Background work as much as there can be: what is written is read again, checkpoints are made and the log is compacted all the
/// time.
const BUSY: &str = "[limits]\nvalue = \"256KiB\"\nobject = \"1MiB\"\n[store]\nscrub = \"1GiB\"\ncheckpoint_every = \"1MiB\"\nsegment = \"8MiB\"\ncapacity = \"128MiB\"\n";

/// Section 6.5.
pub(super) fn admission(lab: &mut Lab<'_>) -> Result<Beside, Error> {
    let sides = [
        ("little background work", "[store]\nscrub = \"0B\"\n".to_owned()),
        ("all of it, not held back", format!("[slo]\nadmission = false\n{BUSY}")),
        ("all of it, held back", BUSY.to_owned()),
    ];
    let (mut windows, mut doubts, mut setup) = (Vec::new(), Vec::new(), String::new());
    for (name, tune) in &sides {
        let mut servers = lab.tuned(tune)?;
        let measured = (0..servers.plan.windows).map(|number| {
            let load = servers.load();
            servers.window(&format!("{name}, window {}", number + 1), load)
        });
        windows.push(measured.collect::<Result<Vec<Report>, Error>>()?);
        doubts.extend(servers.take_doubts());
        setup = servers.describe();
    }
    let of = |side: usize, kind: &str| -> Vec<f64> { windows[side].iter().map(|report| p999(report, kind)).collect() };
    let head = ["p99.9, median window (least to most)", sides[0].0, sides[1].0, sides[2].0, "held back by little"];
    let mut beside =
        Beside::new(PaperFigure::Admission, "background work that yields to requests (section 6.5)", &head);
    for (name, kind) in [("reads", "read"), ("writes", "update")] {
        let cells = (0..sides.len()).map(|side| times(Spread::of(&of(side, kind))));
        beside.row(name, cells.chain([ratio(Spread::of_ratios(&of(2, kind), &of(0, kind)))]));
    }
    let plan = lab.plan();
    beside.notes = vec![
        ONE_MACHINE.to_owned(),
        "The paper gives no figures: its controller has background work give way as soon as the p99.9 of the last 60 s comes close to \
         what is asked for. Here all work of the store runs without a rest: each file is read again all the time, checkpoints follow \
         each other, and the log is small, so that it is compacted all the time."
            .to_owned(),
        format!("Each on servers of its own, one after the other, {} each.", lasting(plan)),
    ];
    beside.doubts = doubts;
    let series = |side: usize| {
        let points = of(side, "update").into_iter().enumerate();
        let seconds = plan.window.as_secs_f64();
        let points = points.map(|(number, us)| (number as f64 * seconds, us / 1e3)).collect();
        Series::new(sides[side].0, side, points)
    };
    beside.picture = Some(Picture::Lines(Lines {
        title: "p99.9 of durable writes beside background work".to_owned(),
        subtitle: format!("{setup} · after section 6.5 of Dynamo (2007)"),
        x: Axis::linear("time of each, s"),
        panels: vec![Panel {
            y: Axis::log("latency of writes, ms"),
            series: (0..3).map(series).collect(),
            height: 300,
        }],
        events: Vec::new(),
    }));
    Ok(beside)
}

/// Name, kind of operation, and what of its latencies.
type Cell = (&'static str, &'static str, Figure);
/// What of the latencies of a kind of operation, in microseconds.
type Figure = fn(&Report, &str) -> f64;

fn average(report: &Report, name: &str) -> f64 {
    report.latency(name).map_or(f64::NAN, |row| row.mean_us)
}

fn p999(report: &Report, name: &str) -> f64 {
    report.latency(name).map_or(f64::NAN, |row| row.p999_us)
}

/// Two ways of one load, window by window in turn.
fn in_turn(
    servers: &mut Servers<'_>,
    names: [&str; 2],
    change: impl Fn(LoadArgs, usize) -> LoadArgs,
) -> Result<[Vec<Report>; 2], Error> {
    let mut windows = [Vec::new(), Vec::new()];
    for number in 0..servers.plan.windows {
        let order = if number % 2 == 0 { [0, 1] } else { [1, 0] };
        for side in order {
            let load = change(servers.load(), side);
            windows[side].push(servers.window(&format!("{}, window {}", names[side], number + 1), load)?);
        }
    }
    Ok(windows)
}

fn times(spread: Option<Spread>) -> String {
    spread.map_or_else(|| "none".to_owned(), |spread| spread.shown(time))
}

fn ratio(spread: Option<Spread>) -> String {
    spread.map_or_else(|| "none".to_owned(), |spread| spread.shown(|value| format!("{value:.2}")))
}

/// How long one line is measured.
fn lasting(plan: &Plan) -> String {
    format!("{} windows of {:?}", plan.windows, plan.window)
}

/// In two lines, for below a group of bars.
fn broken(name: &str) -> String {
    name.replace(" of ", "\n")
}
