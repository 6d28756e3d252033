//! Partitions of which this core's own copy may lack what it once had: its disk was lost, or a damaged part of it. What it has
//! just gained counts as well: an earlier life may have confirmed it, and lost it.
//!
//! The rule: until such a copy has been compared with that of every other owner, this core does not say of a key that it is
//! absent; what it holds it shows. Nobody waits for an owner that holds nothing, as all do in a new cluster, nor, after a while, for
//! one that is away: who waited longer would not answer at all.
//!
//! Pure. Not here: the comparing (`anti_entropy`), the record that all was filled once (`start`).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use quorate_net::id::Endpoint;

use crate::{clock::Instant, ring::Ring};

/// What has not been healed yet.
#[derive(Debug)]
pub struct Unhealed {
    me: Endpoint,
    /// Who is away is waited for so long.
    wait: Duration,
    /// When it was last looked who is away.
    looked: Instant,
    partitions: BTreeMap<u16, Copy>,
}

/// A copy that may lack something.
#[derive(Debug)]
struct Copy {
    since: Instant,
    /// With whom it has still to be compared.
    left: BTreeSet<Endpoint>,
}

impl Unhealed {
    /// All is whole.
    #[must_use]
    pub fn new(me: Endpoint, wait: Duration) -> Self {
        Self { me, wait, looked: Instant(0), partitions: BTreeMap::new() }
    }

    /// True when no copy lacks anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// When to call [`Unhealed::handle_timeout`] next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.partitions.values().map(|copy| copy.since + self.wait).filter(|&at| at > self.looked).min()
    }

    /// Whether the copy of this partition may lack something.
    #[must_use]
    pub fn contains(&self, partition: u16) -> bool {
        self.partitions.contains_key(&partition)
    }

    /// The partitions whose copies may lack something.
    pub fn partitions(&self) -> impl Iterator<Item = u16> + '_ {
        self.partitions.keys().copied()
    }

    /// The copy of this partition may lack something.
    pub fn add(&mut self, now: Instant, ring: &Ring, partition: u16) {
        if ring.keepers(partition).any(|keeper| keeper == self.me) {
            let owners = ring.primaries(partition);
            let left: BTreeSet<Endpoint> = owners.iter().copied().filter(|&owner| owner != self.me).collect();
            self.partitions.insert(partition, Copy { since: now, left });
            self.settle();
        }
    }

    /// The ring has changed; `kept` says what this core kept before.
    pub fn handle_ring(&mut self, now: Instant, ring: &Ring, kept: impl Fn(u16) -> bool) {
        let me = self.me;
        let keeps = |partition: &u16| ring.keepers(*partition).any(|keeper| keeper == me);
        self.partitions.retain(|partition, _| keeps(partition));
        // Who owns it in the place of one that was not compared has all that this one had.
        let moved = |copy: &Copy, partition| copy.left.iter().any(|peer| !ring.primaries(partition).contains(peer));
        let unfilled = |partition: &u16| {
            !kept(*partition) || self.partitions.get(partition).is_some_and(|copy| moved(copy, *partition))
        };
        for partition in (0..ring.partitions()).filter(keeps).filter(unfilled).collect::<Vec<_>>() {
            self.add(now, ring, partition);
        }
    }

    /// An exchange of a partition that began then ended well.
    pub fn handle_compared(&mut self, peer: Endpoint, partition: u16, begun: Instant) {
        if let Some(copy) = self.partitions.get_mut(&partition).filter(|copy| copy.since <= begun) {
            copy.left.remove(&peer);
            if copy.left.is_empty() {
                self.partitions.remove(&partition);
            }
        }
    }

    /// A peer holds nothing.
    pub fn handle_empty(&mut self, peer: Endpoint) {
        self.forgo(|_, left| left == peer);
    }

    /// Time has passed, or somebody can no longer be reached; who is `down` is not waited for any longer than that.
    pub fn handle_timeout(&mut self, now: Instant, down: impl Fn(Endpoint) -> bool) {
        let wait = self.wait;
        self.looked = now;
        self.forgo(|since, left| since + wait <= now && down(left));
    }

    fn forgo(&mut self, whom: impl Fn(Instant, Endpoint) -> bool) {
        for copy in self.partitions.values_mut() {
            let since = copy.since;
            copy.left.retain(|&left| !whom(since, left));
        }
        self.settle();
    }

    fn settle(&mut self) {
        self.partitions.retain(|_, copy| !copy.left.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use quorate_net::{
        id::{CoreId, NodeId},
        message::MappedNode,
    };

    use super::*;
    use crate::ring::Member;

    fn endpoint(node: u16) -> Endpoint {
        Endpoint::new(NodeId(node), CoreId(0))
    }

    fn ring(nodes: u16) -> Ring {
        let member = |id: u16| {
            let node = MappedNode { id: NodeId(id), address: format!("127.0.0.{id}"), cores: 1, port: 1, core_port: 2 };
            Member { node, rack: id.to_string(), weight: 1.0 }
        };
        Ring::new(64, 3, (1..=nodes).map(member).collect()).unwrap()
    }

    const WAIT: Duration = Duration::from_secs(10);

    fn at(second: u64) -> Instant {
        Instant(0) + Duration::from_secs(second)
    }

    fn with_one() -> (Unhealed, Ring) {
        let (ring, mut unhealed) = (ring(3), Unhealed::new(endpoint(1), WAIT));
        unhealed.add(at(5), &ring, 7);
        assert!(unhealed.contains(7) && !unhealed.contains(8));
        (unhealed, ring)
    }

    #[test]
    fn every_other_owner_has_to_be_compared_since() {
        let (mut unhealed, _) = with_one();
        unhealed.handle_compared(endpoint(2), 7, at(5));
        unhealed.handle_compared(endpoint(3), 7, at(4));
        unhealed.handle_compared(endpoint(3), 8, at(6));
        assert!(unhealed.contains(7), "that was begun before, or is about another partition");
        unhealed.handle_compared(endpoint(3), 7, at(6));
        assert!(!unhealed.contains(7));
    }

    #[test]
    fn nobody_waits_for_who_is_empty_or_long_away() {
        let (mut unhealed, _) = with_one();
        unhealed.handle_empty(endpoint(2));
        unhealed.handle_timeout(at(14), |peer| peer == endpoint(3));
        assert!(unhealed.contains(7), "it may come back yet");
        unhealed.handle_timeout(at(15), |peer| peer == endpoint(2));
        assert!(unhealed.contains(7), "that one is there");
        unhealed.handle_timeout(at(15), |peer| peer == endpoint(3));
        assert!(!unhealed.contains(7));
    }

    #[test]
    fn what_is_gained_has_to_be_compared() {
        let (ring, mut unhealed) = (ring(4), Unhealed::new(endpoint(1), WAIT));
        let owned: Vec<u16> = (0..64).filter(|&p| ring.primaries(p).contains(&endpoint(1))).collect();
        unhealed.handle_ring(at(0), &ring, |partition| partition != owned[3]);
        assert_eq!(unhealed.partitions().collect::<Vec<_>>(), [owned[3]]);
        // Who owns it no longer has nothing to heal.
        let alone = Ring::new(64, 3, ring.members()[1..].to_vec()).unwrap();
        unhealed.handle_ring(at(1), &alone, |_| true);
        assert_eq!(unhealed.partitions().count(), 0);
    }
}
