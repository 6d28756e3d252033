//! The network between nodes, and between clients and nodes: what arrives, when, and how often.
//!
//! The rule: it knows paths and moments, never what is sent. It is worse than TCP: messages may be lost, doubled and
//! overtaken one by one, and may reach a later life of the receiver.
//!
//! Not here: frames, and when a node learns that a peer is gone (`world`).

use std::{collections::BTreeMap, time::Duration};

use quorate_engine::disk::simulated::Random;
use quorate_net::id::NodeId;

use crate::faults::{Class, Hits};

/// From where to where.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Path {
    /// Between two nodes, or the cores of one.
    Nodes(NodeId, NodeId),
    /// From a client to a node, or back.
    Client,
}

/// How bad it is.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// The average delay; delays are exponential.
    pub delay: Duration,
    /// How many of 1000 messages are lost.
    pub loss_permille: u32,
    /// How many of 1000 arrive twice.
    pub duplicate_permille: u32,
}

/// All paths.
pub struct Network {
    random: Random,
    weather: Weather,
    /// Nothing passes.
    cut: BTreeMap<(NodeId, NodeId), u32>,
    /// Nothing passes before this moment, then all of it does.
    clogged: BTreeMap<(NodeId, NodeId), Duration>,
    /// What is sent before this moment takes so much longer.
    stretched: BTreeMap<(NodeId, NodeId), (Duration, Duration)>,
    /// The latest arrival on each path, to tell when one overtakes another.
    latest: BTreeMap<Path, Duration>,
    /// What happened.
    pub hits: Hits,
}

impl Weather {
    /// Nothing is lost and nothing is late.
    #[must_use]
    pub fn fair() -> Self {
        Self { delay: Duration::from_micros(100), loss_permille: 0, duplicate_permille: 0 }
    }
}

impl Network {
    /// All paths open.
    #[must_use]
    pub fn new(random: Random) -> Self {
        Self {
            random,
            weather: Weather::fair(),
            cut: BTreeMap::new(),
            clogged: BTreeMap::new(),
            stretched: BTreeMap::new(),
            latest: BTreeMap::new(),
            hits: Hits::default(),
        }
    }

    /// The weather changes.
    pub fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// Nothing passes in this direction, until as many calls of [`Network::join`] as of this.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        *self.cut.entry((from, to)).or_default() += 1;
    }

    /// Takes one cut back.
    pub fn join(&mut self, from: NodeId, to: NodeId) {
        if let Some(cuts) = self.cut.get_mut(&(from, to)) {
            *cuts -= 1;
            if *cuts == 0 {
                self.cut.remove(&(from, to));
            }
        }
    }

    /// What is sent in this direction waits until then.
    pub fn clog(&mut self, from: NodeId, to: NodeId, until: Duration) {
        self.clogged.insert((from, to), until);
    }

    /// What is sent in this direction until then takes so much longer.
    pub fn stretch(&mut self, from: NodeId, to: NodeId, until: Duration, by: Duration) {
        self.stretched.insert((from, to), (until, by));
    }

    /// Whether there is anything that takes longer.
    #[must_use]
    pub fn is_stretched(&self, now: Duration) -> bool {
        self.stretched.values().any(|&(until, _)| now < until)
    }

    /// All paths are open and the weather is fair.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.clogged.clear();
        self.stretched.clear();
        self.weather = Weather::fair();
    }

    /// Whether messages pass both ways.
    #[must_use]
    pub fn is_open(&self, a: NodeId, b: NodeId) -> bool {
        !self.cut.contains_key(&(a, b)) && !self.cut.contains_key(&(b, a))
    }

    /// When a message that is sent now arrives: never, once or twice.
    pub fn arrivals(&mut self, path: Path, now: Duration) -> Vec<Duration> {
        if let Path::Nodes(from, to) = path {
            if from == to {
                return vec![now + Duration::from_nanos(self.random.range(1_000..10_000))];
            }
            if self.cut.contains_key(&(from, to)) {
                return Vec::new();
            }
        }
        if self.random.permille(self.weather.loss_permille) {
            self.hits.count(Class::Loss);
            return Vec::new();
        }
        let copies = if self.random.permille(self.weather.duplicate_permille) {
            self.hits.count(Class::Duplication);
            2
        } else {
            1
        };
        let mut arrivals: Vec<_> = (0..copies).map(|_| self.arrival(path, now)).collect();
        // A double may lie somewhere for long, and meet another life of its sender and of its receiver.
        if path != Path::Client && copies > 1 && self.random.one_in(4) {
            arrivals[1] += Duration::from_millis(self.random.range(0..400));
        }
        arrivals
    }

    fn arrival(&mut self, path: Path, now: Duration) -> Duration {
        let mut sent = now;
        if let Path::Nodes(from, to) = path
            && let Some(&until) = self.clogged.get(&(from, to))
        {
            if until > now {
                self.hits.count(Class::Clog);
                sent = until;
            } else {
                self.clogged.remove(&(from, to));
            }
        }
        if let Path::Nodes(from, to) = path
            && let Some(&(until, by)) = self.stretched.get(&(from, to))
            && now < until
        {
            sent = sent.max(now + by);
        }
        // Exponential, and never longer than 12 times the average: see `UNDER_WAY_MAX` of the settings.
        let factor = (-(1.0 - self.random.unit()).ln()).min(12.0);
        let arrival = sent + Duration::from_micros(20) + self.weather.delay.mul_f64(factor);
        let latest = self.latest.entry(path).or_default();
        if arrival < *latest {
            self.hits.count(Class::Reordering);
        }
        *latest = arrival.max(*latest);
        arrival
    }
}
