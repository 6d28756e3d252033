//! Tables: for each partition the nodes that keep it, as something that is stored, sent and changed step by step.
//!
//! The rule: the places of a partition are distinct nodes, as many as there are members, up to N. A table follows from an
//! earlier one and the members alone, in whatever order they are given, so all nodes come to the same; and it follows
//! with as few copies moved as the members' shares and racks allow.
//!
//! Source: Dynamo 4.2 and 6.2. Pure. Not here: what a change of the table takes until it is in force
//! (`membership/state`), the fallbacks (`super`).

use std::collections::BTreeMap;

use quorate_net::{
    bounds::PARTITIONS_MAX,
    id::NodeId,
    message::gossip::{self, Places, REPLICAS_MAX},
};
use xxhash_rust::xxh3::xxh3_64;

use super::{Member, RingError, moving, placement};

/// For each partition the ordered list of its primaries. The first owns the partition's token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    places: Places,
}

/// One copy of a partition that a change makes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Move {
    /// The partition.
    pub partition: u16,
    /// Who gets it.
    pub gains: NodeId,
    /// Whose place that is; nobody's when there are more copies than before.
    pub loses: Option<NodeId>,
}

impl Table {
    /// The table of a cluster that begins.
    ///
    /// # Errors
    /// When there can be no such ring.
    pub fn founded(partitions: u16, replicas: u8, members: &[Member]) -> Result<Self, RingError> {
        if !partitions.is_power_of_two() || !(64..=PARTITIONS_MAX).contains(&usize::from(partitions)) {
            return Err(RingError::Partitions(partitions));
        }
        if !(1..=REPLICAS_MAX).contains(&replicas) {
            return Err(RingError::Replicas(replicas));
        }
        let members = checked(members)?;
        let rows = placement::rows(partitions, replicas, &members);
        Ok(Self::of(partitions, replicas, &members, &rows))
    }

    /// The table of other members: some added, some gone, some of another weight or rack.
    ///
    /// Each member ends with its share of the copies, within one; every copy that moves is one that somebody had to gain,
    /// unless racks or heavy nodes ask for more. A partition keeps the order of its places where it can.
    ///
    /// # Errors
    /// When there can be no such ring.
    pub fn moved_to(&self, members: &[Member]) -> Result<Self, RingError> {
        let members = checked(members)?;
        let positions = positions(&members);
        let place = |node: &NodeId| positions.get(node).copied();
        let kept: Vec<Vec<usize>> = self.rows().map(|row| row.iter().filter_map(place).collect()).collect();
        let moved = moving::moved(&kept, self.copies(), self.replicas(), &members);
        Ok(moved.map_or_else(|| self.clone(), |rows| Self::of(self.partitions(), self.replicas(), &members, &rows)))
    }

    /// The table in which `new` has exactly the places of `old`.
    ///
    /// # Panics
    /// When `new` has places already.
    #[must_use]
    pub fn replaced(&self, old: NodeId, new: NodeId) -> Self {
        assert!(old == new || !self.has(new), "node {new} has places of its own");
        let mut table = self.clone();
        table.places.nodes.iter_mut().filter(|node| **node == old).for_each(|node| *node = new);
        table
    }

    /// Whether the table does what these members may expect of one: only they have places, on as many racks as there
    /// can be, and nobody is further from its share than by a tenth.
    ///
    /// # Errors
    /// When there can be no ring of these members.
    pub fn suits(&self, members: &[Member]) -> Result<bool, RingError> {
        let members = checked(members)?;
        let positions = positions(&members);
        let rows: Option<Vec<Vec<usize>>> =
            self.rows().map(|row| row.iter().map(|node| positions.get(node).copied()).collect()).collect();
        Ok(rows.is_some_and(|rows| moving::suits(&rows, self.replicas(), &members)))
    }

