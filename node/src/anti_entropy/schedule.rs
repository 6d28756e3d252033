//! Which partition is compared with whom, and when.
//!
//! The rule: every partition is visited with everyone who keeps it and comes after this core in its list: at the
//! start, since much may have happened meanwhile, and then once in an interval, evenly spread. A visit in a hurry comes
//! before all others; a peer that is down is not visited. What this core does not keep it has to give once to each of those who
//! do: a giver that came again and again would keep the others out, each of whom another one may wait for.
//!
//! Not here: what a visit does (`exchange`).

use std::collections::{BTreeMap, BTreeSet};

use quorate_net::id::Endpoint;

use super::Settings;
use crate::{clock::Instant, ring::Ring};

/// Before all that is due by time.
const AT_ONCE: Instant = Instant(0);

/// Not by time.
const WHEN_IN_A_HURRY: Instant = Instant(u64::MAX);

/// When a visit that has ended is made again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Again {
    /// It came to nothing.
    Soon,
    /// When its turn comes.
    InTurn,
    /// When it is in a hurry.
    InAHurry,
}

#[derive(Debug, Default)]
pub(super) struct Schedule {
    peers: BTreeMap<Endpoint, Peer>,
    down: BTreeSet<Endpoint>,
    /// No visit begins before this.
    not_before: Instant,
}

#[derive(Debug, Default)]
struct Peer {
    visits: BTreeMap<u16, Visit>,
    /// Where in the interval each has its turn.
    turns: BTreeMap<u16, u64>,
    /// The visits that are not under way, by when they are due.
    due: BTreeSet<(Instant, u16)>,
    underway: usize,
}

#[derive(Debug)]
enum Visit {
    Due(Instant),
    /// `again`: it was in a hurry when it was under way already, which may have been too early.
    Underway {
        again: bool,
    },
}

impl Schedule {
    /// The visits of this ring. Those that were there before keep their time.
    pub(super) fn set_ring(&mut self, now: Instant, settings: &Settings, ring: &Ring, surplus: &BTreeSet<u16>) {
        let visits = visits(settings.me, ring, surplus);
        let wanted: BTreeSet<_> = visits.iter().copied().collect();
        for (&endpoint, peer) in &mut self.peers {
            let gone = peer.visits.keys().copied().filter(|&partition| !wanted.contains(&(endpoint, partition)));
            for partition in gone.collect::<Vec<_>>() {
                match peer.visits.remove(&partition) {
                    Some(Visit::Due(at)) => {
                        peer.due.remove(&(at, partition));
                    }
                    // Its end finds no visit any more.
                    Some(Visit::Underway { .. }) => peer.underway -= 1,
                    None => {}
                }
            }
        }
        self.peers.retain(|_, peer| !peer.visits.is_empty());
        let count = visits.len().max(1) as u128;
        for (at, (endpoint, partition)) in visits.into_iter().enumerate() {
            let peer = self.peers.entry(endpoint).or_default();
            if !peer.visits.contains_key(&partition) {
                peer.set_due(partition, now);
            }
            peer.turns.insert(partition, (settings.interval.as_nanos() * at as u128 / count) as u64);
        }
    }

    pub(super) fn set_up(&mut self, peer: Endpoint, up: bool) {
        if !up {
            self.down.insert(peer);
        } else if self.down.remove(&peer)
            && let Some(peer) = self.peers.get_mut(&peer)
        {
            for partition in peer.visits.keys().copied().collect::<Vec<_>>() {
                peer.hurry(partition, AT_ONCE);
            }
        }
    }

    /// The next visit comes before all others.
    pub(super) fn hurry(&mut self, peer: Endpoint, partition: u16) {
        self.hurry_in_turn(peer, partition, 0);
    }

