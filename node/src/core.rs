//! One core's whole machine: it takes requests, messages, completions and deadlines, and says what to do next.
//!
//! The rule: it mints a dot only with an actor whose every earlier dot its store holds (see `version`), appends before it
//! sends, and acknowledges as durable only what the store's watermark covers. Nothing in here waits.
//!
//! The way of a put: [`Core::handle_request`] finds the owner of the key (or forwards), `puts` makes the new object from
//! what the store holds, appends it and fans it out; the replicas' `replicas` take it and answer when it is on disk; the
//! `PutCoordinator` counts. The way of a get: `gets` reads the own copy and probes the others; the `GetCoordinator`
//! answers. Beside them `gossip` drives the core's membership, and `exchanges` its anti-entropy.
//!
//! Not here: who performs the [`Effect`]s (`runtime`, the simulator).

mod exchanges;
mod gets;
mod gossip;
mod puts;
mod replicas;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    rc::Rc,
    time::Duration,
};

use ahash::{AHashMap, AHashSet};
use bytes::Bytes;
use quorate_engine::{ReadError, Sequence, Store, Watermark, disk::Disk};
use quorate_net::{
    id::Endpoint,
    key::Key,
    message::{
        ArchivedMessage, ArchivedReply, Failure, Message, Operation, Outcome, ProbedVersion, Reply, Request,
        exchange::Whole, gossip::NodeIdentity,
    },
};

pub use exchanges::key_hash;

use crate::{
    anti_entropy::{self, AntiEntropy},
    clock::{Instant, Now},
    context::Sealer,
    coordinator::{Local, put::PutCoordinator},
    effect::{Effect, Origin, ReplyTo},
    membership::{Contact, GossipConfig, Membership, Start, state::ClusterState},
    object::{Object, VersionHash},
    ring::{Ring, RingError},
    summary::ActorTable,
    tokens::Tokens,
    version::Actor,
};

/// A request is forwarded at most this often: once to a node of the key's, with room for a ring that changes.
const HOPS_MAX: u8 = 3;

/// No request may wait longer.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// So many places of damage are told apart.
const DAMAGED_MAX: usize = 4096;

/// What a core has to know of its cluster and its limits.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This core.
    pub me: Endpoint,
    /// R, unless a request names its own.
    pub read_quorum: u8,
    /// W, unless a request names its own.
    pub write_quorum: u8,
    /// How long a request waits, unless it says so itself.
    pub timeout: Duration,
    /// The most bytes in a value.
    pub value_bytes_max: usize,
    /// The most bytes in an object with all its siblings.
    pub object_bytes_max: usize,
    /// The most siblings that a put may leave.
    pub siblings_max: usize,
    /// The most requests and loads under way at once.
    pub operations_max: usize,
    /// Q.
    pub partitions: u16,
    /// N.
    pub replicas: u8,
    /// How fast the gossip is.
    pub gossip: GossipConfig,
    /// How much anti-entropy does, and how fast.
    pub exchanges: anti_entropy::Settings,
}

/// What a core knows of its cluster when it starts.
#[derive(Clone, Debug)]
pub struct Belonging {
    /// Its machine.
    pub identity: NodeIdentity,
    /// Who belongs: as founded, as stored, or this node alone, joining.
    pub state: ClusterState,
    /// Cores that are asked while no other node is known to live.
    pub seeds: Vec<Endpoint>,
}

/// Counts since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// Gets that this core coordinated.
    pub gets: u64,
    /// Puts that this core coordinated.
    pub puts: u64,
    /// Requests that it sent on to an owner.
    pub forwarded: u64,
    /// Objects that it took as a replica.
    pub replicated: u64,
    /// Versions that it told as a replica.
    pub probed: u64,
    /// Bodies that it had to read through the store for a put.
    pub put_loads: u64,
    /// Bodies that it had to read through the store for a get or a probe.
    pub get_loads: u64,
    /// Replies that said that something failed.
    pub failures: u64,
    /// Requests that were refused because too many were under way.
    pub overloads: u64,
    /// Gets whose replicas did not agree.
    pub divergent: u64,
    /// Objects sent to replicas that lacked them, because a get had seen so.
    pub repairs: u64,
    /// New actors taken after the first.
    pub actor_renewals: u64,
    /// Messages that made no sense.
    pub malformed: u64,
    /// Messages of cores that do not belong to the cluster.
    pub strangers: u64,
}

