//! The past of versions that are proven to be everywhere, forgotten here.
//!
//! Not here: the proof (`reaper`).

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
        reap::{ArchivedReap, KeyVersion, Reap},
    },
};

use super::{Core, Log, LogId, key_hash};
use crate::{
    clock::Now,
    effect::Effect,
    object::Object,
    reaper::{Action, Holdings, Reapable, Reaper},
};

/// At least so many keys are looked at in one slice, and about twice as many at most.
const SLICE_KEYS: u64 = 128;

/// Both logs of a core.
pub(super) struct Logs<'a, D: Disk> {
    objects: &'a Log<D>,
    hints: &'a Log<Prefixed<D>>,
}

impl<D: Disk> Core<D> {
    /// Another core asks about versions, or answers.
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

    /// The proof that versions are everywhere.
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
                Action::Forget { partition, version } => {
                    // The key itself lies on the disk.
                    let job = self.number();
                    self.forgetting.insert(job, (partition, version));
                    out.push(Effect::Fetch { job, log: LogId::Objects, partition, key: version.key });
                }
            }
        }
    }

    /// The record of a version was read, so that its key is known. False: that was read for something else.
    pub(super) fn forget_fetched(&mut self, job: u64, record: Option<&Whole>) -> bool {
        let Some((partition, version)) = self.forgetting.remove(&job) else { return false };
        let Some(record) = record else { return true };
        let (key, Log { store, actors, .. }) = (record.key.encoded(), &self.objects);
        let found = store.lookup(partition, key).map(|found| found.summary);
        let Some(summary) = found.filter(|&summary| actors.stable_hash(summary) == version.version) else {
            return true;
        };
        if actors.is_tombstone(summary) {
            let forgotten = matches!(store.forget(partition, key, summary), Ok(Some(_)));
            self.statistics.tombstones_dropped += u64::from(forgotten);
        } else if let Ok(object) = Object::decode(&record.body)
            && object.version().0 == version.version
            && object.has_long_past()
        {
            // When the disk is full the clock stays as it is.
            let shortened = self.objects.append(partition, key, &object.without_past().encode()).is_ok();
            self.statistics.clocks_shortened += u64::from(shortened);
        }
        true
    }
}

impl<D: Disk> Holdings for Logs<'_, D> {
    fn level(&self, partition: u16) -> u8 {
        let keys = self.objects.store.index(|index| index.partition_len(partition));
        (keys / SLICE_KEYS).max(1).ilog2() as u8
    }

    fn reapable(&self, partition: u16, level: u8, leaf: u64) -> Vec<Reapable> {
        let actors = &self.objects.actors;
        self.objects.store.index(|index| {
            let reapable = |Listed { hash, entry }: Listed| {
                let tombstone = actors.is_tombstone(entry.summary);
                let key = HashedKey { fingerprint: hash.fingerprint(), tag: hash.tag() };
                let version = KeyVersion { key, version: actors.stable_hash(entry.summary) };
                (tombstone || actors.has_long_past(entry.summary)).then_some(Reapable { version, tombstone })
            };
            index.entries(partition, level.into(), leaf).filter_map(reapable).collect()
        })
    }

    fn holds(&self, partition: u16, version: &KeyVersion) -> bool {
        let Log { store, actors, .. } = self.objects;
        let found = key_hash(version.key).and_then(|hash| store.find(partition, &hash));
        found.is_some_and(|listed| {
            actors.stable_hash(listed.entry.summary) == version.version && store.is_durable(listed.entry.place)
        })
    }

    fn hints(&self, partition: u16, version: &KeyVersion) -> bool {
        let hints = &self.hints.store;
        // What was just forgotten is back after a crash.
        !hints.forgets_for_good() || key_hash(version.key).is_none_or(|hash| hints.find(partition, &hash).is_some())
    }

    fn holds_any(&self, partition: u16) -> bool {
        let objects = &self.objects.store;
        !objects.forgets_for_good() || objects.index(|index| index.partition_len(partition)) > 0
    }
}
