//! The rounds as tables and as JSON: medians over the rounds, with the least and the most; ratios to ours within the same
//! round.
//!
//! Not here: taking the figures (`drive`, `rounds`).

use crate::{
    drive::{Latency, Outcome},
    engine::Kind,
    rounds::{Plan, Round},
    workload::Work,
};
use serde::Serialize;
use std::{fmt, fs, io, path::Path};

/// Everything that was measured.
#[derive(Serialize)]
pub(crate) struct Report {
    pub plan: Plan,
    /// Before and after.
    pub load_average: [f64; 2],
    /// Of this process and all its children.
    pub seconds: f64,
    pub summary: Vec<Row>,
    pub rounds: Vec<Round>,
}

/// One engine and one kind of operation of one work.
#[derive(Serialize)]
pub(crate) struct Row {
    pub work: Work,
    pub operation: &'static str,
    pub engine: Kind,
    pub operations_per_second: Spread,
    /// Theirs over ours.
    pub operations_ratio: Option<Spread>,
    pub p50_us: Spread,
    pub p99_us: Spread,
    pub p999_us: Spread,
    /// Theirs over ours.
    pub p999_ratio: Option<Spread>,
    pub max_us: Spread,
    pub cpu_us_per_operation: Spread,
    pub write_amplification: Option<Spread>,
}

/// Over the rounds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let half = sorted.len() / 2;
        let median =
            if sorted.len().is_multiple_of(2) { f64::midpoint(sorted[half - 1], sorted[half]) } else { sorted[half] };
        Some(Self { median, min, max })
    }
}

/// The part of a work that is gets, or puts.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Get,
    Put,
}

impl Part {
    fn latency(self, outcome: &Outcome) -> Option<Latency> {
        match self {
            Self::Get => outcome.get,
            Self::Put => outcome.put,
        }
    }
}

impl Report {
    pub(crate) fn new(plan: Plan, rounds: Vec<Round>, load_average: [f64; 2], seconds: f64) -> Self {
        let mut summary = Vec::new();
        for &work in &plan.works {
            for part in [Part::Get, Part::Put] {
                summary.extend(plan.engines.iter().filter_map(|&engine| Row::new(&rounds, work, part, engine)));
            }
        }
        Self { plan, load_average, seconds, summary, rounds }
    }

    /// Whether all that was promised to be durable was there after the kill, and nothing that nobody wrote.
    pub(crate) fn is_sound(&self) -> bool {
        self.rounds.iter().all(|round| round.reopened.wrong == 0 && (round.reopened.lost == 0 || !self.plan.durable))
    }

    pub(crate) fn write_json(&self, path: &Path) -> io::Result<()> {
        fs::write(path, serde_json::to_string_pretty(self)? + "\n")
    }
}

impl Row {
    fn new(rounds: &[Round], work: Work, part: Part, engine: Kind) -> Option<Self> {
        let of = |kind: Kind, round: usize| {
            let round = rounds.iter().find(|one| one.engine == kind && one.round == round)?;
            let outcome = round.works.iter().find(|outcome| outcome.work == work)?;
            Some((outcome, part.latency(outcome)?))
        };
        let rate = |outcome: &Outcome| outcome.operations as f64 / outcome.seconds;
        let numbers = || rounds.iter().filter(|round| round.engine == engine).map(|round| round.round);
        let figures = |figure: &dyn Fn(&Outcome, &Latency) -> f64| {
            Spread::of(numbers().filter_map(|number| of(engine, number)).map(|(outcome, row)| figure(outcome, &row)))
        };
        let ratios = |figure: &dyn Fn(&Outcome, &Latency) -> f64| {
            let pairs = numbers().filter_map(|number| Some((of(engine, number)?, of(Kind::Quorate, number)?)));
            let ratio = |(theirs, ours): ((&Outcome, Latency), (&Outcome, Latency))| {
                figure(theirs.0, &theirs.1) / figure(ours.0, &ours.1)
            };
            (engine != Kind::Quorate).then(|| Spread::of(pairs.map(ratio))).flatten()
        };
        let amplification = |outcome: &Outcome, _: &Latency| outcome.written_bytes as f64 / outcome.user_bytes as f64;
        Some(Self {
            work,
            operation: if part == Part::Get { "get" } else { "put" },
            engine,
            operations_per_second: figures(&|outcome, _| rate(outcome))?,
            operations_ratio: ratios(&|outcome, _| rate(outcome)),
            p50_us: figures(&|_, latency| latency.p50_us)?,
            p99_us: figures(&|_, latency| latency.p99_us)?,
            p999_us: figures(&|_, latency| latency.p999_us)?,
            p999_ratio: ratios(&|_, latency| latency.p999_us),
            max_us: figures(&|_, latency| latency.max_us)?,
            cpu_us_per_operation: figures(&|outcome, _| outcome.cpu_seconds * 1e6 / outcome.operations as f64)?,
            write_amplification: if part == Part::Put { figures(&amplification) } else { None },
        })
    }
}

