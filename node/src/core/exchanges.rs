//! Anti-entropy on this core: its index as the exchanges see it, and what they want read, taken and sent.
//!
//! Not here: the exchanges themselves (`anti_entropy`), how an object is taken (`replicas`).

use quorate_engine::{Store, disk::Disk, index::KeyHash, index::Listed, versions::Summary, versions::Versions};
use quorate_net::{
    id::Endpoint,
    message::{
        Message,
        exchange::{ArchivedExchange, Exchange, HashedKey, HeldKey},
    },
};

use super::{Core, Log, LogId, Whole};
use crate::{
    anti_entropy::{Action, AntiEntropy, Tree},
    clock::Now,
    effect::Effect,
    summary::ActorTable,
};

/// The index of a store.
pub(super) struct StoreTree<'a, D: Disk> {
    store: &'a Store<D>,
    actors: &'a ActorTable,
}

impl<D: Disk> Core<D> {
    /// A peer takes a step of an exchange.
    pub(super) fn exchanged(&mut self, now: Now, from: Endpoint, exchange: &ArchivedExchange, out: &mut Vec<Effect>) {
        match rkyv::deserialize::<Exchange, rkyv::rancor::Error>(exchange) {
            Ok(message) => self.exchange(now, out, |exchanges, tree, actions| {
                exchanges.handle_exchange(now.instant, from, message, tree, actions);
            }),
            Err(_) => self.statistics.malformed += 1,
        }
    }

    /// A read that [`Effect::Fetch`] asked for is done. `None`: there is no such object any more, or it cannot be read.
    pub fn handle_fetched(&mut self, now: Now, job: u64, log: LogId, object: Option<Whole>, out: &mut Vec<Effect>) {
        self.look_for_damage(now, out);
        match log {
            LogId::Objects if self.forget_fetched(job, object.as_ref()) => {}
            LogId::Objects => self.exchange(now, out, |exchanges, tree, actions| {
                exchanges.handle_loaded(now.instant, job, object, tree, actions);
            }),
            LogId::Hints => self.hint_fetched(now, job, object, out),
        }
        self.settle(now, out);
    }

    /// An object that an exchange brought is on disk, or could not be taken. What follows is done by
    /// [`Core::exchange_on`], since this may be called from within.
    pub(super) fn exchange_taken(&mut self, now: Now, job: u64, durable: bool, out: &mut Vec<Effect>) {
        let mut actions = Vec::new();
        let tree = StoreTree::of(&self.objects);
        self.anti_entropy.handle_taken(now.instant, job, durable, &tree, &mut actions);
        self.perform_sends(actions, out);
    }

    /// An operator wants this core's partitions, or one of them, compared with the other primaries now.
    pub fn handle_repair(&mut self, now: Now, partition: Option<u16>, out: &mut Vec<Effect>) {
        self.heal(partition);
        self.settle(now, out);
    }

    /// Hands an event to anti-entropy, then does what it wants.
    pub(super) fn exchange(
        &mut self,
        now: Now,
        out: &mut Vec<Effect>,
        event: impl FnOnce(&mut AntiEntropy, &StoreTree<'_, D>, &mut Vec<Action>),
    ) {
        let mut actions = Vec::new();
        let tree = StoreTree::of(&self.objects);
        event(&mut self.anti_entropy, &tree, &mut actions);
        self.perform_sends(actions, out);
        self.exchange_on(now, out);
    }

    /// Takes the objects that exchanges have brought.
    pub(super) fn exchange_on(&mut self, now: Now, out: &mut Vec<Effect>) {
        while let Some(action) = self.exchange_actions.pop_front() {
            match action {
                Action::Take { job, partition, object, .. } => {
                    self.take_exchanged(now, job, partition, &object.key, &object.body, out);
                }
                other => self.perform_sends(vec![other], out),
            }
        }
    }

    fn perform_sends(&mut self, actions: Vec<Action>, out: &mut Vec<Effect>) {
        for action in actions {
            match action {
                Action::Send { to, message } => out.push(Effect::Send { to, message: Message::Exchange(message) }),
                Action::Load { job, partition, key } => {
                    out.push(Effect::Fetch { job, log: LogId::Objects, partition, key });
                }
                Action::Compared { peer, partition, begun } => {
                    self.transfer.handle_compared(peer, partition, begun);
                    self.unhealed.handle_compared(peer, partition, begun);
                    self.note_healed(out);
                }
                take @ Action::Take { .. } => self.exchange_actions.push_back(take),
            }
        }
    }
}

/// The hash of a key that another core told of; none when there can be no such key.
#[must_use]
pub fn key_hash(key: HashedKey) -> Option<KeyHash> {
    KeyHash::from_parts(key.fingerprint, key.tag)
}

impl<'a, D: Disk> StoreTree<'a, D> {
    pub(super) fn of(log: &'a Log<D>) -> Self {
        Self { store: &log.store, actors: &log.actors }
    }

    fn held_key(&self, listed: &Listed) -> HeldKey {
        HeldKey {
            key: HashedKey { fingerprint: listed.hash.fingerprint(), tag: listed.hash.tag() },
            version: self.actors.stable_hash(listed.entry.summary),
            size_class: HeldKey::size_class(listed.entry.place.length() as usize),
        }
    }
}

impl<D: Disk> Tree for StoreTree<'_, D> {
    fn root(&self, partition: u16) -> u64 {
        self.store.index(|index| index.root(partition))
    }

    fn level(&self, partition: u16) -> u8 {
        self.store.index(|index| index.level(partition)) as u8
    }

    fn leaf(&self, partition: u16, level: u8, leaf: u64) -> u64 {
        self.store.index(|index| index.leaf(partition, level.into(), leaf, self.actors))
    }

    fn held(&self, partition: u16, level: u8, leaf: u64) -> Vec<HeldKey> {
        self.store.index(|index| {
            let entries = index.entries(partition, level.into(), leaf);
            entries.filter(is_readable).map(|listed| self.held_key(&listed)).collect()
        })
    }

    fn find(&self, partition: u16, key: HashedKey) -> Option<HeldKey> {
        let hash = key_hash(key)?;
        self.store.find(partition, &hash).filter(is_readable).map(|listed| self.held_key(&listed))
    }
}

/// What was lost is not held; it does not count in the sums either.
fn is_readable(listed: &Listed) -> bool {
    listed.entry.summary != Summary::LOST
}
