//! The flight recorder: how long this core's requests took, and what the slowest of them waited for.
//!
//! The rule: of each second and each kind of request one in a thousand is kept, the slowest, and never fewer than one: so what
//! is kept is what lies beyond the 99.9th percentile. All is bounded, and what is not slow costs two counters.
//!
//! Pure; it is told the time, and rolls over to the next second when it is told of the first request in it. Not here: which
//! stage begins and ends when (`core`), who asks for it (`runtime/view`).

mod hot_keys;
mod latencies;
mod trace;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;

pub use self::{
    hot_keys::{HotKey, HotKeys},
    latencies::{BOUNDS_US, Latencies, Second},
    trace::{Stage, Trace},
};
use crate::clock::Instant;

/// So many flights are kept, the latest.
const FLIGHTS_MAX: usize = 2048;

/// Of one second and kind, at most so many.
const SLOWEST_MAX: usize = 32;

/// Longer keys are cut.
const KEY_BYTES_MAX: usize = 64;

/// What a core does with a request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// A get that it coordinates.
    Get,
    /// A put that it coordinates.
    Put,
    /// A request that it sent on to an owner.
    Forward,
    /// An object that it takes as a replica.
    Replicate,
}

impl Kind {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Get, Self::Put, Self::Forward, Self::Replicate];

    /// As people and programs know it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Put => "put",
            Self::Forward => "forward",
            Self::Replicate => "replicate",
        }
    }
}

/// A request that was slow.
#[derive(Clone, PartialEq, Debug)]
pub struct Flight {
    /// What was done.
    pub kind: Kind,
    /// The partition, and the key as it is encoded; a long one is cut. None where they were not noted.
    pub key: Option<(u16, Bytes)>,
    /// When it was answered.
    pub ended: Instant,
    /// How long that took.
    pub took: Duration,
    /// The answer was that it failed.
    pub failed: bool,
    /// What happened on the way.
    pub trace: Trace,
}

/// Why requests were slow: one cause, over some time.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Cause {
    /// What was done.
    pub kind: Kind,
    /// What was waited for longest; `None`: for nothing that was noted.
    pub stage: Option<Stage>,
    /// So many of the flights.
    pub flights: u64,
    /// How long all of them together waited for it.
    pub waited: Duration,
    /// The longest of these.
    pub longest: Duration,
}

/// A core's flight recorder.
#[derive(Debug)]
pub struct Recorder {
    kinds: [Recorded; Kind::ALL.len()],
    flights: VecDeque<Flight>,
    hot_keys: HotKeys,
    /// What takes longer counts as slow.
    service_level: Duration,
    /// When the present second ends.
    second_ends: Instant,
}

#[derive(Debug, Default)]
struct Recorded {
    latencies: Latencies,
    /// Of the present second.
    slowest: Vec<Flight>,
    /// The least that one of them took.
    least: Duration,
}

impl Recorder {
    /// Nothing is recorded yet. What takes longer than the service level is counted as slow.
    #[must_use]
    pub fn new(now: Instant, service_level: Duration) -> Self {
        Self {
            kinds: Default::default(),
            flights: VecDeque::new(),
            hot_keys: HotKeys::default(),
            service_level,
            second_ends: now + Duration::from_secs(1),
        }
    }

    /// From now on what takes longer than this counts as slow.
    pub fn set_service_level(&mut self, service_level: Duration) {
        self.service_level = service_level;
    }

    /// A request was answered. `key`: its partition, and as it is encoded.
    pub fn record(&mut self, now: Instant, kind: Kind, trace: &Trace, key: Option<(u16, &[u8])>, failed: bool) {
        self.roll(now);
        let took = now.since(trace.begun());
        let recorded = &mut self.kinds[kind as usize];
        recorded.latencies.record(took, failed, took > self.service_level);
        match (kind, key) {
            (Kind::Get, Some((_, key))) => self.hot_keys.count(key, false),
            (Kind::Put, Some((_, key))) => self.hot_keys.count(key, true),
            _ => {}
        }
        let room = SLOWEST_MAX.min(1 + (recorded.latencies.in_second() / 1000) as usize);
        if recorded.slowest.len() < room || took > recorded.least {
            let cut = |key: &[u8]| Bytes::copy_from_slice(&key[..key.len().min(KEY_BYTES_MAX)]);
            let key = key.map(|(partition, key)| (partition, cut(key)));
            recorded.keep(Flight { kind, key, ended: now, took, failed, trace: *trace }, room);
        }
    }

    /// Ends the seconds that are over.
    pub fn roll(&mut self, now: Instant) {
        if now < self.second_ends {
            return;
        }
        let passed = 1 + now.since(self.second_ends).as_secs();
        for recorded in &mut self.kinds {
            recorded.latencies.roll(passed);
            self.flights.extend(recorded.slowest.drain(..));
        }
        let surplus = self.flights.len().saturating_sub(FLIGHTS_MAX);
        self.flights.drain(..surplus);
        self.hot_keys.roll(passed);
        self.second_ends = self.second_ends + Duration::from_secs(passed);
    }

    /// How long requests of a kind took.
    #[must_use]
    pub fn latencies(&self, kind: Kind) -> &Latencies {
        &self.kinds[kind as usize].latencies
    }

    /// The keys that are asked for most.
    #[must_use]
    pub fn hot_keys(&self) -> &HotKeys {
        &self.hot_keys
    }

