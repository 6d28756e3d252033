//! The result of a comparison, for people as tables, for programs as JSON.
//!
//! The rule: a ratio never stands without its spread, the figures that it is made of, and the machine's load; what makes a
//! run doubtful is said below its table.
//!
//! Not here: the arithmetic (`spread`).

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::spread::Spread;
use crate::{
    recorder::ErrorCount,
    report::{Report, Setup, time},
};

/// Quorate beside its peers.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// What ours was.
    pub ours: String,
    /// What was asked of both.
    pub setup: Setup,
    /// Rounds, each of one run of ours and one of theirs.
    pub rounds: u16,
    /// Seconds that each run was to be measured.
    pub seconds: f64,
    /// CPUs of this machine.
    pub cpus: usize,
    /// Those that were there.
    pub peers: Vec<Compared>,
    /// Those that were not, or failed.
    pub skipped: Vec<Skipped>,
}

/// A peer that was not compared.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Skipped {
    /// Its name.
    pub peer: String,
    /// Why not, and how to get it.
    pub why: String,
    /// It was there, and could not be measured.
    pub failed: bool,
}

/// One peer, and ours beside it.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// Its name.
    pub peer: String,
    /// Its program's version.
    pub version: String,
    /// What a put is worth once it is answered.
    pub promise: String,
    /// The ratios.
    pub figures: Vec<Figure>,
    /// The machine's load average, over all edges of all runs.
    pub load_average: Option<Spread>,
    /// The runs in the order in which they were.
    pub rounds: Vec<Round>,
}

/// Two runs that stood next to each other in time.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// Of Quorate.
    pub ours: Run,
    /// Of the peer.
    pub theirs: Run,
}

/// What one run measured.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Run {
    /// By name, in the units of [`Figure`].
    pub figures: BTreeMap<String, f64>,
    /// Operations that succeeded.
    pub operations: u64,
    /// Operations that failed.
    pub failed: u64,
    /// Gets that found nothing.
    pub absent: u64,
    /// Operations of an open loop that could not even be begun.
    pub missed: u64,
    /// Errors by class.
    pub errors: BTreeMap<String, ErrorCount>,
    /// The machine's load average before and after.
    pub load_average: [f64; 2],
}

/// One figure of both, over all rounds.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Figure {
    /// What it is.
    pub name: String,
    /// Whether more of it is better.
    pub more_is_better: bool,
    /// Quorate's. Operations a second, or microseconds.
    pub ours: Spread,
    /// The peer's.
    pub theirs: Spread,
    /// Ours by theirs, round by round; none where theirs is nothing.
    pub ratio: Option<Spread>,
}

const RATE: &str = "operations/s";
const SERVER_CPU: &str = "server CPU an operation";
const GENERATOR_CPU: &str = "generator CPU an operation";

impl Run {
    pub(crate) fn of(report: &Report) -> Self {
        let mut figures = BTreeMap::from([
            (RATE.to_owned(), report.operations_per_second),
            (GENERATOR_CPU.to_owned(), report.generator.cpu_us_per_operation),
        ]);
        let cpu = report.servers.as_ref().and_then(|servers| servers.cpu_us_per_operation);
        figures.extend(cpu.map(|cpu| (SERVER_CPU.to_owned(), cpu)));
        for row in report.latencies.iter().filter(|row| !["failed", "begun late"].contains(&row.name.as_str())) {
            let rows = [("p50", row.p50_us), ("p99", row.p99_us), ("p99.9", row.p999_us)];
            figures.extend(rows.map(|(quantile, us)| (format!("{} {quantile}", row.name), us)));
        }
        Self {
            figures,
            operations: report.operations,
            failed: report.failed,
            absent: report.absent,
            missed: report.missed,
            errors: report.errors.clone(),
            load_average: report.load_average,
        }
    }

    /// What makes the run no figure, in words.
    pub(crate) fn doubts(&self) -> Option<String> {
        let counts = [(self.failed, "failed"), (self.absent, "found nothing"), (self.missed, "could not be begun")];
        let counts = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        let errors = self.errors.iter().map(|(class, error)| format!("{} × {class}: {}", error.count, error.sample));
        let all: Vec<String> = counts.chain(errors).collect();
        (!all.is_empty()).then(|| all.join(", "))
    }
}

impl Compared {
    pub(crate) fn new(peer: &str, version: &str, promise: &str, rounds: Vec<Round>) -> Self {
        let edges = rounds.iter().flat_map(|round| [round.ours.load_average, round.theirs.load_average]).flatten();
        Self {
            peer: peer.to_owned(),
            version: version.to_owned(),
            promise: promise.to_owned(),
            figures: figures(&rounds),
            load_average: Spread::of(&edges.collect::<Vec<_>>()),
            rounds,
        }
    }
}

/// The figures that every run has, the rate first, the latencies in between, CPU time last.
fn figures(rounds: &[Round]) -> Vec<Figure> {
    let Some(first) = rounds.first() else { return Vec::new() };
    let ends = [RATE, SERVER_CPU, GENERATOR_CPU];
    let latencies = first.ours.figures.keys().map(String::as_str).filter(|name| !ends.contains(name));
    let names = [RATE].into_iter().chain(latencies).chain([SERVER_CPU, GENERATOR_CPU]);
    let series = |name: &str, side: fn(&Round) -> &Run| {
        rounds.iter().map(|round| side(round).figures.get(name).copied()).collect::<Option<Vec<f64>>>()
    };
    let figure = |name: &str| {
        let (ours, theirs) = (series(name, |round| &round.ours)?, series(name, |round| &round.theirs)?);
        Some(Figure {
            name: name.to_owned(),
            more_is_better: name == RATE,
            ours: Spread::of(&ours)?,
            theirs: Spread::of(&theirs)?,
            ratio: Spread::of_ratios(&ours, &theirs),
        })
    };
    names.filter_map(figure).collect()
}

