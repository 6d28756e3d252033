//! The last part of an exchange: objects go both ways until both sides have both.
//!
//! The rule: no more bytes are under way than the core's exchanges may have together, nor more a second; a key is done when the side that
//! lacked something has it on disk. Not here: what differs (`exchange`).

use std::collections::{BTreeMap, VecDeque};

use quorate_engine::planted::{Bug, planted};
use quorate_net::message::exchange::{HashedKey, Step, Whole};

use super::{Action, Desk, Difference, End, Exchange, Stage, Tree, version};
use crate::{
    anti_entropy::{Job, bytes_of},
    clock::Instant,
};

#[derive(Debug, Default)]
pub(super) struct Repairs {
    /// Confirmed, and not begun.
    todo: VecDeque<Difference>,
    underway: BTreeMap<HashedKey, Repair>,
    /// Something could not be read or taken, in this exchange.
    incomplete: bool,
}

/// One key whose object is under way.
#[derive(Debug)]
struct Repair {
    /// The peer's version when it was compared.
    theirs: u64,
    /// Its share of the bytes under way.
    bytes: u64,
    direction: Direction,
    /// When to ask the peer again; `None` while this core reads or takes the object itself.
    until: Option<Instant>,
    tries: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Direction {
    Fetch,
    Give,
}

impl Repairs {
    pub(super) fn add(&mut self, difference: Difference) {
        self.todo.push_back(difference);
    }

    pub(super) fn incomplete(&self) -> bool {
        self.incomplete
    }

    pub(super) fn bytes_underway(&self) -> u64 {
        self.underway.values().map(|repair| repair.bytes).sum()
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.underway.values().filter_map(|repair| repair.until).min()
    }

    pub(super) fn next_bytes(&self) -> Option<u64> {
        self.todo.front().map(|next| 1 << next.size_class)
    }

    fn is_done(&self) -> bool {
        self.todo.is_empty() && self.underway.is_empty()
    }
}

impl Exchange {
    pub(super) fn repair<T: Tree>(&mut self, desk: &mut Desk<'_, T>) -> Option<End> {
        // Late answers to what was asked before are told from those to come.
        self.round = self.round.wrapping_add(1);
        self.stage = Stage::Repair;
        if self.repairs.is_done() { self.advance(desk) } else { None }
    }

    /// Begins as many repairs as there is room for, and as the rate lets begin.
    pub(in crate::anti_entropy) fn fill_window<T: Tree>(&mut self, desk: &mut Desk<'_, T>) {
        while let Some(bytes) = self.repairs.next_bytes() {
            if !desk.shared.has_room(desk.settings, bytes) || desk.shared.pace.may_begin_at() > desk.now {
                return;
            }
            desk.shared.pace.charge(desk.now, bytes);
            let Some(Difference { key, theirs, .. }) = self.repairs.todo.pop_front() else { return };
            desk.shared.bytes_underway += bytes;
            let gives = theirs == 0 && !planted(Bug::ExchangeOneWay) || self.gives_only;
            let direction = if gives { Direction::Give } else { Direction::Fetch };
            let repair = Repair { theirs, bytes, direction, until: None, tries: 0 };
            self.repairs.underway.insert(key, repair);
            self.try_repair(desk, key);
        }
    }

    pub(super) fn repair_timeout<T: Tree>(&mut self, desk: &mut Desk<'_, T>) -> Option<End> {
        let due = |repair: &Repair| repair.until.is_some_and(|until| until <= desk.now);
        let keys: Vec<_> = self.repairs.underway.iter().filter(|(_, r)| due(r)).map(|(&key, _)| key).collect();
        for key in keys {
            if self.repairs.underway[&key].tries >= desk.settings.tries_max {
                return Some(End::GivenUp);
            }
            self.try_repair(desk, key);
        }
        None
    }

    pub(super) fn repair_answer<T: Tree>(&mut self, desk: &mut Desk<'_, T>, step: Step) -> Option<End> {
        let (key, direction) = match &step {
            Step::Fetched { key, .. } => (*key, Direction::Fetch),
            Step::Given { key, .. } => (*key, Direction::Give),
            _ => return self.malformed(desk),
        };
        let awaited = |repair: &&mut Repair| repair.direction == direction && repair.until.is_some();
        let repair = self.repairs.underway.get_mut(&key).filter(awaited)?;
        match step {
            Step::Fetched { object: Some(object), .. } => {
                repair.until = None;
                desk.shared.statistics.bytes_received += bytes_of(&object);
                let job = desk.shared.job(Job::Own { number: self.number, key });
                desk.out.push(Action::Take { job, from: self.peer, partition: self.partition, object });
                None
            }
            // It is gone there, or cannot be read, or a write made the two equal meanwhile.
            Step::Fetched { .. } => {
                let equal = version(desk.tree, self.partition, key) == repair.theirs;
                self.land(desk, key, equal)
            }
            Step::Given { durable, .. } => self.land(desk, key, durable),
            _ => unreachable!("looked at above"),
        }
    }

    /// The object for the peer was read.
    pub(in crate::anti_entropy) fn handle_loaded<T: Tree>(
        &mut self,
        desk: &mut Desk<'_, T>,
        key: HashedKey,
        object: Option<Whole>,
    ) -> Option<End> {
        let awaited = |repair: &&mut Repair| repair.direction == Direction::Give && repair.until.is_none();
        let repair = self.repairs.underway.get_mut(&key).filter(awaited)?;
        let Some(object) = object else { return self.land(desk, key, false) };
        repair.until = Some(desk.now + desk.settings.timeout);
        let bytes = bytes_of(&object);
        desk.shared.bytes_underway = desk.shared.bytes_underway - repair.bytes + bytes;
        repair.bytes = bytes;
        desk.shared.count_sent(&object);
        desk.out.push(self.message(Step::Give { key, object }));
        None
    }

    /// The peer's object was taken. What is here now may hold more than the peer has.
    pub(in crate::anti_entropy) fn handle_taken<T: Tree>(
        &mut self,
        desk: &mut Desk<'_, T>,
        key: HashedKey,
        durable: bool,
    ) -> Option<End> {
        let awaited = |repair: &&mut Repair| repair.direction == Direction::Fetch && repair.until.is_none();
        let repair = self.repairs.underway.get_mut(&key).filter(awaited)?;
        if !durable || version(desk.tree, self.partition, key) == repair.theirs {
            return self.land(desk, key, durable);
        }
        (repair.direction, repair.tries) = (Direction::Give, 0);
        self.try_repair(desk, key);
        None
    }

    /// Asks the peer for the object, or reads the one for it.
    fn try_repair<T: Tree>(&mut self, desk: &mut Desk<'_, T>, key: HashedKey) {
        let repair = self.repairs.underway.get_mut(&key).expect("only what is under way is tried");
        repair.tries += 1;
        match repair.direction {
            Direction::Fetch => {
                repair.until = Some(desk.now + desk.settings.timeout);
                let known = version(desk.tree, self.partition, key);
                desk.out.push(self.message(Step::Fetch { key, known }));
            }
            Direction::Give => {
                repair.until = None;
                let job = desk.shared.job(Job::Own { number: self.number, key });
                desk.out.push(Action::Load { job, partition: self.partition, key });
            }
        }
    }

    fn land<T: Tree>(&mut self, desk: &mut Desk<'_, T>, key: HashedKey, repaired: bool) -> Option<End> {
        let repair = self.repairs.underway.remove(&key).expect("only what is under way lands");
        desk.shared.bytes_underway -= repair.bytes;
        self.repairs.incomplete |= !repaired;
        if self.repairs.is_done() { self.advance(desk) } else { None }
    }
}
