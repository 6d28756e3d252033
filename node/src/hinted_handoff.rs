//! Hinted handoff: what this core holds for primaries that could not be reached goes to them, in the background
//! (section 4.6).
//!
//! The rule: a hint names nobody. It is owed to every primary of its partition by the ring of the moment, and is forgotten
//! only when each of them is known to have on disk what covers it. So whoever owns the partition when the hint can be
//! delivered gets it, and a ring that changes meanwhile costs only another look.
//!
//! A primary is first asked whether it has the object: most got it from the coordinator. Only one that lacks it is sent it.
//! One that is down is not asked, and what it lacks stays; the others get theirs meanwhile. Each primary is served by
//! itself: one that is slow or refuses is left alone for a while, and holds only its share of the places.
//!
//! Pure. Not here: the store of the hints, where a newer object of a key takes the place of the one that is held, and the
//! renewal of the actor before a hint of its own is forgotten (`core`); who is owed what (`schedule`); the way of one hint
//! (`offer`).

mod delivery;
mod offer;
mod schedule;

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use quorate_engine::planted::{Bug, planted};
use quorate_net::{
    id::Endpoint,
    key::Key,
    message::{
        Message, ReplicaOutcome,
        exchange::{HashedKey, Whole},
    },
};

use self::{
    delivery::{Acknowledged, Ask, Delivery, Stage},
    offer::covers,
    schedule::{Place, Schedule},
};
use crate::{anti_entropy::Tree, clock::Instant, coordinator::get::Theirs, pace::Pace, ring::Ring};

/// So many leaves are looked through for the next hint, then others get the core.
const LEAVES_MAX: usize = 64;

/// How much, and how fast.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The most hints under way: being read, offered or forgotten. Typically 64.
    pub hints_max: usize,
    /// The most of them under way to one primary: fewer than all, so that one that is slow does not hold up the others.
    /// Typically half.
    pub hints_per_primary_max: usize,
    /// The most bytes of hints in RAM. A larger hint goes alone. Typically 4 MiB.
    pub bytes_max: u64,
    /// The most bytes read and sent in a second, over a while.
    pub bytes_per_second: u64,
    /// At least this much lies between the beginnings of two hints. Typically 100 µs.
    pub gap: Duration,
    /// A primary that has not answered for so long has not got the message. Typically a second.
    pub timeout: Duration,
    /// A primary that did not answer or refused is left alone for this long, and up to 32 times that when it goes on so.
    /// Typically a second.
    pub retry: Duration,
    /// Of so many hints it is remembered who has them. What is beyond costs another probe. Typically 65,536.
    pub acknowledged_max: usize,
}

impl Settings {
    /// What suits a core with a disk and a network of today.
    #[must_use]
    pub fn typical() -> Self {
        Self {
            hints_max: 64,
            hints_per_primary_max: 32,
            bytes_max: 128 << 10,
            bytes_per_second: 4 << 20,
            gap: Duration::from_micros(100),
            timeout: Duration::from_secs(1),
            retry: Duration::from_secs(1),
            acknowledged_max: 1 << 16,
        }
    }
}

/// Counts since the start. `accepted` and what was held at the start = `delivered` + `dropped` + what is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// Hints taken in, of keys of which none was held.
    pub accepted: u64,
    /// Hints forgotten because all primaries have them.
    pub delivered: u64,
    /// Hints given up: unreadable, or dropped by the core.
    pub dropped: u64,
    /// Hints read from the store.
    pub loads: u64,
    /// Primaries asked whether they have a hint.
    pub probes: u64,
    /// Objects sent to primaries.
    pub sent: u64,
    /// Bytes of keys and bodies sent.
    pub bytes_sent: u64,
    /// Primaries that said that they have a hint.
    pub acknowledged: u64,
    /// Primaries that would not say, or would not take it.
    pub refused: u64,
    /// Messages that nobody answered in time.
    pub timeouts: u64,
    /// Hints in whose place there was a newer one when all had them.
    pub superseded: u64,
}

