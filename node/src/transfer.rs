//! Partitions that move after a ring change: what this core gains, and what it gives away.
//!
//! The rule: who gains confirms only when it has compared each partition with every primary of now, in an exchange that began
//! after all cores were known to send their writes to it, too. Who holds what it does not keep any more drops it only when
//! no change is under way, all cores go by the same tables, and every primary of these has all that is held.
//!
//! What was compared by exchanges stays compared, so a transfer that was interrupted goes on where it was: the trees are
//! equal where it has been. Pure. Not here: the exchanges (`anti_entropy`), the tables (`membership/state`).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use quorate_engine::planted::{Bug, planted};
use quorate_net::{
    id::Endpoint,
    message::gossip::{RingStamp, Status},
};

use crate::{clock::Instant, membership::state::ClusterState, ring::Ring};

/// While something moves it is looked this often whether the others have got so far.
const LOOK: Duration = Duration::from_millis(200);

/// Something for the core to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Compare the partition with this peer now.
    Compare {
        /// With whom.
        peer: Endpoint,
        /// What.
        partition: u16,
    },
    /// This core has done its part of the change: `Change::Confirm`.
    Confirm,
    /// All have done theirs: `Change::Finish`.
    Finish,
    /// Drop all that is held of the partition, then call [`Transfer::handle_dropped`].
    Drop {
        /// What.
        partition: u16,
    },
}

/// What moves, on one core.
#[derive(Debug)]
pub struct Transfer {
    me: Endpoint,
    /// The tables that all below is about.
    stamp: Option<RingStamp>,
    /// Since when all cores are known to go by these tables.
    known: Option<Instant>,
    /// With whom each partition has still to be compared, when it is gained or given away.
    left: BTreeMap<u16, BTreeSet<Endpoint>>,
    /// Partitions at the beginning.
    total: usize,
    /// Being dropped: nothing is taken of these.
    dropping: BTreeSet<u16>,
    confirmed: bool,
    next_look: Option<Instant>,
}

impl Transfer {
    /// Nothing moves.
    #[must_use]
    pub fn new(me: Endpoint) -> Self {
        Self {
            me,
            stamp: None,
            known: None,
            left: BTreeMap::new(),
            total: 0,
            dropping: BTreeSet::new(),
            confirmed: false,
            next_look: None,
        }
    }

    /// The tables may have changed; `surplus` is what this core holds and does not keep.
    pub fn handle_state(&mut self, now: Instant, state: &ClusterState, ring: &Ring, surplus: &BTreeSet<u16>) {
        let stamp = state.stamp();
        if self.stamp != Some(stamp) {
            (self.stamp, self.known, self.confirmed) = (Some(stamp), None, false);
            let others =
                |partition| ring.primaries(partition).iter().copied().filter(|&peer| peer != self.me).collect();
            self.left = if ring.is_changing() {
                let gains = |partition: &u16| ring.gaining(*partition).any(|endpoint| endpoint == self.me);
                (0..ring.partitions()).filter(gains).map(|partition| (partition, others(partition))).collect()
            } else {
                surplus.iter().map(|&partition| (partition, others(partition))).collect()
            };
            self.total = self.left.len();
        }
        // Nobody waits for who is dead, and known to be so by all.
        let waits = |peer: &Endpoint| state.node(peer.node).is_some_and(|node| node.status != Status::Removing);
        self.left.values_mut().for_each(|peers| peers.retain(waits));
        self.next_look = (ring.is_changing() || !self.left.is_empty()).then_some(now);
    }

    /// When to call [`Transfer::look`] next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.next_look
    }

    /// Looks at how far it is. `all_know`: all cores go by these tables. `hints`: how many this core holds.
    pub fn look(&mut self, now: Instant, state: &ClusterState, all_know: bool, hints: u64, out: &mut Vec<Step>) {
        let Some(change) = self.next_look.map(|_| state.ring_state().change()) else { return };
        self.next_look = Some(now + LOOK);
        if !(all_know || planted(Bug::DropsUnheard)) || change.is_some_and(|change| change.pauses % 2 == 1) {
            return;
        }
        if self.known.is_none() {
            self.known = Some(now);
            for (&partition, peers) in &self.left {
                out.extend(peers.iter().map(|&peer| Step::Compare { peer, partition }));
            }
        }
        let drops = change.is_none() && planted(Bug::DropsUncompared);
        let done: Vec<u16> = self.left.iter().filter(|(_, peers)| peers.is_empty() || drops).map(|(&p, _)| p).collect();
        if change.is_some() {
            let leaves = state.node(self.me.node).is_some_and(|node| node.status == Status::Leaving);
            let compared = done.len() == self.left.len() || planted(Bug::ConfirmsUncompared);
            if compared && !self.confirmed && state.is_mover(self.me) && !(leaves && hints > 0) {
                self.confirmed = true;
                out.push(Step::Confirm);
            }
            if state.unconfirmed().is_empty() {
                out.push(Step::Finish);
            }
            return;
        }
        for partition in done {
            self.left.remove(&partition);
            self.dropping.insert(partition);
            out.push(Step::Drop { partition });
        }
        if self.left.is_empty() {
            self.next_look = None;
        }
    }

    /// An exchange that this core began ended well.
    pub fn handle_compared(&mut self, peer: Endpoint, partition: u16, begun: Instant) {
        if self.known.is_some_and(|known| known <= begun)
            && let Some(peers) = self.left.get_mut(&partition)
        {
            peers.remove(&peer);
        }
    }

    /// All of the partition is dropped; or the store refused, and what is left is looked at with the next tables.
    pub fn handle_dropped(&mut self, partition: u16) {
        self.dropping.remove(&partition);
    }

    /// Whether the partition is being dropped.
    #[must_use]
    pub fn is_dropping(&self, partition: u16) -> bool {
        self.dropping.contains(&partition)
    }

    /// Partitions that still have to be compared, and how many there were at first.
    #[must_use]
    pub fn progress(&self) -> (usize, usize) {
        (self.left.values().filter(|peers| !peers.is_empty()).count(), self.total)
    }
}
