//! What a commit would do: the next table, and what it costs.
//!
//! The rule: a plan follows from the state alone, so every node shows the same one; its id tells it from every other, and
//! a commit names it.
//!
//! Not here: how a table follows from another (`ring/table`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use quorate_net::{
    id::NodeId,
    message::gossip::{NodeEntry, Status},
};
use xxhash_rust::xxh3::Xxh3;

use super::ClusterState;
use crate::ring::{Member, Move, RingError, Table};

/// What a commit would do.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    /// What a commit must name.
    pub id: u64,
    /// The term of the ring that it starts from.
    pub term: u64,
    /// The table that would be in force in the end.
    pub next: Table,
    /// The copies that would be made, by partition.
    pub moves: Vec<Move>,
    /// What it means for each node, by id.
    pub nodes: Vec<PlannedNode>,
    /// The mean over the largest of the members' copies by weight: 1 is perfect.
    pub balance_before: f64,
    /// The same in the end.
    pub balance_after: f64,
    /// Partitions all of whose nodes are gone for good: what nobody else has of them is lost.
    pub without_source: Vec<u16>,
}

/// What a plan means for one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlannedNode {
    /// The node.
    pub id: NodeId,
    /// How it belongs now; nothing if it does not.
    pub status: Option<Status>,
    /// Its copies now.
    pub before: usize,
    /// Its copies in the end.
    pub after: usize,
    /// Copies that it would get.
    pub gains: usize,
    /// Copies that it would give away.
    pub loses: usize,
}

/// Why there is no plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlanError {
    /// This node does not know a ring yet.
    NoRing,
    /// A change is committed and not finished.
    UnderWay,
    /// No node asked to join, leaves or is to be removed, and all have their share.
    NothingStaged,
    /// The nodes that would be left make no ring.
    Ring(RingError),
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRing => {
                "this node does not know the cluster's ring yet; nothing was changed: ask a member, or wait until the \
                 gossip has reached this node"
            }
            Self::UnderWay => {
                "a change of the ring is under way; nothing was changed: wait until it is finished, or abort it first"
            }
            Self::NothingStaged => {
                "there is nothing to plan, nothing was changed: stage a join, leave, remove or replace first"
            }
            Self::Ring(RingError::NoMembers) => {
                "no node with a weight would be left; nothing was changed: let another node join first, or let one stay"
            }
            Self::Ring(_) => "the nodes that would be left make no ring; nothing was changed: look at their weights",
        })
    }
}

impl std::error::Error for PlanError {}

impl ClusterState {
    /// What a commit would do now.
    ///
    /// # Errors
    ///
    /// When there is nothing to do, or it cannot be done.
    pub fn plan(&self) -> Result<Plan, PlanError> {
        let table = self.ring.table().ok_or(PlanError::NoRing)?;
        if self.ring.change().is_some() {
            return Err(PlanError::UnderWay);
        }
        let members = self.members_to_be();
        let next = self.next_table(table, &members)?;
        let moves = table.moves(&next);
        let before: Vec<Member> = self.members_of(|node| node.status != Status::Joining);
        let gone = |node: &NodeId| self.named(*node).is_none_or(|entry| entry.status == Status::Removing);
        let without_source = (0..table.partitions()).filter(|p| table.row(*p).iter().all(gone)).collect();
        Ok(Plan {
            id: self.plan_id(table, &next),
            term: self.ring.term(),
            nodes: self.planned_nodes(table, &next, &moves),
            balance_before: table.balance(&before),
            balance_after: next.balance(&members),
            without_source,
            next,
            moves,
        })
    }

    /// Nodes that a commit would take in or let go.
    fn staged(&self) -> impl Iterator<Item = &NodeEntry> {
        self.nodes().filter(|node| node.status != Status::Member)
    }

    /// Who is to be part of the ring. A machine whose id the table still gives to another one has to wait.
    fn members_to_be(&self) -> Vec<Member> {
        self.members_of(|node| {
            matches!(node.status, Status::Joining | Status::Member)
                && self.ring.machine(node.id).is_none_or(|machine| machine == node.identity)
        })
    }

    fn next_table(&self, table: &Table, members: &[Member]) -> Result<Table, PlanError> {
        let mut next = table.clone();
        let mut settled = BTreeSet::new();
        for new in self.staged().filter(|node| node.status == Status::Joining) {
            let Some(old) = new.replaces.and_then(|old| self.node(old)) else { continue };
            let leaves = matches!(old.status, Status::Leaving | Status::Removing);
            if leaves && next.has(old.id) && !next.has(new.id) && members.iter().any(|m| m.node.id == new.id) {
                next = next.replaced(old.id, new.id);
                settled.extend([old.id, new.id]);
            }
        }
        let staged = self.staged().any(|node| !settled.contains(&node.id));
        let suits = next.suits(members).map_err(PlanError::Ring)?;
        if settled.is_empty() && !staged && suits {
            return Err(PlanError::NothingStaged);
        }
        if staged || !suits {
            next = next.moved_to(members).map_err(PlanError::Ring)?;
        }
        Ok(next)
    }

    fn plan_id(&self, table: &Table, next: &Table) -> u64 {
        let mut hasher = Xxh3::new();
        for number in [self.ring.term(), table.hash(), next.hash()] {
            hasher.update(&number.to_le_bytes());
        }
        for node in self.staged() {
            hasher.update(&node.identity.0.to_le_bytes());
            hasher.update(&node.id.0.to_le_bytes());
            hasher.update(&[node.status as u8, u8::from(node.replaces.is_some())]);
            hasher.update(&node.replaces.map_or(0, |old| old.0).to_le_bytes());
        }
        hasher.digest()
    }

    fn planned_nodes(&self, table: &Table, next: &Table, moves: &[Move]) -> Vec<PlannedNode> {
        let (before, after) = (table.counts(), next.counts());
        let mut gains: BTreeMap<NodeId, usize> = BTreeMap::new();
        moves.iter().for_each(|of| *gains.entry(of.gains).or_default() += 1);
        let of = |counts: &BTreeMap<NodeId, usize>, node| counts.get(&node).copied().unwrap_or(0);
        let ids: BTreeSet<NodeId> =
            before.keys().chain(after.keys()).copied().chain(self.nodes().map(|node| node.id)).collect();
        let planned = |id: NodeId| {
            let (before, after, gains) = (of(&before, id), of(&after, id), of(&gains, id));
            let status = self.node(id).map(|node| node.status);
            PlannedNode { id, status, before, after, gains, loses: before + gains - after }
        };
        ids.into_iter().map(planned).collect()
    }
}
