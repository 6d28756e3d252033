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

mod deadlines;
mod exchanges;
mod forgetting;
mod forwards;
mod gets;
mod gossip;
mod healing;
mod hints;
mod log;
mod owners;
mod pacing;
mod puts;
mod replicas;
mod transfers;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    rc::Rc,
    time::Duration,
};

use ahash::{AHashMap, AHashSet};
use bytes::Bytes;
use quorate_engine::{
    ReadError, Sequence, Store, Watermark,
    disk::{Disk, prefixed::Prefixed},
    planted::{Bug, planted},
};
use quorate_net::{
    id::Endpoint,
    key::Key,
    message::{
        ArchivedMessage, Failure, Operation, Outcome, ProbedVersion, Request,
        exchange::Whole,
        gossip::{Gossip, Liveness, NodeIdentity, RingStamp},
        reap::KeyVersion,
    },
};

use exchanges::StoreTree;
pub use exchanges::key_hash;
use log::Log;
pub use log::{HINT_PREFIX, HintStore, LogId};
pub use pacing::Underway as Background;

use crate::{
    admission::Admission,
    anti_entropy::{self, AntiEntropy},
    clock::{Instant, Now},
    context::Sealer,
    coordinator::Local,
    effect::{Effect, Origin, ReplyTo},
    hedging::Hedging,
    hinted_handoff::{self, HintedHandoff},
    membership::{Contact, GossipConfig, Membership, Start, state::ClusterState},
    object::{Object, VersionHash},
    reaper::{self, Reaper},
    recorder::{Kind, Recorder, Stage, Trace},
    ring::Ring,
    summary::ActorTable,
    tokens::Tokens,
    transfer::Transfer,
    unhealed::Unhealed,
    version::Actor,
};

