//! What clients felt of an outage: for people as a table, for programs as JSON, and as a picture.
//!
//! The rule: the picture shows the slowest operation of each second beside its p99.9, so that nothing hides in a percentile.
//!
//! Not here: how it came about.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{How, OutageArgs, Times, VICTIM};
use crate::{
    compare::Spread,
    ledger::Verdict,
    plot::{Axis, Event, Lines, Panel, Picture, Series, Style},
    recorder::ErrorCount,
    report::{Report, Second, time},
    run::Error,
};

/// What clients felt of an outage.
#[derive(Clone, Debug, Serialize)]
pub struct OutageReport {
    /// How the node went.
    pub how: How,
    /// Operations per second that were asked for.
    pub rate: f64,
    /// Operations that succeeded.
    pub operations: u64,
    /// Operations that failed.
    pub failed: u64,
    /// Operations that could not even be begun in time.
    pub missed: u64,
    /// Errors by class; an operation that met one went to another node.
    pub errors: std::collections::BTreeMap<String, ErrorCount>,
    /// Before, while the node was away, and after its return.
    pub parts: Vec<Part>,
    /// Seconds from its return until each partition had been seen to be the same on all nodes; none if they never were.
    pub equal_after_seconds: Option<f64>,
    /// What the reading of all keys found.
    pub verdict: Option<Verdict>,
    /// The machine's load average before and after.
    pub load_average: [f64; 2],
    /// Second by second.
    pub series: Vec<Second>,
    /// What the picture shows.
    pub picture: Picture,
    /// The picture's file.
    pub file: Option<PathBuf>,
}

/// Some seconds on end.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Part {
    /// Which.
    pub name: String,
    /// Operations that succeeded.
    pub operations: u64,
    /// p50 of its seconds, microseconds.
    pub p50_us: Option<Spread>,
    /// p99.9 of its seconds, microseconds.
    pub p999_us: Option<Spread>,
    /// The slowest operation, microseconds.
    pub max_us: f64,
}

impl Part {
    /// `seconds`: of the series, those that belong to it.
    fn new(name: &str, seconds: &[&Second]) -> Self {
        let spread = |of: fn(&Second) -> f64| Spread::of(&seconds.iter().map(|second| of(second)).collect::<Vec<_>>());
        Self {
            name: name.to_owned(),
            operations: seconds.iter().map(|second| second.operations).sum(),
            p50_us: spread(|second| second.p50_us),
            p999_us: spread(|second| second.p999_us),
            max_us: seconds.iter().map(|second| second.max_us).fold(0.0, f64::max),
        }
    }
}

impl OutageReport {
    pub(super) fn new(args: &OutageArgs, report: &Report, times: &Times) -> Self {
        let within = |from: f64, to: f64| -> Vec<&Second> {
            report.series.iter().filter(|second| (from..to).contains(&(second.second as f64))).collect()
        };
        // The second in which something happens belongs to what it leads to.
        let (gone, back) = (times.gone.as_secs_f64().floor(), times.back.as_secs_f64().floor());
        let parts = vec![
            Part::new("before", &within(0.0, gone)),
            Part::new("away", &within(gone, back)),
            Part::new("after", &within(back, f64::INFINITY)),
        ];
        Self {
            how: args.how,
            rate: args.rate,
            operations: report.operations,
            failed: report.failed,
            missed: report.missed,
            errors: report.errors.clone(),
            parts,
            equal_after_seconds: times.equal.map(|equal| (equal - times.back).as_secs_f64()),
            verdict: report.verdict.clone(),
            load_average: report.load_average,
            series: report.series.clone(),
            picture: picture(args, report, times),
            file: None,
        }
    }

    /// With the picture written to `path`.
    pub(super) fn drawn(self, path: &Path) -> Result<Self, Error> {
        let cannot = |error| Error::Machine(format!("cannot write {}: {error}", path.display()));
        fs::write(path, self.picture.svg()).map_err(cannot)?;
        Ok(Self { file: Some(path.to_owned()), ..self })
    }

    /// Whether nothing was lost, no read was stale, and the node caught up.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.operations > 0
            && self.equal_after_seconds.is_some()
            && self.verdict.as_ref().is_some_and(|verdict| verdict.is_sound(false))
    }
}

