//! What is done in which share: YCSB's workloads, free mixes, and loading.
//!
//! The rule: what a client asks for next is a pure function of its own stream of randomness and of how many keys there
//! are.
//!
//! Not here: which key is popular (`popularity`), how a request is sent (`client`).

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use clap::ValueEnum;
use serde::Serialize;

use crate::{
    popularity::{Popularity, Shape},
    random::Random,
};

/// A named workload.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// YCSB A: 50 % reads, 50 % updates.
    A,
    /// YCSB B: 95 % reads, 5 % updates.
    B,
    /// YCSB C: reads only.
    C,
    /// YCSB D: 95 % reads of the latest, 5 % inserts.
    D,
    /// YCSB F: 50 % reads, 50 % read-modify-writes.
    F,
    /// Reads only, uniform.
    Get,
    /// Updates only, uniform.
    Put,
    /// Reads and updates as --get-percent says, uniform.
    Mix,
    /// Every key once, in order.
    Load,
}

/// One kind of operation, as it is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A get.
    Read,
    /// A put on a key that is there.
    Update,
    /// A put of a new key.
    Insert,
    /// A get, then a put with its context: one operation, measured from end to end.
    ReadModifyWrite,
}

/// All kinds, in the order of their numbers.
pub(crate) const KINDS: [Kind; 4] = [Kind::Read, Kind::Update, Kind::Insert, Kind::ReadModifyWrite];

/// Shares of the kinds in percent, in the order of [`KINDS`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Mix([f64; 4]);

impl Workload {
    /// The shares of its operations; `get_percent` is for [`Workload::Mix`] alone.
    #[must_use]
    pub fn mix(self, get_percent: f64) -> Mix {
        Mix(match self {
            Self::A => [50.0, 50.0, 0.0, 0.0],
            Self::B => [95.0, 5.0, 0.0, 0.0],
            Self::C | Self::Get => [100.0, 0.0, 0.0, 0.0],
            Self::D => [95.0, 0.0, 5.0, 0.0],
            Self::F => [50.0, 0.0, 0.0, 50.0],
            Self::Put => [0.0, 100.0, 0.0, 0.0],
            Self::Mix => [get_percent, 100.0 - get_percent, 0.0, 0.0],
            Self::Load => [0.0, 0.0, 100.0, 0.0],
        })
    }

    /// The popularity of keys that belongs to it.
    #[must_use]
    pub fn shape(self) -> Shape {
        match self {
            Self::A | Self::B | Self::C | Self::F => Shape::Zipfian,
            Self::D => Shape::Latest,
            Self::Get | Self::Put | Self::Mix | Self::Load => Shape::Uniform,
        }
    }
}

impl Kind {
    /// Its place in [`KINDS`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Update => "update",
            Self::Insert => "insert",
            Self::ReadModifyWrite => "read-modify-write",
        }
    }
}

impl Mix {
    fn draw(self, random: &mut Random) -> Kind {
        let mut left = random.unit() * 100.0;
        for (kind, share) in KINDS.into_iter().zip(self.0) {
            if left < share {
                return kind;
            }
            left -= share;
        }
        // Rounding ate the last bit: the last kind that has a share.
        KINDS.into_iter().zip(self.0).rfind(|(_, share)| *share > 0.0).map_or(Kind::Read, |(kind, _)| kind)
    }
}

/// The keys that are there, shared by all clients: numbers below [`Keys::count`], growing by inserts.
#[derive(Debug)]
pub(crate) struct Keys {
    next: AtomicU64,
    /// All below this are inserted, or were given up.
    settled: AtomicU64,
    /// Settled ones above it.
    ahead: Mutex<BTreeSet<u64>>,
}

impl Keys {
    /// The keys 0..`count`.
    #[must_use]
    pub(crate) fn new(count: u64) -> Self {
        Self { next: AtomicU64::new(count), settled: AtomicU64::new(count), ahead: Mutex::default() }
    }

    /// How many there are to draw from.
    #[must_use]
    pub(crate) fn count(&self) -> u64 {
        self.settled.load(Ordering::Acquire)
    }

    /// A new key, not drawn by others before it is settled.
    pub(crate) fn insert(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The insert of `key` was answered.
    pub(crate) fn settle(&self, key: u64) {
        let mut ahead = self.ahead.lock().expect("no panic under the lock");
        ahead.insert(key);
        let mut settled = self.settled.load(Ordering::Relaxed);
        while ahead.remove(&settled) {
            settled += 1;
        }
        self.settled.store(settled, Ordering::Release);
    }
}

/// Draws one client's operations.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The client's stream of randomness.
    pub random: Random,
    mix: Mix,
    popularity: Popularity,
}

impl Source {
    /// The operations of one client.
    #[must_use]
    pub(crate) fn new(random: Random, mix: Mix, popularity: Popularity) -> Self {
        Self { random, mix, popularity }
    }

    /// The next operation and its key.
    pub(crate) fn draw(&mut self, keys: &Keys) -> (Kind, u64) {
        match self.mix.draw(&mut self.random) {
            Kind::Insert => (Kind::Insert, keys.insert()),
            kind => (kind, self.popularity.draw(&mut self.random, keys.count())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(workload: Workload, get_percent: f64) -> [u32; 4] {
        let popularity = Popularity::new(workload.shape(), 0.99, 0.2, 0.8);
        let mut source = Source::new(Random::new(1, 1), workload.mix(get_percent), popularity);
        let keys = Keys::new(1000);
        let mut counts = [0; 4];
        for _ in 0..10_000 {
            let (kind, key) = source.draw(&keys);
            assert!(key < 1000 || kind == Kind::Insert);
            counts[kind.index()] += 1;
        }
        counts
    }

    #[test]
    fn workloads_keep_their_shares() {
        for (workload, expected) in [
            (Workload::A, [5000, 5000, 0, 0]),
            (Workload::B, [9500, 500, 0, 0]),
            (Workload::C, [10_000, 0, 0, 0]),
            (Workload::D, [9500, 0, 500, 0]),
            (Workload::F, [5000, 0, 0, 5000]),
            (Workload::Put, [0, 10_000, 0, 0]),
            (Workload::Mix, [7000, 3000, 0, 0]),
        ] {
            let counts = shares(workload, 70.0);
            for (got, want) in counts.into_iter().zip(expected) {
                assert!(got.abs_diff(want) <= 200 && (want > 0 || got == 0), "{workload:?} {counts:?}");
            }
        }
    }

    #[test]
    fn a_new_key_is_drawn_only_when_all_before_it_are_settled() {
        let keys = Keys::new(10);
        let (a, b, c) = (keys.insert(), keys.insert(), keys.insert());
        assert_eq!((a, b, c, keys.count()), (10, 11, 12, 10));
        keys.settle(b);
        assert_eq!(keys.count(), 10);
        keys.settle(a);
        assert_eq!(keys.count(), 12);
        keys.settle(c);
        assert_eq!(keys.count(), 13);
    }
}
