//! Some cores with model stores, and a network between them that loses, doubles, delays and so reorders.
//!
//! The rule: every message travels as the frame that it would be, and is refused as a peer would refuse it. Every run
//! follows from its seed.

use std::{collections::BTreeMap, ops::Range, rc::Rc, time::Duration};

use bytes::Bytes;
use quorate_net::{
    frame,
    id::{CoreId, Endpoint, NodeId},
    key::Key,
    message::{
        self, MappedNode, Message,
        exchange::{HashedKey, HeldKey, Step, Whole},
    },
};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::{
    anti_entropy::{Action, AntiEntropy, Settings, Tree},
    clock::Instant,
    object::{Object, Sibling},
    ring::{Member, Ring},
    version::{Actor, Clock, Dot},
};

pub(super) const MS: Duration = Duration::from_millis(1);

/// Objects by key, each with its place in a tree of low bits.
#[derive(Clone, Default)]
pub(super) struct Store {
    /// By the fingerprint's bits in reverse, so that a leaf is a range.
    partitions: BTreeMap<u16, BTreeMap<(u64, u8), Kept>>,
    /// Instead of what follows from the number of keys.
    pub(super) level: Option<u8>,
}

#[derive(Clone, PartialEq, Debug)]
struct Kept {
    key: Key,
    body: Bytes,
    version: u64,
    share: u64,
}

impl Store {
    pub(super) fn put(&mut self, partition: u16, key: &Key, body: Bytes) {
        let version = Object::decode(&body).unwrap().version().0;
        let hash = hashed(key);
        let mut bytes = hash.fingerprint.to_le_bytes().to_vec();
        bytes.extend_from_slice(&version.to_le_bytes());
        bytes.push(hash.tag);
        let kept = Kept { key: key.clone(), body, version, share: xxh3_64(&bytes) };
        self.partitions.entry(partition).or_default().insert(place(hash), kept);
    }

    /// As a replica takes an object.
    pub(super) fn take(&mut self, partition: u16, key: &Key, body: &Bytes) {
        let body = match self.object(partition, key) {
            Some(mine) => mine.reconcile(&Object::decode(body).unwrap()).encode(),
            None => body.clone(),
        };
        self.put(partition, key, body);
    }

    pub(super) fn object(&self, partition: u16, key: &Key) -> Option<Object> {
        let kept = self.partitions.get(&partition)?.get(&place(hashed(key)))?;
        Some(Object::decode(&kept.body).unwrap())
    }