impl Comparison {
    /// Whether every peer that was there was measured, and every run did something.
    pub(crate) fn passed(&self) -> bool {
        let runs = self.peers.iter().flat_map(|peer| &peer.rounds).flat_map(|round| [&round.ours, &round.theirs]);
        runs.into_iter().all(|run| run.operations > 0) && !self.skipped.iter().any(|skipped| skipped.failed)
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setup { workload, keys, value_bytes: [least, most], connections, pipeline, rate, .. } = &self.setup;
        let value = if least == most { format!("{least} B") } else { format!("{least}-{most} B") };
        let pace = rate.map_or("closed loop".to_owned(), |rate| format!("open loop at {rate}/s"));
        writeln!(f, "{}", self.ours)?;
        writeln!(f, "{workload} · {keys} keys · {value} values · {pace} · {connections} clients × {pipeline}")?;
        let Self { rounds, seconds, cpus, .. } = self;
        writeln!(f, "{rounds} × {seconds} s each, one side at a time · {cpus} CPUs for servers and generator")?;
        self.peers.iter().try_for_each(|peer| write!(f, "\n{peer}"))?;
        if !self.skipped.is_empty() {
            writeln!(f)?;
        }
        self.skipped.iter().try_for_each(|Skipped { peer, why, failed }| {
            writeln!(f, "{peer}: {}: {why}", if *failed { "FAILED" } else { "skipped" })
        })
    }
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}: {}", self.peer, self.version, self.promise)?;
        writeln!(f, "{:<28}{:>36}{:>36}{:>32}", "median (least to most)", "Quorate", self.peer, "Quorate by peer")?;
        for Figure { name, more_is_better, ours, theirs, ratio } in &self.figures {
            let show = |value: f64| if *more_is_better { format!("{value:.0}") } else { time(value) };
            let ratio = ratio.map_or("none".to_owned(), |ratio| ratio.to_string());
            writeln!(f, "{name:<28}{:>36}{:>36}{ratio:>32}", ours.shown(show), theirs.shown(show))?;
        }
        if let Some(load) = self.load_average {
            writeln!(f, "load average {load}")?;
        }
        for (number, round) in (1..).zip(&self.rounds) {
            for (name, run) in [("Quorate", &round.ours), (self.peer.as_str(), &round.theirs)] {
                if let Some(doubts) = run.doubts() {
                    writeln!(f, "DOUBTFUL: round {number}, {name}: {doubts}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rate: f64, p999: f64, cpu: Option<f64>) -> Run {
        let mut figures = BTreeMap::from([(RATE.to_owned(), rate), ("update p99.9".to_owned(), p999)]);
        figures.extend(cpu.map(|cpu| (SERVER_CPU.to_owned(), cpu)));
        let errors = BTreeMap::new();
        Run { figures, operations: 9, failed: 0, absent: 0, missed: 0, errors, load_average: [1.0, 2.0] }
    }

    fn compared(rounds: Vec<Round>) -> Compared {
        Compared::new("redis-always", "7.0.15", "one copy", rounds)
    }

    #[test]
    fn figures_are_put_side_by_side() {
        let round = |factor: f64| Round {
            ours: run(800.0 * factor, 3000.0, Some(50.0)),
            theirs: run(1000.0 * factor, 1500.0 * factor, Some(20.0)),
        };
        let compared = compared(vec![round(1.0), round(2.0), round(1.0)]);
        let names: Vec<_> = compared.figures.iter().map(|figure| figure.name.as_str()).collect();
        assert_eq!(names, [RATE, "update p99.9", SERVER_CPU]);
        let ratio = |at: usize| compared.figures[at].ratio.unwrap();
        assert_eq!(ratio(0), Spread { median: 0.8, least: 0.8, most: 0.8 });
        assert_eq!(ratio(1), Spread { median: 2.0, least: 1.0, most: 2.0 });
        assert_eq!(compared.load_average, Some(Spread { median: 1.5, least: 1.0, most: 2.0 }));
        let text = compared.to_string();
        assert!(text.contains("800 (800 to 1600)") && text.contains("2.00 (1.00 to 2.00)"), "{text}");
        assert!(text.contains("50.0 µs (50.0 µs to 50.0 µs)") && !text.contains("DOUBTFUL"), "{text}");
    }

    #[test]
    fn a_figure_that_a_run_lacks_is_not_shown() {
        let rounds = vec![
            Round { ours: run(1.0, 1.0, Some(5.0)), theirs: run(1.0, 1.0, Some(0.0)) },
            Round { ours: run(1.0, 1.0, None), theirs: run(1.0, 1.0, Some(0.0)) },
        ];
        assert!(compared(rounds.clone()).figures.iter().all(|figure| figure.name != SERVER_CPU));
        // Too little CPU time to be seen: then there is no ratio.
        let short = compared(rounds[..1].to_vec());
        assert_eq!(short.figures.last().unwrap().ratio, None);
        assert!(short.to_string().contains("none"), "{short}");
    }

    #[test]
    fn what_is_doubtful_is_said() {
        let mut theirs = run(1.0, 1.0, None);
        theirs.missed = 7;
        theirs.errors.insert("timeout".to_owned(), ErrorCount { count: 2, sample: "no answer".to_owned() });
        let compared = compared(vec![Round { ours: run(1.0, 1.0, None), theirs }]);
        let text = compared.to_string();
        let line = "DOUBTFUL: round 1, redis-always: 7 could not be begun, 2 × timeout: no answer";
        assert!(text.contains(line), "{text}");
    }
}
