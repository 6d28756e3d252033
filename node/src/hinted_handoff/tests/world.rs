//! Some cores that hold hints for each other, and a network between them that loses, doubles, delays and so reorders.
//!
//! The rule: every step is checked: nothing is sent but to primaries that are up, no bound is passed, and no hint is
//! forgotten, nor asked to be, while a primary lacks it on disk. Every run follows from its seed.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use quorate_net::{
    id::{CoreId, Endpoint, NodeId},
    key::Key,
    message::{
        MappedNode, Message, ReplicaOutcome,
        exchange::{HashedKey, HeldKey, Whole},
    },
};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::{
    anti_entropy::Tree,
    clock::Instant,
    coordinator::get::Theirs,
    hinted_handoff::{
        Action, HintedHandoff, Loaded, Settings, Statistics,
        delivery::{Ask, Stage},
        offer::covers,
    },
    object::{Object, Sibling},
    ring::{Member, Ring},
    version::{Actor, Clock, Dot},
};

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const PARTITIONS: u16 = 64;

/// Hints by key, in a tree of low bits.
#[derive(Clone, Default)]
pub(super) struct Store {
    /// By the fingerprint's bits in reverse, so that a leaf is a range.
    partitions: BTreeMap<u16, BTreeMap<(u64, u8), Kept>>,
    /// Keys whose record rotted.
    damaged: BTreeSet<Key>,
}

#[derive(Clone, Debug)]
struct Kept {
    key: Key,
    body: Bytes,
    version: u64,
}

impl Store {
    fn put(&mut self, partition: u16, key: &Key, body: Bytes, version: u64) {
        self.damaged.remove(key);
        let kept = Kept { key: key.clone(), body, version };
        self.partitions.entry(partition).or_default().insert(place(hashed(key)), kept);
    }

    fn kept(&self, partition: u16, key: HashedKey) -> Option<&Kept> {
        self.partitions.get(&partition)?.get(&place(key))
    }

    fn remove(&mut self, partition: u16, key: HashedKey) {
        self.partitions.entry(partition).or_default().remove(&place(key));
    }

    pub(super) fn len(&self) -> usize {
        self.partitions.values().map(BTreeMap::len).sum()
    }

    fn leaf_of(&self, partition: u16, level: u8, index: u64) -> impl Iterator<Item = (HashedKey, &Kept)> {
        assert!(index >> level == 0, "no leaf {index} on level {level}");
        let low = index.reverse_bits();
        let high = low | u64::MAX.checked_shr(level.into()).unwrap_or(0);
        let keys = self.partitions.get(&partition).into_iter();
        keys.flat_map(move |keys| keys.range((low, 0)..=(high, u8::MAX)))
            .map(|(&(bits, tag), kept)| (HashedKey { fingerprint: bits.reverse_bits(), tag }, kept))
    }
}

impl Tree for Store {
    fn root(&self, partition: u16) -> u64 {
        self.leaf(partition, 0, 0)
    }

    fn level(&self, partition: u16) -> u8 {
        (self.partitions.get(&partition).map_or(0, BTreeMap::len) / 4).max(1).ilog2() as u8
    }

    fn leaf(&self, partition: u16, level: u8, index: u64) -> u64 {
        let share = |kept: &Kept| xxh3_64(kept.key.encoded()) ^ kept.version;
        self.leaf_of(partition, level, index).fold(0, |sum: u64, (_, kept)| sum.wrapping_add(share(kept)))
    }

    fn held(&self, partition: u16, level: u8, index: u64) -> Vec<HeldKey> {
        self.leaf_of(partition, level, index).map(|(key, kept)| held(key, kept)).collect()
    }

    fn find(&self, partition: u16, key: HashedKey) -> Option<HeldKey> {
        Some(held(key, self.kept(partition, key)?))
    }
}

fn held(key: HashedKey, kept: &Kept) -> HeldKey {
    let size_class = HeldKey::size_class(kept.key.encoded().len() + kept.body.len());
    HeldKey { key, version: kept.version, size_class }
}

pub(super) fn hashed(key: &Key) -> HashedKey {
    let hash = xxh3_128(key.encoded());
    HashedKey { fingerprint: hash as u64, tag: ((hash >> 64) as u64 % 255 + 1) as u8 }
}

fn place(key: HashedKey) -> (u64, u8) {
    (key.fingerprint.reverse_bits(), key.tag)
}