/// One core's whole machine.
pub struct Core<D: Disk> {
    settings: Settings,
    ring: Rc<Ring>,
    store: Store<D>,
    actors: Rc<ActorTable>,
    sealer: Sealer,
    /// `None` while a new incarnation is being stored: nothing is minted meanwhile.
    actor: Option<Actor>,
    counter: u64,
    next_number: u64,
    operations: AHashMap<u64, Underway>,
    loads: AHashMap<u64, Load>,
    /// What waits for the store's watermark, roughly by sequence.
    waiting: VecDeque<(Sequence, Waiter)>,
    /// Puts that wait for a new actor.
    deferred: VecDeque<puts::PutJob>,
    deadlines: BinaryHeap<Reverse<(Instant, u64)>>,
    tokens: Tokens,
    membership: Membership,
    /// Whom requests do not go to, as `membership` told.
    down: AHashSet<Endpoint>,
    anti_entropy: AntiEntropy,
    /// What anti-entropy wants done and is not done yet.
    exchange_actions: VecDeque<anti_entropy::Action>,
    /// Objects that it took and that wait for the disk.
    exchange_waits: usize,
    /// Where the store was found damaged, by segment and offset.
    damaged: AHashSet<(u32, u32)>,
    statistics: Statistics,
}

/// A request that this core works on.
enum Underway {
    Put(PutCoordinator),
    Get(gets::Get),
    Forward { reply_to: ReplyTo, to: Endpoint },
}

/// What to do when a body was read.
enum Load {
    Put(puts::PutJob),
    Get { operation: u64 },
    Replicate(replicas::ReplicateJob),
    Probe(replicas::ProbeJob),
}

/// What to do when a record is on disk.
enum Waiter {
    /// The own copy of a put that this core coordinates.
    Put { operation: u64 },
    /// The own copy for a get that this core coordinates.
    Get { operation: u64, body: Bytes },
    /// An object that another core sent.
    Replicated(replicas::Sender),
    /// A version that another coordinator asked for.
    Probed { to: Endpoint, operation: u64, version: ProbedVersion },
}

/// What a read of the store came to.
pub type Loaded = Result<Option<Bytes>, ReadError>;

impl<D: Disk> Core<D> {
    /// A core with nothing under way. `incarnation` was drawn at random for this start, and is on disk.
    ///
    /// # Errors
    /// When those who belong make no ring.
    pub fn new(
        settings: Settings,
        belonging: Belonging,
        store: Store<D>,
        actors: Rc<ActorTable>,
        sealer: Sealer,
        incarnation: u64,
        now: Instant,
    ) -> Result<Self, RingError> {
        let me = settings.me;
        let actor = Some(Actor::new(me, incarnation));
        let ring = Rc::new(gossip::ring_of(&settings, &belonging.state)?);
        let Belonging { identity, state, seeds } = belonging;
        // What was drawn is no secret to the others, but not known before.
        let start = Start { me, identity, incarnation: incarnation.max(1), seeds, state, random_seed: incarnation };
        let membership = Membership::new(settings.gossip, start, now);
        let anti_entropy = AntiEntropy::new(settings.exchanges.clone(), ring.clone(), now, incarnation);
        Ok(Self {
            settings,
            ring,
            store,
            actors,
            sealer,
            actor,
            counter: 0,
            // Late answers to an earlier life of this core must not meet a number of this one.
            next_number: incarnation,
            operations: AHashMap::new(),
            loads: AHashMap::new(),
            waiting: VecDeque::new(),
            deferred: VecDeque::new(),
            deadlines: BinaryHeap::new(),
            tokens: Tokens::default(),
            membership,
            down: AHashSet::new(),
            anti_entropy,
            exchange_actions: VecDeque::new(),
            exchange_waits: 0,
            damaged: AHashSet::new(),
            statistics: Statistics::default(),
        })
    }

    /// A client of this core asks.
    pub fn handle_request(&mut self, now: Now, client: u64, request: Request, out: &mut Vec<Effect>) {
        self.request(now, Origin::Client(client), request, out);
        self.settle(now, out);
    }