    /// The slow requests that ended since then, in no order.
    pub fn flights(&self, since: Instant) -> impl Iterator<Item = &Flight> {
        let present = self.kinds.iter().flat_map(|recorded| &recorded.slowest);
        self.flights.iter().chain(present).filter(move |flight| flight.ended >= since)
    }

    /// What they waited for, the greatest cause first.
    #[must_use]
    pub fn causes(&self, since: Instant) -> Vec<Cause> {
        let mut causes: BTreeMap<(Kind, Option<Stage>), Cause> = BTreeMap::new();
        for flight in self.flights(since) {
            let (kind, longest) = (flight.kind, flight.trace.longest_wait(flight.took));
            let (stage, waited) = longest.map_or((None, flight.took), |(stage, waited)| (Some(stage), waited));
            let nothing = Cause { kind, stage, flights: 0, waited: Duration::ZERO, longest: Duration::ZERO };
            let cause = causes.entry((kind, stage)).or_insert(nothing);
            cause.flights += 1;
            cause.waited += waited;
            cause.longest = cause.longest.max(waited);
        }
        let mut causes: Vec<Cause> = causes.into_values().collect();
        causes.sort_by_key(|cause| std::cmp::Reverse(cause.waited));
        causes
    }
}

impl Recorded {
    /// Takes in a flight, in the place of the fastest when there is no room for one more.
    fn keep(&mut self, flight: Flight, room: usize) {
        if self.slowest.len() >= room
            && let Some(at) = self.slowest.iter().position(|other| other.took == self.least)
        {
            self.slowest.swap_remove(at);
        }
        self.slowest.push(flight);
        self.least = self.slowest.iter().map(|flight| flight.took).min().unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use quorate_net::id::{CoreId, Endpoint, NodeId};

    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn at(micros: u64) -> Instant {
        Instant(1 << 40) + Duration::from_micros(micros)
    }

    /// A put at `micros` that waited for its commit, and then for a replica.
    fn put(recorder: &mut Recorder, micros: u64, commit_us: u64, replica_us: u64) {
        let mut trace = Trace::new(at(micros));
        trace.mark(at(micros + commit_us), Stage::Commit);
        let answered = at(micros + commit_us + replica_us);
        trace.mark(answered, Stage::Peer(Endpoint::new(NodeId(2), CoreId(0))));
        recorder.record(answered, Kind::Put, &trace, Some((7, b"key")), false);
    }

    #[test]
    fn one_in_a_thousand_of_each_second_is_kept_and_it_is_the_slowest() {
        let mut recorder = Recorder::new(at(0), MILLI);
        for second in 0..3 {
            for i in 0..5_000 {
                let slow = i % 500 == 250;
                put(&mut recorder, second * 1_000_000 + i * 100, 50, if slow { 2_000 + i } else { 100 });
            }
        }
        recorder.roll(at(3_000_000));
        let kept: Vec<Duration> = recorder.flights(at(0)).map(|flight| flight.took).collect();
        // One in a thousand, and one that there is room for at the end.
        assert_eq!(kept.len(), 18, "{kept:?}");
        assert_eq!(kept.iter().filter(|&&took| took >= Duration::from_micros(4_800)).count(), 15, "{kept:?}");
        assert_eq!(recorder.flights(at(2_000_000)).count(), 6);
        let second = recorder.latencies(Kind::Put).seconds().last().copied().unwrap();
        assert_eq!(second.count, 5_000);
        assert!((150..152).contains(&second.p50.as_micros()), "{second:?}");
        assert!(second.p999 > 2 * MILLI && second.max < 7 * MILLI, "{second:?}");
    }

    #[test]
    fn a_single_request_in_a_second_is_kept_too() {
        let mut recorder = Recorder::new(at(0), MILLI);
        put(&mut recorder, 10, 5, 5);
        put(&mut recorder, 20, 6, 5);
        put(&mut recorder, 30, 5, 4);
        let kept: Vec<u128> = recorder.flights(at(0)).map(|flight| flight.took.as_micros()).collect();
        assert_eq!(kept, [11]);
    }

    #[test]
    fn causes_are_ranked_by_what_they_cost() {
        let mut recorder = Recorder::new(at(0), MILLI);
        put(&mut recorder, 0, 100, 9_000);
        put(&mut recorder, 1_000_000, 12_000, 10);
        put(&mut recorder, 2_000_000, 10, 5_000);
        let causes: Vec<_> = recorder.causes(at(0)).iter().map(|c| (c.stage, c.flights, c.waited, c.longest)).collect();
        let replica = Stage::Peer(Endpoint::new(NodeId(2), CoreId(0)));
        assert_eq!(
            causes,
            [(Some(replica), 2, 14 * MILLI, 9 * MILLI), (Some(Stage::Commit), 1, 12 * MILLI, 12 * MILLI)]
        );
        assert_eq!(recorder.causes(at(1_500_000)).len(), 1);
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let mut recorder = Recorder::new(at(0), MILLI);
        for second in 0..4_000 {
            put(&mut recorder, second * 1_000_000, 10, 10);
        }
        assert_eq!(recorder.flights(Instant(0)).count(), FLIGHTS_MAX + 1);
        assert_eq!(recorder.latencies(Kind::Put).seconds().count(), latencies::SECONDS_MAX);
    }
}
