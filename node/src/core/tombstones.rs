//! Tombstones that are proven to be everywhere, dropped here.
//!
//! Not here: the proof (`tombstones`).

use quorate_engine::{
    disk::{Disk, prefixed::Prefixed},
    index::Listed,
    versions::Versions,
};
use quorate_net::{
    id::Endpoint,
    message::{
        Message,
        exchange::{HashedKey, Whole},
        reap::{ArchivedReap, Reap, Tombstone},
    },
};

use super::{Core, Log, LogId, key_hash};
use crate::{
    clock::Now,
    effect::Effect,
    tombstones::{Action, Graves, Reaper},
};

/// At least so many keys are looked at in one slice, and about twice as many at most.
const SLICE_KEYS: u64 = 128;

/// Both logs of a core.
pub(super) struct Logs<'a, D: Disk> {
    objects: &'a Log<D>,
    hints: &'a Log<Prefixed<D>>,
}

impl<D: Disk> Core<D> {
    /// Another core asks about tombstones, or answers.
    pub(super) fn reaped(&mut self, now: Now, from: Endpoint, reap: &ArchivedReap, out: &mut Vec<Effect>) {
        match rkyv::deserialize::<Reap, rkyv::rancor::Error>(reap) {
            Ok(reap) => self.reap(out, |reaper, logs, actions| {
                reaper.handle_reap(now.instant, from, reap, logs, actions);
            }),
            Err(_) => self.statistics.malformed += 1,
        }
    }

    /// Deadlines may have passed.
    pub(super) fn reap_on(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.reaper.next_timeout().is_some_and(|at| at <= now.instant) {
            self.reap(out, |reaper, logs, actions| reaper.handle_timeout(now.instant, logs, actions));
        }
    }

    /// The proof that tombstones are everywhere.
    #[must_use]
    pub fn reaper(&self) -> &Reaper {
        &self.reaper
    }

    fn reap(&mut self, out: &mut Vec<Effect>, event: impl FnOnce(&mut Reaper, &Logs<'_, D>, &mut Vec<Action>)) {
        let mut actions = Vec::new();
        event(&mut self.reaper, &Logs { objects: &self.objects, hints: &self.hints }, &mut actions);
        for action in actions {
            match action {
                Action::Send { to, message } => out.push(Effect::Send { to, message: Message::Reap(message) }),
                Action::Forget { partition, tombstone } => {
                    // The key itself lies on the disk.
                    let job = self.number();
                    self.forgetting.insert(job, (partition, tombstone));
                    out.push(Effect::Fetch { job, log: LogId::Objects, partition, key: tombstone.key });
                }
            }
        }
    }

    /// The record of a tombstone was read, so that its key is known. False: that was read for something else.
    pub(super) fn forget_fetched(&mut self, job: u64, object: Option<&Whole>) -> bool {
        let Some((partition, tombstone)) = self.forgetting.remove(&job) else { return false };
        if let Some(object) = object {
            let key = object.key.encoded();
            let found = self.objects.store.lookup(partition, key);
            let same = found.filter(|found| {
                self.objects.actors.stable_hash(found.summary) == tombstone.version
                    && self.objects.actors.is_tombstone(found.summary)
            });
            let forgotten = same
                .is_some_and(|found| matches!(self.objects.store.forget(partition, key, found.summary), Ok(Some(_))));
            self.statistics.tombstones_dropped += u64::from(forgotten);
        }
        true
    }
}

impl<D: Disk> Graves for Logs<'_, D> {
    fn any(&self) -> bool {
        self.objects.store.keys() > self.objects.store.live_keys()
    }

    fn level(&self, partition: u16) -> u8 {
        let keys = self.objects.store.index(|index| index.partition_len(partition));
        (keys / SLICE_KEYS).max(1).ilog2() as u8
    }

    fn tombstones(&self, partition: u16, level: u8, leaf: u64) -> Vec<Tombstone> {
        let actors = &self.objects.actors;
        self.objects.store.index(|index| {
            let all = index.entries(partition, level.into(), leaf);
            let dead = all.filter(|listed| actors.is_tombstone(listed.entry.summary));
            let tombstone = |listed: Listed| Tombstone {
                key: HashedKey { fingerprint: listed.hash.fingerprint(), tag: listed.hash.tag() },
                version: actors.stable_hash(listed.entry.summary),
            };
            // What was lost has no version.
            dead.map(tombstone).filter(|tombstone| tombstone.version != 0).collect()
        })
    }

    fn holds(&self, partition: u16, tombstone: &Tombstone) -> bool {
        let Log { store, actors, .. } = self.objects;
        let found = key_hash(tombstone.key).and_then(|hash| store.find(partition, &hash));
        found.is_some_and(|listed| {
            let summary = listed.entry.summary;
            actors.stable_hash(summary) == tombstone.version
                && actors.is_tombstone(summary)
                && store.is_durable(listed.entry.place)
        })
    }

    fn hints(&self, partition: u16, tombstone: &Tombstone) -> bool {
        let hints = &self.hints.store;
        // What was just forgotten is back after a crash.
        !hints.forgets_for_good() || key_hash(tombstone.key).is_none_or(|hash| hints.find(partition, &hash).is_some())
    }

    fn holds_any(&self, partition: u16) -> bool {
        let objects = &self.objects.store;
        !objects.forgets_for_good() || objects.index(|index| index.partition_len(partition)) > 0
    }
}