/// A figure with three digits.
fn short(figure: f64) -> String {
    match figure {
        figure if figure >= 100.0 => format!("{figure:.0}"),
        figure if figure >= 10.0 => format!("{figure:.1}"),
        figure => format!("{figure:.2}"),
    }
}

fn spread(spread: &Spread) -> String {
    format!("{} ({}–{})", short(spread.median), short(spread.min), short(spread.max))
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "—".to_owned())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { amount, durable, rounds, .. } = &self.plan;
        let durability = if *durable { "durable" } else { "not durable" };
        writeln!(
            f,
            "{} keys of 16 B, values of {} B, puts {durability} in groups of {}, one thread; medians of {rounds} rounds (least–most); \
             \"ours\": theirs over ours in the same round",
            amount.keys, amount.value_bytes, amount.group
        )?;
        let [before, after] = self.load_average;
        let megabytes = |bytes: u64| short(bytes as f64 / 1e6);
        let Plan { cache_bytes, uncached_cache_bytes, .. } = self.plan;
        write!(f, "data {} MB, cache {} MB, ", megabytes(amount.data_bytes()), megabytes(cache_bytes))?;
        write!(f, "for uncached gets {} MB; ", megabytes(uncached_cache_bytes))?;
        writeln!(f, "load average {before:.2} before, {after:.2} after, {:.0} s", self.seconds)?;
        let mut last = None;
        for row in &self.summary {
            if last != Some((row.work, row.operation)) {
                last = Some((row.work, row.operation));
                writeln!(f)?;
                write!(f, "{:<16}{:>19}{:>19}", format!("{}: {}", row.work.name(), row.operation), "kops/s", "× ours")?;
                write!(f, "{:>10}{:>9}{:>9}{:>19}", "p50 µs", "p99", "p99.9", "× ours")?;
                writeln!(f, "{:>10}{:>10}{:>12}", "max", "CPU µs", "write amp.")?;
            }
            row.fmt(f)?;
        }
        self.fmt_resources(f)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ratio = |ratio: &Option<Spread>| or_dash(ratio.as_ref().map(spread));
        let Spread { median, min, max } = self.operations_per_second;
        let thousands = Spread { median: median / 1e3, min: min / 1e3, max: max / 1e3 };
        write!(f, "{:<16}{:>19}", self.engine.name(), spread(&thousands))?;
        write!(f, "{:>19}", ratio(&self.operations_ratio))?;
        write!(f, "{:>10}{:>9}", short(self.p50_us.median), short(self.p99_us.median))?;
        write!(f, "{:>9}{:>19}", short(self.p999_us.median), ratio(&self.p999_ratio))?;
        write!(f, "{:>10}{:>10}", short(self.max_us.median), short(self.cpu_us_per_operation.median))?;
        writeln!(f, "{:>12}", or_dash(self.write_amplification.map(|amplification| short(amplification.median))))
    }
}

impl Report {
    fn fmt_resources(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        write!(f, "{:<16}{:>10}{:>14}{:>10}{:>8}", "", "peak MB", "uncached MB", "disk MB", "× data")?;
        writeln!(f, "{:>22}{:>12}{:>8}{:>8}", "reopen after kill ms", "its CPU ms", "lost", "wrong")?;
        for &engine in &self.plan.engines {
            let figures = |figure: &dyn Fn(&Round) -> Option<f64>| {
                Spread::of(self.rounds.iter().filter(|round| round.engine == engine).filter_map(figure))
            };
            let median = |figure: &dyn Fn(&Round) -> Option<f64>| or_dash(figures(figure).map(|all| short(all.median)));
            let most =
                |figure: &dyn Fn(&Round) -> Option<f64>| or_dash(figures(figure).map(|all| format!("{}", all.max)));
            let data = self.plan.amount.data_bytes() as f64;
            write!(f, "{:<16}", engine.name())?;
            write!(f, "{:>10}", median(&|round| Some(round.memory_bytes as f64 / 1e6)))?;
            write!(f, "{:>14}", median(&|round| Some(round.memory_uncached_bytes? as f64 / 1e6)))?;
            write!(f, "{:>10}", median(&|round| Some(round.disk_bytes as f64 / 1e6)))?;
            write!(f, "{:>8}", median(&|round| Some(round.disk_bytes as f64 / data)))?;
            let reopen = figures(&|round| Some(round.reopened.seconds * 1e3));
            write!(f, "{:>22}", or_dash(reopen.as_ref().map(spread)))?;
            write!(f, "{:>12}", median(&|round| Some(round.reopened.cpu_seconds * 1e3)))?;
            write!(f, "{:>8}", most(&|round| Some(round.reopened.lost as f64)))?;
            writeln!(f, "{:>8}", most(&|round| Some(round.reopened.wrong as f64)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_two_in_the_middle() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
    }
}