/// Something for the core to do.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Send; it may be lost. The receiver can be this core.
    Send {
        /// The receiver.
        to: Endpoint,
        /// The message.
        message: Message,
    },
    /// Read the hint that the index lists under this key, then call [`HintedHandoff::handle_loaded`], in any case.
    Load {
        /// The number to come back with.
        job: u64,
        /// The partition.
        partition: u16,
        /// The key.
        key: HashedKey,
    },
    /// Forget the hint if it still has this version; then, in any case, call [`HintedHandoff::handle_forgotten`]. If
    /// anything has to be done first that takes time, ask [`HintedHandoff::may_forget`] after it.
    Forget {
        /// The number to come back with.
        job: u64,
        /// The partition.
        partition: u16,
        /// The key.
        key: Key,
        /// The version.
        version: u64,
    },
}

/// What the read of a hint came to.
#[derive(Clone, PartialEq, Debug)]
pub enum Loaded {
    /// The hint as it is now.
    Hint(Whole),
    /// It is not there any more, or cannot be read now.
    Missing,
    /// It is damaged, and is not in the index any more.
    Damaged,
}

/// All hints of one core on their way to the primaries.
#[derive(Debug)]
pub struct HintedHandoff {
    settings: Settings,
    ring: Rc<Ring>,
    schedule: Schedule,
    /// By number.
    deliveries: BTreeMap<u64, Delivery>,
    by_key: BTreeMap<(u16, HashedKey), u64>,
    /// What was sent and not answered: for which of them, and to whom.
    operations: BTreeMap<u64, (u64, Endpoint)>,
    deadlines: BTreeSet<(Instant, u64)>,
    acknowledged: Acknowledged,
    bytes_underway: u64,
    /// The next hint has to wait until others make room for its bytes.
    lacks_room: bool,
    /// No hint begins before this.
    not_before: Instant,
    pace: Pace,
    next_number: u64,
    statistics: Statistics,
}

impl HintedHandoff {
    /// Nothing under way; what the store holds is looked through. `first_number` is drawn at random for each start, so that
    /// a late message of an earlier life meets no hint of this one, and far from the numbers of the core's own operations.
    ///
    /// # Panics
    /// When the settings leave no room for a single hint.
    #[must_use]
    pub fn new<T: Tree>(settings: Settings, ring: Rc<Ring>, first_number: u64, tree: &T) -> Self {
        assert!(settings.hints_max > 0 && settings.hints_per_primary_max > 0, "no hint may be under way: {settings:?}");
        let pace = Pace::new(settings.bytes_per_second);
        let mut schedule = Schedule::default();
        for partition in (0..ring.partitions()).filter(|&partition| tree.root(partition) != 0) {
            for &primary in ring.primaries(partition) {
                schedule.owe(primary, partition, Place::START, Instant(0));
            }
        }
        Self {
            settings,
            ring,
            schedule,
            deliveries: BTreeMap::new(),
            by_key: BTreeMap::new(),
            operations: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            acknowledged: Acknowledged::default(),
            bytes_underway: 0,
            lacks_room: false,
            not_before: Instant(0),
            pace,
            next_number: first_number,
            statistics: Statistics::default(),
        }
    }

    /// The ring changed: what is held is owed to those who own it now. What a new primary acknowledged before it was one
    /// counts no longer: it may have dropped that.
    pub fn handle_ring<T: Tree>(&mut self, now: Instant, ring: Rc<Ring>, tree: &T, out: &mut Vec<Action>) {
        assert_eq!(ring.partitions(), self.ring.partitions(), "the number of partitions never changes");
        let ring = if planted(Bug::HintsOwedAsBefore) { self.ring.clone() } else { ring };
        let before = std::mem::replace(&mut self.ring, ring);
        let ring = self.ring.clone();
        let owns = |endpoint: Endpoint, partition: u16| ring.primaries(partition).contains(&endpoint);
        let numbers: Vec<_> = self.deliveries.keys().copied().collect();
        for &number in &numbers {
            let delivery = self.deliveries.get_mut(&number).expect("listed above");
            let partition = delivery.partition;
            delivery.acknowledged.retain(|&endpoint| owns(endpoint, partition));
            let gone: Vec<_> = delivery.asks.keys().copied().filter(|&to| !owns(to, partition)).collect();
            gone.into_iter().for_each(|to| self.end_ask(number, to));
        }
        self.acknowledged.retain(owns);
        self.schedule.retain(owns);
        for partition in (0..ring.partitions()).filter(|&partition| tree.root(partition) != 0) {
            let (old, new) = (before.primaries(partition), ring.primaries(partition));
            // When there are fewer, those that are left may all have what one that is gone lacked.
            let owed = new.iter().filter(|primary| new.len() < old.len() || !old.contains(primary));
            owed.for_each(|&primary| self.schedule.owe(primary, partition, Place::START, now));
        }
        numbers.into_iter().for_each(|number| self.settle(now, number, tree, out));
        self.go_on(now, tree, out);
    }

