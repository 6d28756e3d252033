//! Who belongs to the cluster and who answers: this core's part in the gossip, and what follows from it here.
//!
//! Not here: the gossip itself (`membership`).

use std::{rc::Rc, time::Duration};

use quorate_engine::{
    disk::Disk,
    planted::{Bug, planted},
};
use quorate_net::{
    id::Endpoint,
    message::{
        Message,
        gossip::{ArchivedGossip, Gossip, Status},
    },
};

use super::{Core, Settings};
use crate::{
    clock::Now,
    effect::Effect,
    membership::{
        Contact, Membership, MembershipEffect,
        state::{ClusterState, Standing},
    },
    ring::Ring,
};

/// More messages than this are not held back; gossip may be lost.
const HELD_MAX: usize = 1024;

/// How long to wait before a disk that refused the state is asked again.
const STORE_RETRY: Duration = Duration::from_millis(200);

impl<D: Disk> Core<D> {
    pub(super) fn store_state_again(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.store_again.is_some_and(|at| at <= now.instant) {
            self.store_again = None;
            self.storing_states += 1;
            out.push(Effect::StoreState(self.membership.state().encode()));
        }
    }

    /// Another core gossips.
    pub(super) fn gossiped(&mut self, now: Now, from: Endpoint, gossip: &ArchivedGossip, out: &mut Vec<Effect>) {
        match rkyv::deserialize::<Gossip, rkyv::rancor::Error>(gossip) {
            Ok(gossip) => {
                self.drive_membership(now, out, |members, effects| {
                    members.handle_gossip(now.instant, from, &gossip, effects);
                });
                if gossip.empty && self.membership.state().standing(gossip.identity, from.node) == Standing::Belongs {
                    self.unhealed.handle_empty(from);
                    self.note_healed(out);
                }
            }
            Err(_) => self.statistics.malformed += 1,
        }
    }

    /// A request, or a connection, showed something about a core.
    pub(super) fn contact(&mut self, now: Now, peer: Endpoint, contact: Contact, out: &mut Vec<Effect>) {
        self.drive_membership(now, out, |members, effects| members.handle_contact(now.instant, peer, contact, effects));
    }

    /// Deadlines of the gossip may have passed.
    pub(super) fn gossip_on(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.membership.next_timeout().is_some_and(|at| at <= now.instant) {
            self.drive_membership(now, out, |members, effects| members.handle_timeout(now.instant, effects));
        }
    }

    /// This core stops on purpose: the others need not find out.
    pub fn handle_stop(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.drive_membership(now, out, |members, effects| members.handle_stop(effects));
    }

    pub(super) fn drive_membership<T>(
        &mut self,
        now: Now,
        out: &mut Vec<Effect>,
        event: impl FnOnce(&mut Membership, &mut Vec<MembershipEffect>) -> T,
    ) -> T {
        let mut effects = Vec::new();
        let result = event(&mut self.membership, &mut effects);
        for effect in effects {
            match effect {
                // What is sent may tell of a change that this core made: nobody shall know of it before this core does for good.
                MembershipEffect::Send { to, gossip } if self.storing_states > 0 || self.store_again.is_some() => {
                    if self.held_gossip.len() < HELD_MAX {
                        self.held_gossip.push((to, gossip));
                    }
                }
                MembershipEffect::Send { to, gossip } => out.push(self.tell(to, gossip)),
                MembershipEffect::LivenessChanged { endpoint, alive } => self.peer_changed(now, endpoint, alive, out),
                MembershipEffect::StateChanged => self.state_changed(now, out),
                MembershipEffect::Refused(refusal) => out.push(Effect::Refused(refusal)),
            }
        }
        result
    }

    fn tell(&self, to: Endpoint, gossip: Gossip) -> Effect {
        let empty = self.objects.store.keys() + self.hints.store.keys() == 0;
        Effect::Send { to, message: Message::Gossip(Gossip { empty, ..gossip }) }
    }