/// No request may wait longer.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// Who is away for so many times a request's patience is not waited for by a copy that has to be healed.
pub const AWAY: u32 = 100;

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
    /// After this others are asked in the place of those who have not answered.
    pub patience: Duration,
    /// The most bytes in a value.
    pub value_bytes_max: usize,
    /// The most bytes in an object with all its siblings.
    pub object_bytes_max: usize,
    /// The most siblings that a put may leave.
    pub siblings_max: usize,
    /// The most requests and loads under way at once.
    pub operations_max: usize,
    /// Of a thousand requests one may take longer.
    pub service_level: Duration,
    /// Whether background work is held back while more do.
    pub admission: bool,
    /// Q.
    pub partitions: u16,
    /// N.
    pub replicas: u8,
    /// How fast the gossip is.
    pub gossip: GossipConfig,
    /// How much anti-entropy does, and how fast.
    pub exchanges: anti_entropy::Settings,
    /// How much hinted handoff does, and how fast.
    pub hints: hinted_handoff::Settings,
    /// How the past is forgotten.
    pub reaper: reaper::Settings,
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
    /// Requests that it sent to another one besides, because the first did not answer.
    pub forwarded_again: u64,
    /// Gets that it asked for once more, because they took unusually long.
    pub hedges: u64,
    /// Objects that it gave to fallbacks, for owners that did not answer.
    pub hints_sent: u64,
    /// Objects that it took as a replica.
    pub replicated: u64,
    /// Versions that it told as a replica.
    pub probed: u64,
    /// Bodies that it had to read through the store for a put.
    pub put_loads: u64,
    /// Bodies that it had to read through the store for a get or a probe.
    pub get_loads: u64,
    /// Replies that said that something failed, by [`Failure::KINDS`].
    pub failures: [u64; Failure::KINDS.len()],
    /// Requests that were refused because too many were under way.
    pub overloads: u64,
    /// Gets whose replicas did not agree.
    pub divergent: u64,
    /// Gets whose later answers told of more than was answered.
    pub stale: u64,
    /// Objects sent to replicas that lacked them, because a get had seen so.
    pub repairs: u64,
    /// Tombstones forgotten because they were proven to be everywhere.
    pub tombstones_dropped: u64,
    /// Long clocks shortened because their versions were proven to be everywhere.
    pub clocks_shortened: u64,
    /// Entries that were taken out of clocks without a proof, because a clock had reached its limit: a replica that was away
    /// since before them may bring back what they had replaced.
    pub clock_entries_dropped: u64,
    /// Objects of other cores that were refused: with what is here they fit no record.
    pub unfit: u64,
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
    objects: Log<D>,
    hints: Log<Prefixed<D>>,
    sealer: Sealer,
    /// `None` while a new incarnation is being stored: nothing is minted meanwhile.
    actor: Option<Actor>,
    counter: u64,
    next_number: u64,
    operations: AHashMap<u64, Underway>,
    /// Gets that have ended, kept for their memory.
    #[expect(clippy::vec_box, reason = "it is the boxes that are kept")]
    spare_gets: Vec<Box<gets::Get>>,
    /// From which log, and what for.
    loads: AHashMap<u64, (LogId, Load)>,
    /// Puts that wait for a new actor.
    deferred: VecDeque<puts::PutJob>,
    deadlines: BinaryHeap<Reverse<(Instant, u64)>>,
    /// When the patience with each operation is over, in order.
    patience: VecDeque<(Instant, u64)>,
    /// Peers that did not answer in time since they last did.
    late: AHashSet<Endpoint>,
    tokens: Tokens,
    membership: Membership,
    /// Whom requests do not go to, as `membership` told.
    down: AHashSet<Endpoint>,
    /// Whom there is no connection to.
    disconnected: AHashSet<Endpoint>,
    anti_entropy: AntiEntropy,
    handoff: HintedHandoff,
    /// What anti-entropy wants done and is not done yet.
    exchange_actions: VecDeque<anti_entropy::Action>,
    /// Objects that it took and that wait for the disk.
    exchange_waits: usize,
    /// Where the logs were found damaged, by segment and offset.
    damaged: AHashSet<(LogId, u32, u32)>,
    /// The tables that `ring` was made of.
    ring_stamp: RingStamp,
    /// States of the cluster that are not on disk yet.
    storing_states: usize,
    /// When the state is stored again, since the disk refused it.
    store_again: Option<Instant>,
    /// What waits for that.
    held_gossip: Vec<(Endpoint, Gossip)>,
    transfer: Transfer,
    unhealed: Unhealed,
    /// Its store was filled once, and that is on disk, or will be.
    filled: bool,
    reaper: Reaper,
    /// Versions that are being read, to forget their past.
    forgetting: AHashMap<u64, (u16, KeyVersion)>,
    recorder: Recorder,
    admission: Admission,
    hedging: Hedging,
    statistics: Statistics,
}

/// A request that this core works on, apart from what it asks: who waits for the answer, until when, and what happened so far.
#[derive(Clone, Copy)]
struct Call {
    reply_to: ReplyTo,
    deadline: Instant,
    partition: u16,
    trace: Trace,
}

/// A request that this core works on.
enum Underway {
    Put(Box<puts::Underway>),
    Get(Box<gets::Get>),
    Forward(Box<forwards::Forward>),
}

