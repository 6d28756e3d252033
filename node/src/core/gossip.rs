//! Who belongs to the cluster and who answers: this core's part in the gossip, and what follows from it here.
//!
//! Not here: the gossip itself (`membership`).

use std::rc::Rc;

use quorate_engine::disk::Disk;
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
    membership::{Contact, Membership, MembershipEffect, state::ClusterState},
    ring::{Ring, RingError},
};

impl<D: Disk> Core<D> {
    /// Another core gossips.
    pub(super) fn gossiped(&mut self, now: Now, from: Endpoint, gossip: &ArchivedGossip, out: &mut Vec<Effect>) {
        match rkyv::deserialize::<Gossip, rkyv::rancor::Error>(gossip) {
            Ok(gossip) => {
                self.drive_membership(now, out, |members, effects| {
                    members.handle_gossip(now.instant, from, &gossip, effects);
                });
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

    fn drive_membership(
        &mut self,
        now: Now,
        out: &mut Vec<Effect>,
        event: impl FnOnce(&mut Membership, &mut Vec<MembershipEffect>),
    ) {
        let mut effects = Vec::new();
        event(&mut self.membership, &mut effects);
        for effect in effects {
            match effect {
                MembershipEffect::Send { to, gossip } => {
                    out.push(Effect::Send { to, message: Message::Gossip(gossip) });
                }
                MembershipEffect::LivenessChanged { endpoint, alive } => self.peer_changed(now, endpoint, alive, out),
                MembershipEffect::StateChanged => self.state_changed(now, out),
                MembershipEffect::Refused(refusal) => out.push(Effect::Refused(refusal)),
            }
        }
    }

    /// Who belongs has changed, so the ring may have.
    fn state_changed(&mut self, now: Now, out: &mut Vec<Effect>) {
        let state = self.membership.state();
        self.down.retain(|&peer| state.has(peer));
        // Those who belong always make a ring: a state without a member changes nothing here.
        if let Ok(ring) = ring_of(&self.settings, state) {
            self.ring = Rc::new(ring);
        }
        let ring = self.ring.clone();
        self.hand_off(now, out, |handoff, tree, actions| handoff.handle_ring(now.instant, ring, tree, actions));
        let ring = self.ring.clone();
        self.exchange(now, out, |exchanges, _, actions| exchanges.handle_ring(now.instant, ring, actions));
        out.push(Effect::MembersChanged);
    }
}

/// The ring that a state makes.
pub(super) fn ring_of(settings: &Settings, state: &ClusterState) -> Result<Ring, RingError> {
    let owns = |status| matches!(status, Status::Member | Status::Leaving);
    Ring::new(settings.partitions, settings.replicas, state.members(owns))
}
