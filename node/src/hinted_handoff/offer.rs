//! The way of a hint: it is found, read, offered to each primary that may lack it, and forgotten or left for later.
//!
//! The rule: what ends without being forgotten is owed to every primary that has not acknowledged it.

use std::time::Duration;

use quorate_engine::planted::{Bug, planted};
use quorate_net::{
    id::Endpoint,
    message::{
        Message, Probe, Replicate,
        exchange::{HeldKey, Whole},
    },
};

use super::{
    Action, HintedHandoff, LEAVES_MAX,
    delivery::{Ask, Delivery, Stage},
    schedule::{Place, leaf_from},
};
use crate::{
    anti_entropy::Tree,
    clock::Instant,
    object::{Object, VersionHash},
};

/// What came of looking at a listed hint.
enum Look {
    /// Nobody who can be asked now may lack it, or it is under way already.
    Passed,
    /// It is under way to one more.
    Begun,
    /// There is no room for its bytes.
    LacksRoom,
}

impl HintedHandoff {
    /// Begins as many hints as there is room and time for.
    pub(super) fn go_on<T: Tree>(&mut self, now: Instant, tree: &T, out: &mut Vec<Action>) {
        while self.deliveries.len() < self.settings.hints_max && !self.lacks_room && self.may_begin_at() <= now {
            let Some((partition, from)) = self.schedule.first(now, &self.settings) else { return };
            if tree.root(partition) == 0 {
                self.schedule.retain(|_, other| other != partition);
                self.acknowledged.clear(partition);
                continue;
            }
            let free = |to: &Endpoint| self.schedule.is_free(*to, partition, now, &self.settings);
            let free: Vec<_> = self.ring.primaries(partition).iter().copied().filter(free).collect();
            let upto = self.begin_from(now, partition, from, &free, tree, out);
            self.not_before = now + self.settings.gap;
            for to in free {
                self.schedule.advance(to, partition, from, upto, now, self.settings.retry);
            }
        }
    }

    /// When the gap and the rate let the next hint begin.
    pub(super) fn may_begin_at(&self) -> Instant {
        self.not_before.max(self.pace.may_begin_at())
    }

    /// The primary has the hint on disk, or what covers it.
    pub(super) fn acknowledge(&mut self, number: u64, primary: Endpoint) {
        self.statistics.acknowledged += 1;
        self.schedule.succeed(primary);
        self.end_ask(number, primary);
        self.delivery(number).acknowledged.push(primary);
    }

    /// The body was read: those who wait for it are asked whether they have it.
    pub(super) fn loaded<T: Tree>(&mut self, now: Instant, number: u64, whole: Whole, tree: &T, out: &mut Vec<Action>) {
        let bytes = bytes_of(&whole);
        self.statistics.loads += 1;
        self.pace.charge(now, bytes);
        let partition = self.ring.partition(whole.key.name());
        let object = Object::decode(&whole.body).ok();
        let delivery = self.deliveries.get_mut(&number).expect("the caller looked");
        let Some(object) = object.filter(|_| partition == delivery.partition) else {
            return self.forget_unreadable(now, number, whole, tree, out);
        };
        let version = object.version().0;
        if delivery.version != version {
            delivery.version = version;
            delivery.acknowledged.clear();
        }
        // It can have become larger since it was listed.
        let others = self.bytes_underway - delivery.bytes;
        if others > 0 && others + bytes > self.settings.bytes_max {
            return self.abandon(now, number, tree);
        }
        (self.bytes_underway, delivery.bytes) = (others + bytes, bytes);
        delivery.stage = Stage::Offering { whole, object };
        self.lacks_room = false;
        let waiting: Vec<_> = delivery.asks.keys().copied().collect();
        waiting.into_iter().for_each(|to| self.probe(now, number, to, out));
        self.settle(now, number, tree, out);
    }

    /// Sends the object to one that lacks it.
    pub(super) fn give(&mut self, now: Instant, number: u64, to: Endpoint, out: &mut Vec<Action>) {
        let (operation, until) = self.operation(now, number, to);
        let delivery = self.deliveries.get_mut(&number).expect("only what is under way is given");
        let Stage::Offering { whole, .. } = &delivery.stage else { unreachable!("only what was read is given") };
        delivery.asks.insert(to, Ask::Replicate { operation, until });
        let replicate = Replicate {
            operation,
            timeout_us: micros(self.settings.timeout),
            partition: delivery.partition,
            durable: true,
            hint_for: None,
            base: VersionHash::ABSENT.0,
            key: whole.key.clone(),
            body: whole.body.clone(),
        };
        let bytes = bytes_of(whole);
        self.statistics.sent += 1;
        self.statistics.bytes_sent += bytes;
        self.pace.charge(now, bytes);
        out.push(Action::Send { to, message: Message::Replicate(replicate) });
    }