fn picture(args: &OutageArgs, report: &Report, times: &Times) -> Picture {
    let measured = || report.series.iter().filter(|second| second.second >= 0);
    let series = |name: &str, colour, of: fn(&Second) -> f64| {
        Series::new(name, colour, measured().map(|second| (second.second as f64, of(second))).collect())
    };
    let (went, came) = match args.how {
        How::Kill => ("kill -9", "started again"),
        How::Freeze => ("frozen", "thawed"),
    };
    let event = |at: std::time::Duration, label: &str| Event { at: at.as_secs_f64(), label: label.to_owned() };
    let mut events = vec![event(times.gone, &format!("node {VICTIM}: {went}")), event(times.back, came)];
    events.extend(times.equal.map(|equal| event(equal, "all copies are equal")));
    let lost = report.verdict.as_ref().map_or(0, |verdict| verdict.lost_writes);
    Picture::Lines(Lines {
        title: "Latency while one of three nodes is away".to_owned(),
        subtitle: format!(
            "three nodes and their clients on one machine · N=3 R=2 W=2 · 1 KiB · {}/s, half durable puts · {} failed, {lost} lost",
            args.rate, report.failed
        ),
        x: Axis::linear("time, s"),
        panels: vec![
            Panel {
                y: Axis::log("latency in each second, ms"),
                series: vec![
                    series("p50", 2, |second| second.p50_us / 1e3),
                    series("p99.9", 0, |second| second.p999_us / 1e3),
                    series("slowest", 1, |second| second.max_us / 1e3).drawn(Style::Dots),
                ],
                height: 280,
            },
            Panel {
                y: Axis::linear("operations/s"),
                series: vec![series("answered", 6, |second| second.operations as f64)],
                height: 70,
            },
        ],
        events,
    })
}

impl fmt::Display for OutageReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let went = match self.how {
            How::Kill => "killed by kill -9 and started again",
            How::Freeze => "frozen and thawed again",
        };
        writeln!(
            f,
            "one of three nodes {went}, under {}/s, half of them durable puts of 1 KiB (N=3 R=2 W=2)\n",
            self.rate
        )?;
        writeln!(
            f,
            "{:<8}{:>12}   {:<34}{:<34}{:>10}",
            "", "operations", "p50 of a second", "p99.9 of a second", "slowest"
        )?;
        for Part { name, operations, p50_us, p999_us, max_us } in &self.parts {
            let shown = |spread: &Option<Spread>| spread.map_or_else(|| "none".to_owned(), |spread| spread.shown(time));
            let (p50, p999) = (shown(p50_us), shown(p999_us));
            writeln!(f, "{name:<8}{operations:>12}   {p50:<34}{p999:<34}{:>10}", time(*max_us))?;
        }
        writeln!(f, "\n{} operations failed", self.failed)?;
        if self.missed > 0 {
            writeln!(f, "DOUBTFUL: {} operations were due and never begun", self.missed)?;
        }
        for (class, error) in &self.errors {
            writeln!(f, "{} × {class}: {}", error.count, error.sample)?;
        }
        match self.equal_after_seconds {
            Some(seconds) => writeln!(f, "all copies were equal {seconds:.1} s after its return")?,
            None => writeln!(f, "its copies did not become equal to the others'")?,
        }
        if let Some(verdict) = &self.verdict {
            write!(f, "{verdict}")?;
        }
        let [before, after] = self.load_average;
        writeln!(f, "load average {before:.2} before, {after:.2} after")?;
        self.file.iter().try_for_each(|file| write!(f, "picture: {}", file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: i64, p999_us: f64) -> Second {
        Second { second, operations: 10, errors: 0, p50_us: 1.0, p999_us, max_us: 2.0 * p999_us }
    }

    #[test]
    fn a_part_is_of_its_seconds() {
        let seconds = [second(3, 30.0), second(4, 10.0), second(5, 20.0)];
        let part = Part::new("away", &seconds.iter().collect::<Vec<_>>());
        assert_eq!((part.operations, part.max_us), (30, 60.0));
        assert_eq!(part.p999_us, Some(Spread { median: 20.0, least: 10.0, most: 30.0 }));
        assert_eq!(Part::new("none", &[]).p999_us, None);
    }
}