    /// Who belongs has changed, so the ring may have.
    fn state_changed(&mut self, now: Now, out: &mut Vec<Effect>) {
        let state = self.membership.state();
        self.down.retain(|&peer| state.has(peer));
        self.storing_states += 1;
        out.push(Effect::StoreState(state.encode()));
        let stamp = state.stamp();
        if stamp != self.ring_stamp || !state.is_current(&self.ring) {
            self.ring_stamp = stamp;
            let me = self.settings.me;
            let kept = |ring: &Ring| -> Vec<u16> {
                (0..ring.partitions()).filter(|&partition| ring.keepers(partition).any(|keeper| keeper == me)).collect()
            };
            let ring = ring_of(&self.settings, state);
            let (before, after) = (kept(&self.ring), kept(&ring));
            let moved = before != after;
            self.ring = Rc::new(ring);
            self.distrust_gained(now, &before);
            if moved && !planted(Bug::ActorKeptAfterMove) {
                // In one log or the other there may be dots of this core's actor that the one of now does not hold.
                self.renew_actor(out);
            }
        }
        self.follow_ring(now, out);
        out.push(Effect::MembersChanged);
    }

    /// The ring may have changed, or what is held.
    pub(super) fn follow_ring(&mut self, now: Now, out: &mut Vec<Effect>) {
        let surplus = self.surplus();
        self.transfer.handle_state(now.instant, self.membership.state(), &self.ring, &surplus);
        let ring = self.ring_of_living();
        self.hand_off(now, out, |handoff, tree, actions| handoff.handle_ring(now.instant, ring, tree, actions));
        self.reaper.handle_ring(now.instant, self.ring.clone(), self.ring_stamp);
        let ring = self.ring_of_exchanges();
        self.exchange(now, out, |exchanges, _, actions| exchanges.handle_ring(now.instant, ring, surplus, actions));
    }

    /// Who compares partitions with whom. While a change is paused those who gain by it are left out: all that they lack comes
    /// to them by exchanges.
    fn ring_of_exchanges(&self) -> Rc<Ring> {
        let ring = self.membership.state().ring_state();
        match (ring.table(), ring.change()) {
            (Some(table), Some(change)) if change.is_paused() => {
                Rc::new(Ring::of(table, None, self.ring.members().to_vec()))
            }
            _ => self.ring.clone(),
        }
    }

    /// Whom hints are owed to. While the ring changes, they are owed to those who are to keep the partition as well: a hint may
    /// have stood in for one of these. To who was given up by its operator they are not: whoever holds some could not leave
    /// before it is gone.
    fn ring_of_living(&self) -> Rc<Ring> {
        let state = self.membership.state();
        let gone = |id| state.node(id).is_some_and(|node| node.status == Status::Removing);
        let (Some(table), Some(change)) = (state.ring_state().table(), state.ring_state().change()) else {
            return self.ring.clone();
        };
        let members = self.ring.members().iter().filter(|member| !gone(member.node.id)).cloned().collect();
        Rc::new(Ring::of(table, Some(&change.next), members).with_all_keepers())
    }

    /// A state that [`Effect::StoreState`] brought is on disk; or it is not, and then this core does not speak until one is
    /// that came later: what it said could be something else after its next start. A disk that was full has room again.
    pub fn handle_state_stored(&mut self, now: Now, stored: bool, out: &mut Vec<Effect>) {
        self.storing_states -= 1;
        // Each state is the whole: the last one counts.
        self.store_again = (!stored).then(|| now.instant + STORE_RETRY);
        if self.storing_states == 0 && stored {
            let held = std::mem::take(&mut self.held_gossip);
            out.extend(held.into_iter().map(|(to, gossip)| self.tell(to, gossip)));
        }
        self.settle(now, out);
    }
}

/// The ring that a state makes; nobody keeps anything as long as it knows none.
pub(super) fn ring_of(settings: &Settings, state: &ClusterState) -> Ring {
    state.ring().unwrap_or_else(|| Ring::empty(settings.partitions, settings.replicas))
}