/// What happens to messages and replicas.
#[derive(Clone)]
pub(super) struct Faults {
    pub(super) lost_permille: u64,
    pub(super) doubled_permille: u64,
    pub(super) refused_permille: u64,
    /// Answers that nobody gave, or that were given to something else.
    pub(super) forged_permille: u64,
    pub(super) delay_us: Range<u64>,
}

impl Faults {
    pub(super) const NONE: Self =
        Self { lost_permille: 0, doubled_permille: 0, refused_permille: 0, forged_permille: 0, delay_us: 100..101 };
    pub(super) const MANY: Self = Self {
        lost_permille: 80,
        doubled_permille: 100,
        refused_permille: 60,
        forged_permille: 200,
        delay_us: 50..40_000,
    };
}

pub(super) struct Node {
    pub(super) endpoint: Endpoint,
    /// What it has on disk as a replica.
    pub(super) main: BTreeMap<Key, Object>,
    pub(super) hints: Store,
    pub(super) core: HintedHandoff,
    pub(super) up: bool,
    /// It takes messages and does not answer.
    pub(super) mute: bool,
    /// Of its life: what was begun in an earlier one comes to nothing.
    life: u64,
    /// Counts of earlier lives.
    earlier: Vec<Statistics>,
}

enum Event {
    Deliver { from: Endpoint, to: usize, message: Message },
    Answer { from: Endpoint, to: usize, operation: u64, answer: Answer },
    Durable { node: usize, life: u64, from: Endpoint, operation: u64, key: Key, body: Bytes },
    Loaded { node: usize, life: u64, job: u64, partition: u16, key: HashedKey },
    Forget { node: usize, life: u64, job: u64, partition: u16, key: Key, version: u64 },
}

pub(super) struct World {
    pub(super) seed: u64,
    pub(super) now: Instant,
    pub(super) nodes: Vec<Node>,
    pub(super) faults: Faults,
    pub(super) forget_delay_us: u64,
    pub(super) ring: Rc<Ring>,
    pub(super) rng: Rng,
    /// What was forgotten since the ring changed last, and so must be everywhere.
    pub(super) forgotten: BTreeMap<Key, Object>,
    /// Messages by receiver and whether they carry an object.
    pub(super) sent: BTreeMap<(Endpoint, bool), u64>,
    pub(super) trace: u64,
    pub(super) refused_forgets: u64,
    settings: Settings,
    events: BTreeMap<(Instant, u64), Event>,
    next_event: u64,
}

pub(super) fn ring(members: &[usize]) -> Rc<Ring> {
    let member = |&node: &usize| {
        let id = endpoint(node).node;
        let node = MappedNode { id, address: format!("127.0.0.{id}"), cores: 1, port: 1, core_port: 2 };
        Member { node, rack: id.to_string(), weight: 1.0 }
    };
    Rc::new(Ring::new(PARTITIONS, 3, members.iter().map(member).collect()).unwrap())
}

