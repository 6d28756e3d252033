//! What is only kept because of versions that somebody might still bring: tombstones, and the past in long clocks. It is
//! forgotten once it is proven that nobody can.
//!
//! The rule: a version's past is forgotten only when every primary holds exactly this version, no other node holds a hint
//! for the key or an old copy of the partition, all of that on disk, twice with the longest deadline between, by one ring
//! and with nobody away: then no message that could carry an older version is under way, and nobody can come back with one.
//! Whoever is away blocks it, for as long as that takes; there is no grace period to tune. Of a tombstone nothing is left; of
//! a version with values, these and their dots (`Object::without_past`).
//!
//! The first primary of a partition asks, in batches; a batch in which one key is not ready goes on without that key. What is
//! written meanwhile has another version, and forgets nothing. A primary that forgot may get the past back from one that
//! has not yet: what was proven once stays proven, and is forgotten once more.
//!
//! Pure. Not here: how it is forgotten (`core/reaper`, `engine/forget`).

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque, btree_map::Entry},
    mem,
    rc::Rc,
    time::Duration,
};

use quorate_engine::planted::{Bug, planted};
use quorate_net::{
    id::Endpoint,
    message::{
        exchange::HashedKey,
        gossip::RingStamp,
        reap::{KEYS_MAX, KeyVersion, Reap},
    },
};

use crate::{clock::Instant, ring::Ring};

/// How much, and how fast.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This core.
    pub me: Endpoint,
    /// Between the two times that all must agree: longer than what carries an older version can be on its way, through a
    /// request with the longest deadline and a repair after it.
    pub wait: Duration,
    /// Who has not answered for so long is asked again.
    pub timeout: Duration,
    /// Each partition is looked through this often.
    pub interval: Duration,
    /// At least this much lies between two slices of that.
    pub gap: Duration,
    /// The most batches under way.
    pub batches_max: usize,
}

impl Settings {
    /// What suits a core whose requests wait for a minute at most, and its messages for half of one.
    #[must_use]
    pub fn typical(me: Endpoint) -> Self {
        Self {
            me,
            wait: Duration::from_secs(120),
            timeout: Duration::from_secs(1),
            interval: Duration::from_secs(60),
            gap: Duration::from_millis(2),
            batches_max: 1024,
        }
    }
}

/// A version with a past to forget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reapable {
    /// Which.
    pub version: KeyVersion,
    /// It is nothing but tombstones.
    pub tombstone: bool,
}

/// What this core holds.
pub trait Holdings {
    /// The level whose leaves are looked through in one slice.
    fn level(&self, partition: u16) -> u8;
    /// What has a past to forget, in a leaf of 2^`level`.
    fn reapable(&self, partition: u16, level: u8, index: u64) -> Vec<Reapable>;
    /// Whether the key's version is exactly this one, on disk.
    fn holds(&self, partition: u16, version: &KeyVersion) -> bool;
    /// Whether a hint for the key is held, or could be after a crash.
    fn hints(&self, partition: u16, version: &KeyVersion) -> bool;
    /// Whether anything of the partition is held, or could be after a crash.
    fn holds_any(&self, partition: u16) -> bool;
}

/// Something for the core to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Send; it may be lost. The receiver is another core.
    Send {
        /// The receiver.
        to: Endpoint,
        /// The message.
        message: Reap,
    },
    /// Forget the past of the key's version, if it is still this one: the key itself, when that is a tombstone.
    Forget {
        /// The partition.
        partition: u16,
        /// What.
        version: KeyVersion,
    },
}

/// Counts since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// Versions that were offered to all.
    pub asked: u64,
    /// Of these, those that somebody was not ready for.
    pub not_ready: u64,
    /// Batches that were given up because somebody was away, or the ring changed.
    pub given_up: u64,
    /// Versions of which all were told to forget the past.
    pub proven: u64,
}

/// What one core's partitions have to forget.
#[derive(Debug)]
pub struct Reaper {
    settings: Settings,
    ring: Rc<Ring>,
    stamp: RingStamp,
    down: BTreeSet<Endpoint>,
    batches: BTreeMap<u64, Batch>,
    /// The keys in all batches.
    underway: BTreeSet<(u16, KeyVersion)>,
    /// Some that were proven.
    proven: BTreeSet<(u16, KeyVersion)>,
    next_number: u64,
    /// What is looked through, and when its turn is.
    turns: VecDeque<(Instant, u16)>,
    /// How far it has come in the first of them, in leaves of this level.
    leaf: u64,
    level: u8,
    not_before: Instant,
    /// When the oldest were first seen here, and by which pass last.
    seen: BTreeMap<(u16, KeyVersion), (Instant, u64)>,
    /// Counts the passes through a partition.
    pass: u64,
    statistics: Statistics,
}

