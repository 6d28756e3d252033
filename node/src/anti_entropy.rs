//! Anti-entropy: those who keep a partition compare their Merkle trees in the background and repair both ways (section 4.7).
//!
//! The rule: a difference counts only when it is seen again a little later. The root differs: wait; branches that differ
//! are gone down, where they still differ; then wait; the leaves that still differ are listed; wait; only the keys whose
//! two versions are still the very same two are repaired. So a write under way costs sums, not a transfer; a key that is written
//! all the time is repaired as it is, so that after an exchange that ended well each side has what the other had.
//!
//! Of each two primaries the one that comes first in the preference list begins the exchanges about a partition; it asks,
//! fetches and gives, and so holds all the state and paces both directions. The other one answers, and keeps a lease: a
//! partition is repaired with one peer at a time, so that two of them do not both send what this core lacks. As the order
//! in a preference list has no cycle, of all that wait for each other's lease one always gets on. Who is to keep a partition
//! by the ring to come stands before the primaries: so it begins the exchanges that bring it what they have. Who holds what it
//! does not keep any more gives it to the primaries, and takes nothing.
//!
//! Pure. Not here: the trees (`engine/index`), how an object is taken (`core/replicas`), what travels
//! (`net/message/exchange`).

mod exchange;
mod responder;
mod schedule;

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use quorate_engine::planted::{Bug, planted};
use quorate_net::{
    id::Endpoint,
    message::{
        self,
        exchange::{HashedKey, HeldKey, Step, Whole},
    },
};

use self::{
    exchange::{End, Exchange},
    responder::Responder,
    schedule::{Again, Schedule},
};
use crate::{clock::Instant, pace::Pace, ring::Ring};

/// How much, and how fast.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This core.
    pub me: Endpoint,
    /// Each partition is compared with each other primary this often, in turns that are spread over it evenly. Typically
    /// a minute.
    pub interval: Duration,
    /// At least this much lies between the beginnings of two exchanges. Typically a millisecond.
    pub gap: Duration,
    /// A difference counts when it is still there after this. More than a write takes to reach all replicas: typically
    /// 200 ms.
    pub confirm: Duration,
    /// An ask that was not answered for so long is made again. Typically a second.
    pub timeout: Duration,
    /// An ask is made so often, then the exchange is given up. At least 1.
    pub tries_max: u8,
    /// An exchange that was refused, given up or left something undone is begun again after this.
    pub retry: Duration,
    /// The most exchanges that this core has begun and not ended.
    pub exchanges_max: usize,
    /// The most of them with one peer.
    pub exchanges_per_peer_max: usize,
    /// The most bytes of objects that exchanges of this core have under way, in both directions together. A larger
    /// object goes alone.
    pub bytes_max: u64,
    /// The most bytes of objects in a second, over a while, of the exchanges that this core began. Those of a peer come on top.
    pub bytes_per_second: u64,
    /// The most objects that this core reads or takes at once for exchanges that others began.
    pub jobs_max: usize,
}

impl Settings {
    /// What suits a core with a disk and a network of today.
    #[must_use]
    pub fn typical(me: Endpoint) -> Self {
        Self {
            me,
            interval: Duration::from_secs(60),
            gap: Duration::from_millis(1),
            confirm: Duration::from_millis(200),
            timeout: Duration::from_secs(1),
            tries_max: 3,
            retry: Duration::from_secs(5),
            exchanges_max: 64,
            exchanges_per_peer_max: 32,
            bytes_max: 128 << 10,
            bytes_per_second: 4 << 20,
            jobs_max: 64,
        }
    }
}

