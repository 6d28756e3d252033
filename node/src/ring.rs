//! The ring: Q equal partitions, and for each the nodes that keep it, in order.
//!
//! The rule: all nodes that know the same members compute the same ring; a partition's primaries are N distinct nodes
//! (all of them when there are fewer), on distinct racks as far as there are; each block of S consecutive partitions
//! is a permutation of the S nodes when weights are equal.
//!
//! Source: Dynamo sections 4.2, 4.3 and strategy 3 of 6.2. Pure. Not here: which node gets which token (`placement`), how
//! members come and go.

mod placement;

use ahash::AHashMap;
use quorate_net::{
    id::{CoreId, Endpoint, NodeId},
    message::{ClusterMap, MappedNode},
    slot::{self, SLOTS},
};

/// A node that the ring is made of.
#[derive(Clone, PartialEq, Debug)]
pub struct Member {
    /// As clients must know it: id, address, cores and ports.
    pub node: MappedNode,
    /// Nodes of one rack fail together. Empty: a rack like any other name.
    pub rack: String,
    /// How many partitions it takes, relative to the others. 0 owns none, and is the last of the fallbacks.
    pub weight: f64,
}

/// Who keeps what.
#[derive(Clone, Debug)]
pub struct Ring {
    replicas: u8,
    members: Vec<Member>,
    /// For each partition the preference list: primaries, then fallbacks.
    preference: Vec<Vec<Endpoint>>,
}

/// Why there is no such ring.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RingError {
    /// Q must be a power of two from 64 to 16384.
    Partitions(u16),
    /// There must be a member, with a weight above 0.
    NoMembers,
    /// Two members have one id.
    Twice(NodeId),
    /// A weight is negative or not a number.
    Weight(NodeId),
}

impl Ring {
    /// The ring of these members, in whatever order they are given.
    ///
    /// # Errors
    /// When there can be no such ring.
    pub fn new(partitions: u16, replicas: u8, mut members: Vec<Member>) -> Result<Self, RingError> {
        if !partitions.is_power_of_two() || !(64..=SLOTS).contains(&partitions) {
            return Err(RingError::Partitions(partitions));
        }
        members.sort_by_key(|member| member.node.id);
        if let Some(pair) = members.windows(2).find(|pair| pair[0].node.id == pair[1].node.id) {
            return Err(RingError::Twice(pair[0].node.id));
        }
        if let Some(member) = members.iter().find(|member| !(member.weight >= 0.0 && member.weight.is_finite())) {
            return Err(RingError::Weight(member.node.id));
        }
        if members.iter().all(|member| member.weight == 0.0) {
            return Err(RingError::NoMembers);
        }
        let tokens = placement::tokens(partitions, replicas, &members);
        let racks = rack_numbers(&members);
        let walk = |partition| walk(partition, &tokens, replicas, &members, &racks);
        let preference = (0..partitions).map(walk).collect();
        Ok(Self { replicas, members, preference })
    }