    pub(super) fn len(&self) -> usize {
        self.partitions.values().map(BTreeMap::len).sum()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (u16, &Key, &Bytes)> {
        self.partitions.iter().flat_map(|(&p, keys)| keys.values().map(move |kept| (p, &kept.key, &kept.body)))
    }

    pub(super) fn clear(&mut self) {
        self.partitions.clear();
    }

    fn load(&self, partition: u16, key: HashedKey) -> Option<Whole> {
        let kept = self.partitions.get(&partition)?.get(&place(key))?;
        Some(Whole { key: kept.key.clone(), body: kept.body.clone() })
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
        let keys = self.partitions.get(&partition).map_or(0, BTreeMap::len);
        self.level.unwrap_or((keys / 24).max(1).ilog2() as u8)
    }

    fn leaf(&self, partition: u16, level: u8, index: u64) -> u64 {
        self.leaf_of(partition, level, index).fold(0, |sum: u64, (_, kept)| sum.wrapping_add(kept.share))
    }

    fn held(&self, partition: u16, level: u8, index: u64) -> Vec<HeldKey> {
        self.leaf_of(partition, level, index).map(|(key, kept)| held(key, kept)).collect()
    }

    fn find(&self, partition: u16, key: HashedKey) -> Option<HeldKey> {
        Some(held(key, self.partitions.get(&partition)?.get(&place(key))?))
    }
}

fn held(key: HashedKey, kept: &Kept) -> HeldKey {
    let size_class = HeldKey::size_class(kept.key.encoded().len() + kept.body.len());
    HeldKey { key, version: kept.version, size_class }
}

fn hashed(key: &Key) -> HashedKey {
    let hash = xxh3_128(key.encoded());
    HashedKey { fingerprint: hash as u64, tag: ((hash >> 64) as u64 % 255 + 1) as u8 }
}

fn place(key: HashedKey) -> (u64, u8) {
    (key.fingerprint.reverse_bits(), key.tag)
}

/// What the network does to messages.
#[derive(Clone)]
pub(super) struct Faults {
    pub(super) lost_permille: u64,
    pub(super) doubled_permille: u64,
    pub(super) delay_us: Range<u64>,
}

impl Faults {
    pub(super) const NONE: Self = Self { lost_permille: 0, doubled_permille: 0, delay_us: 100..101 };
    pub(super) const MANY: Self = Self { lost_permille: 150, doubled_permille: 100, delay_us: 50..40_000 };
}

pub(super) struct Node {
    pub(super) endpoint: Endpoint,
    pub(super) store: Store,
    pub(super) core: AntiEntropy,
    pub(super) up: bool,
    /// Of its life: what was begun in an earlier one comes to nothing.
    life: u64,
}

enum Event {
    Deliver { from: Endpoint, to: usize, frame: Vec<u8> },
    Loaded { node: usize, life: u64, job: u64, partition: u16, key: HashedKey },
    Taken { node: usize, life: u64, job: u64 },
    Write { node: usize, key: Key, body: Bytes },
}

/// Frames and their bytes, by what they say.
pub(super) type Traffic = BTreeMap<&'static str, (u64, u64)>;

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) nodes: Vec<Node>,
    pub(super) faults: Faults,
    pub(super) traffic: Traffic,
    pub(super) frame_bytes_max: usize,
    pub(super) underway_bytes_max: u64,
    pub(super) ring: Rc<Ring>,
    pub(super) rng: Rng,
    settings: Settings,
    events: BTreeMap<(Instant, u64), Event>,
    next_event: u64,
}

/// Nodes of one core each.
pub(super) fn ring(partitions: u16, replicas: u8, nodes: u16) -> Ring {
    let member = |id: u16| {
        let address = format!("127.0.0.{id}");
        let node = MappedNode { id: NodeId(id), address, cores: 1, port: 1, core_port: 2 };
        Member { node, rack: id.to_string(), weight: 1.0 }
    };
    Ring::new(partitions, replicas, (1..=nodes).map(member).collect()).unwrap()
}

impl World {
    pub(super) fn new(seed: u64, nodes: u16, partitions: u16, tune: impl FnOnce(&mut Settings)) -> Self {
        let ring = Rc::new(ring(partitions, nodes as u8, nodes));
        let mut settings = Settings {
            me: endpoint(0),
            interval: 10_000 * MS,
            gap: MS,
            confirm: 200 * MS,
            timeout: 500 * MS,
            tries_max: 5,
            retry: 300 * MS,
            exchanges_max: 32,
            exchanges_per_peer_max: 16,
            bytes_max: 64 << 10,
            bytes_per_second: u64::MAX,
            jobs_max: 64,
        };
        tune(&mut settings);
        let mut world = Self {
            now: Instant(1 << 40),
            nodes: Vec::new(),
            faults: Faults::NONE,
            traffic: Traffic::new(),
            frame_bytes_max: 0,
            underway_bytes_max: 0,
            ring,
            rng: Rng(seed ^ 0x9e37_79b9_7f4a_7c15),
            settings,
            events: BTreeMap::new(),
            next_event: 0,
        };
        for node in 0..usize::from(nodes) {
            let core = world.core(node);
            let endpoint = endpoint(node);
            world.nodes.push(Node { endpoint, store: Store::default(), core, up: true, life: 0 });
        }
        world
    }

    fn core(&mut self, node: usize) -> AntiEntropy {
        let settings = Settings { me: endpoint(node), ..self.settings.clone() };
        AntiEntropy::new(settings, self.ring.clone(), self.now, self.rng.next())
    }

    pub(super) fn partition(&self, key: &Key) -> u16 {
        self.ring.partition(key.name())
    }