/// Counts since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// Exchanges that this core began.
    pub exchanges: u64,
    /// Of these, those that found equal roots.
    pub equal_roots: u64,
    /// Of these, those that were refused because a core was in another exchange about the partition.
    pub busy: u64,
    /// Of these, those that got no answer, lost their peer, or could not repair all that they found.
    pub given_up: u64,
    /// Leaves whose keys were compared.
    pub leaves: u64,
    /// Keys that differed at first and no longer when they were looked at again.
    pub passed: u64,
    /// Keys whose difference was confirmed.
    pub differences: u64,
    /// Objects that this core gave or sent because it was asked, each as often as it was sent.
    pub keys_sent: u64,
    /// Objects that this core took and has on disk.
    pub keys_received: u64,
    /// Bytes of keys and bodies sent.
    pub bytes_sent: u64,
    /// Bytes of keys and bodies received.
    pub bytes_received: u64,
    /// Messages that made no sense, or came from a core that does not share the partition.
    pub malformed: u64,
}

/// Something for the core to do.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Send; it may be lost.
    Send {
        /// The receiver.
        to: Endpoint,
        /// The message.
        message: message::Exchange,
    },
    /// Read the object that the index lists under this key, then call [`AntiEntropy::handle_loaded`], in any case.
    Load {
        /// The number to come back with.
        job: u64,
        /// The partition.
        partition: u16,
        /// The key.
        key: HashedKey,
    },
    /// An exchange that this core began ended, and the two are equal in what they held then; or, if this core does not keep
    /// the partition, the peer has all that this core holds.
    Compared {
        /// With whom.
        peer: Endpoint,
        /// The partition.
        partition: u16,
        /// When the exchange began.
        begun: Instant,
    },
    /// Take the object as a replica does, which reconciles it with what is here; when that is on disk or failed, call
    /// [`AntiEntropy::handle_taken`], in any case.
    Take {
        /// The number to come back with.
        job: u64,
        /// Who sent it.
        from: Endpoint,
        /// The partition.
        partition: u16,
        /// The object.
        object: Whole,
    },
}

/// What this core holds, as its index tells it.
pub trait Tree {
    /// The sum of all entries of the partition; 0 when there are none.
    fn root(&self, partition: u16) -> u64;
    /// The finest level whose leaves cost no scan.
    fn level(&self, partition: u16) -> u8;
    /// The sum of the entries whose fingerprint ends in `index`, of 2^`level`.
    fn leaf(&self, partition: u16, level: u8, index: u64) -> u64;
    /// These entries, in any order.
    fn held(&self, partition: u16, level: u8, index: u64) -> Vec<HeldKey>;
    /// The entry of a key.
    fn find(&self, partition: u16, key: HashedKey) -> Option<HeldKey>;
}

/// All exchanges of one core, those that it began and those that it answers.
#[derive(Debug)]
pub struct AntiEntropy {
    settings: Settings,
    ring: Rc<Ring>,
    schedule: Schedule,
    /// Partitions that this core holds something of and does not keep.
    surplus: BTreeSet<u16>,
    /// Those that this core began, by number.
    exchanges: BTreeMap<u64, Exchange>,
    next_number: u64,
    /// Which of them holds a partition: it found a difference there.
    holders: BTreeMap<u16, u64>,
    /// Who is visited about a partition as soon as it is free, in the order of their waiting: those who are visited again and
    /// again would not let others in.
    blocked: BTreeMap<u16, Vec<Endpoint>>,
    responder: Responder,
    shared: Shared,
}

/// What all exchanges of a core have in common.
#[derive(Debug)]
struct Shared {
    statistics: Statistics,
    /// Reads and takes that the core works on.
    jobs: BTreeMap<u64, Job>,
    next_job: u64,
    /// Bytes of objects that the own exchanges have under way.
    bytes_underway: u64,
    pace: Pace,
}

/// Whom a read or a take is for.
#[derive(Clone, Copy, Debug)]
enum Job {
    /// An exchange that this core began.
    Own { number: u64, key: HashedKey },
    /// Another core's.
    Other { to: Endpoint, number: u64, round: u32, partition: u16, key: HashedKey },
}

