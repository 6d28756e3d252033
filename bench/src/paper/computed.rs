//! The figures that are computed: 6 and 8, which are about rings, not about servers.
//!
//! Not here: the computing (`imbalance`, `strategy`), the ring that ships ([`Placement`]).

use super::{
    PaperFigure, Plan,
    imbalance::{self, Interval},
    report::Beside,
    strategy::{self, NODES, PAPER, Placement, SIZES, entries},
};
use crate::plot::{Axis, Lines, Panel, Picture, Series, Style};

const SEED: u64 = 1;

/// Figure 6.
pub(super) fn imbalance(placement: Placement, plan: &Plan) -> Beside {
    let day = imbalance::measure(placement, plan.days, SEED);
    let title = "nodes more than 15 % off the mean load, while the load rises and falls";
    let mut beside = Beside::new(PaperFigure::Fig6, title, &["share of the nodes", "paper", "strategy 1", "ours"]);
    let shares: [(&str, &str, bool); 2] = [("at low load", "about 20 %", false), ("at high load", "about 10 %", true)];
    for (name, paper, is_high) in shares {
        let share = |share| format!("{:.1} %", 100.0 * imbalance::at_load(&day, is_high, share));
        beside.row(name, [paper.to_owned(), share(|i| i.strategy_one), share(|i| i.ours)]);
    }
    let (keys, theta) = (imbalance::ACTIVE_KEYS_MAX, imbalance::THETA);
    let (tokens, partitions) = (imbalance::TOKENS, imbalance::PARTITIONS);
    beside.notes = vec![
        format!(
            "This is computed, not measured: {NODES} nodes on one machine would show the machine. Ours is the ring code that ships, \
             with {partitions} partitions; a request is load on all N=3 nodes that keep its key. The low and the high load are the \
             lowest and the highest quarter of the day; means of {} days.",
            plan.days
        ),
        format!(
            "The workload is drawn: in each half hour other keys are popular, {keys} at the peak and an eighth of that at the \
             lowest load, the i-th asked for as i^-{theta}. That number, and the {tokens} random tokens a node of strategy 1, \
             which the paper ran, are chosen so that strategy 1 shows about the paper's shares; what is found is how much \
             less ours shows with the same requests."
        ),
    ];
    let series = |name: &str, colour, share: fn(&Interval) -> f64| {
        Series::new(name, colour, day.iter().map(|interval| (interval.hour, 100.0 * share(interval))).collect())
    };
    beside.picture = Some(Picture::Lines(Lines {
        title: "Nodes out of balance while the load rises and falls".to_owned(),
        subtitle: format!(
            "computed: {NODES} nodes, N=3, drawn keys; out of balance: more than 15 % off the mean · after figure 6 of Dynamo (2007)"
        ),
        x: Axis::linear("hour of the day")
            .within(0.0, 24.0)
            .marked((0..=8).map(|at| (f64::from(at * 3), (at * 3).to_string()))),
        panels: vec![
            Panel {
                y: Axis::linear("nodes out of balance, %"),
                series: vec![
                    series("strategy 1, as in the paper", 1, |i| i.strategy_one),
                    series("Quorate", 0, |i| i.ours),
                ],
                height: 260,
            },
            Panel {
                y: Axis::linear("load, % of peak").within(0.0, 100.0).marked([
                    (0.0, "0".into()),
                    (50.0, "50".into()),
                    (100.0, "100".into()),
                ]),
                series: vec![series("load", 2, |i| i.load)],
                height: 90,
            },
        ],
        events: Vec::new(),
    }));
    beside
}

/// Figure 8.
pub(super) fn strategies(placement: Placement, plan: &Plan) -> Beside {
    let measured = strategy::measure(placement, plan.rings, SEED);
    let heads = ["entries", "strategy 1: paper", "here", "strategy 2: paper", "here", "strategy 3: paper", "here"];
    let heads = [&heads[..], &["partitions", "ours"]].concat();
    let title = "how evenly load is spread: the mean over the largest load of a node";
    let mut beside = Beside::new(PaperFigure::Fig8, title, &heads);
    for (k, entries) in (0..SIZES).map(|k| (k, entries(k).to_string())) {
        let strategies = PAPER.iter().zip(&measured.strategies).flat_map(|(paper, here)| [paper[k], here[k]]);
        let ours = measured.ours.get(k).map(|(partitions, ours)| [partitions.to_string(), format!("{ours:.2}")]);
        let ours = ours.unwrap_or_else(|| ["none".to_owned(), String::new()]);
        beside.row(&entries, strategies.map(|share| format!("{share:.2}")).chain(ours));
    }
    beside.notes = vec![
        format!(
            "This is computed, as in the paper: {NODES} nodes, N=3, 300,000 uniform keys, each counted on all N nodes; means of {} \
             rings. The paper's values are read from its figure. Strategies 1 to 3 are drawn here by the paper's rules.",
            plan.rings
        ),
        "Ours is the ring code that ships: strategy 3 with dealt tokens instead of random ones. Its partitions are a power of two, \
         64 to 16384 (default: 1024): with two or four partitions a node, what that leaves over of whole rounds of the nodes \
         makes it less even than strategy 3; from eight on it is at least as even."
            .to_owned(),
    ];
    let line = |name: &str, colour, points: &[f64; SIZES], style| {
        let points = points.iter().enumerate().map(|(k, share)| (entries(k) as f64, *share)).collect();
        Series::new(name, colour, points).drawn(style)
    };
    let colours = [1, 2, 3];
    let names = ["strategy 1", "strategy 2", "strategy 3"];
    let here = (0..3).map(|at| line(names[at], colours[at], &measured.strategies[at], Style::Solid));
    let paper = (0..3).map(|at| line(&format!("{} in the paper", names[at]), colours[at], &PAPER[at], Style::Dots));
    let ours = measured.ours.iter().map(|(partitions, share)| (f64::from(*partitions), *share)).collect();
    beside.picture = Some(Picture::Lines(Lines {
        title: "How evenly load is spread over nodes".to_owned(),
        subtitle: format!("computed: {NODES} nodes, N=3, {} rings · after figure 8 of Dynamo (2007)", plan.rings),
        x: Axis::log("entries of the membership table")
            .within(50.0, 37_000.0)
            .marked((0..SIZES).map(|k| (entries(k) as f64, entries(k).to_string()))),
        panels: vec![Panel {
            y: Axis::linear("mean load over largest load").within(0.5, 1.0),
            series: here.chain([Series::new("Quorate", 0, ours)]).chain(paper).collect(),
            height: 340,
        }],
        events: Vec::new(),
    }));
    beside
}
