//! The hints that this core keeps for others: taken in, offered to the owners, forgotten when those have them.
//!
//! The rule: a hint that this core coordinated itself holds dots of its actor, and a core mints for a key only while it
//! holds all that its actor ever minted for it. So the actor ends before such a hint is forgotten.
//!
//! Not here: what is offered to whom and when (`hinted_handoff`), how a hint is taken (`replicas`, `puts`).

use quorate_engine::{
    disk::{Disk, prefixed::Prefixed},
    planted::{Bug, planted},
};
use quorate_net::{
    id::Endpoint,
    key::Key,
    message::{
        ReplicaOutcome,
        exchange::{HashedKey, Whole},
    },
};

use super::{Core, exchanges::StoreTree};
use crate::{
    clock::Now,
    coordinator::get::Theirs,
    effect::Effect,
    hinted_handoff::{Action, HintedHandoff, Loaded},
    version::Actor,
};

impl<D: Disk> Core<D> {
    /// A hint was taken in; `new`: none was held of its key.
    pub(super) fn hint_taken(&mut self, now: Now, partition: u16, key: &[u8], new: bool, out: &mut Vec<Effect>) {
        let hash = self.hints.store.index(|index| index.hash(key));
        let key = HashedKey { fingerprint: hash.fingerprint(), tag: hash.tag() };
        self.hand_off(now, out, |handoff, tree, actions| {
            handoff.handle_hint(now.instant, partition, key, new, tree, actions);
        });
    }

    /// An owner says what it has of a hint. False: nothing was asked.
    pub(super) fn hint_probed(
        &mut self,
        now: Now,
        from: Endpoint,
        operation: u64,
        theirs: &Theirs,
        out: &mut Vec<Effect>,
    ) -> bool {
        self.hand_off(now, out, |handoff, tree, actions| {
            handoff.handle_probed(now.instant, from, operation, theirs, tree, actions)
        })
    }

    /// An owner says what became of a hint. False: nothing was sent.
    pub(super) fn hint_replicated(
        &mut self,
        now: Now,
        from: Endpoint,
        operation: u64,
        outcome: ReplicaOutcome,
        out: &mut Vec<Effect>,
    ) -> bool {
        self.hand_off(now, out, |handoff, tree, actions| {
            handoff.handle_replicated(now.instant, from, operation, outcome, tree, actions)
        })
    }

    /// A hint was read.
    pub(super) fn hint_fetched(&mut self, now: Now, job: u64, hint: Option<Whole>, out: &mut Vec<Effect>) {
        let loaded = hint.map_or(Loaded::Missing, Loaded::Hint);
        self.hand_off(now, out, |handoff, tree, actions| {
            handoff.handle_loaded(now.instant, job, loaded, tree, actions);
        });
    }

    /// Deadlines of the handoff may have passed.
    pub(super) fn hand_off_on(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.handoff.next_timeout().is_some_and(|at| at <= now.instant) {
            self.hand_off(now, out, |handoff, tree, actions| handoff.handle_timeout(now.instant, tree, actions));
        }
    }

    /// Hands an event to the handoff, then does what it wants.
    pub(super) fn hand_off<T>(
        &mut self,
        now: Now,
        out: &mut Vec<Effect>,
        event: impl FnOnce(&mut HintedHandoff, &StoreTree<'_, Prefixed<D>>, &mut Vec<Action>) -> T,
    ) -> T {
        let mut actions = Vec::new();
        let result = event(&mut self.handoff, &StoreTree::of(&self.hints), &mut actions);
        while !actions.is_empty() {
            let mut more = Vec::new();
            for action in actions {
                match action {
                    Action::Send { to, message } => out.push(Effect::Send { to, message }),
                    Action::Load { job, partition, key } => {
                        out.push(Effect::Fetch { job, log: super::LogId::Hints, partition, key });
                    }
                    Action::Forget { job, partition, key, version } => {
                        let forgotten = self.forget_hint(partition, &key, version, out);
                        let tree = StoreTree::of(&self.hints);
                        self.handoff.handle_forgotten(now.instant, job, forgotten, &tree, &mut more);
                    }
                }
            }
            actions = more;
        }
        result
    }

    fn forget_hint(&mut self, partition: u16, key: &Key, version: u64, out: &mut Vec<Effect>) -> bool {
        let key = key.encoded();
        let Some(found) = self.hints.store.lookup(partition, key) else { return false };
        if self.hints.actors.version(found.summary).0 != version && !planted(Bug::HintForgottenNewer) {
            return false;
        }
        let outline = self.hints.actors.outline(found.summary);
        let mints = |actor: Actor| {
            // What cannot be told from RAM may be this core's own.
            outline.as_ref().is_none_or(|outline| {
                let clock = &outline.clock;
                clock.vector().counter(actor) > 0 || clock.beyond().iter().any(|dot| dot.actor == actor)
            })
        };
        if self.actor.is_some_and(mints) {
            self.renew_actor(out);
        }
        matches!(self.hints.store.forget(partition, key, found.summary), Ok(Some(_)))
    }
}