    /// A peer's core can be reached again, or no longer. One that came back is served at once.
    pub fn handle_peer<T: Tree>(&mut self, now: Instant, peer: Endpoint, up: bool, tree: &T, out: &mut Vec<Action>) {
        self.schedule.set_up(peer, up, now);
        if !up {
            let to_it = |(_, delivery): &(&u64, &Delivery)| delivery.asks.contains_key(&peer);
            let numbers: Vec<_> = self.deliveries.iter().filter(to_it).map(|(&number, _)| number).collect();
            for number in numbers {
                let delivery = &self.deliveries[&number];
                self.schedule.rewind(peer, delivery.partition, delivery.place());
                self.end_ask(number, peer);
                self.settle(now, number, tree, out);
            }
        }
        self.go_on(now, tree, out);
    }

    /// A hint was taken in. `new`: none was held of its key; else it took the place of the one that was.
    pub fn handle_hint<T: Tree>(
        &mut self,
        now: Instant,
        partition: u16,
        key: HashedKey,
        new: bool,
        tree: &T,
        out: &mut Vec<Action>,
    ) {
        self.statistics.accepted += u64::from(new);
        for &primary in self.ring.primaries(partition) {
            self.schedule.owe(primary, partition, Place::of(key), now);
        }
        self.go_on(now, tree, out);
    }

    /// The core dropped hints by itself.
    pub fn handle_dropped(&mut self, hints: u64) {
        self.statistics.dropped += hints;
    }

    /// The read that [`Action::Load`] asked for is done.
    pub fn handle_loaded<T: Tree>(&mut self, now: Instant, job: u64, loaded: Loaded, tree: &T, out: &mut Vec<Action>) {
        if self.deliveries.get(&job).is_some_and(|delivery| matches!(delivery.stage, Stage::Loading)) {
            match loaded {
                Loaded::Hint(whole) => self.loaded(now, job, whole, tree, out),
                Loaded::Missing => self.abandon(now, job, tree),
                Loaded::Damaged => {
                    self.statistics.dropped += 1;
                    self.abandon(now, job, tree);
                }
            }
        }
        self.go_on(now, tree, out);
    }

    /// A primary says what it has. False: this was not asked here.
    pub fn handle_probed<T: Tree>(
        &mut self,
        now: Instant,
        from: Endpoint,
        operation: u64,
        theirs: &Theirs,
        tree: &T,
        out: &mut Vec<Action>,
    ) -> bool {
        let Some((number, Ask::Probe { .. })) = self.asked(from, operation) else { return false };
        let delivery = &self.deliveries[&number];
        let Stage::Offering { object, .. } = &delivery.stage else { unreachable!("only what was read is offered") };
        let has_it = match theirs {
            Theirs::Same => Some(true),
            Theirs::Absent => Some(false),
            Theirs::Object(theirs) => Some(covers(theirs, object)),
            Theirs::Unknown => None,
        };
        match has_it {
            Some(true) => self.acknowledge(number, from),
            Some(false) => {
                self.schedule.succeed(from);
                self.give(now, number, from, out);
            }
            None => {
                self.statistics.refused += 1;
                self.schedule.delay(from, delivery.partition, now + self.settings.retry);
                self.end_ask(number, from);
            }
        }
        self.settle(now, number, tree, out);
        self.go_on(now, tree, out);
        true
    }

