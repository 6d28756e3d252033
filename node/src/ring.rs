//! The ring: Q equal partitions, and for each the nodes that keep it, in order.
//!
//! The rule: who keeps what is a [`Table`], which all nodes have from each other; all that know the same table and the same
//! members compute the same ring. A partition's primaries are N distinct nodes (all of them when there are fewer), on
//! distinct racks as far as there are. While the table changes, its primaries stay, and the ring names those besides who
//! are to follow them.
//!
//! Source: Dynamo sections 4.2, 4.3 and strategy 3 of 6.2. Pure. Not here: how a cluster's first table comes about
//! (`placement`), how one follows from another (`table`), when it does (`membership/state`).

mod moving;
mod order;
mod placement;
pub mod table;

use ahash::AHashMap;
use quorate_net::{
    id::{CoreId, Endpoint, NodeId},
    message::{ClusterMap, MappedNode},
    slot,
};

pub use self::table::{Move, Table};

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
    preference: Vec<Preference>,
    /// For each partition its primaries in the table that is to follow, if there is one.
    next: Option<Vec<Vec<Endpoint>>>,
}

/// The preference list of a partition.
#[derive(Clone, Debug, Default)]
struct Preference {
    endpoints: Vec<Endpoint>,
    /// So many of the first are primaries.
    primaries: usize,
}

/// Why there is no such ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RingError {
    /// Q must be a power of two from 64 to 16384.
    Partitions(u16),
    /// N must be from 1 to 7.
    Replicas(u8),
    /// There must be a member, with a weight above 0.
    NoMembers,
    /// Two members have one id.
    Twice(NodeId),
    /// A weight is negative or not a number.
    Weight(NodeId),
}

impl Ring {
    /// The ring of a cluster that begins with these members, in whatever order they are given.
    ///
    /// # Errors
    /// When there can be no such ring.
    pub fn new(partitions: u16, replicas: u8, members: Vec<Member>) -> Result<Self, RingError> {
        Ok(Self::of(&Table::founded(partitions, replicas, &members)?, None, members))
    }

    /// The ring of a table and of the one that is to follow it.
    ///
    /// All members are in each preference list, but nobody else: a place of a node that is no member stays empty.
    ///
    /// # Panics
    /// When two members have one id.
    #[must_use]
    pub fn of(table: &Table, next: Option<&Table>, mut members: Vec<Member>) -> Self {
        members.sort_by_key(|member| member.node.id);
        assert!(members.windows(2).all(|pair| pair[0].node.id < pair[1].node.id), "a node id twice");
        let nodes = Nodes::new(table, &members);
        let preference = (0..table.partitions()).map(|partition| nodes.preference(partition)).collect();
        let row = |(partition, row): (u16, &[NodeId])| nodes.endpoints(partition, &nodes.places(row));
        let next = next.map(|next| (0..).zip(next.rows()).map(row).collect());
        Self { replicas: table.replicas(), members, preference, next }
    }

    /// The same, with all who take writes of a partition as its primaries.
    #[must_use]
    pub fn with_all_keepers(&self) -> Self {
        let keepers = |partition| {
            let endpoints: Vec<Endpoint> = self.keepers(partition).collect();
            Preference { primaries: endpoints.len(), endpoints }
        };
        let preference = (0..self.partitions()).map(keepers).collect();
        Self { replicas: self.replicas, members: self.members.clone(), preference, next: None }
    }

    /// Nobody keeps anything: what a node goes by that nobody has told of a ring.
    #[must_use]
    pub fn empty(partitions: u16, replicas: u8) -> Self {
        let preference = (0..partitions).map(|_| Preference::default()).collect();
        Self { replicas, members: Vec::new(), preference, next: None }
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
        &self.preference[usize::from(partition)].endpoints
    }

    /// Those of the preference list that keep the partition: as a rule N, or as many as there are members.
    #[must_use]
    pub fn primaries(&self, partition: u16) -> &[Endpoint] {
        let Preference { endpoints, primaries } = &self.preference[usize::from(partition)];
        &endpoints[..*primaries]
    }

    /// What comes after the primaries.
    #[must_use]
    pub fn fallbacks(&self, partition: u16) -> &[Endpoint] {
        let Preference { endpoints, primaries } = &self.preference[usize::from(partition)];
        &endpoints[*primaries..]
    }

    /// Whether a change of the table is under way.
    #[must_use]
    pub fn is_changing(&self) -> bool {
        self.next.is_some()
    }

