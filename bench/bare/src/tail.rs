//! What criterion does not tell: how long the slowest of what it repeated took.
//!
//! The rule: every repetition counts, those of the warm-up too; the clock is read twice for each, about 50 ns.
//!
//! Not here: comparing with earlier runs (criterion's mean), latencies under load (`quorate bench`).

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// The latencies of one benchmark. Prints them at its end.
pub struct Tail {
    name: &'static str,
    nanos: Histogram<u64>,
}

impl Tail {
    /// Nothing was measured yet.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, nanos: Histogram::new(3).expect("three digits are allowed") }
    }

    /// Runs `work` and gives what it made and how long that took.
    pub fn time<T>(&mut self, work: impl FnOnce() -> T) -> (T, Duration) {
        let start = Instant::now();
        let made = work();
        (made, self.took(start))
    }

    /// What began at `start` is over.
    pub fn took(&mut self, start: Instant) -> Duration {
        let took = start.elapsed();
        self.nanos.saturating_record(took.as_nanos() as u64);
        took
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        // A filter of criterion's may have left this one out.
        if self.nanos.is_empty() {
            return;
        }
        let us = |nanos: u64| nanos as f64 / 1000.0;
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|part| us(self.nanos.value_at_quantile(part)));
        let (name, most, count) = (self.name, us(self.nanos.max()), self.nanos.len());
        println!("{name}: p50 {p50:.2} µs  p99 {p99:.2} µs  p99.9 {p999:.2} µs  max {most:.2} µs  ({count} times)\n");
    }
}
