//! Who is asked whether it lives, when, and through whom.
//!
//! The rule: in each interval one core of a shuffled round is probed, so that none waits longer than two rounds; the dead
//! and the avoided are asked besides. A core that stood still itself judges nobody for it.
//!
//! Not here: what follows for the others (`membership`).

use quorate_net::{
    id::Endpoint,
    message::gossip::{Claim, GossipBody, Liveness},
};

use super::{Membership, Out};
use crate::clock::Instant;

/// So many probes are made for others at a time; more are not answered.
const RELAYS_MAX: usize = 256;

/// So many of those who are avoided are asked at each interval.
const AVOIDED_ASKED_MAX: usize = 16;

/// The probe of this interval.
#[derive(Debug)]
pub(super) struct Probe {
    target: Endpoint,
    sequence: u32,
    stage: Stage,
}

#[derive(PartialEq, Eq, Debug)]
enum Stage {
    /// Only the target itself was asked, until then.
    Direct(Instant),
    /// Others were asked.
    Indirect,
    /// It lives.
    Answered,
}

impl Probe {
    /// When others are asked.
    pub(super) fn direct_deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Direct(deadline) => Some(deadline),
            Stage::Indirect | Stage::Answered => None,
        }
    }
}

/// A probe that is made for another core.
#[derive(Debug)]
pub(super) struct Relay {
    /// For whom.
    by: Endpoint,
    target: Endpoint,
    /// Its number there.
    sequence: u32,
    until: Instant,
}

impl Membership {
    /// Answers what a message is for.
    pub(super) fn handle_body(&mut self, now: Instant, from: Endpoint, body: &GossipBody, out: &mut Out) {
        match *body {
            GossipBody::Ping { sequence } => self.send(from, GossipBody::Ack { sequence }, out),
            GossipBody::Ack { sequence } => self.acknowledged(now, from, sequence, out),
            GossipBody::PingFor { sequence, target } => {
                if self.relays.len() < RELAYS_MAX && self.peers.contains_key(&target) {
                    let until = now + self.config.probe_interval;
                    let own = self.ping(target, out);
                    self.relays.insert(own, Relay { by: from, target, sequence, until });
                }
            }
            GossipBody::AckFor { sequence } => {
                if let Some(probe) = self.probe.as_mut().filter(|probe| probe.sequence == sequence)
                    && probe.stage == Stage::Indirect
                {
                    probe.stage = Stage::Answered;
                    self.statistics.probes_indirect += 1;
                }
            }
            GossipBody::State(_) | GossipBody::Farewell => {}
        }
    }

    /// `from` has answered a ping of this core: messages get through both ways.
    fn acknowledged(&mut self, now: Instant, from: Endpoint, sequence: u32, out: &mut Out) {
        if let Some(relay) = self.relays.get(&sequence).filter(|relay| relay.target == from) {
            let (by, sequence) = (relay.by, relay.sequence);
            self.send(by, GossipBody::AckFor { sequence }, out);
        }
        self.relays.remove(&sequence);
        if let Some(probe) = self.probe.as_mut().filter(|probe| (probe.sequence, probe.target) == (sequence, from)) {
            probe.stage = Stage::Answered;
        }
        if let Some(peer) = self.peers.get_mut(&from)
            && (peer.usable || peer.is_dead() || peer.may_return(now))
        {
            peer.answered();
            self.tell_usable(from, out);
        }
    }

    /// The target did not answer directly in time: others try.
    pub(super) fn expire_direct(&mut self, now: Instant, out: &mut Out) {
        let Some(probe) = &mut self.probe else { return };
        if probe.direct_deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        probe.stage = Stage::Indirect;
        let (target, sequence) = (probe.target, probe.sequence);
        if let Some(peer) = self.peers.get_mut(&target) {
            peer.timed_out(now, &self.config);
            self.tell_usable(target, out);
        }
        let others = self.living().into_iter().filter(|&other| other != target).collect();
        for other in self.random.choose(others, self.config.indirect_probes) {
            self.send(other, GossipBody::PingFor { sequence, target }, out);
        }
    }

