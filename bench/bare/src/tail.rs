//! What criterion does not tell: how long the slowest of what it repeated took.
//!
//! The rule: every repetition counts, those of the warm-up too; the clock is read twice for each, about 50 ns.
//!
//! Not here: comparing with earlier runs (criterion's mean), latencies under load (`quorate bench`).

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// What takes longer counts as this: a minute.
const MOST_NANOS: u64 = 60_000_000_000;

/// The latencies of one benchmark. Prints them at its end.
pub struct Tail {
    name: &'static str,
    nanos: Histogram<u64>,
}

impl Tail {
    /// Nothing was measured yet.
    ///
    /// # Panics
    /// Never: the bounds are sound.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, nanos: Histogram::new_with_bounds(1, MOST_NANOS, 3).expect("sound bounds") }
    }

    /// Runs `work` and gives what it made and how long that took.
    ///
    /// # Panics
    /// When `work` does.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_long_is_told() {
        let mut tail = Tail::new("a nap");
        let ((), took) = tail.time(|| std::thread::sleep(Duration::from_millis(2)));
        assert!(took >= Duration::from_millis(2));
        assert!(tail.nanos.max() >= 2_000_000, "{}", tail.nanos.max());
        assert_eq!(tail.nanos.len(), 1);
    }
}
