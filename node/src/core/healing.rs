//! What this core has lost, or may have: the actor ends, and the copies are compared with those of the others.
//!
//! Not here: which copies are whole by when (`unhealed`), the comparing (`anti_entropy`).

use quorate_engine::{
    Damage, DamageKind,
    disk::Disk,
    planted::{Bug, planted},
};

use super::{Core, DAMAGED_MAX, LogId};
use crate::{clock::Now, effect::Effect, tokens::Tokens};

impl<D: Disk> Core<D> {
    /// Its store was never filled: it is new, or all that it had is lost.
    pub(crate) fn handle_unfilled(&mut self, now: Now) {
        self.filled = false;
        self.distrust(now, None);
    }

    /// Whether this core, as an owner, has to be healed first. Who is only to be one counts for what is written from now on.
    pub(super) fn lacks(&self, partition: u16) -> bool {
        self.unhealed.contains(partition) && self.owns(partition)
    }

    /// A lost record may hold dots of this core's actor, so each new loss ends the actor.
    pub(super) fn look_for_damage(&mut self, now: Now, out: &mut Vec<Effect>) {
        let mut more = false;
        let found = |log, damage: Vec<Damage>| damage.into_iter().map(move |damage| (log, damage));
        let objects = found(LogId::Objects, self.objects.store.damage());
        let hints = found(LogId::Hints, self.hints.store.damage());
        for (log, damage) in objects.chain(hints) {
            // When there is too much to remember, every report counts as new.
            let countless = self.damaged.len() >= DAMAGED_MAX;
            if !countless && self.damaged.insert((log, damage.segment, damage.offset)) {
                more = true;
                out.push(Effect::Damaged { log, damage });
            }
            more |= countless;
            if log == LogId::Objects {
                // Which keys a lost record belonged to is only known where the index pointed at it.
                if damage.kind != DamageKind::Record {
                    self.distrust(now, damage.partition);
                }
                self.heal(damage.partition);
            }
        }
        if more {
            // A write that is remembered may be among what is lost: its retry must be made anew.
            self.tokens = Tokens::default();
        }
        if more && !planted(Bug::ActorKeptAfterLoss) {
            self.renew_actor(out);
        }
    }

    /// Some of this core's records were lost: those of a partition, or of any.
    pub(super) fn heal(&mut self, partition: Option<u16>) {
        let mut actions = Vec::new();
        match partition {
            Some(partition) => self.anti_entropy.heal(partition, &mut actions),
            None => (0..self.ring.partitions()).for_each(|partition| self.anti_entropy.heal(partition, &mut actions)),
        }
        self.exchange_actions.extend(actions);
    }

    /// This core's copy of a partition, or of all, may lack what it once had.
    pub(super) fn distrust(&mut self, now: Now, partition: Option<u16>) {
        let partitions = partition.map_or(0..self.ring.partitions(), |partition| partition..partition + 1);
        for partition in partitions {
            self.unhealed.add(now.instant, &self.ring, partition);
        }
        self.tell_unhealed();
    }

    /// The ring has changed; `before` is what this core kept by the one before.
    pub(super) fn distrust_gained(&mut self, now: Now, before: &[u16]) {
        self.unhealed.handle_ring(now.instant, &self.ring, |partition| before.contains(&partition));
        self.tell_unhealed();
    }

    fn tell_unhealed(&mut self) {
        self.unhealed.partitions().for_each(|partition| self.anti_entropy.distrust(partition));
    }

    /// Whoever is away is not waited for for ever.
    pub(super) fn heal_on(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.unhealed.handle_timeout(now.instant, |peer| self.down.contains(&peer));
        self.note_healed(out);
    }

    /// When nothing is left to be healed, this core was filled once, and need not be filled at its next start.
    pub(super) fn note_healed(&mut self, out: &mut Vec<Effect>) {
        let unhealed = &self.unhealed;
        self.anti_entropy.healed(|partition| unhealed.contains(partition));
        if !self.filled && unhealed.is_empty() {
            self.filled = true;
            out.push(Effect::StoreFilled);
        }
    }
}