    /// Puts the object there, at once.
    pub(super) fn put(&mut self, node: usize, key: &Key, object: &Object) {
        let partition = self.partition(key);
        self.nodes[node].store.put(partition, key, object.encode());
    }

    /// A write arrives at a replica after a while.
    pub(super) fn write_later(&mut self, node: usize, after: Duration, key: &Key, object: &Object) {
        self.event(after, Event::Write { node, key: key.clone(), body: object.encode() });
    }

    /// The process is gone; its store stays. The others see it go.
    pub(super) fn stop(&mut self, node: usize) {
        self.nodes[node].up = false;
        self.nodes[node].life += 1;
        self.tell_peers(node, false);
    }

    pub(super) fn start(&mut self, node: usize) {
        self.nodes[node].core = self.core(node);
        self.nodes[node].up = true;
        self.tell_peers(node, true);
    }

    fn tell_peers(&mut self, node: usize, up: bool) {
        let peer = endpoint(node);
        for other in (0..self.nodes.len()).filter(|&other| other != node) {
            let mut out = Vec::new();
            self.nodes[other].core.handle_peer(self.now, peer, up, &mut out);
            self.perform(other, out);
        }
    }

    pub(super) fn heal_all(&mut self, node: usize) {
        let mut out = Vec::new();
        for partition in 0..self.ring.partitions() {
            self.nodes[node].core.heal(partition, &mut out);
        }
        self.perform(node, out);
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.next_moment().is_some_and(|at| at <= end) {
            self.step();
        }
        self.now = end;
    }

    /// The time until all stores are equal, looked at every 100 ms.
    pub(super) fn run_until_equal(&mut self, most: Duration) -> Option<Duration> {
        let begin = self.now;
        while !self.all_equal() {
            if self.now.since(begin) >= most {
                return None;
            }
            self.run(100 * MS);
        }
        Some(self.now.since(begin))
    }

    pub(super) fn all_equal(&self) -> bool {
        self.nodes.windows(2).all(|pair| pair[0].store.all().eq(pair[1].store.all()))
    }

    pub(super) fn frames(&self, step: &str) -> u64 {
        self.traffic.get(step).map_or(0, |(frames, _)| *frames)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.traffic.values().map(|(_, bytes)| bytes).sum()
    }

    fn next_moment(&self) -> Option<Instant> {
        let up = self.nodes.iter().filter(|node| node.up);
        let timeout = up.filter_map(|node| node.core.next_timeout()).min();
        self.events.keys().next().map(|&(at, _)| at).into_iter().chain(timeout).min()
    }

    pub(super) fn step(&mut self) {
        let Some(at) = self.next_moment() else { return };
        self.now = self.now.max(at);
        match self.events.first_entry() {
            Some(first) if first.key().0 <= self.now => {
                let event = first.remove();
                self.handle(event);
            }
            _ => {
                let due = |node: &Node| node.up && node.core.next_timeout().is_some_and(|due| due <= at);
                let node = self.nodes.iter().position(due).expect("something was due");
                let mut out = Vec::new();
                let Node { core, store, .. } = &mut self.nodes[node];
                core.handle_timeout(self.now, store, &mut out);
                assert!(core.next_timeout().is_none_or(|next| next > self.now), "a deadline that is handled is over");
                self.perform(node, out);
            }
        }
    }

    fn handle(&mut self, event: Event) {
        let (now, mut out) = (self.now, Vec::new());
        let node = match event {
            Event::Deliver { from, to, frame } => {
                let Node { core, store, up, .. } = &mut self.nodes[to];
                if !*up {
                    return;
                }
                let message = frame::decode(&frame, usize::MAX).unwrap().unwrap().message().unwrap();
                let Message::Exchange(message) = message else { panic!("an exchange") };
                core.handle_exchange(now, from, message, store, &mut out);
                to
            }
            Event::Loaded { node, life, job, partition, key } => {
                let Node { core, store, life: current, .. } = &mut self.nodes[node];
                if life != *current {
                    return;
                }
                core.handle_loaded(now, job, store.load(partition, key), store, &mut out);
                node
            }
            Event::Taken { node, life, job } => {
                let Node { core, store, life: current, .. } = &mut self.nodes[node];
                if life != *current {
                    return;
                }
                core.handle_taken(now, job, true, store, &mut out);
                node
            }
            Event::Write { node, key, body } => {
                let partition = self.partition(&key);
                return self.nodes[node].store.take(partition, &key, &body);
            }
        };
        self.perform(node, out);
    }