/// What to do when a body was read.
enum Load {
    Put(Box<puts::PutJob>),
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
    #[must_use]
    pub fn new(
        settings: Settings,
        belonging: Belonging,
        objects: (Store<D>, Rc<ActorTable>),
        hints: (HintStore<D>, Rc<ActorTable>),
        sealer: Sealer,
        incarnation: u64,
        now: Instant,
    ) -> Self {
        let (me, patience) = (settings.me, settings.patience);
        let (mut actor, mut counter) = (Some(Actor::new(me, incarnation)), 0);
        if let (true, Watermark::Durable(a), Watermark::Durable(b)) =
            (planted(Bug::ActorKept), objects.0.durable(), hints.0.durable())
        {
            (actor, counter) = (Some(Actor::new(me, 1)), a.0 + b.0);
        }
        let ring = Rc::new(gossip::ring_of(&settings, &belonging.state));
        let ring_stamp = belonging.state.stamp();
        let Belonging { identity, state, seeds } = belonging;
        // What was drawn is no secret to the others, but not known before.
        let start = Start { me, identity, incarnation: incarnation.max(1), seeds, state, random_seed: incarnation };
        let membership = Membership::new(settings.gossip, start, now);
        let anti_entropy = AntiEntropy::new(settings.exchanges.clone(), ring.clone(), now, incarnation);
        let hints = Log::new(hints.0, hints.1);
        // Far from the numbers of this core's own operations.
        let first_hint = incarnation.wrapping_add(1 << 63);
        let handoff = HintedHandoff::new(settings.hints.clone(), ring.clone(), first_hint, &StoreTree::of(&hints));
        let reaper = Reaper::new(settings.reaper.clone(), (ring.clone(), ring_stamp), now, incarnation);
        let recorder = Recorder::new(now, settings.service_level);
        let admission = Admission::new(now, settings.admission);
        let hedging = Hedging::new(settings.patience / 2);
        let mut core = Self {
            settings,
            ring,
            objects: Log::new(objects.0, objects.1),
            hints,
            sealer,
            actor,
            counter,
            // Late answers to an earlier life of this core must not meet a number of this one.
            next_number: if planted(Bug::LateAnswerCounts) { 0 } else { incarnation },
            operations: AHashMap::new(),
            spare_gets: Vec::new(),
            loads: AHashMap::new(),
            deferred: VecDeque::new(),
            deadlines: BinaryHeap::new(),
            patience: VecDeque::new(),
            late: AHashSet::new(),
            tokens: Tokens::default(),
            membership,
            down: AHashSet::new(),
            disconnected: AHashSet::new(),
            anti_entropy,
            handoff,
            exchange_actions: VecDeque::new(),
            exchange_waits: 0,
            damaged: AHashSet::new(),
            ring_stamp,
            storing_states: 0,
            store_again: None,
            held_gossip: Vec::new(),
            transfer: Transfer::new(me),
            unhealed: Unhealed::new(me, AWAY * patience),
            filled: true,
            reaper,
            forgetting: AHashMap::new(),
            recorder,
            admission,
            hedging,
            statistics: Statistics::default(),
        };
        let surplus = core.surplus();
        core.transfer.handle_state(now, core.membership.state(), &core.ring, &surplus);
        let mut nothing_under_way = Vec::new();
        core.anti_entropy.handle_ring(now, core.ring.clone(), surplus, &mut nothing_under_way);
        core
    }

    /// A client of this core asks. The request came in at `arrived`, and had to wait since.
    pub fn handle_request(&mut self, now: Now, arrived: Instant, client: u64, request: Request, out: &mut Vec<Effect>) {
        let mut trace = Trace::new(arrived);
        trace.mark(now.instant, Stage::Queue);
        self.request(now, trace, Origin::Client(client), request, out);
        self.settle(now, out);
    }

    /// Another core says something. It came in at `arrived`, and had to wait since.
    pub fn handle_message(
        &mut self,
        now: Now,
        arrived: Instant,
        from: Endpoint,
        message: &ArchivedMessage,
        out: &mut Vec<Effect>,
    ) {
        // Who does not belong may only gossip: that is how it learns why, or how it joins.
        let is_heard = self.membership.state().has(from) || planted(Bug::RemovedHeard);
        if !is_heard && !matches!(message, ArchivedMessage::Gossip(_)) {
            self.statistics.strangers += 1;
            return;
        }
        match message {
            ArchivedMessage::Request(request) => match rkyv::deserialize::<Request, rkyv::rancor::Error>(request) {
                Ok(request) => self.request(now, Trace::new(arrived), Origin::Peer(from), request, out),
                Err(_) => self.statistics.malformed += 1,
            },
            ArchivedMessage::Reply(reply) => self.forwarded_reply(now, from, reply, out),
            ArchivedMessage::Replicate(replicate) => self.replicate(now, from, replicate, out),
            ArchivedMessage::Replicated(replicated) => self.replicated(now, from, replicated, out),
            ArchivedMessage::Probe(probe) => self.probe(now, from, probe, out),
            ArchivedMessage::Probed(probed) => self.probed(now, from, probed, out),
            ArchivedMessage::Exchange(exchange) => self.exchanged(now, from, exchange, out),
            ArchivedMessage::Reap(reap) => self.reaped(now, from, reap, out),
            ArchivedMessage::Gossip(gossip) => self.gossiped(now, from, gossip, out),
            ArchivedMessage::Hello(_) => self.statistics.malformed += 1,
        }
        self.settle(now, out);
    }

