//! How long requests of one kind took: since the start in a few bounds, and in each of the last seconds by percentiles.
//!
//! The rule: what is counted since the start only grows, so that whoever reads it now and then may take differences.

use std::{collections::VecDeque, time::Duration};

use hdrhistogram::Histogram;

/// So many seconds are remembered.
pub(super) const SECONDS_MAX: usize = 300;

/// The upper bounds of the counts since the start, in microseconds: from 20 µs to 10 s.
pub const BOUNDS_US: [u64; 18] = [
    20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
    2_000_000, 5_000_000, 10_000_000,
];

/// Longer ones count as this.
const LONGEST_US: u64 = 60_000_000;

/// One second's requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Second {
    /// How many.
    pub count: u64,
    /// How many of them failed.
    pub failed: u64,
    /// How long half of them took at most, to one in a hundred.
    pub p50: Duration,
    /// The same of 99 in a hundred.
    pub p99: Duration,
    /// The same of 999 in a thousand.
    pub p999: Duration,
    /// The longest.
    pub max: Duration,
}

/// How long requests took.
#[derive(Debug)]
pub struct Latencies {
    /// Of the present second.
    present: Histogram<u32>,
    failed: u64,
    seconds: VecDeque<Second>,
    /// How many were at most as long as each bound and longer than the one before; the last had no bound.
    counts: [u64; BOUNDS_US.len() + 1],
    sum: Duration,
    slow: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            present: Histogram::new_with_bounds(1, LONGEST_US, 2).expect("sound bounds"),
            failed: 0,
            seconds: VecDeque::new(),
            counts: [0; BOUNDS_US.len() + 1],
            sum: Duration::ZERO,
            slow: 0,
        }
    }
}

impl Latencies {
    pub(super) fn record(&mut self, took: Duration, failed: bool, slow: bool) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.present.saturating_record(us.max(1));
        self.failed += u64::from(failed);
        self.counts[BOUNDS_US.partition_point(|&bound| bound < us)] += 1;
        self.sum += took;
        self.slow += u64::from(slow);
    }

    /// Requests of the present second.
    pub(super) fn in_second(&self) -> u64 {
        self.present.len()
    }

    /// The present second is over, and so are others in which nothing happened.
    pub(super) fn roll(&mut self, passed: u64) {
        let quantile = |q| Duration::from_micros(self.present.value_at_quantile(q));
        let over = match self.present.len() {
            0 => Second::default(),
            count => Second {
                count,
                failed: self.failed,
                p50: quantile(0.5),
                p99: quantile(0.99),
                p999: quantile(0.999),
                max: Duration::from_micros(self.present.max()),
            },
        };
        if over.count > 0 {
            self.present.reset();
            self.failed = 0;
        }
        let quiet = usize::try_from(passed - 1).unwrap_or(SECONDS_MAX).min(SECONDS_MAX);
        self.seconds.push_back(over);
        self.seconds.extend(std::iter::repeat_n(Second::default(), quiet));
        let surplus = self.seconds.len().saturating_sub(SECONDS_MAX);
        self.seconds.drain(..surplus);
    }

    /// The last seconds, without the present one; the latest comes last.
    pub fn seconds(&self) -> impl DoubleEndedIterator<Item = &Second> {
        self.seconds.iter()
    }

    /// Since the start: how many requests took at most as long as each of [`BOUNDS_US`], and how many there were.
    pub fn at_most(&self) -> impl Iterator<Item = u64> {
        self.counts.iter().scan(0, |sum, &count| {
            *sum += count;
            Some(*sum)
        })
    }

    /// Since the start: how long all of them took together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// Since the start: how many took longer than the service level says.
    #[must_use]
    pub fn slow(&self) -> u64 {
        self.slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_since_the_start_grow_with_each_bound() {
        let mut latencies = Latencies::default();
        for us in [1, 20, 21, 999, 1_000, 20_000_000] {
            latencies.record(Duration::from_micros(us), us == 999, us > 999);
        }
        let at_most: Vec<u64> = latencies.at_most().collect();
        assert_eq!(at_most[..6], [2, 3, 3, 3, 3, 5]);
        assert_eq!((at_most[17], at_most[18]), (5, 6));
        assert_eq!((latencies.sum(), latencies.slow()), (Duration::from_micros(20_002_041), 2));
        latencies.roll(3);
        let seconds: Vec<_> = latencies.seconds().map(|second| (second.count, second.failed)).collect();
        assert_eq!(seconds, [(6, 1), (0, 0), (0, 0)]);
        assert_eq!(latencies.at_most().last(), Some(6), "a second that is over changes nothing of these");
    }
}