    fn perform(&mut self, node: usize, actions: Vec<Action>) {
        self.underway_bytes_max = self.underway_bytes_max.max(self.nodes[node].core.bytes_underway());
        let life = self.nodes[node].life;
        let soon = |rng: &mut Rng| Duration::from_micros(20 + rng.below(3000));
        for action in actions {
            match action {
                Action::Compared { .. } => {}
                Action::Send { to, message } => self.send(node, to, message),
                Action::Load { job, partition, key } => {
                    let after = soon(&mut self.rng);
                    self.event(after, Event::Loaded { node, life, job, partition, key });
                }
                Action::Take { job, partition, object, .. } => {
                    assert_eq!(self.partition(&object.key), partition);
                    self.nodes[node].store.take(partition, &object.key, &object.body);
                    let after = soon(&mut self.rng);
                    self.event(after, Event::Taken { node, life, job });
                }
            }
        }
    }

    fn send(&mut self, from: usize, to: Endpoint, message: message::Exchange) {
        let name = step_name(&message.step);
        let mut frame = Vec::new();
        frame::encode(&Message::Exchange(message), &mut frame).unwrap();
        let (frames, bytes) = self.traffic.entry(name).or_default();
        (*frames, *bytes) = (*frames + 1, *bytes + frame.len() as u64);
        if !matches!(name, "give" | "fetched") {
            self.frame_bytes_max = self.frame_bytes_max.max(frame.len());
        }
        let copies = match self.rng.below(1000) {
            luck if luck < self.faults.lost_permille => 0,
            luck if luck < self.faults.lost_permille + self.faults.doubled_permille => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let Range { start, end } = self.faults.delay_us;
            let after = Duration::from_micros(start + self.rng.below(end - start));
            let (from, to) = (endpoint(from), usize::from(to.node.0 - 1));
            self.event(after, Event::Deliver { from, to, frame: frame.clone() });
        }
    }

    fn event(&mut self, after: Duration, event: Event) {
        self.next_event += 1;
        self.events.insert((self.now + after, self.next_event), event);
    }
}

fn step_name(step: &Step) -> &'static str {
    match step {
        Step::Root => "root",
        Step::RootIs { .. } => "root is",
        Step::Branches { .. } => "branches",
        Step::BranchesAre { .. } => "branches are",
        Step::List { .. } => "list",
        Step::ListIs { .. } => "list is",
        Step::Compare { .. } => "compare",
        Step::CompareIs { .. } => "compare is",
        Step::Fetch { .. } => "fetch",
        Step::Fetched { .. } => "fetched",
        Step::Give { .. } => "give",
        Step::Given { .. } => "given",
        Step::Busy => "busy",
        Step::Close { .. } => "close",
        Step::Invite => "invite",
    }
}

pub(super) fn endpoint(node: usize) -> Endpoint {
    Endpoint::new(NodeId(node as u16 + 1), CoreId(0))
}

pub(super) fn key(number: u64) -> Key {
    Key::new(b"default", format!("key-{number}").as_bytes()).unwrap()
}

/// The object after a write by an actor that had seen all of `before`.
pub(super) fn written(before: &Object, actor: u16, counter: u64, value: &Bytes) -> Object {
    let dot = Dot { actor: Actor { node: actor, core: 0, incarnation: 1 }, counter };
    before.after_write(&before.clock, Sibling { dot, timestamp_ms: counter, token: None, value: Some(value.clone()) })
}

/// The first write of a key.
pub(super) fn first(actor: u16, counter: u64, value: &Bytes) -> Object {
    written(&Object { clock: Clock::new(), siblings: Vec::new() }, actor, counter, value)
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