    /// The same, but after the visits that are in a hurry and have an earlier place.
    pub(super) fn hurry_in_turn(&mut self, peer: Endpoint, partition: u16, place: usize) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.hurry(partition, Instant(AT_ONCE.0 + place as u64));
        }
    }

    /// When the next visit begins, with `underway` exchanges under way.
    pub(super) fn next_start(&self, settings: &Settings, underway: usize) -> Option<Instant> {
        let (at, _, _) = self.first(settings, underway)?;
        Some(at.max(self.not_before))
    }

    /// The visit that begins now.
    pub(super) fn start(&mut self, now: Instant, settings: &Settings, underway: usize) -> Option<(Endpoint, u16)> {
        let (at, endpoint, partition) = self.first(settings, underway)?;
        if now < at.max(self.not_before) {
            return None;
        }
        self.not_before = now + settings.gap;
        let peer = self.peers.get_mut(&endpoint).expect("it was found there");
        peer.due.remove(&(at, partition));
        peer.visits.insert(partition, Visit::Underway { again: false });
        peer.underway += 1;
        Some((endpoint, partition))
    }

    /// A visit has ended.
    pub(super) fn finish(&mut self, now: Instant, settings: &Settings, peer: Endpoint, partition: u16, again: Again) {
        let Some(peer) = self.peers.get_mut(&peer) else { return };
        let Some(&Visit::Underway { again: hurried }) = peer.visits.get(&partition) else { return };
        peer.underway -= 1;
        let next = match again {
            _ if hurried => AT_ONCE,
            Again::Soon => now + settings.retry,
            Again::InTurn => next_turn(now, settings, peer.turns[&partition]),
            Again::InAHurry => WHEN_IN_A_HURRY,
        };
        peer.set_due(partition, next);
    }

    fn first(&self, settings: &Settings, underway: usize) -> Option<(Instant, Endpoint, u16)> {
        if underway >= settings.exchanges_max {
            return None;
        }
        let free = |&(endpoint, peer): &(&Endpoint, &Peer)| {
            peer.underway < settings.exchanges_per_peer_max && !self.down.contains(endpoint)
        };
        let first =
            |(&endpoint, peer): (&Endpoint, &Peer)| peer.due.first().map(|&(at, partition)| (at, endpoint, partition));
        let due_by_time = |&(at, ..): &(Instant, Endpoint, u16)| at < WHEN_IN_A_HURRY;
        self.peers.iter().filter(free).filter_map(first).min().filter(due_by_time)
    }
}

impl Peer {
    fn hurry(&mut self, partition: u16, due: Instant) {
        match self.visits.get_mut(&partition) {
            Some(Visit::Due(at)) => {
                let at = *at;
                self.due.remove(&(at, partition));
                self.set_due(partition, due);
            }
            Some(Visit::Underway { again }) => *again = true,
            None => {}
        }
    }

    fn set_due(&mut self, partition: u16, at: Instant) {
        self.visits.insert(partition, Visit::Due(at));
        self.due.insert((at, partition));
    }
}

/// The first turn that is at least half an interval away.
fn next_turn(now: Instant, settings: &Settings, turn: u64) -> Instant {
    let interval = u64::try_from(settings.interval.as_nanos()).unwrap_or(u64::MAX).max(1);
    let passed = now.0.saturating_add(interval / 2).saturating_sub(turn) / interval;
    Instant((passed + 1).saturating_mul(interval).saturating_add(turn))
}

/// Whom this core visits about what.
fn visits(me: Endpoint, ring: &Ring, surplus: &BTreeSet<u16>) -> Vec<(Endpoint, u16)> {
    let after_me = |partition| {
        let own = ring.keepers(partition).position(|keeper| keeper == me);
        let skip = match own {
            Some(own) => own + 1,
            // What is held of it is for all who keep it.
            None if surplus.contains(&partition) => 0,
            None => usize::MAX,
        };
        ring.keepers(partition).skip(skip).map(move |peer| (peer, partition))
    };
    (0..ring.partitions()).flat_map(after_me).collect()
}