    /// An interval is over: judge the last probe, make the next.
    pub(super) fn tick(&mut self, now: Instant, out: &mut Out) {
        self.next_tick = now + self.config.probe_interval;
        self.relays.retain(|_, relay| relay.until > now);
        if let Some(probe) = self.probe.take()
            && probe.stage != Stage::Answered
        {
            self.unanswered(now, probe.target, out);
        }
        if let Some(target) = self.next_target() {
            let sequence = self.ping(target, out);
            self.probe = Some(Probe { target, sequence, stage: Stage::Direct(now + self.config.probe_timeout) });
        }
        self.ask_the_absent(now, out);
        if !self.rumors.is_empty() {
            self.tell_some(out);
        }
    }

    /// Nobody got an answer from it.
    fn unanswered(&mut self, now: Instant, target: Endpoint, out: &mut Out) {
        let Some(peer) = self.peers.get_mut(&target) else { return };
        self.statistics.probes_failed += 1;
        peer.failed(now, &self.config);
        let suspect = Claim { liveness: Liveness::Suspect, ..peer.claim };
        self.tell_usable(target, out);
        self.hear(now, suspect, out);
    }

    /// The next of the round that is not dead.
    fn next_target(&mut self) -> Option<Endpoint> {
        loop {
            let Some(target) = self.round.pop() else {
                let living = self.living();
                let count = living.len();
                self.round = self.random.choose(living, count);
                return self.round.pop();
            };
            if self.peers.get(&target).is_some_and(|peer| !peer.is_dead()) {
                return Some(target);
            }
        }
    }

    /// Those who may have come back: one of the dead, the avoided, and a seed while no other node lives.
    fn ask_the_absent(&mut self, now: Instant, out: &mut Out) {
        let dead = self.peers.iter().filter(|(_, peer)| peer.is_dead()).map(|(&endpoint, _)| endpoint).collect();
        let returning = |(_, peer): &(&Endpoint, &super::Peer)| !peer.is_dead() && peer.may_return(now);
        let avoided = self.peers.iter().filter(returning).map(|(&endpoint, _)| endpoint).collect();
        let mut asked = self.random.choose(dead, 1);
        asked.extend(self.random.choose(avoided, AVOIDED_ASKED_MAX));
        // Several that join at once may have heard of each other alone.
        let knows_no_ring = self.state.stamp().term == 0;
        if knows_no_ring || self.living().iter().all(|other| other.node == self.me.node) {
            let seeds = self.seeds.clone();
            asked.extend(self.random.choose(seeds, 1));
        }
        for endpoint in asked {
            self.ping(endpoint, out);
        }
    }

    /// Some who live hear the news out of turn.
    pub(super) fn tell_some(&mut self, out: &mut Out) {
        let living = self.living();
        for to in self.random.choose(living, self.config.fanout) {
            self.ping(to, out);
        }
    }

    /// A request found that `target` does not answer: it is probed now, or next.
    pub(super) fn probe_first(&mut self, now: Instant, target: Endpoint, out: &mut Out) {
        self.round.retain(|&other| other != target);
        self.round.push(target);
        if self.probe.as_ref().is_none_or(|probe| probe.stage == Stage::Answered) {
            self.tick(now, out);
        }
    }

    /// This core stood still: that others did not answer in the meantime says nothing about them.
    pub(super) fn wake(&mut self, now: Instant) {
        self.statistics.pauses += 1;
        self.probe = None;
        self.next_tick = now;
        let until = now + self.config.suspicion(self.peers.len() + 1);
        self.suspicions = self.suspicions.iter().map(|&(_, endpoint)| (until, endpoint)).collect();
        for (_, endpoint) in &self.suspicions {
            if let Some(peer) = self.peers.get_mut(endpoint) {
                peer.suspected_until = Some(until);
            }
        }
    }

    /// Asks whether it lives; whatever else there is to tell goes along. The number of the ping.
    pub(super) fn ping(&mut self, to: Endpoint, out: &mut Out) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.send(to, GossipBody::Ping { sequence: self.sequence }, out);
        self.sequence
    }
}