/// All that one step needs beside the state that it changes.
struct Desk<'a, T> {
    now: Instant,
    settings: &'a Settings,
    tree: &'a T,
    shared: &'a mut Shared,
    out: &'a mut Vec<Action>,
}

impl AntiEntropy {
    /// Nothing under way, and every visit due. `first_number` is drawn at random for each start, so
    /// that a late message of an earlier life meets no exchange of this one.
    #[must_use]
    pub fn new(settings: Settings, ring: Rc<Ring>, now: Instant, first_number: u64) -> Self {
        let shared = Shared {
            statistics: Statistics::default(),
            jobs: BTreeMap::new(),
            next_job: first_number,
            bytes_underway: 0,
            pace: Pace::new(settings.bytes_per_second),
        };
        let mut schedule = Schedule::default();
        schedule.set_ring(now, &settings, &ring, &BTreeSet::new());
        Self {
            settings,
            ring,
            schedule,
            surplus: BTreeSet::new(),
            exchanges: BTreeMap::new(),
            next_number: first_number,
            holders: BTreeMap::new(),
            blocked: BTreeMap::new(),
            responder: Responder::default(),
            shared,
        }
    }

    /// The ring changed, or what this core holds and does not keep: what it shares no longer is not compared any more.
    pub fn handle_ring(&mut self, now: Instant, ring: Rc<Ring>, surplus: BTreeSet<u16>, out: &mut Vec<Action>) {
        self.schedule.set_ring(now, &self.settings, &ring, &surplus);
        self.blocked.retain(|&partition, waiting| {
            waiting.retain(|&peer| keeps(&ring, peer, partition));
            !waiting.is_empty()
        });
        (self.ring, self.surplus) = (ring, surplus);
        let me = self.settings.me;
        let strange = |exchange: &Exchange| {
            !keeps(&self.ring, exchange.peer, exchange.partition)
                || keeps(&self.ring, me, exchange.partition) == exchange.gives_only
                || exchange.gives_only && !self.surplus.contains(&exchange.partition)
        };
        for number in
            self.exchanges.iter().filter(|(_, exchange)| strange(exchange)).map(|(&n, _)| n).collect::<Vec<_>>()
        {
            self.end(now, number, End::GivenUp, out);
        }
    }

    /// A peer's core can be reached again, or no longer. One that came back is visited first.
    pub fn handle_peer(&mut self, now: Instant, peer: Endpoint, up: bool, out: &mut Vec<Action>) {
        self.schedule.set_up(peer, up);
        if !up {
            self.responder.forget(peer);
            let with = |exchange: &Exchange| exchange.peer == peer;
            let numbers: Vec<_> = self.exchanges.iter().filter(|(_, e)| with(e)).map(|(&number, _)| number).collect();
            for number in numbers {
                self.end(now, number, End::GivenUp, out);
            }
        }
    }

    /// This core's copy of the partition may lack what it once had: exchanges that others begin about it count as well, until
    /// [`AntiEntropy::healed`].
    pub fn distrust(&mut self, partition: u16) {
        self.responder.healing.entry(partition).or_default();
    }

    /// Only these partitions may still lack something.
    pub fn healed(&mut self, but: impl Fn(u16) -> bool) {
        self.responder.healing.retain(|&partition, _| but(partition));
    }

    /// This core's copy of the partition was lost or damaged: it is compared with all other primaries at once.
    pub fn heal(&mut self, partition: u16, out: &mut Vec<Action>) {
        let primaries = self.ring.primaries(partition);
        let Some(own) = primaries.iter().position(|&primary| primary == self.settings.me) else { return };
        for &to in &primaries[..own] {
            let message = message::Exchange { number: self.next_number, round: 0, partition, step: Step::Invite };
            out.push(Action::Send { to, message });
        }
        for &peer in &primaries[own + 1..] {
            self.schedule.hurry(peer, partition);
        }
    }