    /// A primary says what became of an object. False: this was not sent here.
    pub fn handle_replicated<T: Tree>(
        &mut self,
        now: Instant,
        from: Endpoint,
        operation: u64,
        outcome: ReplicaOutcome,
        tree: &T,
        out: &mut Vec<Action>,
    ) -> bool {
        let Some((number, Ask::Replicate { .. })) = self.asked(from, operation) else { return false };
        if outcome == ReplicaOutcome::Durable {
            self.acknowledge(number, from);
        } else {
            self.statistics.refused += 1;
            let retry = self.settings.retry;
            match outcome {
                // It is about this object.
                ReplicaOutcome::TooLarge | ReplicaOutcome::Malformed => {}
                // It is about this partition.
                ReplicaOutcome::NotOwner => {
                    self.schedule.delay(from, self.deliveries[&number].partition, now + retry);
                }
                _ => self.schedule.fail(from, now, retry),
            }
            self.end_ask(number, from);
        }
        self.settle(now, number, tree, out);
        self.go_on(now, tree, out);
        true
    }

    /// Whether what [`Action::Forget`] asked for still stands: the ring may have changed since.
    #[must_use]
    pub fn may_forget(&self, job: u64) -> bool {
        self.deliveries.get(&job).is_some_and(|delivery| match delivery.stage {
            Stage::Forgetting { unreadable } => {
                unreadable || delivery.acknowledged_by_all(self.ring.primaries(delivery.partition))
            }
            _ => false,
        })
    }

    /// The hint of [`Action::Forget`] is forgotten; or it is held, since it is another version now, or may not be
    /// forgotten any more, or the store refused.
    pub fn handle_forgotten<T: Tree>(
        &mut self,
        now: Instant,
        job: u64,
        forgotten: bool,
        tree: &T,
        out: &mut Vec<Action>,
    ) {
        if let Some(&Delivery { stage: Stage::Forgetting { unreadable }, .. }) = self.deliveries.get(&job) {
            if forgotten {
                self.end(job);
                *(if unreadable { &mut self.statistics.dropped } else { &mut self.statistics.delivered }) += 1;
            } else {
                self.abandon(now, job, tree);
            }
        }
        self.go_on(now, tree, out);
    }

    /// Deadlines may have passed, hints may be due.
    pub fn handle_timeout<T: Tree>(&mut self, now: Instant, tree: &T, out: &mut Vec<Action>) {
        while let Some(&(_, operation)) = self.deadlines.first().filter(|(until, _)| *until <= now) {
            let (number, to) = self.operations[&operation];
            self.statistics.timeouts += 1;
            self.schedule.fail(to, now, self.settings.retry);
            self.end_ask(number, to);
            self.settle(now, number, tree, out);
        }
        self.go_on(now, tree, out);
    }

    /// When to call [`HintedHandoff::handle_timeout`] next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let has_room = !self.lacks_room && self.deliveries.len() < self.settings.hints_max;
        let start = if has_room { self.schedule.next_start(&self.settings) } else { None };
        let start = start.map(|start| start.max(self.may_begin_at()));
        self.deadlines.first().map(|&(until, _)| until).into_iter().chain(start).min()
    }

    /// From now on hints go so many times as slowly.
    pub fn set_stretch(&mut self, factor: u32) {
        self.pace.set_stretch(factor);
    }

    /// Counts since the start.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// Partitions that still have to be looked through for a primary, and from which it may lack every hint that is held.
    pub fn owed(&self) -> impl Iterator<Item = (Endpoint, u16)> + '_ {
        self.schedule.owed()
    }

    /// Whether nothing is owed to anybody and nothing is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.deliveries.is_empty() && self.schedule.is_idle()
    }

    /// Hints under way.
    #[must_use]
    pub fn underway(&self) -> usize {
        self.deliveries.len()
    }

    /// Bytes of hints in RAM.
    #[must_use]
    pub fn bytes_underway(&self) -> u64 {
        self.bytes_underway
    }

    /// Hints of which it is remembered who has them.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.acknowledged.len()
    }
}

#[cfg(test)]
mod tests;