    /// The primaries in the table that is to follow; the same as now when none is.
    #[must_use]
    pub fn next_primaries(&self, partition: u16) -> &[Endpoint] {
        self.next.as_ref().map_or_else(|| self.primaries(partition), |next| &next[usize::from(partition)])
    }

    /// Who is to keep the partition and does not yet. Writes go there, too.
    pub fn gaining(&self, partition: u16) -> impl Iterator<Item = Endpoint> + '_ {
        let now = self.primaries(partition);
        self.next_primaries(partition).iter().filter(|endpoint| !now.contains(endpoint)).copied()
    }

    /// All who take writes of the partition: those who are to keep it first, then the primaries.
    pub fn keepers(&self, partition: u16) -> impl Iterator<Item = Endpoint> + '_ {
        self.gaining(partition).chain(self.primaries(partition).iter().copied())
    }

    /// Who keeps the partition and is not to keep it any more.
    pub fn losing(&self, partition: u16) -> impl Iterator<Item = Endpoint> {
        let next = self.next_primaries(partition);
        self.primaries(partition).iter().filter(|endpoint| !next.contains(endpoint)).copied()
    }

    /// What clients need to route by themselves.
    #[must_use]
    pub fn cluster_map(&self) -> ClusterMap {
        let positions: AHashMap<NodeId, u16> = (0..).zip(&self.members).map(|(at, m)| (m.node.id, at)).collect();
        let indexes = |list: &Preference| list.endpoints.iter().map(|endpoint| positions[&endpoint.node]).collect();
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

/// What preference lists are made of: members, as positions in their list.
struct Nodes<'a> {
    members: &'a [Member],
    positions: AHashMap<NodeId, usize>,
    racks: Vec<usize>,
    table: &'a Table,
    /// The owner of each token, where it is a member with a weight.
    tokens: Vec<Option<usize>>,
    /// How many different ones these are.
    owning: usize,
}

impl<'a> Nodes<'a> {
    fn new(table: &'a Table, members: &'a [Member]) -> Self {
        let positions: AHashMap<NodeId, usize> = members.iter().enumerate().map(|(at, m)| (m.node.id, at)).collect();
        let owner = |row: &[NodeId]| positions.get(&row[0]).copied().filter(|at| members[*at].weight > 0.0);
        let tokens: Vec<Option<usize>> = table.rows().map(owner).collect();
        let owning = (0..members.len()).filter(|at| tokens.contains(&Some(*at))).count();
        Self { members, positions, racks: rack_numbers(members), table, tokens, owning }
    }

    fn places(&self, row: &[NodeId]) -> Vec<usize> {
        row.iter().filter_map(|node| self.positions.get(node)).copied().collect()
    }

    fn endpoints(&self, partition: u16, places: &[usize]) -> Vec<Endpoint> {
        let nodes = places.iter().map(|place| &self.members[*place].node);
        nodes.map(|node| Endpoint::new(node.id, core_of(partition, node.cores))).collect()
    }

    /// The primaries, then all others in the order in which the walk along the tokens meets them, so that the partitions
    /// of one dead node fall back to many. New racks come first, a member without weight comes last.
    fn preference(&self, partition: u16) -> Preference {
        let mut list = self.places(self.table.row(partition));
        let primaries = list.len();
        let mut racks = vec![false; self.members.len()];
        list.iter().for_each(|place| racks[self.racks[*place]] = true);
        let mut same_rack = Vec::new();
        for node in
            self.walk(partition).into_iter().filter(|node| !list[..primaries].contains(node)).collect::<Vec<_>>()
        {
            let new_rack = self.members[node].weight > 0.0 && !std::mem::replace(&mut racks[self.racks[node]], true);
            if new_rack { list.push(node) } else { same_rack.push(node) }
        }
        list.extend(same_rack);
        Preference { endpoints: self.endpoints(partition, &list), primaries }
    }

    /// All members in the order in which they are met from a partition on; then those that own no token, by weight or none.
    fn walk(&self, partition: u16) -> Vec<usize> {
        let from = usize::from(partition);
        let mut met = Vec::with_capacity(self.members.len());
        let mut seen = vec![false; self.members.len()];
        for node in self.tokens[from..].iter().chain(&self.tokens[..from]).flatten() {
            if met.len() == self.owning {
                break;
            }
            if !std::mem::replace(&mut seen[*node], true) {
                met.push(*node);
            }
        }
        let unmet = |owning| (0..self.members.len()).filter(move |node| (self.members[*node].weight > 0.0) == owning);
        let rest: Vec<usize> = unmet(true).chain(unmet(false)).filter(|node| !seen[*node]).collect();
        met.extend(rest);
        met
    }
}

#[cfg(test)]
mod tests;