#[derive(Debug)]
struct Batch {
    partition: u16,
    keys: Vec<KeyVersion>,
    /// For which of them all who have answered are ready.
    ready: Vec<bool>,
    /// Those who have not answered.
    asked: BTreeSet<Endpoint>,
    /// All have agreed once.
    agreed: bool,
    /// When to ask again, or for the second time.
    until: Instant,
    tries: u8,
}

/// So often those who do not answer are asked.
const TRIES_MAX: u8 = 5;

/// So many are remembered that were proven; then all are forgotten, and proven once more should they come back.
const PROVEN_MAX: usize = 4096;

/// Of so many it is remembered when they were first seen.
const SEEN_MAX: usize = 4096;

const FIRST: KeyVersion = KeyVersion { key: HashedKey { fingerprint: 0, tag: 0 }, version: 0 };
const LAST: KeyVersion = KeyVersion { key: HashedKey { fingerprint: u64::MAX, tag: u8::MAX }, version: u64::MAX };

impl Reaper {
    /// Nothing under way. `first_number` is drawn at random for each start.
    #[must_use]
    pub fn new(settings: Settings, ring: (Rc<Ring>, RingStamp), now: Instant, first_number: u64) -> Self {
        let (ring, stamp) = ring;
        let mut reaper = Self {
            settings,
            ring,
            stamp,
            down: BTreeSet::new(),
            batches: BTreeMap::new(),
            underway: BTreeSet::new(),
            proven: BTreeSet::new(),
            next_number: first_number,
            turns: VecDeque::new(),
            leaf: 0,
            level: 0,
            not_before: now,
            seen: BTreeMap::new(),
            pass: 0,
            statistics: Statistics::default(),
        };
        reaper.draw_turns(now);
        reaper
    }

    /// The ring may have changed: then all begins anew, and nothing begins while it goes on changing.
    pub fn handle_ring(&mut self, now: Instant, ring: Rc<Ring>, stamp: RingStamp) {
        let belongs = |peer: &Endpoint| ring.members().iter().any(|member| member.node.id == peer.node);
        self.down.retain(belongs);
        // Who belongs without a place in the tables takes hints as well.
        let same = (stamp, ring.is_changing(), ring.members());
        if same != (self.stamp, self.ring.is_changing(), self.ring.members()) {
            self.give_up();
            self.proven.clear();
            self.seen.clear();
            (self.ring, self.stamp) = (ring, stamp);
            self.draw_turns(now);
        }
    }

    fn draw_turns(&mut self, now: Instant) {
        let ring = &self.ring;
        let mine = |partition: &u16| ring.primaries(*partition).first() == Some(&self.settings.me);
        let partitions: Vec<u16> = (0..ring.partitions()).filter(mine).collect();
        let count = partitions.len().max(1) as u32;
        let turn = |(at, partition): (u32, u16)| (now + self.settings.interval / count * at, partition);
        self.turns = if ring.is_changing() { VecDeque::new() } else { (0..).zip(partitions).map(turn).collect() };
        self.leaf = 0;
    }

    /// A core can be reached again, or no longer.
    pub fn handle_peer(&mut self, peer: Endpoint, up: bool) {
        if up {
            self.down.remove(&peer);
        } else {
            self.down.insert(peer);
            if !planted(Bug::AwayUnasked) {
                // It may come back with anything.
                self.give_up();
            }
        }
    }

    fn give_up(&mut self) {
        self.statistics.given_up += self.batches.len() as u64;
        self.batches.clear();
        self.underway.clear();
    }

    /// Another core says something.
    pub fn handle_reap(
        &mut self,
        now: Instant,
        from: Endpoint,
        reap: Reap,
        holdings: &impl Holdings,
        out: &mut Vec<Action>,
    ) {
        match reap {
            Reap::Ask { number, ring, partition, keys } => {
                let ready = |key| ring == self.stamp && self.is_ready(partition, key, holdings);
                let ready = keys.iter().map(ready).collect();
                out.push(Action::Send { to: from, message: Reap::Are { number, ready } });
            }
            Reap::Are { number, ready } => {
                let Some(batch) = self.batches.get_mut(&number) else { return };
                if batch.keys.len() != ready.len() || !batch.asked.remove(&from) {
                    return;
                }
                batch.ready.iter_mut().zip(ready).for_each(|(all, one)| *all &= one);
                self.progress(now, number, out);
            }
            Reap::Forget { ring, partition, keys } => {
                if ring == self.stamp && self.ring.primaries(partition).first() == Some(&from) {
                    out.extend(keys.into_iter().map(|version| Action::Forget { partition, version }));
                }
            }
        }
    }