    /// A read that [`Effect::Load`] asked for is done.
    pub fn handle_loaded(&mut self, now: Now, load: u64, loaded: &Loaded, out: &mut Vec<Effect>) {
        let Some((log, job)) = self.loads.remove(&load) else { return };
        self.look_for_damage(now, out);
        match job {
            Load::Put(job) => self.put_loaded(now, log, *job, loaded, out),
            Load::Get { operation } => self.own_loaded(now, log, operation, loaded, out),
            Load::Replicate(job) => self.replicate_job(now, log, job, loaded, out),
            Load::Probe(job) => self.probe_loaded(log, &job, loaded, out),
        }
        self.settle(now, out);
    }

    /// A log's watermark moved, or the log failed.
    pub fn handle_log(&mut self, now: Now, log: LogId, watermark: Watermark, out: &mut Vec<Effect>) {
        while let Some((waiter, durable)) = match log {
            LogId::Objects => self.objects.next_due(watermark),
            LogId::Hints => self.hints.next_due(watermark),
        } {
            match waiter {
                Waiter::Put { operation } => self.own_durable(now, operation, durable, out),
                Waiter::Get { operation, body } => self.own_readable(now, operation, durable.then_some(body), out),
                Waiter::Replicated(sender) => self.acknowledge(now, sender, durable, out),
                Waiter::Probed { to, operation, version } => {
                    let version = if durable { version } else { ProbedVersion::Unknown };
                    Self::tell_version(to, operation, version, out);
                }
            }
        }
        self.look_for_damage(now, out);
        self.exchange_on(now, out);
    }

    /// What an event leads to beside its own answers. A store that failed says so once; who begins to wait for it later must
    /// not wait for ever.
    fn settle(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.exchange_on(now, out);
        if self.objects.waits_in_vain() {
            self.handle_log(now, LogId::Objects, Watermark::Failed, out);
        }
        if self.hints.waits_in_vain() {
            self.handle_log(now, LogId::Hints, Watermark::Failed, out);
        }
    }

    /// The incarnation that [`Effect::RenewActor`] asked for is on disk.
    pub fn handle_actor(&mut self, now: Now, incarnation: u64, out: &mut Vec<Effect>) {
        self.actor = Some(Actor::new(self.settings.me, incarnation));
        self.counter = 0;
        for mut job in std::mem::take(&mut self.deferred) {
            job.call.trace.mark(now.instant, Stage::Actor);
            self.put(now, job, None, out);
        }
    }

    /// A connection to a peer's core stands, or none does any more. What was sent on one that has ended will not be answered.
    pub fn handle_peer(&mut self, now: Now, peer: Endpoint, up: bool, out: &mut Vec<Effect>) {
        if up {
            self.disconnected.remove(&peer);
        } else {
            self.disconnected.insert(peer);
        }
        self.contact(now, peer, if up { Contact::Answered } else { Contact::Unreachable }, out);
        if up {
            self.drive_membership(now, out, |members, effects| members.greet(peer, effects));
        }
    }