    /// Another core says something.
    pub fn handle_message(&mut self, now: Now, from: Endpoint, message: &ArchivedMessage, out: &mut Vec<Effect>) {
        // Who does not belong may only gossip: that is how it learns why, or how it joins.
        if !self.membership.state().has(from) && !matches!(message, ArchivedMessage::Gossip(_)) {
            self.statistics.strangers += 1;
            return;
        }
        match message {
            ArchivedMessage::Request(request) => match rkyv::deserialize::<Request, rkyv::rancor::Error>(request) {
                Ok(request) => self.request(now, Origin::Peer(from), request, out),
                Err(_) => self.statistics.malformed += 1,
            },
            ArchivedMessage::Reply(reply) => self.forwarded_reply(from, reply, out),
            ArchivedMessage::Replicate(replicate) => self.replicate(now, from, replicate, out),
            ArchivedMessage::Replicated(replicated) => self.replicated(from, replicated, out),
            ArchivedMessage::Probe(probe) => self.probe(now, from, probe, out),
            ArchivedMessage::Probed(probed) => self.probed(now, from, probed, out),
            ArchivedMessage::Exchange(exchange) => self.exchanged(now, from, exchange, out),
            ArchivedMessage::Gossip(gossip) => self.gossiped(now, from, gossip, out),
            ArchivedMessage::Hello(_) => self.statistics.malformed += 1,
        }
        self.settle(now, out);
    }

    /// A read that [`Effect::Load`] asked for is done.
    pub fn handle_loaded(&mut self, now: Now, load: u64, loaded: &Loaded, out: &mut Vec<Effect>) {
        let Some(job) = self.loads.remove(&load) else { return };
        self.look_for_damage(out);
        match job {
            Load::Put(job) => self.put_loaded(now, job, loaded, out),
            Load::Get { operation } => self.own_loaded(now, operation, loaded, out),
            Load::Replicate(job) => self.replicate_job(now, job, Some(loaded), out),
            Load::Probe(job) => self.probe_loaded(job, loaded, out),
        }
        self.settle(now, out);
    }

    /// The store's watermark moved, or the store failed.
    pub fn handle_store(&mut self, now: Now, watermark: Watermark, out: &mut Vec<Effect>) {
        let due = |sequence: Sequence| match watermark {
            Watermark::Durable(upto) => sequence <= upto,
            Watermark::Failed => true,
        };
        let durable = !matches!(watermark, Watermark::Failed);
        while let Some((_, waiter)) = self.waiting.pop_front_if(|(sequence, _)| due(*sequence)) {
            match waiter {
                Waiter::Put { operation } => self.own_durable(operation, durable, out),
                Waiter::Get { operation, body } => self.own_readable(now, operation, durable.then_some(body), out),
                Waiter::Replicated(sender) => self.acknowledge(now, sender, durable, out),
                Waiter::Probed { to, operation, version } => {
                    let version = if durable { version } else { ProbedVersion::Unknown };
                    Self::tell_version(to, operation, version, out);
                }
            }
        }
        self.look_for_damage(out);
        self.exchange_on(now, out);
    }

    /// What an event leads to beside its own answers. A store that failed says so once; who begins to wait for it later must
    /// not wait for ever.
    fn settle(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.exchange_on(now, out);
        if !self.waiting.is_empty() && self.store.durable() == Watermark::Failed {
            self.handle_store(now, Watermark::Failed, out);
        }
    }

    /// The incarnation that [`Effect::RenewActor`] asked for is on disk.
    pub fn handle_actor(&mut self, now: Now, incarnation: u64, out: &mut Vec<Effect>) {
        self.actor = Some(Actor::new(self.settings.me, incarnation));
        self.counter = 0;
        for job in std::mem::take(&mut self.deferred) {
            self.put(now, job, None, out);
        }
    }

    /// A connection to a peer's core stands, or none does any more. What was sent on one that has ended will not be answered.
    pub fn handle_peer(&mut self, now: Now, peer: Endpoint, up: bool, out: &mut Vec<Effect>) {
        self.contact(now, peer, if up { Contact::Answered } else { Contact::Unreachable }, out);
    }

