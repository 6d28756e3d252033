//! What one core knows of another: what is said of it, and what it found out by itself.
//!
//! The rule: of two claims about a core the one with the higher refutation counts, then the worse, then the greater
//! incarnation; so all end with the same one, in whatever order they hear them. What a core found out by itself is never
//! told to others, and ends only by an answer.
//!
//! Not here: who is asked when (`membership`).

use std::time::Duration;

use quorate_net::{
    id::Endpoint,
    message::gossip::{Claim, Liveness, RingStamp},
};

use super::config::GossipConfig;
use crate::clock::Instant;

/// Another core.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) claim: Claim,
    /// Since when it is said to be a suspect or dead.
    pub(super) away_since: Option<Instant>,
    /// Whether the core has shown that it does not know what is said of it.
    pub(super) behind: bool,
    /// When the suspect is taken for dead.
    pub(super) suspected_until: Option<Instant>,
    /// In which of its lives it last spoke, and which tables it went by.
    pub(super) stamp: Option<(u64, RingStamp)>,
    /// When it was last sent the whole state, and which.
    pub(super) state_sent: Option<(Instant, u64)>,
    /// When it was last told out of turn what is said of it.
    pub(super) told: Option<Instant>,
    /// What the owner was last told.
    pub(super) usable: bool,
    /// Requests and probes in a row that it did not answer to this core.
    missed: u32,
    /// Since this core does not get through to it: when an answer may end that.
    avoided_until: Option<Instant>,
    /// When it last failed, and how long it was avoided then.
    failed: Option<(Instant, Duration)>,
}

impl Peer {
    /// A core that nothing is known of: taken for alive.
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self {
            claim: Claim { endpoint, incarnation: 0, refutation: 0, liveness: Liveness::Alive },
            away_since: None,
            behind: false,
            stamp: None,
            suspected_until: None,
            state_sent: None,
            told: None,
            usable: true,
            missed: 0,
            avoided_until: None,
            failed: None,
        }
    }

    /// Something else is said of it from now on.
    pub(super) fn is_said(&mut self, now: Instant, claim: Claim) {
        self.claim = claim;
        self.away_since = (claim.liveness != Liveness::Alive).then(|| self.away_since.unwrap_or(now));
    }

    pub(super) fn is_dead(&self) -> bool {
        self.claim.liveness == Liveness::Dead
    }

    /// Whether requests should go to it.
    pub(super) fn is_usable(&self) -> bool {
        !self.is_dead() && self.avoided_until.is_none()
    }

    /// Whether it is avoided, and long enough for an answer to end that.
    pub(super) fn may_return(&self, now: Instant) -> bool {
        self.avoided_until.is_some_and(|until| until <= now)
    }

    /// It answered this core.
    pub(super) fn answered(&mut self) {
        self.missed = 0;
        self.avoided_until = None;
    }

    /// It did not answer this core in time.
    pub(super) fn timed_out(&mut self, now: Instant, config: &GossipConfig) {
        self.missed = self.missed.saturating_add(1);
        if self.missed >= config.timeouts_to_avoid {
            self.failed(now, config);
        }
    }

    /// This core does not get through to it.
    pub(super) fn failed(&mut self, now: Instant, config: &GossipConfig) {
        if self.avoided_until.is_some() {
            return;
        }
        // It came back and failed again: the next time it has to hold for longer.
        let again = |&(at, _): &(Instant, Duration)| now.since(at) < 2 * config.avoid_max;
        let hold = match self.failed.filter(again) {
            Some((_, hold)) => (2 * hold).min(config.avoid_max),
            None => config.avoid_min,
        };
        self.failed = Some((now, hold));
        self.avoided_until = Some(now + hold);
    }
}

/// By what of two claims about one core the newer shows.
pub(super) fn rank(claim: &Claim) -> (u32, Liveness, u64) {
    (claim.refutation, claim.liveness, claim.incarnation)
}