    /// Requests should go to a peer's core again, or no longer.
    fn peer_changed(&mut self, now: Now, peer: Endpoint, up: bool, out: &mut Vec<Effect>) {
        self.exchange(now, out, |exchanges, _, actions| exchanges.handle_peer(now.instant, peer, up, actions));
        self.hand_off(now, out, |handoff, tree, actions| handoff.handle_peer(now.instant, peer, up, tree, actions));
        self.reaper.handle_peer(peer, up);
        if up {
            self.down.remove(&peer);
            return;
        }
        self.down.insert(peer);
        self.heal_on(now, out);
        // One that is only late may still answer what it was asked; others stand in for it when patience is over.
        if !self.disconnected.contains(&peer) {
            return;
        }
        let mut numbers: Vec<_> = self.operations.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            match self.operations.get_mut(&number) {
                Some(Underway::Put(put)) => {
                    put.coordinator.handle_unreachable(peer);
                    self.put_progress(now, number, out);
                }
                Some(Underway::Get(_)) => self.get_unreachable(now, number, peer, out),
                Some(Underway::Forward(_)) => self.forward_unreachable(now, number, peer, out),
                None => {}
            }
        }
    }

    /// From now on these settings hold, of those that may change while it runs: the defaults and limits of requests, and what
    /// they are promised. What is under way goes on as it was begun.
    pub fn handle_settings(&mut self, settings: &Settings) {
        self.settings = Settings {
            read_quorum: settings.read_quorum,
            write_quorum: settings.write_quorum,
            timeout: settings.timeout,
            value_bytes_max: settings.value_bytes_max,
            object_bytes_max: settings.object_bytes_max,
            siblings_max: settings.siblings_max,
            operations_max: settings.operations_max,
            service_level: settings.service_level,
            admission: settings.admission,
            ..self.settings.clone()
        };
        self.recorder.set_service_level(settings.service_level);
        self.admission.enable(settings.admission);
        self.pass_on_shares();
    }

    /// The store of what this core owns.
    #[must_use]
    pub fn store(&self) -> &Store<D> {
        &self.objects.store
    }

    /// The store of the hints that it keeps.
    #[must_use]
    pub fn hint_store(&self) -> &HintStore<D> {
        &self.hints.store
    }

    /// The ring that this core goes by.
    #[must_use]
    pub fn ring(&self) -> &Rc<Ring> {
        &self.ring
    }

    /// The settings that it goes by.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Counts since the start.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// Whether a member's core cannot be connected to, or is dead to all. One that is only late is not away.
    #[must_use]
    pub fn is_away(&self, peer: Endpoint) -> bool {
        let is_dead = || self.membership.claim(peer).is_some_and(|claim| claim.liveness == Liveness::Dead);
        self.disconnected.contains(&peer) || is_dead()
    }

    /// Other cores that requests do not go to.
    #[must_use]
    pub fn peers_down(&self) -> usize {
        self.down.len()
    }

    /// How long its requests took, and why.
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
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

    /// The partitions of which its copy may lack what it once had.
    #[must_use]
    pub fn unhealed(&self) -> &Unhealed {
        &self.unhealed
    }

    /// The handoff of hints to the owners.
    #[must_use]
    pub fn handoff(&self) -> &HintedHandoff {
        &self.handoff
    }

    /// Requests and loads under way, and answers that wait for the disk, except those of anti-entropy, which has bounds of
    /// its own.
    #[must_use]
    pub fn queue_length(&self) -> usize {
        let waiting = self.objects.waiting() + self.hints.waiting();
        self.operations.len() + self.loads.len() + waiting + self.deferred.len() - self.exchange_waits
    }

    /// Whether nothing more is taken.
    fn is_full(&self) -> bool {
        self.queue_length() >= self.settings.operations_max && !planted(Bug::QueueUnbounded)
    }

    fn request(&mut self, now: Now, trace: Trace, origin: Origin, request: Request, out: &mut Vec<Effect>) {
        let reply_to = ReplyTo { origin, id: request.id };
        if self.is_full() {
            self.statistics.overloads += 1;
            return self.fail(reply_to, Failure::Overloaded { retry_after_us: 10_000 }, out);
        }
        let timeout = match request.timeout_us {
            0 => self.settings.timeout,
            us => Duration::from_micros(us.into()).min(TIMEOUT_MAX),
        };
        let deadline = trace.begun() + timeout;
        // Nobody waits for it. Made all the same, a put could replace what its sender, or others, have put elsewhere since.
        if deadline <= now.instant {
            return self.fail(reply_to, forwards::MAYBE_DONE, out);
        }
        let key = match &request.operation {
            Operation::Get(get) => &get.key,
            Operation::Put(put) => &put.key,
            Operation::ClusterMap => {
                return self.answer(reply_to, Outcome::ClusterMap(self.ring.cluster_map()), out);
            }
        };
        if let Some(refusal) = self.membership.refusal() {
            return self.fail(reply_to, Failure::BadRequest(refusal.to_string()), out);
        }
        if let Err(error) = quorate_net::key::check(key.encoded()) {
            return self.fail(reply_to, Failure::BadRequest(error.to_string()), out);
        }
        let partition = self.ring.partition(key.name());
        let call = Call { reply_to, deadline, partition, trace };
        if !self.coordinates(partition, request.operation.consistency()) {
            return self.forward(now, call, request, out);
        }
        match request.operation {
            Operation::Get(get) => self.get(now, call, get, out),
            Operation::Put(put) => self.put(now, puts::PutJob::new(call, put), None, out),
            Operation::ClusterMap => unreachable!("answered above"),
        }
    }

    /// Numbers the request and sets its deadline.
    fn begin(&mut self, now: Now, deadline: Instant, underway: Underway) -> u64 {
        let number = self.number();
        self.deadlines.push(Reverse((deadline, number)));
        self.patience.push_back((now.instant + self.settings.patience, number));
        self.operations.insert(number, underway);
        number
    }

    fn number(&mut self) -> u64 {
        self.next_number = self.next_number.wrapping_add(1);
        self.next_number
    }

    /// See [`Log::local`]. What is being dropped is as good as lost, though the ring may have given it back; and so is what a
    /// copy that has to be healed does not have.
    fn local(&self, log: LogId, partition: u16, key: &[u8], loaded: Option<Object>) -> (Local, Option<Sequence>) {
        let held = match log {
            LogId::Objects => self.objects.local(partition, key, loaded),
            LogId::Hints => self.hints.local(partition, key, loaded),
        };
        self.as_trusted(log, partition, held)
    }

    /// The same as [`Log::glance`].
    fn glance(&self, log: LogId, partition: u16, key: &[u8]) -> (Local, Option<Sequence>) {
        let held = match log {
            LogId::Objects => self.objects.glance(partition, key),
            LogId::Hints => self.hints.glance(partition, key),
        };
        self.as_trusted(log, partition, held)
    }

    fn as_trusted(&self, log: LogId, partition: u16, held: (Local, Option<Sequence>)) -> (Local, Option<Sequence>) {
        let is_lost = |(local, pending): &(Local, Option<Sequence>)| {
            self.transfer.is_dropping(partition) || local.is_absent() && pending.is_none() && self.lacks(partition)
        };
        if log == LogId::Objects && is_lost(&held) { (Local::lost(), None) } else { held }
    }

    /// The body of a key when it is in RAM.
    fn recent(&self, log: LogId, partition: u16, key: &[u8]) -> Option<Bytes> {
        match log {
            LogId::Objects => self.objects.store.recent(partition, key),
            LogId::Hints => self.hints.store.recent(partition, key),
        }
    }

    /// Adds the body to what is known, if it is in RAM.
    fn add_body(&self, local: &mut Local, log: LogId, partition: u16, key: &[u8]) -> bool {
        if local.object.is_none()
            && let Some(body) = self.recent(log, partition, key)
        {
            local.object = Object::decode(&body).ok();
        }
        local.object.is_some()
    }

    fn load(&mut self, log: LogId, partition: u16, key: Key, job: Load, out: &mut Vec<Effect>) {
        let load = self.number();
        self.loads.insert(load, (log, job));
        out.push(Effect::Load { load, log, partition, key });
    }

    fn when_durable(&mut self, log: LogId, sequence: Sequence, waiter: Waiter) {
        match log {
            LogId::Objects => self.objects.when_durable(sequence, waiter),
            LogId::Hints => self.hints.when_durable(sequence, waiter),
        }
    }

    /// Nothing is minted any more with the actor of now.
    fn renew_actor(&mut self, out: &mut Vec<Effect>) {
        if self.actor.take().is_some() {
            self.statistics.actor_renewals += 1;
            out.push(Effect::RenewActor);
        }
    }

    /// Answers a request that this core has worked on. `key`: as it is encoded.
    fn finish(&mut self, now: Now, kind: Kind, call: &Call, key: &[u8], outcome: Outcome, out: &mut Vec<Effect>) {
        let failed = matches!(outcome, Outcome::Failed(_));
        self.recorder.record(now.instant, kind, &call.trace, Some((call.partition, key)), failed);
        self.answer(call.reply_to, outcome, out);
    }

    fn answer(&mut self, reply_to: ReplyTo, outcome: Outcome, out: &mut Vec<Effect>) {
        if let Outcome::Failed(failure) = &outcome {
            self.statistics.failures[failure.kind()] += 1;
        }
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