    /// Requests should go to a peer's core again, or no longer.
    fn peer_changed(&mut self, now: Now, peer: Endpoint, up: bool, out: &mut Vec<Effect>) {
        self.exchange(now, out, |exchanges, _, actions| exchanges.handle_peer(now.instant, peer, up, actions));
        if up {
            self.down.remove(&peer);
            return;
        }
        self.down.insert(peer);
        let mut numbers: Vec<_> = self.operations.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            match self.operations.get_mut(&number) {
                Some(Underway::Put(put)) => {
                    put.handle_unreachable(peer);
                    self.put_progress(number, out);
                }
                Some(Underway::Get(_)) => self.get_unreachable(now, number, peer, out),
                Some(Underway::Forward { reply_to, to }) if *to == peer => {
                    let reply_to = *reply_to;
                    self.operations.remove(&number);
                    // It may have got there: the client must not take this for "nothing was written".
                    self.fail(reply_to, Failure::Timeout { acks: 0, needed: 1 }, out);
                }
                _ => {}
            }
        }
    }

    /// Deadlines may have passed.
    pub fn handle_timeout(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.gossip_on(now, out);
        if self.anti_entropy.next_timeout().is_some_and(|at| at <= now.instant) {
            self.exchange(now, out, |exchanges, tree, actions| exchanges.handle_timeout(now.instant, tree, actions));
        }
        while let Some(&Reverse((deadline, number))) = self.deadlines.peek() {
            if deadline > now.instant {
                break;
            }
            self.deadlines.pop();
            let answer = match self.operations.remove(&number) {
                Some(Underway::Put(mut put)) => put.handle_timeout(),
                Some(Underway::Get(mut get)) => {
                    let answer = get.coordinator.handle_timeout();
                    self.repair(&get, out);
                    answer
                }
                Some(Underway::Forward { reply_to, .. }) => {
                    Some((reply_to, Outcome::Failed(Failure::Timeout { acks: 0, needed: 1 })))
                }
                None => None,
            };
            if let Some((reply_to, outcome)) = answer {
                self.answer(reply_to, outcome, out);
            }
        }
    }

    /// When to call [`Core::handle_timeout`] next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let deadline = self.deadlines.peek().map(|Reverse((deadline, _))| *deadline);
        [deadline, self.membership.next_timeout(), self.anti_entropy.next_timeout()].into_iter().flatten().min()
    }

    /// The store beneath.
    #[must_use]
    pub fn store(&self) -> &Store<D> {
        &self.store
    }

    /// The ring that this core goes by.
    #[must_use]
    pub fn ring(&self) -> &Rc<Ring> {
        &self.ring
    }

    /// The settings that it was made with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Counts since the start.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// Other cores that requests do not go to.
    #[must_use]
    pub fn peers_down(&self) -> usize {
        self.down.len()
    }

    /// Who belongs to the cluster, and who of them answers.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The exchanges with other primaries.
    #[must_use]
    pub fn anti_entropy(&self) -> &AntiEntropy {
        &self.anti_entropy
    }

    /// Requests and loads under way, and answers that wait for the disk, except those of anti-entropy, which has bounds of
    /// its own.
    #[must_use]
    pub fn queue_length(&self) -> usize {
        self.operations.len() + self.loads.len() + self.waiting.len() + self.deferred.len() - self.exchange_waits
    }

    fn request(&mut self, now: Now, origin: Origin, request: Request, out: &mut Vec<Effect>) {
        let reply_to = ReplyTo { origin, id: request.id };
        if self.queue_length() >= self.settings.operations_max {
            self.statistics.overloads += 1;
            return self.fail(reply_to, Failure::Overloaded { retry_after_us: 10_000 }, out);
        }
        let timeout = match request.timeout_us {
            0 => self.settings.timeout,
            us => Duration::from_micros(us.into()).min(TIMEOUT_MAX),
        };
        let deadline = now.instant + timeout;
        let key = match &request.operation {
            Operation::Get(get) => &get.key,
            Operation::Put(put) => &put.key,
            Operation::ClusterMap => {
                return self.answer(reply_to, Outcome::ClusterMap(self.ring.cluster_map()), out);
            }
        };
        if let Err(error) = quorate_net::key::check(key.encoded()) {
            return self.fail(reply_to, Failure::BadRequest(error.to_string()), out);
        }
        let partition = self.ring.partition(key.name());
        if !self.owns(partition) {
            return self.forward(reply_to, deadline, timeout, partition, request, out);
        }
        match request.operation {
            Operation::Get(get) => self.get(now, reply_to, deadline, partition, get, out),
            Operation::Put(put) => self.put(now, puts::PutJob::new(reply_to, deadline, partition, put), None, out),
            Operation::ClusterMap => unreachable!("answered above"),
        }
    }

    fn forward(
        &mut self,
        reply_to: ReplyTo,
        deadline: Instant,
        timeout: Duration,
        partition: u16,
        mut request: Request,
        out: &mut Vec<Effect>,
    ) {
        if request.hops >= HOPS_MAX {
            let text = "forwarded too often: the nodes do not agree on the ring".to_owned();
            return self.fail(reply_to, Failure::BadRequest(text), out);
        }
        let owners = self.ring.primaries(partition);
        // This node's own core for the partition, else the first node that can be reached.
        let up = || owners.iter().copied().filter(|owner| !self.down.contains(owner));
        let near = up().find(|owner| owner.node == self.settings.me.node);
        let Some(to) = near.or_else(|| up().next()) else {
            return self.fail(reply_to, Failure::Unavailable { reachable: 0, needed: 1 }, out);
        };
        self.statistics.forwarded += 1;
        let number = self.begin(deadline, Underway::Forward { reply_to, to });
        request.id = number;
        request.hops += 1;
        request.timeout_us = micros(timeout);
        out.push(Effect::Send { to, message: Message::Request(request) });
    }

    fn forwarded_reply(&mut self, from: Endpoint, reply: &ArchivedReply, out: &mut Vec<Effect>) {
        let number = reply.id.to_native();
        let Some(Underway::Forward { reply_to, to }) = self.operations.get(&number) else { return };
        if *to != from {
            return;
        }
        let reply_to = *reply_to;
        self.operations.remove(&number);
        match rkyv::deserialize::<Reply, rkyv::rancor::Error>(reply) {
            Ok(reply) => out.push(reply_to.answer(reply.outcome)),
            Err(_) => self.statistics.malformed += 1,
        }
    }

    /// Numbers the request and sets its deadline.
    fn begin(&mut self, deadline: Instant, underway: Underway) -> u64 {
        let number = self.number();
        self.deadlines.push(Reverse((deadline, number)));
        self.operations.insert(number, underway);
        number
    }

    fn number(&mut self) -> u64 {
        self.next_number = self.next_number.wrapping_add(1);
        self.next_number
    }

    /// What this store tells of the key without reading the disk, with the body if it was loaded. `pending`: the sequence to wait for before others may see this version.
    fn local(&self, partition: u16, key: &[u8], loaded: Option<Object>) -> (Local, Option<Sequence>) {
        let Some(found) = self.store.lookup(partition, key) else { return (Local::absent(), None) };
        let version = self.actors.version(found.summary);
        let local = Local {
            version,
            outline: self.actors.outline(found.summary),
            has_value: self.actors.has_value(found.summary),
            object: loaded.filter(|object| object.version() == version),
        };
        (local, found.pending)
    }

    /// Adds the body to what is known, if it is in RAM.
    fn add_body(&self, local: &mut Local, partition: u16, key: &[u8]) -> bool {
        if local.object.is_none()
            && let Some(body) = self.store.recent(partition, key)
        {
            local.object = Object::decode(&body).ok();
        }
        local.object.is_some()
    }

    fn load(&mut self, partition: u16, key: Key, job: Load, out: &mut Vec<Effect>) {
        let load = self.number();
        self.loads.insert(load, job);
        out.push(Effect::Load { load, partition, key });
    }

    /// Does `waiter` once `sequence` is durable, or at once when it is.
    fn when_durable(&mut self, sequence: Sequence, waiter: Waiter) {
        self.waiting.push_back((sequence, waiter));
    }

    fn owns(&self, partition: u16) -> bool {
        self.ring.primaries(partition).contains(&self.settings.me)
    }

    fn quorum_of(&self, asked: u8, default: u8) -> Result<u8, Failure> {
        let replicas = self.ring.replicas();
        match asked {
            0 => Ok(default),
            asked if asked <= replicas => Ok(asked),
            asked => Err(Failure::BadRequest(format!("a quorum of {asked} was asked of {replicas} replicas"))),
        }
    }

    /// A lost record may hold dots of this core's actor, so each new loss ends the actor.
    fn look_for_damage(&mut self, out: &mut Vec<Effect>) {
        let mut more = false;
        for damage in self.store.damage() {
            // When there is too much to remember, every report counts as new.
            more |= self.damaged.len() >= DAMAGED_MAX || self.damaged.insert((damage.segment, damage.offset));
            self.heal(damage.partition);
        }
        if more {
            // A write that is remembered may be among what is lost: its retry must be made anew.
            self.tokens = Tokens::default();
        }
        if more && self.actor.take().is_some() {
            self.statistics.actor_renewals += 1;
            out.push(Effect::RenewActor);
        }
    }

    fn answer(&mut self, reply_to: ReplyTo, outcome: Outcome, out: &mut Vec<Effect>) {
        self.statistics.failures += u64::from(matches!(outcome, Outcome::Failed(_)));
        out.push(reply_to.answer(outcome));
    }

    fn fail(&mut self, reply_to: ReplyTo, failure: Failure, out: &mut Vec<Effect>) {
        self.answer(reply_to, Outcome::Failed(failure), out);
    }
}

/// The time left until `deadline`, for a message: at least 1 µs, since 0 means the default.
fn micros_left(now: Now, deadline: Instant) -> u32 {
    micros(deadline.since(now.instant))
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX).max(1)
}

/// No version: what a probe names when its core's own copy is lost.
const NONE_KNOWN: VersionHash = VersionHash::ABSENT;