    /// When nobody is asked any more, the hint is forgotten if all have it, and left for later if not.
    pub(super) fn settle<T: Tree>(&mut self, now: Instant, number: u64, tree: &T, out: &mut Vec<Action>) {
        let Some(delivery) = self.deliveries.get_mut(&number) else { return };
        let Stage::Offering { whole, .. } = &delivery.stage else { return };
        if !delivery.asks.is_empty() {
            return;
        }
        if !delivery.acknowledged_by_all(self.ring.primaries(delivery.partition)) {
            return self.abandon(now, number, tree);
        }
        let &mut Delivery { partition, version, .. } = delivery;
        let is_same = |held: &HeldKey| held.version == version || planted(Bug::HintForgottenNewer);
        if !tree.find(partition, delivery.key).as_ref().is_some_and(is_same) {
            self.statistics.superseded += 1;
            return self.abandon(now, number, tree);
        }
        out.push(Action::Forget { job: number, partition, key: whole.key.clone(), version });
        delivery.stage = Stage::Forgetting { unreadable: false };
        self.release_bytes(number);
    }

    /// The hint is under way no longer, and was not forgotten.
    pub(super) fn abandon<T: Tree>(&mut self, now: Instant, number: u64, tree: &T) {
        let delivery = self.end(number);
        let Some(held) = tree.find(delivery.partition, delivery.key) else { return };
        let primaries = self.ring.primaries(delivery.partition);
        let same = held.version == delivery.version;
        if same {
            self.acknowledged.remember(&delivery, self.settings.acknowledged_max);
        }
        // When all have it, all that is left is to forget it: whoever's turn comes first leads to that.
        let served = same && !delivery.acknowledged_by_all(primaries);
        for &to in primaries.iter().filter(|to| !(served && delivery.acknowledged.contains(to))) {
            self.schedule.owe(to, delivery.partition, delivery.place(), now + self.settings.retry);
        }
    }

    /// Takes the hint off what is under way.
    pub(super) fn end(&mut self, number: u64) -> Delivery {
        let asked: Vec<_> = self.delivery(number).asks.keys().copied().collect();
        asked.into_iter().for_each(|to| self.end_ask(number, to));
        self.release_bytes(number);
        let delivery = self.deliveries.remove(&number).expect("only what is under way ends");
        self.by_key.remove(&(delivery.partition, delivery.key));
        delivery
    }

    /// The primary is asked no longer about this hint.
    pub(super) fn end_ask(&mut self, number: u64, to: Endpoint) {
        let ask = self.delivery(number).asks.remove(&to).expect("only who is asked is asked no longer");
        self.end_operation(ask);
        self.schedule.end(to);
    }

    /// What this primary was sent under this number.
    pub(super) fn asked(&self, from: Endpoint, operation: u64) -> Option<(u64, Ask)> {
        let &(number, to) = self.operations.get(&operation)?;
        (to == from).then(|| (number, self.deliveries[&number].asks[&to]))
    }

    /// Begins the next hint that is to be begun, if one is near; the place up to which all was looked at, none at the
    /// end.
    fn begin_from<T: Tree>(
        &mut self,
        now: Instant,
        partition: u16,
        mut from: Place,
        free: &[Endpoint],
        tree: &T,
        out: &mut Vec<Action>,
    ) -> Option<Place> {
        for _ in 0..LEAVES_MAX {
            let (hints, next_leaf) = leaf_from(tree, partition, from);
            for hint in hints {
                match self.look_at(now, partition, &hint, free, out) {
                    Look::Passed => {}
                    Look::Begun => return Place::of(hint.key).after(),
                    Look::LacksRoom => {
                        self.lacks_room = true;
                        return Some(Place::of(hint.key));
                    }
                }
            }
            from = next_leaf?;
        }
        Some(from)
    }