    /// The partition is compared with this peer before all others.
    pub fn hurry(&mut self, peer: Endpoint, partition: u16) {
        self.schedule.hurry(peer, partition);
    }

    /// Another core says something.
    pub fn handle_exchange<T: Tree>(
        &mut self,
        now: Instant,
        from: Endpoint,
        message: message::Exchange,
        tree: &T,
        out: &mut Vec<Action>,
    ) {
        // Any node may hold what it does not keep any more, and give it to those who keep it.
        let (here, there) = (self.settings.me, message.partition);
        let asks = matches!(
            message.step,
            Step::Root
                | Step::Branches { .. }
                | Step::List { .. }
                | Step::Compare { .. }
                | Step::Give { .. }
                | Step::Close { .. }
        );
        let from_keeper = from != here && there < self.ring.partitions() && keeps(&self.ring, from, there);
        if !(from_keeper || asks && from != here && there < self.ring.partitions() && keeps(&self.ring, here, there)) {
            self.shared.statistics.malformed += 1;
            return;
        }
        match &message.step {
            Step::Invite => self.schedule.hurry(from, message.partition),
            Step::Root
            | Step::Branches { .. }
            | Step::List { .. }
            | Step::Compare { .. }
            | Step::Fetch { .. }
            | Step::Give { .. }
            | Step::Close { .. } => {
                let held = self.holders.contains_key(&message.partition);
                let (settings, shared) = (&self.settings, &mut self.shared);
                let mut desk = Desk { now, settings, tree, shared, out };
                let message::Exchange { number, partition, .. } = message;
                let closes = if let Step::Close { done } = message.step { Some(done) } else { None };
                self.responder.answer(&mut desk, from, message, held);
                if let Some(done) = closes {
                    self.closed(from, number, partition, done, out);
                }
            }
            Step::RootIs { .. } => self.root_is(now, from, message, tree, out),
            _ => {
                let ours = |e: &&Exchange| e.peer == from && e.partition == message.partition;
                if self.exchanges.get(&message.number).as_ref().is_some_and(ours) {
                    self.step(now, message.number, tree, out, |exchange, desk| exchange.handle_answer(desk, message));
                }
            }
        }
        self.go_on(now, tree, out);
    }

    /// The read that [`Action::Load`] asked for is done. `None`: there is no such object any more, or it cannot be read.
    pub fn handle_loaded<T: Tree>(
        &mut self,
        now: Instant,
        job: u64,
        object: Option<Whole>,
        tree: &T,
        out: &mut Vec<Action>,
    ) {
        match self.shared.jobs.remove(&job) {
            Some(Job::Own { number, key }) => {
                self.step(now, number, tree, out, |exchange, desk| exchange.handle_loaded(desk, key, object));
            }
            Some(Job::Other { to, number, round, partition, key }) => {
                self.responder.jobs -= 1;
                if let Some(object) = &object {
                    self.shared.count_sent(object);
                }
                let step = Step::Fetched { key, object };
                out.push(Action::Send { to, message: message::Exchange { number, round, partition, step } });
            }
            None => {}
        }
        self.go_on(now, tree, out);
    }

    /// The object that [`Action::Take`] brought is on disk, or what covers it is; or it could not be taken.
    pub fn handle_taken<T: Tree>(&mut self, now: Instant, job: u64, durable: bool, tree: &T, out: &mut Vec<Action>) {
        let taken = self.shared.jobs.remove(&job);
        self.shared.statistics.keys_received += u64::from(durable && taken.is_some());
        match taken {
            Some(Job::Own { number, key }) => {
                self.step(now, number, tree, out, |exchange, desk| exchange.handle_taken(desk, key, durable));
            }
            Some(Job::Other { to, number, round, partition, key }) => {
                self.responder.jobs -= 1;
                let step = Step::Given { key, durable };
                out.push(Action::Send { to, message: message::Exchange { number, round, partition, step } });
            }
            None => {}
        }
        self.go_on(now, tree, out);
    }

