//! One exchange, on the side of the core that began it: it asks, finds what differs, fetches and gives.
//!
//! The rule: it goes down depth first, a bounded batch at a time, so that what it keeps is bounded by the depth of the
//! tree and not by what differs. An ask that is not answered is made again a few times, then the exchange is given up;
//! what was repaired by then stays repaired, so the next one goes on from there.
//!
//! Of a key that both have, the peer's object is fetched first: when it covers ours, or ours was only older, nothing is
//! sent back. Not here: the order of the visits (`schedule`), the answers (`responder`).

mod repair;

use quorate_net::{
    id::Endpoint,
    message::{
        self,
        exchange::{BRANCHES_MAX, Branch, DEEPER_MAX, HashedKey, HeldKey, KEYS_MAX, LEAVES_MAX, LEVEL_MAX, Step},
    },
};

use self::repair::Repairs;
use super::{
    Action, Desk, Tree,
    responder::{parts, sorted},
};
use crate::clock::Instant;

/// Leaves are so many levels finer than what costs no scan: a scan of a few dozen entries costs less than sending them,
/// and a finer leaf lists fewer keys that do not differ.
const FINER: u8 = 2;

/// A key that changes from look to look is repaired as it is at this one. However often it is written, the exchange says in the
/// end that one side has all that the other had.
const LOOKS_MAX: u8 = 3;

/// How an exchange ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// The roots were equal.
    Equal,
    /// All that was found, and confirmed, was repaired.
    Done,
    /// A core was in another exchange about the partition.
    Busy,
    /// The peer did not answer or is gone, or something could not be repaired.
    GivenUp,
}

#[derive(Debug)]
pub(super) struct Exchange {
    number: u64,
    pub(super) partition: u16,
    pub(super) peer: Endpoint,
    /// This core does not keep the partition: it takes nothing.
    pub(super) gives_only: bool,
    pub(super) begun: Instant,
    /// The peer wants to hear how it ended.
    pub(super) peer_heals: bool,
    round: u32,
    stage: Stage,
    /// The level of the leaves: the same on both sides.
    leaf_level: u8,
    /// Branches and leaves that differed when last seen, by level and index; the deepest last.
    stack: Vec<(u8, u64)>,
    /// The leaves that are being listed, and how far the first of them has been.
    leaves: Vec<u64>,
    after: Option<HashedKey>,
    /// What the lists showed and was not looked at again yet.
    differences: Vec<Difference>,
    /// What was different from what it had been, and is looked at once more a little later.
    changing: Vec<Difference>,
    repairs: Repairs,
}

#[derive(Debug)]
enum Stage {
    /// The ask, and when to make it again; so often it was made.
    Asked { ask: Step, until: Instant, tries: u8 },
    /// What differs gets time to be no longer different.
    Pause { until: Instant },
    /// Objects are under way.
    Repair,
}

/// A key of which the two sides have different versions; 0 is none.
#[derive(Clone, Copy, Debug)]
struct Difference {
    key: HashedKey,
    mine: u64,
    theirs: u64,
    size_class: u8,
    /// So often it was seen.
    looks: u8,
}

impl Exchange {
    pub(super) fn begin<T: Tree>(
        desk: &mut Desk<'_, T>,
        number: u64,
        peer: Endpoint,
        partition: u16,
        gives_only: bool,
    ) -> Self {
        let mut exchange = Self {
            number,
            partition,
            peer,
            gives_only,
            begun: desk.now,
            peer_heals: false,
            round: 0,
            stage: Stage::Repair,
            leaf_level: 0,
            stack: Vec::new(),
            leaves: Vec::new(),
            after: None,
            differences: Vec::new(),
            changing: Vec::new(),
            repairs: Repairs::default(),
        };
        exchange.ask(desk, Step::Root);
        exchange
    }

    /// Whether this answers the first ask.
    pub(super) fn awaits_root(&self, message: &message::Exchange) -> bool {
        message.round == self.round && matches!(self.stage, Stage::Asked { ask: Step::Root, .. })
    }

    /// The message that gives the peer's lease back, and says whether all was repaired.
    pub(super) fn close(&self, done: bool) -> Action {
        self.message(Step::Close { done })
    }

    pub(super) fn bytes_underway(&self) -> u64 {
        self.repairs.bytes_underway()
    }

    /// Of the next object that is to be repaired.
    pub(super) fn next_bytes(&self) -> Option<u64> {
        self.repairs.next_bytes()
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        match self.stage {
            Stage::Asked { until, .. } | Stage::Pause { until } => Some(until),
            Stage::Repair => self.repairs.next_timeout(),
        }
    }