    fn look_at(
        &mut self,
        now: Instant,
        partition: u16,
        hint: &HeldKey,
        free: &[Endpoint],
        out: &mut Vec<Action>,
    ) -> Look {
        let HeldKey { key, version, size_class } = *hint;
        if let Some(&number) = self.by_key.get(&(partition, key)) {
            return if self.join(now, number, free, out) { Look::Begun } else { Look::Passed };
        }
        let by = self.acknowledged.of(partition, key, version);
        let lack: Vec<_> = free.iter().copied().filter(|to| !by.contains(to)).collect();
        if lack.is_empty() && !self.ring.primaries(partition).iter().all(|primary| by.contains(primary)) {
            return Look::Passed;
        }
        let bytes = 1 << size_class;
        if self.bytes_underway > 0 && self.bytes_underway + bytes > self.settings.bytes_max {
            return Look::LacksRoom;
        }
        self.bytes_underway += bytes;
        lack.iter().for_each(|&to| self.schedule.begin(to));
        let delivery = Delivery {
            partition,
            key,
            version,
            bytes,
            acknowledged: self.acknowledged.take(partition, key, version),
            asks: lack.into_iter().map(|to| (to, Ask::Waiting)).collect(),
            stage: Stage::Loading,
        };
        let number = self.number();
        self.deliveries.insert(number, delivery);
        self.by_key.insert((partition, key), number);
        out.push(Action::Load { job: number, partition, key });
        Look::Begun
    }

    /// Who comes to a hint that is under way to others is offered it with them. Whether somebody was.
    fn join(&mut self, now: Instant, number: u64, free: &[Endpoint], out: &mut Vec<Action>) -> bool {
        let mut joined = false;
        for &to in free {
            let delivery = self.delivery(number);
            if delivery.is_for(to) || matches!(delivery.stage, Stage::Forgetting { .. }) {
                continue;
            }
            delivery.asks.insert(to, Ask::Waiting);
            let read = matches!(delivery.stage, Stage::Offering { .. });
            self.schedule.begin(to);
            if read {
                self.probe(now, number, to, out);
            }
            joined = true;
        }
        joined
    }

    /// Asks the primary whether it has the hint's object.
    fn probe(&mut self, now: Instant, number: u64, to: Endpoint, out: &mut Vec<Action>) {
        let (operation, until) = self.operation(now, number, to);
        let delivery = self.deliveries.get_mut(&number).expect("only what is under way is asked about");
        let Stage::Offering { whole, .. } = &delivery.stage else { unreachable!("only what was read is asked about") };
        delivery.asks.insert(to, Ask::Probe { operation, until });
        let probe = Probe {
            operation,
            timeout_us: micros(self.settings.timeout),
            partition: delivery.partition,
            known: delivery.version,
            key: whole.key.clone(),
        };
        self.statistics.probes += 1;
        out.push(Action::Send { to, message: Message::Probe(probe) });
    }

    /// What is no object will never be one.
    fn forget_unreadable<T: Tree>(&mut self, now: Instant, number: u64, whole: Whole, tree: &T, out: &mut Vec<Action>) {
        let delivery = self.delivery(number);
        let (partition, key) = (delivery.partition, delivery.key);
        let Some(held) = tree.find(partition, key) else { return self.abandon(now, number, tree) };
        delivery.version = held.version;
        delivery.stage = Stage::Forgetting { unreadable: true };
        let asked: Vec<_> = delivery.asks.keys().copied().collect();
        asked.into_iter().for_each(|to| self.end_ask(number, to));
        self.release_bytes(number);
        out.push(Action::Forget { job: number, partition, key: whole.key, version: held.version });
    }

    /// A number for a message to the primary, in the place of the one before.
    fn operation(&mut self, now: Instant, number: u64, to: Endpoint) -> (u64, Instant) {
        let before = self.delivery(number).asks[&to];
        self.end_operation(before);
        let (operation, until) = (self.number(), now + self.settings.timeout);
        self.operations.insert(operation, (number, to));
        self.deadlines.insert((until, operation));
        (operation, until)
    }

    fn end_operation(&mut self, ask: Ask) {
        if let Some((operation, until)) = ask.sent() {
            self.operations.remove(&operation);
            self.deadlines.remove(&(until, operation));
        }
    }

    fn release_bytes(&mut self, number: u64) {
        self.bytes_underway -= std::mem::take(&mut self.delivery(number).bytes);
        self.lacks_room = false;
    }

    fn delivery(&mut self, number: u64) -> &mut Delivery {
        self.deliveries.get_mut(&number).expect("a number in use is a hint under way")
    }

    fn number(&mut self) -> u64 {
        self.next_number = self.next_number.wrapping_add(1);
        self.next_number
    }
}

/// Whether one who has `theirs` needs nothing of `mine`.
pub(super) fn covers(theirs: &Object, mine: &Object) -> bool {
    theirs.clock.includes(&mine.clock) && theirs.reconcile(mine).version() == theirs.version()
}

fn bytes_of(whole: &Whole) -> u64 {
    (whole.key.encoded().len() + whole.body.len()) as u64
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX).max(1)
}
