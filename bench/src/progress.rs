//! What is shown while a phase runs, and the run second by second.
//!
//! The rule: it only listens; a thread that measures never waits for it.
//!
//! Not here: the figures of the report, the bar itself (`bar`).

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::{
    bar::Bar,
    recorder::Tick,
    report::{Second, time},
};

const SECOND: u64 = 1_000_000_000;
/// A day: beyond it only the end is missing from the series.
const SECONDS_MAX: usize = 86_400;

/// Listens to the ticks of one phase.
pub(crate) struct Progress {
    bar: Bar,
    /// What the bar counts up to: milliseconds if it goes by time, else operations.
    all: u64,
    by_time: bool,
    /// How the last second was.
    news: String,
    start: u64,
    measure_from: u64,
    operations: u64,
    errors: u64,
    current: Option<(i64, u64, u64, Histogram<u32>)>,
    series: Vec<Second>,
}

impl Progress {
    /// `goal`: a time or a number of operations.
    pub(crate) fn new(name: &str, quiet: bool, goal: Goal, start: u64, measure_from: u64) -> Self {
        let (all, by_time) = match goal {
            Goal::Time(time) => (time.as_millis() as u64, true),
            Goal::Operations(count) => (count, false),
        };
        let (bar, news, series) = (Bar::new(name, !quiet), String::new(), Vec::new());
        Self { bar, all, by_time, news, start, measure_from, operations: 0, errors: 0, current: None, series }
    }

    /// Successful operations so far.
    pub(crate) fn operations(&self) -> u64 {
        self.operations
    }

    pub(crate) fn handle(&mut self, tick: &Tick) {
        self.operations += tick.operations;
        self.errors += tick.errors;
        let second = (tick.at as i64 - self.measure_from as i64).div_euclid(SECOND as i64);
        if self.current.as_ref().is_some_and(|(current, ..)| *current < second) {
            self.close_second();
        }
        match &mut self.current {
            Some((_, operations, errors, latency)) => {
                *operations += tick.operations;
                *errors += tick.errors;
                latency.add(&tick.latency).expect("same bounds");
            }
            None => self.current = Some((second, tick.operations, tick.errors, tick.latency.clone())),
        }
        let done = if self.by_time { tick.at.saturating_sub(self.start) / 1_000_000 } else { self.operations };
        self.bar.show(done, self.all, &self.news);
    }

    fn close_second(&mut self) {
        let Some((second, operations, errors, latency)) = self.current.take() else { return };
        let at = |quantile: f64| latency.value_at_quantile(quantile) as f64 / 1e3;
        let (p50_us, p999_us, max_us) = (at(0.5), at(0.999), latency.max() as f64 / 1e3);
        let warm = if second < 0 { " (warming up)" } else { "" };
        let all = self.errors;
        let (p50, p999) = (time(p50_us), time(p999_us));
        self.news = format!("{operations}/s · p50 {p50} · p99.9 {p999} · {all} errors{warm}");
        if self.series.len() < SECONDS_MAX {
            self.series.push(Second { second, operations, errors, p50_us, p999_us, max_us });
        }
    }

    /// The phase is over.
    pub(crate) fn finish(mut self) -> Vec<Second> {
        self.close_second();
        self.series
    }
}

/// When a phase is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Goal {
    Time(Duration),
    Operations(u64),
}