    pub(super) fn handle_timeout<T: Tree>(&mut self, desk: &mut Desk<'_, T>) -> Option<End> {
        match &mut self.stage {
            Stage::Asked { ask, until, tries } => {
                if *tries >= desk.settings.tries_max {
                    return Some(End::GivenUp);
                }
                *tries += 1;
                *until = desk.now + desk.settings.timeout;
                let ask = ask.clone();
                desk.out.push(self.message(ask));
                None
            }
            Stage::Pause { .. } => self.advance(desk),
            Stage::Repair => self.repair_timeout(desk),
        }
    }

    /// An answer of the peer's. One that does not fit the ask is dropped: the ask is then made again.
    pub(super) fn handle_answer<T: Tree>(&mut self, desk: &mut Desk<'_, T>, message: message::Exchange) -> Option<End> {
        if message.round != self.round {
            return None;
        }
        let ask = match &self.stage {
            _ if message.step == Step::Busy => return Some(End::Busy),
            Stage::Repair => return self.repair_answer(desk, message.step),
            Stage::Pause { .. } => return None,
            Stage::Asked { ask, .. } => ask,
        };
        match (ask, message.step) {
            (Step::Root, Step::RootIs { level, .. }) => {
                self.leaf_level = (level.max(desk.tree.level(self.partition)) + FINER).min(LEVEL_MAX);
                self.stack.push((0, 0));
                self.pause(desk)
            }
            (Step::Branches { level, deeper, branches }, Step::BranchesAre { differ, sums }) => {
                let (level, deeper) = (*level, *deeper);
                let indexes: Vec<_> = branches.iter().map(|branch| branch.index).collect();
                self.branches_are(desk, level, deeper, &indexes, &differ, &sums)
            }
            (Step::List { .. }, Step::ListIs { differ, held, more }) => self.list_is(desk, &differ, &held, more),
            (Step::Compare { keys }, Step::CompareIs { versions }) if keys.len() == versions.len() => {
                self.compare_is(desk, &versions)
            }
            _ => self.malformed(desk),
        }
    }

    fn branches_are<T: Tree>(
        &mut self,
        desk: &mut Desk<'_, T>,
        level: u8,
        deeper: u8,
        indexes: &[u64],
        differ: &[bool],
        sums: &[u64],
    ) -> Option<End> {
        let differing = differ.iter().filter(|&&differs| differs).count();
        if differ.len() != indexes.len() || sums.len() != differing << deeper {
            return self.malformed(desk);
        }
        let differing = indexes.iter().zip(differ).filter(|&(_, &differs)| differs).map(|(&index, _)| index);
        let parts = differing.flat_map(|index| parts(level, deeper, index));
        for (part, &sum) in parts.zip(sums) {
            if desk.tree.leaf(self.partition, level + deeper, part) != sum {
                self.stack.push((level + deeper, part));
            }
        }
        self.advance(desk)
    }

    fn list_is<T: Tree>(
        &mut self,
        desk: &mut Desk<'_, T>,
        differ: &[bool],
        held: &[HeldKey],
        more: bool,
    ) -> Option<End> {
        let level = self.leaf_level;
        let leaf_of = |key: HashedKey| key.fingerprint & ((1 << level) - 1);
        // The last key that was told, when there was no room for more.
        let last = held.last().map(|held| held.key).filter(|_| more);
        if differ.len() != self.leaves.len() || (more && last.is_none()) {
            return self.malformed(desk);
        }
        let (mut rest, mut found, mut stopped_at, mut compared) = (held, Vec::new(), None, 0);
        for (at, (&leaf, &differs)) in self.leaves.iter().zip(differ).enumerate() {
            if !differs {
                continue;
            }
            let after = self.after.filter(|_| at == 0);
            let theirs;
            (theirs, rest) = rest.split_at(rest.iter().take_while(|held| leaf_of(held.key) == leaf).count());
            let new = theirs.first().is_none_or(|first| after.is_none_or(|after| first.key > after));
            if !new || !theirs.is_sorted_by(|a, b| a.key < b.key) {
                return self.malformed(desk);
            }
            let upto = last.filter(|&last| leaf_of(last) == leaf);
            let mut mine = sorted(desk.tree, self.partition, level, leaf, after);
            mine.retain(|held| upto.is_none_or(|upto| held.key <= upto));
            found_between(&mine, theirs, &mut found);
            compared += 1;
            if upto.is_some() {
                stopped_at = Some(at);
                break;
            }
        }
        if !rest.is_empty() || (more && stopped_at.is_none()) {
            return self.malformed(desk);
        }
        desk.shared.statistics.leaves += compared;
        self.leaves.drain(..stopped_at.unwrap_or(self.leaves.len()));
        self.after = last;
        self.differences = found;
        if self.differences.is_empty() { self.advance(desk) } else { self.pause(desk) }
    }