    /// Deadlines may have passed, and partitions are due.
    pub fn handle_timeout(&mut self, now: Instant, holdings: &impl Holdings, out: &mut Vec<Action>) {
        let due: Vec<u64> = self.batches.iter().filter(|(_, batch)| batch.until <= now).map(|(&n, _)| n).collect();
        for number in due {
            let batch = self.batches.get_mut(&number).expect("listed above");
            if batch.asked.is_empty() {
                // This core stood still: others may have as well, and what they were sent waits for them. The first time again.
                batch.agreed = now.since(batch.until) < self.settings.wait / 4;
                self.ask(now, number, holdings, out);
            } else if batch.tries >= TRIES_MAX {
                self.end(number);
                self.statistics.given_up += 1;
            } else {
                batch.tries += 1;
                batch.until = now + self.settings.timeout;
                self.send_asks(number, out);
            }
        }
        self.look_through(now, holdings, out);
    }

    /// When to call [`Reaper::handle_timeout`] next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let slice = self.turns.front().map(|(turn, _)| (*turn).max(self.not_before));
        let slice = slice.filter(|_| self.may_begin());
        self.batches.values().map(|batch| batch.until).chain(slice).min()
    }

    /// Counts since the start.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// When the oldest tombstone that is not proven to be everywhere was first seen, as far as this core knows: it looks at
    /// those of the partitions of which it is the first primary, and remembers no more than its own life.
    #[must_use]
    pub fn oldest(&self) -> Option<Instant> {
        self.seen.values().map(|&(since, _)| since).min()
    }

    fn may_begin(&self) -> bool {
        let all_here = self.down.is_empty() || planted(Bug::AwayUnasked);
        self.batches.len() < self.settings.batches_max && all_here
    }

    /// Whether this core has nothing against forgetting the version's past.
    fn is_ready(&self, partition: u16, version: &KeyVersion, holdings: &impl Holdings) -> bool {
        if self.ring.is_changing() || holdings.hints(partition, version) {
            return false;
        }
        if self.ring.primaries(partition).contains(&self.settings.me) {
            holdings.holds(partition, version)
        } else {
            !holdings.holds_any(partition)
        }
    }

    /// One slice of the partition whose turn it is.
    fn look_through(&mut self, now: Instant, holdings: &impl Holdings, out: &mut Vec<Action>) {
        let Some(&(turn, partition)) = self.turns.front() else { return };
        if now < turn.max(self.not_before) || !self.may_begin() {
            return;
        }
        self.not_before = now + self.settings.gap;
        if self.leaf == 0 {
            self.level = holdings.level(partition);
        }
        let leaves = 1 << self.level;
        let found = holdings.reapable(partition, self.level, self.leaf);
        self.see(now, partition, &found);
        let found = found.into_iter().map(|reapable| reapable.version).collect();
        self.reap(now, partition, found, holdings, out);
        self.leaf += 1;
        if self.leaf >= leaves {
            let pass = self.pass;
            let gone = |_: &(u16, KeyVersion), seen: &mut (Instant, u64)| seen.1 != pass;
            self.seen.extract_if((partition, FIRST)..=(partition, LAST), gone).for_each(drop);
            (self.leaf, self.pass) = (0, pass + 1);
            self.turns.pop_front();
            self.turns.push_back((now + self.settings.interval, partition));
        }
    }

    /// Remembers since when there have been these tombstones.
    fn see(&mut self, now: Instant, partition: u16, found: &[Reapable]) {
        for key in found.iter().filter(|found| found.tombstone).map(|found| found.version) {
            let room = self.seen.len() < SEEN_MAX;
            match self.seen.entry((partition, key)) {
                Entry::Occupied(mut seen) => seen.get_mut().1 = self.pass,
                Entry::Vacant(new) if room => {
                    new.insert((now, self.pass));
                }
                Entry::Vacant(_) => {}
            }
        }
    }

    /// Forgets what was proven before, and begins to prove the rest.
    fn reap(
        &mut self,
        now: Instant,
        partition: u16,
        mut found: Vec<KeyVersion>,
        holdings: &impl Holdings,
        out: &mut Vec<Action>,
    ) {
        let again = found.extract_if(.., |key| self.proven.contains(&(partition, *key))).take(KEYS_MAX).collect();
        self.forget(partition, again, out);
        let may =
            |key: &KeyVersion| !self.underway.contains(&(partition, *key)) && self.is_ready(partition, key, holdings);
        let found: Vec<_> = found.into_iter().filter(may).take(KEYS_MAX).collect();
        if !found.is_empty() {
            self.begin(now, partition, found, holdings, out);
        }
    }

    fn forget(&self, partition: u16, keys: Vec<KeyVersion>, out: &mut Vec<Action>) {
        if keys.is_empty() {
            return;
        }
        for &to in self.ring.primaries(partition).iter().filter(|&&to| to != self.settings.me) {
            let message = Reap::Forget { ring: self.stamp, partition, keys: keys.clone() };
            out.push(Action::Send { to, message });
        }
        out.extend(keys.into_iter().map(|version| Action::Forget { partition, version }));
    }

    fn begin(
        &mut self,
        now: Instant,
        partition: u16,
        keys: Vec<KeyVersion>,
        holdings: &impl Holdings,
        out: &mut Vec<Action>,
    ) {
        self.statistics.asked += keys.len() as u64;
        self.underway.extend(keys.iter().map(|&key| (partition, key)));
        self.next_number = self.next_number.wrapping_add(1);
        let batch =
            Batch { partition, keys, ready: Vec::new(), asked: BTreeSet::new(), agreed: false, until: now, tries: 0 };
        self.batches.insert(self.next_number, batch);
        self.ask(now, self.next_number, holdings, out);
    }

    /// Asks everybody who may hold something of the partition.
    fn ask(&mut self, now: Instant, number: u64, holdings: &impl Holdings, out: &mut Vec<Action>) {
        let Some(mut batch) = self.batches.remove(&number) else { return };
        let partition = batch.partition;
        batch.ready = batch.keys.iter().map(|key| self.is_ready(partition, key, holdings)).collect();
        let all = if planted(Bug::FallbacksUnasked) {
            self.ring.primaries(partition)
        } else {
            self.ring.preference(partition)
        };
        let is_asked =
            |to: &Endpoint| *to != self.settings.me && !(planted(Bug::AwayUnasked) && self.down.contains(to));
        batch.asked = all.iter().copied().filter(is_asked).collect();
        (batch.until, batch.tries) = (now + self.settings.timeout, 1);
        // A number of its own, so that an answer to the asking before does not count for this one.
        self.next_number = self.next_number.wrapping_add(1);
        let number = self.next_number;
        self.batches.insert(number, batch);
        self.send_asks(number, out);
        self.progress(now, number, out);
    }

    fn send_asks(&self, number: u64, out: &mut Vec<Action>) {
        let batch = &self.batches[&number];
        for &to in &batch.asked {
            let (ring, partition, keys) = (self.stamp, batch.partition, batch.keys.clone());
            let message = Reap::Ask { number, ring, partition, keys };
            out.push(Action::Send { to, message });
        }
    }

    /// When all have answered, those keys go on that all are ready for.
    fn progress(&mut self, now: Instant, number: u64, out: &mut Vec<Action>) {
        let Some(batch) = self.batches.get_mut(&number) else { return };
        if !batch.asked.is_empty() {
            return;
        }
        let mut ready = mem::take(&mut batch.ready).into_iter();
        let (underway, partition, statistics) = (&mut self.underway, batch.partition, &mut self.statistics);
        batch.keys.retain(|key| {
            let ready = ready.next().unwrap_or(false);
            if !ready {
                statistics.not_ready += 1;
                underway.remove(&(partition, *key));
            }
            ready
        });
        if batch.keys.is_empty() {
            return self.end(number);
        }
        if !batch.agreed && !planted(Bug::ProvenOnce) {
            (batch.agreed, batch.until) = (true, now + self.settings.wait);
            return;
        }
        let (partition, keys) = (batch.partition, batch.keys.clone());
        self.end(number);
        self.statistics.proven += keys.len() as u64;
        if self.proven.len() > PROVEN_MAX {
            self.proven.clear();
        }
        self.proven.extend(keys.iter().map(|&key| (partition, key)));
        self.forget(partition, keys, out);
    }

    fn end(&mut self, number: u64) {
        if let Some(batch) = self.batches.remove(&number) {
            for key in batch.keys {
                self.underway.remove(&(batch.partition, key));
            }
        }
    }
}

#[cfg(test)]
mod tests;