impl World {
    pub(super) fn new(seed: u64, nodes: usize, tune: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            hints_max: 16,
            hints_per_primary_max: 8,
            bytes_max: 8 << 10,
            bytes_per_second: 10 << 20,
            gap: Duration::from_micros(50),
            timeout: 200 * MS,
            retry: 100 * MS,
            acknowledged_max: 64,
        };
        tune(&mut settings);
        let ring = ring(&(0..nodes).collect::<Vec<_>>());
        let mut rng = Rng(seed ^ 0x9e37_79b9_7f4a_7c15);
        let mut node = |node: usize| Node {
            endpoint: endpoint(node),
            main: BTreeMap::new(),
            hints: Store::default(),
            core: HintedHandoff::new(settings.clone(), ring.clone(), rng.next(), &Store::default()),
            up: true,
            mute: false,
            life: 0,
            earlier: Vec::new(),
        };
        Self {
            seed,
            now: Instant(1 << 40),
            nodes: (0..nodes).map(&mut node).collect(),
            faults: Faults::NONE,
            forget_delay_us: 100,
            ring,
            rng,
            forgotten: BTreeMap::new(),
            sent: BTreeMap::new(),
            trace: 0,
            refused_forgets: 0,
            settings,
            events: BTreeMap::new(),
            next_event: 0,
        }
    }

    pub(super) fn partition(&self, key: &Key) -> u16 {
        self.ring.partition(key.name())
    }

    /// The nodes that are primaries of the key, in order.
    pub(super) fn primaries(&self, key: &Key) -> Vec<usize> {
        self.ring.primaries(self.partition(key)).iter().map(|&primary| position(primary)).collect()
    }

    /// A replica has the object on disk.
    pub(super) fn put(&mut self, node: usize, key: &Key, object: &Object) {
        let main = self.nodes[node].main.entry(key.clone()).or_insert_with(|| object.clone());
        *main = main.reconcile(object);
    }

    /// A node takes in a hint.
    pub(super) fn hint(&mut self, node: usize, key: &Key, object: &Object) {
        let partition = self.partition(key);
        let kept = self.nodes[node].hints.kept(partition, hashed(key));
        let both = match kept.and_then(|kept| Object::decode(&kept.body).ok()) {
            Some(mine) => mine.reconcile(object),
            None => object.clone(),
        };
        self.take_in(node, key, both.encode(), both.version().0);
    }

    /// A node takes in a hint with this body, whatever it is.
    pub(super) fn take_in(&mut self, node: usize, key: &Key, body: Bytes, version: u64) {
        let (partition, hash, now, mut out) = (self.partition(key), hashed(key), self.now, Vec::new());
        let Node { core, hints, .. } = &mut self.nodes[node];
        let new = hints.kept(partition, hash).is_none();
        hints.put(partition, key, body, version);
        core.handle_hint(now, partition, hash, new, hints, &mut out);
        self.perform(node, out);
    }

    /// A hint rots on disk.
    pub(super) fn damage(&mut self, node: usize, key: &Key) {
        let partition = self.partition(key);
        if self.nodes[node].hints.kept(partition, hashed(key)).is_some() {
            self.nodes[node].hints.damaged.insert(key.clone());
        }
    }

    /// The process is gone; its stores stay. The others see it go.
    pub(super) fn stop(&mut self, node: usize) {
        let stopped = &mut self.nodes[node];
        stopped.up = false;
        stopped.life += 1;
        stopped.earlier.push(stopped.core.statistics());
        self.tell_peers(node, false);
    }

    pub(super) fn start(&mut self, node: usize) {
        let number = self.rng.next();
        let core = HintedHandoff::new(self.settings.clone(), self.ring.clone(), number, &self.nodes[node].hints);
        self.nodes[node].core = core;
        self.nodes[node].up = true;
        for peer in (0..self.nodes.len()).filter(|&peer| peer != node && !self.nodes[peer].up).collect::<Vec<_>>() {
            self.tell(node, peer, false);
        }
        self.tell_peers(node, true);
    }

    fn tell_peers(&mut self, node: usize, up: bool) {
        (0..self.nodes.len()).filter(|&other| other != node).for_each(|other| self.tell(other, node, up));
    }

    fn tell(&mut self, node: usize, peer: usize, up: bool) {
        let (now, mut out) = (self.now, Vec::new());
        let Node { core, hints, up: alive, .. } = &mut self.nodes[node];
        if *alive {
            core.handle_peer(now, endpoint(peer), up, hints, &mut out);
            self.perform(node, out);
        }
    }

    /// The ring changes; who owns a partition no longer drops it at once.
    pub(super) fn set_ring(&mut self, ring: &Rc<Ring>) {
        self.ring = ring.clone();
        self.forgotten.clear();
        for Node { endpoint, main, .. } in &mut self.nodes {
            main.retain(|key, _| ring.primaries(ring.partition(key.name())).contains(endpoint));
        }
        for node in (0..self.nodes.len()).filter(|&node| self.nodes[node].up).collect::<Vec<_>>() {
            let (now, mut out) = (self.now, Vec::new());
            let Node { core, hints, .. } = &mut self.nodes[node];
            core.handle_ring(now, ring.clone(), hints, &mut out);
            self.perform(node, out);
        }
    }

    pub(super) fn held(&self) -> usize {
        self.nodes.iter().map(|node| node.hints.len()).sum()
    }

    pub(super) fn total(&self, what: impl Fn(Statistics) -> u64) -> u64 {
        let all = |node: &Node| node.earlier.iter().map(|&s| what(s)).sum::<u64>() + what(node.core.statistics());
        let stopped = |node: &Node| if node.up { 0 } else { what(node.core.statistics()) };
        self.nodes.iter().map(|node| all(node) - stopped(node)).sum()
    }

    pub(super) fn check_counters(&self) {
        let held = self.held() as u64;
        assert_eq!(
            self.total(|s| s.accepted),
            self.total(|s| s.delivered) + self.total(|s| s.dropped) + held,
            "seed {}: accepted = delivered + dropped + held",
            self.seed
        );
    }

    /// All that was forgotten under this ring is on all its primaries.
    pub(super) fn check_forgotten(&self) {
        for (key, object) in &self.forgotten {
            self.check_all_have(key, object);
        }
    }

    fn check_all_have(&self, key: &Key, object: &Object) {
        for node in self.primaries(key) {
            let has = self.nodes[node].main.get(key).is_some_and(|main| covers(main, object));
            assert!(has, "seed {}: {:?} lacks {key:?} when it is forgotten", self.seed, endpoint(node));
        }
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.next_moment().is_some_and(|at| at <= end) {
            self.step();
        }
        self.now = end;
    }

    /// The time until no hint is held, looked at every 10 ms.
    pub(super) fn run_until_drained(&mut self, most: Duration) -> Option<Duration> {
        let begin = self.now;
        while self.held() > 0 {
            if self.now.since(begin) >= most {
                return None;
            }
            self.run(10 * MS);
        }
        Some(self.now.since(begin))
    }

    fn next_moment(&self) -> Option<Instant> {
        let up = self.nodes.iter().filter(|node| node.up);
        let timeout = up.filter_map(|node| node.core.next_timeout()).min();
        self.events.keys().next().map(|&(at, _)| at).into_iter().chain(timeout).min()
    }

    fn step(&mut self) {
        let Some(at) = self.next_moment() else { return };
        self.now = self.now.max(at);
        self.trace = xxh3_64(&[self.trace.to_le_bytes(), self.now.0.to_le_bytes()].concat());
        match self.events.first_entry() {
            Some(first) if first.key().0 <= self.now => {
                let event = first.remove();
                self.handle(event);
            }
            _ => {
                let due = |node: &Node| node.up && node.core.next_timeout().is_some_and(|due| due <= at);
                let node = self.nodes.iter().position(due).expect("something was due");
                let mut out = Vec::new();
                let Node { core, hints, .. } = &mut self.nodes[node];
                core.handle_timeout(self.now, hints, &mut out);
                assert!(core.next_timeout().is_none_or(|next| next > self.now), "a deadline that is handled is over");
                self.perform(node, out);
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, message } => {
                if self.nodes[to].up && !self.nodes[to].mute {
                    self.deliver(from, to, message);
                }
            }
            Event::Answer { from, to, operation, answer } => {
                if self.nodes[to].up {
                    self.take_answer(from, to, operation, &answer);
                }
            }
            Event::Durable { node, life, from, operation, key, body } => {
                if life == self.nodes[node].life && self.primaries(&key).contains(&node) {
                    self.put(node, &key, &Object::decode(&body).unwrap());
                    self.replicated(node, from, operation, ReplicaOutcome::Durable);
                }
            }
            Event::Loaded { node, life, job, partition, key } => self.load(node, life, job, partition, key),
            Event::Forget { node, life, job, partition, key, version } => {
                if life == self.nodes[node].life {
                    self.forget(node, job, partition, &key, version);
                }
            }
        }
    }

    fn load(&mut self, node: usize, life: u64, job: u64, partition: u16, key: HashedKey) {
        let (now, mut out) = (self.now, Vec::new());
        let Node { core, hints, life: current, .. } = &mut self.nodes[node];
        if life != *current {
            return;
        }
        let loaded = match hints.kept(partition, key) {
            Some(kept) if hints.damaged.contains(&kept.key) => {
                hints.remove(partition, key);
                Loaded::Damaged
            }
            Some(kept) => Loaded::Hint(Whole { key: kept.key.clone(), body: kept.body.clone() }),
            None => Loaded::Missing,
        };
        core.handle_loaded(now, job, loaded, hints, &mut out);
        self.perform(node, out);
    }

    fn forget(&mut self, node: usize, job: u64, partition: u16, key: &Key, version: u64) {
        let (now, mut out) = (self.now, Vec::new());
        let busy = self.rng.below(1000) < self.faults.refused_permille;
        let kept = self.nodes[node].hints.kept(partition, hashed(key)).cloned();
        let may = self.nodes[node].core.may_forget(job);
        self.refused_forgets += u64::from(!may);
        let forgotten = !busy && may && kept.as_ref().is_some_and(|kept| kept.version == version);
        if forgotten {
            if let Ok(object) = Object::decode(&kept.unwrap().body) {
                self.check_all_have(key, &object);
                let all = self.forgotten.entry(key.clone()).or_default();
                *all = all.reconcile(&object);
            }
            self.nodes[node].hints.remove(partition, hashed(key));
        }
        let Node { core, hints, .. } = &mut self.nodes[node];
        core.handle_forgotten(now, job, forgotten, hints, &mut out);
        self.perform(node, out);
    }

    fn deliver(&mut self, from: Endpoint, to: usize, message: Message) {
        match message {
            Message::Probe(probe) => {
                let owner = self.primaries(&probe.key).contains(&to);
                let theirs = match self.nodes[to].main.get(&probe.key) {
                    _ if !owner || self.rng.below(1000) < self.faults.refused_permille => Theirs::Unknown,
                    None => Theirs::Absent,
                    Some(object) if object.version().0 == probe.known => Theirs::Same,
                    Some(object) => Theirs::Object(object.clone()),
                };
                self.answer(to, from, probe.operation, &Answer::Probed(theirs));
            }
            Message::Replicate(replicate) => {
                assert!(replicate.durable && replicate.hint_for.is_none() && replicate.base == 0);
                if !self.primaries(&replicate.key).contains(&to) {
                    return self.replicated(to, from, replicate.operation, ReplicaOutcome::NotOwner);
                }
                if self.rng.below(1000) < self.faults.refused_permille {
                    use ReplicaOutcome::*;
                    let refusals = [Overloaded, DiskFull, StoreFailed, NotOwner, TooLarge, Malformed, Buffered];
                    let refusal = refusals[self.rng.below(7) as usize];
                    return self.replicated(to, from, replicate.operation, refusal);
                }
                let (life, operation, key, body) =
                    (self.nodes[to].life, replicate.operation, replicate.key, replicate.body);
                let after = self.soon();
                self.event(after, Event::Durable { node: to, life, from, operation, key, body });
            }
            other => panic!("{other:?}"),
        }
    }

    fn replicated(&mut self, node: usize, to: Endpoint, operation: u64, outcome: ReplicaOutcome) {
        self.answer(node, to, operation, &Answer::Replicated(outcome));
    }

    /// The answer goes over the network; besides it may go what no honest replica would say.
    fn answer(&mut self, node: usize, to: Endpoint, operation: u64, answer: &Answer) {
        let (from, to) = (endpoint(node), position(to));
        for after in self.travel() {
            self.event(after, Event::Answer { from, to, operation, answer: answer.clone() });
        }
        if self.rng.below(1000) < self.faults.forged_permille {
            // Right, but from another node, or for another message; all of them claim that the hint is there.
            let foreign = endpoint((node + 1) % self.nodes.len());
            let (from, operation) = if self.rng.below(2) == 0 {
                (foreign, operation)
            } else {
                (from, operation ^ 1 << (20 + self.rng.below(44)))
            };
            let same = Answer::Probed(Theirs::Same);
            let forged = if self.rng.below(2) == 0 { same } else { Answer::Replicated(ReplicaOutcome::Durable) };
            let after = self.soon();
            self.event(after, Event::Answer { from, to, operation, answer: forged });
        }
    }

    fn take_answer(&mut self, from: Endpoint, to: usize, operation: u64, answer: &Answer) {
        let (now, mut out) = (self.now, Vec::new());
        let Node { core, hints, .. } = &mut self.nodes[to];
        let asked = core.asked(from, operation).map(|(_, ask)| ask);
        let (awaited, taken) = match answer {
            Answer::Probed(theirs) => (
                matches!(asked, Some(Ask::Probe { .. })),
                core.handle_probed(now, from, operation, theirs, hints, &mut out),
            ),
            Answer::Replicated(outcome) => (
                matches!(asked, Some(Ask::Replicate { .. })),
                core.handle_replicated(now, from, operation, *outcome, hints, &mut out),
            ),
        };
        assert_eq!(awaited, taken, "seed {}: an answer is taken when it was asked for", self.seed);
        assert!(taken || out.is_empty(), "seed {}: what was not asked for does nothing", self.seed);
        self.perform(to, out);
    }

    fn perform(&mut self, node: usize, actions: Vec<Action>) {
        self.check_bounds(node);
        let life = self.nodes[node].life;
        for action in actions {
            match action {
                Action::Send { to, message } => self.send(node, to, &message),
                Action::Load { job, partition, key } => {
                    let after = self.soon();
                    self.event(after, Event::Loaded { node, life, job, partition, key });
                }
                Action::Forget { job, partition, key, version } => {
                    assert_eq!(self.partition(&key), partition);
                    let kept = self.nodes[node].hints.kept(partition, hashed(&key)).expect("it is held");
                    assert_eq!(kept.version, version, "seed {}: what is forgotten is what is held", self.seed);
                    if let Ok(object) = Object::decode(&kept.body.clone()) {
                        self.check_all_have(&key, &object);
                    }
                    let after = Duration::from_micros(1 + self.rng.below(self.forget_delay_us));
                    self.event(after, Event::Forget { node, life, job, partition, key, version });
                }
            }
        }
    }

    fn check_bounds(&self, node: usize) {
        let (core, seed, settings) = (&self.nodes[node].core, self.seed, &self.settings);
        let bytes = core.deliveries.values().map(|delivery| match &delivery.stage {
            Stage::Offering { whole, .. } => whole.key.encoded().len() + whole.body.len(),
            _ => 0,
        });
        let bytes: Vec<_> = bytes.filter(|&bytes| bytes > 0).collect();
        let sum = bytes.iter().sum::<usize>() as u64;
        assert!(sum <= core.bytes_underway(), "seed {seed}: {sum} bytes are not counted");
        assert!(sum <= settings.bytes_max || bytes.len() == 1, "seed {seed}: {sum} bytes under way");
        assert!(core.underway() <= settings.hints_max, "seed {seed}: too many under way");
        assert!(core.remembered() <= settings.acknowledged_max, "seed {seed}: too much is remembered");
        assert_eq!(core.deadlines.len(), core.operations.len(), "seed {seed}");
        let mut asks = BTreeMap::<Endpoint, usize>::new();
        core.deliveries.values().flat_map(|d| d.asks.keys()).for_each(|&to| *asks.entry(to).or_default() += 1);
        let most = asks.values().max().copied().unwrap_or(0);
        assert!(most <= settings.hints_per_primary_max, "seed {seed}: {most} under way to one primary");
    }

    fn send(&mut self, from: usize, to: Endpoint, message: &Message) {
        let (key, carries) = match message {
            Message::Probe(probe) => (&probe.key, false),
            Message::Replicate(replicate) => (&replicate.key, true),
            other => panic!("{other:?}"),
        };
        let receiver = position(to);
        assert!(self.primaries(key).contains(&receiver), "seed {}: {to:?} is no primary", self.seed);
        assert!(self.nodes[receiver].up, "seed {}: {to:?} is known to be down", self.seed);
        *self.sent.entry((to, carries)).or_default() += 1;
        for after in self.travel() {
            self.event(after, Event::Deliver { from: endpoint(from), to: receiver, message: message.clone() });
        }
    }

    /// How long each copy of a message is under way.
    fn travel(&mut self) -> Vec<Duration> {
        let copies = match self.rng.below(1000) {
            luck if luck < self.faults.lost_permille => 0,
            luck if luck < self.faults.lost_permille + self.faults.doubled_permille => 2,
            _ => 1,
        };
        let Range { start, end } = self.faults.delay_us;
        (0..copies).map(|_| Duration::from_micros(start + self.rng.below(end - start))).collect()
    }

    fn soon(&mut self) -> Duration {
        Duration::from_micros(20 + self.rng.below(3000))
    }

    fn event(&mut self, after: Duration, event: Event) {
        self.next_event += 1;
        self.events.insert((self.now + after, self.next_event), event);
    }
}

#[derive(Clone)]
enum Answer {
    Probed(Theirs),
    Replicated(ReplicaOutcome),
}

pub(super) fn endpoint(node: usize) -> Endpoint {
    Endpoint::new(NodeId(node as u16 + 1), CoreId(0))
}

fn position(endpoint: Endpoint) -> usize {
    usize::from(endpoint.node.0 - 1)
}

pub(super) fn key(number: u64) -> Key {
    Key::new(b"default", format!("key-{number}").as_bytes()).unwrap()
}

/// The object after a write by an actor that had seen all of `before`.
pub(super) fn written(before: &Object, actor: u16, counter: u64, bytes: usize) -> Object {
    let dot = Dot { actor: Actor { node: actor, core: 0, incarnation: 1 }, counter };
    let value = Some(vec![7; bytes].into());
    before.after_write(&before.clock, Sibling { dot, timestamp_ms: counter, token: None, value })
}

/// The first write of a key.
pub(super) fn first(actor: u16, counter: u64, bytes: usize) -> Object {
    written(&Object { clock: Clock::new(), siblings: Vec::new() }, actor, counter, bytes)
}

/// SplitMix64.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