    fn compare_is<T: Tree>(&mut self, desk: &mut Desk<'_, T>, versions: &[u64]) -> Option<End> {
        let from = self.differences.len() - versions.len();
        for (difference, &theirs) in self.differences.split_off(from).into_iter().zip(versions) {
            let mine = version(desk.tree, self.partition, difference.key);
            let stands = (mine, theirs) == (difference.mine, difference.theirs);
            let looks = difference.looks + 1;
            if mine == theirs || self.gives_only && mine == 0 {
                desk.shared.statistics.passed += 1;
            } else if stands || looks >= LOOKS_MAX {
                desk.shared.statistics.differences += 1;
                self.repairs.add(Difference { mine, theirs, ..difference });
            } else {
                self.changing.push(Difference { mine, theirs, looks, ..difference });
            }
        }
        self.repair(desk)
    }

    /// The next ask, when all that the last one brought is done with.
    fn advance<T: Tree>(&mut self, desk: &mut Desk<'_, T>) -> Option<End> {
        if self.differences.is_empty() && !self.changing.is_empty() {
            self.differences = std::mem::take(&mut self.changing);
            return self.pause(desk);
        }
        if !self.differences.is_empty() {
            let from = self.differences.len().saturating_sub(KEYS_MAX);
            let keys = self.differences[from..].iter().map(|difference| difference.key).collect();
            return self.ask(desk, Step::Compare { keys });
        }
        let (level, tree, partition) = (self.leaf_level, desk.tree, self.partition);
        let with_sum = |level, index| Branch { index, sum: tree.leaf(partition, level, index) };
        if !self.leaves.is_empty() {
            let leaves = self.leaves.iter().map(|&leaf| with_sum(level, leaf)).collect();
            return self.ask(desk, Step::List { level, leaves, after: self.after });
        }
        let Some(&(level, _)) = self.stack.last() else {
            return Some(if self.repairs.incomplete() { End::GivenUp } else { End::Done });
        };
        let max = if level == self.leaf_level { LEAVES_MAX } else { BRANCHES_MAX };
        let same = self.stack.iter().rev().take(max).take_while(|&&(other, _)| other == level).count();
        let batch = self.stack.split_off(self.stack.len() - same).into_iter().map(|(_, index)| index);
        if level == self.leaf_level {
            self.leaves = batch.collect();
            return self.pause(desk);
        }
        let branches = batch.map(|index| with_sum(level, index)).collect();
        self.ask(desk, Step::Branches { level, deeper: DEEPER_MAX.min(self.leaf_level - level), branches })
    }

    fn pause<T>(&mut self, desk: &Desk<'_, T>) -> Option<End> {
        self.stage = Stage::Pause { until: desk.now + desk.settings.confirm };
        None
    }

    fn ask<T>(&mut self, desk: &mut Desk<'_, T>, ask: Step) -> Option<End> {
        self.round = self.round.wrapping_add(1);
        desk.out.push(self.message(ask.clone()));
        self.stage = Stage::Asked { ask, until: desk.now + desk.settings.timeout, tries: 1 };
        None
    }

    fn message(&self, step: Step) -> Action {
        let &Self { number, round, partition, peer, .. } = self;
        Action::Send { to: peer, message: message::Exchange { number, round, partition, step } }
    }

    fn malformed<T>(&self, desk: &mut Desk<'_, T>) -> Option<End> {
        desk.shared.statistics.malformed += 1;
        None
    }
}

fn version(tree: &impl Tree, partition: u16, key: HashedKey) -> u64 {
    tree.find(partition, key).map_or(0, |held| held.version)
}

/// The keys of two lists, each sorted by key, that only one has, or the two have in different versions.
fn found_between(mut mine: &[HeldKey], mut theirs: &[HeldKey], found: &mut Vec<Difference>) {
    while let Some(key) = mine.first().into_iter().chain(theirs.first()).map(|held| held.key).min() {
        let take = |list: &mut &[HeldKey]| {
            let (&first, rest) = list.split_first()?;
            (first.key == key).then(|| {
                *list = rest;
                first
            })
        };
        let (here, there) = (take(&mut mine), take(&mut theirs));
        let version = |held: Option<HeldKey>| held.map_or(0, |held| held.version);
        if version(here) != version(there) {
            // What is fetched counts by the size that the peer told.
            let size_class = there.or(here).map_or(0, |held| held.size_class);
            found.push(Difference { key, mine: version(here), theirs: version(there), size_class, looks: 1 });
        }
    }
}