    fn of(partitions: u16, replicas: u8, members: &[Member], rows: &[Vec<usize>]) -> Self {
        let copies = rows[0].len() as u8;
        assert!(rows.iter().all(|row| row.len() == usize::from(copies)), "a partition has too few places");
        let nodes = rows.iter().flatten().map(|place| members[*place].node.id).collect();
        Self { places: Places { partitions, replicas, copies, nodes } }
    }

    /// Q.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.places.partitions
    }

    /// N.
    #[must_use]
    pub fn replicas(&self) -> u8 {
        self.places.replicas
    }

    /// How many places each partition has: N, or as many as there are members.
    #[must_use]
    pub fn copies(&self) -> u8 {
        self.places.copies
    }

    /// The places of a partition.
    #[must_use]
    pub fn row(&self, partition: u16) -> &[NodeId] {
        let copies = usize::from(self.copies());
        &self.places.nodes[usize::from(partition) * copies..][..copies]
    }

    /// The places of all partitions, in order.
    pub fn rows(&self) -> impl Iterator<Item = &[NodeId]> {
        self.places.nodes.chunks_exact(self.copies().into())
    }

    /// The nodes that have a place, by id.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        self.places.distinct()
    }

    /// Whether a node has a place.
    #[must_use]
    pub fn has(&self, node: NodeId) -> bool {
        self.places.nodes.contains(&node)
    }

    /// How many places each node has that has any.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<NodeId, usize> {
        let mut counts = BTreeMap::new();
        self.places.nodes.iter().for_each(|node| *counts.entry(*node).or_default() += 1);
        counts
    }

    /// The copies that have to be made for `next` to be in force, by partition.
    ///
    /// # Panics
    /// When the tables differ in Q.
    #[must_use]
    pub fn moves(&self, next: &Self) -> Vec<Move> {
        assert_eq!(self.partitions(), next.partitions(), "Q never changes");
        let of = |partition| {
            let (before, after) = (self.row(partition), next.row(partition));
            let loses =
                before.iter().filter(|node| !after.contains(node)).copied().map(Some).chain([None].repeat(after.len()));
            let gains = after.iter().filter(|node| !before.contains(node));
            gains.zip(loses).map(move |(gains, loses)| Move { partition, gains: *gains, loses }).collect::<Vec<_>>()
        };
        (0..self.partitions()).flat_map(of).collect()
    }

    /// The mean over the largest of the members' copies by weight: 1 is perfect.
    #[must_use]
    pub fn balance(&self, members: &[Member]) -> f64 {
        let counts = self.counts();
        let owning = members.iter().filter(|member| member.weight > 0.0);
        let copies = |member: &Member| counts.get(&member.node.id).copied().unwrap_or(0) as f64;
        let (all, weights) = owning.clone().fold((0.0, 0.0), |sum, m| (sum.0 + copies(m), sum.1 + m.weight));
        let largest = owning.map(|member| copies(member) / member.weight).fold(0.0, f64::max);
        if largest > 0.0 { all / weights / largest } else { 1.0 }
    }

    /// The stable hash of all that the table says.
    #[must_use]
    pub fn hash(&self) -> u64 {
        xxh3_64(&self.pack())
    }

    /// Its form on the wire and on disk.
    #[must_use]
    pub fn pack(&self) -> Vec<u8> {
        gossip::pack(&self.places)
    }

    /// What [`Table::pack`] had packed; nothing if it cannot have.
    #[must_use]
    pub fn unpack(packed: &[u8]) -> Option<Self> {
        gossip::unpack(packed).map(|places| Self { places })
    }
}

fn positions(members: &[Member]) -> BTreeMap<NodeId, usize> {
    members.iter().enumerate().map(|(at, member)| (member.node.id, at)).collect()
}

/// The members by id.
fn checked(members: &[Member]) -> Result<Vec<Member>, RingError> {
    let mut members = members.to_vec();
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
    Ok(members)
}

#[cfg(test)]
mod tests;