    /// Q.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.preference.len() as u16
    }

    /// N.
    #[must_use]
    pub fn replicas(&self) -> u8 {
        self.replicas
    }

    /// The members, by id.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The partition of a key's name.
    #[must_use]
    pub fn partition(&self, name: &[u8]) -> u16 {
        self.partition_of_slot(slot::slot(name))
    }

    /// The partition that a slot belongs to.
    #[must_use]
    pub fn partition_of_slot(&self, slot: u16) -> u16 {
        slot::partition(slot, self.partitions())
    }

    /// The preference list: the primaries, then the fallbacks, each with the core that owns the partition there.
    #[must_use]
    pub fn preference(&self, partition: u16) -> &[Endpoint] {
        &self.preference[usize::from(partition)]
    }

    /// The first N distinct nodes of the preference list.
    #[must_use]
    pub fn primaries(&self, partition: u16) -> &[Endpoint] {
        let all = self.preference(partition);
        &all[..all.len().min(usize::from(self.replicas))]
    }

    /// What comes after the primaries.
    #[must_use]
    pub fn fallbacks(&self, partition: u16) -> &[Endpoint] {
        let all = self.preference(partition);
        &all[all.len().min(usize::from(self.replicas))..]
    }

    /// Whether another ring is to come.
    #[must_use]
    pub fn is_changing(&self) -> bool {
        false
    }

    /// The owners by the ring that is to come; by this one when none is.
    #[must_use]
    pub fn next_primaries(&self, partition: u16) -> &[Endpoint] {
        self.primaries(partition)
    }

    /// Those who own the partition only by the ring that is to come.
    pub fn gaining(&self, partition: u16) -> impl Iterator<Item = Endpoint> + '_ {
        let present = self.primaries(partition);
        self.next_primaries(partition).iter().copied().filter(move |endpoint| !present.contains(endpoint))
    }

    /// What clients need to route by themselves.
    #[must_use]
    pub fn cluster_map(&self) -> ClusterMap {
        let positions: AHashMap<NodeId, u16> = (0..).zip(&self.members).map(|(at, m)| (m.node.id, at)).collect();
        let indexes = |list: &Vec<Endpoint>| list.iter().map(|endpoint| positions[&endpoint.node]).collect();
        ClusterMap {
            replicas: self.replicas,
            nodes: self.members.iter().map(|member| member.node.clone()).collect(),
            preference: self.preference.iter().map(indexes).collect(),
            spread: (0..self.partitions()).map(spread).collect(),
        }
    }
}

/// The core that owns the partition on a node with `cores` cores: the same on every node, and evenly spread over any
/// regular choice of partitions.
#[must_use]
pub fn core_of(partition: u16, cores: u16) -> CoreId {
    ClusterMap::core(spread(partition), cores)
}

/// Multiples of the golden ratio, modulo 1, in 32 bits: a sequence of low discrepancy.
fn spread(partition: u16) -> u32 {
    u32::from(partition).wrapping_mul(0x9E37_79B9)
}

fn rack_numbers(members: &[Member]) -> Vec<usize> {
    let mut names: Vec<&str> = members.iter().map(|member| member.rack.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    members.iter().map(|m| names.binary_search(&m.rack.as_str()).expect("every rack was listed")).collect()
}

/// The preference list of a partition: the nodes in the order in which the walk from its token meets them, new racks
/// first until N are found; then the others, and the nodes that own no token.
fn walk(partition: u16, tokens: &[usize], replicas: u8, members: &[Member], racks: &[usize]) -> Vec<Endpoint> {
    let from = usize::from(partition);
    let mut met: Vec<usize> = Vec::with_capacity(members.len());
    let owning = members.iter().filter(|member| member.weight > 0.0).count();
    for &node in tokens[from..].iter().chain(&tokens[..from]) {
        if met.len() == owning {
            break;
        }
        if !met.contains(&node) {
            met.push(node);
        }
    }
    // A node of so little weight that it got no token is met after those that did.
    let unmet: Vec<usize> = (0..members.len()).filter(|node| !met.contains(node)).collect();
    met.extend(unmet.iter().filter(|&&node| members[node].weight > 0.0));
    met.extend(unmet.iter().filter(|&&node| members[node].weight == 0.0));
    let mut list: Vec<usize> = Vec::with_capacity(met.len());
    for &node in &met {
        let new_rack = !list.iter().any(|&before| racks[before] == racks[node]);
        if list.len() < usize::from(replicas) && new_rack && members[node].weight > 0.0 {
            list.push(node);
        }
    }
    let rest: Vec<usize> = met.into_iter().filter(|node| !list.contains(node)).collect();
    list.extend(rest);
    let endpoint = |node: usize| {
        let member = &members[node].node;
        Endpoint::new(member.id, core_of(partition, member.cores))
    };
    list.into_iter().map(endpoint).collect()
}

#[cfg(test)]
mod tests;