    /// Deadlines may have passed, visits may be due.
    pub fn handle_timeout<T: Tree>(&mut self, now: Instant, tree: &T, out: &mut Vec<Action>) {
        let due = |exchange: &Exchange| exchange.next_timeout().is_some_and(|at| at <= now);
        let numbers: Vec<_> = self.exchanges.iter().filter(|(_, e)| due(e)).map(|(&number, _)| number).collect();
        for number in numbers {
            self.step(now, number, tree, out, |exchange, desk| exchange.handle_timeout(desk));
        }
        self.go_on(now, tree, out);
    }

    /// When to call [`AntiEntropy::handle_timeout`] next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let next = if self.waiting().next().is_none() {
            self.schedule.next_start(&self.settings, self.exchanges.len())
        } else if self.waiting().any(|bytes| self.shared.has_room(&self.settings, bytes)) {
            Some(self.shared.pace.may_begin_at())
        } else {
            None
        };
        self.exchanges.values().filter_map(Exchange::next_timeout).chain(next).min()
    }

    /// From now on objects go so many times as slowly.
    pub fn set_stretch(&mut self, factor: u32) {
        self.shared.pace.set_stretch(factor);
    }

    /// Counts since the start.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.shared.statistics
    }

    /// Exchanges that this core has begun and not ended.
    #[must_use]
    pub fn underway(&self) -> usize {
        self.exchanges.len()
    }

    /// Bytes of objects that its exchanges have under way.
    #[must_use]
    pub fn bytes_underway(&self) -> u64 {
        self.shared.bytes_underway
    }

    /// The answer to the first ask: with equal roots that is all; else the partition must be free to go on.
    fn root_is<T: Tree>(
        &mut self,
        now: Instant,
        from: Endpoint,
        message: message::Exchange,
        tree: &T,
        out: &mut Vec<Action>,
    ) {
        let (number, partition) = (message.number, message.partition);
        let Some(exchange) = self.exchanges.get(&number) else { return };
        if exchange.peer != from || exchange.partition != partition || !exchange.awaits_root(&message) {
            return;
        }
        let Step::RootIs { sum, heals, .. } = message.step else { return };
        self.exchanges.get_mut(&number).expect("found above").peer_heals = heals;
        let equal = sum == tree.root(partition) || planted(Bug::ExchangeEndsAtRoot);
        if !equal && (self.holders.contains_key(&partition) || self.responder.leases(now, partition)) {
            let waiting = self.blocked.entry(partition).or_default();
            if !waiting.contains(&from) {
                waiting.push(from);
            }
            return self.end(now, number, End::Busy, out);
        }
        if let Some(waiting) = self.blocked.get_mut(&partition) {
            waiting.retain(|&peer| peer != from);
        }
        if equal {
            return self.end(now, number, End::Equal, out);
        }
        self.holders.insert(partition, number);
        self.step(now, number, tree, out, |exchange, desk| exchange.handle_answer(desk, message));
    }

    fn step<'a, T: Tree>(
        &'a mut self,
        now: Instant,
        number: u64,
        tree: &'a T,
        out: &'a mut Vec<Action>,
        step: impl FnOnce(&mut Exchange, &mut Desk<'_, T>) -> Option<End>,
    ) {
        let Some(exchange) = self.exchanges.get_mut(&number) else { return };
        let mut desk = Desk { now, settings: &self.settings, tree, shared: &mut self.shared, out };
        if let Some(end) = step(exchange, &mut desk) {
            self.end(now, number, end, out);
        }
    }

    /// Uses the room that an event may have made: for objects first, then for further exchanges.
    fn go_on<T: Tree>(&mut self, now: Instant, tree: &T, out: &mut Vec<Action>) {
        let mut desk = Desk { now, settings: &self.settings, tree, shared: &mut self.shared, out };
        for exchange in self.exchanges.values_mut() {
            exchange.fill_window(&mut desk);
        }
        if self.waiting().next().is_some() {
            return;
        }
        let mut desk = Desk { now, settings: &self.settings, tree, shared: &mut self.shared, out };
        while let Some((peer, partition)) = self.schedule.start(now, &self.settings, self.exchanges.len()) {
            let number = self.next_number;
            self.next_number = self.next_number.wrapping_add(1);
            desk.shared.statistics.exchanges += 1;
            let gives_only = !keeps(&self.ring, self.settings.me, partition);
            self.exchanges.insert(number, Exchange::begin(&mut desk, number, peer, partition, gives_only));
        }
    }

    /// The bytes of the next object of each exchange that waits for room, or for the rate. While there are any no further
    /// exchange is begun: it would only wait with the others.
    fn waiting(&self) -> impl Iterator<Item = u64> {
        self.exchanges.values().filter_map(Exchange::next_bytes)
    }

    fn end(&mut self, now: Instant, number: u64, end: End, out: &mut Vec<Action>) {
        let exchange = self.exchanges.remove(&number).expect("only what is under way ends");
        self.shared.bytes_underway -= exchange.bytes_underway();
        let done = matches!(end, End::Equal | End::Done);
        let held = self.holders.get(&exchange.partition) == Some(&number);
        if held || exchange.peer_heals {
            out.push(exchange.close(done));
        }
        if held {
            self.holders.remove(&exchange.partition);
            self.unblock(exchange.partition);
        }
        let statistics = &mut self.shared.statistics;
        match end {
            End::Equal => statistics.equal_roots += 1,
            End::Done => {}
            End::Busy => statistics.busy += 1,
            End::GivenUp => statistics.given_up += 1,
        }
        if done {
            let Exchange { peer, partition, begun, .. } = exchange;
            out.push(Action::Compared { peer, partition, begun });
        }
        let again = match done {
            true if exchange.gives_only => Again::InAHurry,
            true => Again::InTurn,
            false => Again::Soon,
        };
        self.schedule.finish(now, &self.settings, exchange.peer, exchange.partition, again);
    }

    /// A peer has ended its exchange.
    fn closed(&mut self, from: Endpoint, number: u64, partition: u16, done: bool, out: &mut Vec<Action>) {
        let begun = self.responder.healing.get(&partition).and_then(|begun| begun.get(&from));
        if let Some(&(_, begun)) = begun.filter(|(begun, _)| *begun == number && done) {
            out.push(Action::Compared { peer: from, partition, begun });
        }
        self.unblock(partition);
    }

    /// The partition is in no exchange any more, as far as this core is concerned.
    fn unblock(&mut self, partition: u16) {
        // Whoever is overtaken on the way keeps its place.
        for (place, &peer) in self.blocked.get(&partition).into_iter().flatten().enumerate() {
            self.schedule.hurry_in_turn(peer, partition, place);
        }
    }
}

impl Shared {
    fn job(&mut self, job: Job) -> u64 {
        let number = self.next_job;
        self.next_job = self.next_job.wrapping_add(1);
        self.jobs.insert(number, job);
        number
    }

    /// Whether another object of so many bytes may be under way.
    fn has_room(&self, settings: &Settings, bytes: u64) -> bool {
        self.bytes_underway == 0 || self.bytes_underway + bytes <= settings.bytes_max
    }

    fn count_sent(&mut self, object: &Whole) {
        self.statistics.keys_sent += 1;
        self.statistics.bytes_sent += bytes_of(object);
    }
}

fn bytes_of(object: &Whole) -> u64 {
    (object.key.encoded().len() + object.body.len()) as u64
}

/// Whether the core takes writes of the partition.
fn keeps(ring: &Ring, core: Endpoint, partition: u16) -> bool {
    ring.keepers(partition).any(|keeper| keeper == core)
}

#[cfg(test)]
mod tests;
