//! Changes of the state, one at a time: a node asks to join, a member is staged to go, what is staged is committed,
//! aborted or finished.
//!
//! The rule: a change is made whole or not at all; what is refused says what to do next. Only what a plan showed is
//! committed, only a change that all who gain by it have confirmed is finished.
//!
//! Not here: what wins when two sides made changes (`super`, `ring`).

use std::fmt;

use quorate_net::{
    bounds::NODES_MAX,
    id::{Endpoint, NodeId},
    message::gossip::{ENTRIES_MAX, NodeEntry, Status, TERM_MAX, VERSION_MAX},
};

use super::{ClusterState, Description, PlanError, Refusal, RingState, Standing, entry, word};
use crate::ring::Table;

/// A change of the state. Made on one node, it reaches the others by gossip.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A machine asks to join; one that is known already has moved, or changed its cores, rack or weight.
    Join(Description),
    /// A member shall hand its share over.
    Leave(NodeId),
    /// A member that was to leave or to be removed stays after all.
    Stay(NodeId),
    /// A member is gone for good: nobody waits for it any more. One that only asked to join is refused from now on.
    Remove(NodeId),
    /// A node that asked to join shall take the places of another one, which is to go.
    Replace {
        /// Whose places.
        old: NodeId,
        /// Who takes them.
        new: NodeId,
    },
    /// Does what the plan of this id showed.
    Commit {
        /// The plan's id.
        plan: u64,
    },
    /// Gives up the change that is under way; what was staged stays so.
    Abort,
    /// Nothing more is transferred until it is resumed.
    Pause,
    /// The transfer goes on.
    Resume,
    /// This core has all that it gains by the change that is under way, or has given away what it has to.
    Confirm(Endpoint),
    /// The next table is in force; who joined is a member, who was to go is removed.
    Finish,
}

/// Why a change was not made. The state is as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeError {
    /// The machine was removed, or its node id belongs to another one.
    Refused(Refusal),
    /// The machine is known by another node id.
    OtherId(NodeId),
    /// No node has this id.
    Unknown(NodeId),
    /// The node is not in the state that the change starts from.
    Status(NodeId, Status),
    /// There are as many nodes as there may be, or as many were removed as can be remembered.
    TooMany,
    /// The entry was changed more often than can be counted.
    Versions(NodeId),
    /// Another node is to take the places of this one already.
    Replaced(NodeId, NodeId),
    /// The change that is under way concerns the node.
    Concerned(NodeId),
    /// There is no plan.
    Plan(PlanError),
    /// The plan that was shown is not the one that there is now.
    Stale {
        /// The one that there is.
        now: u64,
    },
    /// No change of the ring is under way.
    NoChange,
    /// It is paused already, or not paused.
    Paused(bool),
    /// The core gains nothing by the change.
    GainsNothing(Endpoint),
    /// So many cores have not confirmed yet that they have all that they gain, this one among them.
    Unconfirmed(usize, Endpoint),
    /// The next table names a node that does not belong any more.
    Gone(NodeId),
    /// The ring was changed more often than can be counted.
    Terms,
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => write!(f, "{refusal}"),
            Self::OtherId(id) => {
                write!(f, "this machine is node {id} already; nothing was changed: start it with that id")
            }
            Self::Unknown(id) => {
                write!(
                    f,
                    "the cluster has no node {id}; nothing was changed: the status lists the nodes that there are"
                )
            }
            Self::Status(id, status) => {
                write!(f, "node {id} is {}; nothing was changed{}", word(*status), advice(*status))
            }
            Self::TooMany => write!(
                f,
                "a cluster has at most {NODES_MAX} nodes, and remembers at most {ENTRIES_MAX} with those that were \
                 removed; nothing was changed: begin a new cluster for more"
            ),
            Self::Versions(id) => write!(
                f,
                "node {id} was changed more often than can be counted; nothing was changed: remove it, empty its data \
                 directory and let it join as a new node"
            ),
            Self::Replaced(old, by) => write!(
                f,
                "node {by} is to take the places of node {old} already; nothing was changed: remove node {by}, or let \
                 node {old} stay, then stage it again"
            ),
            Self::Concerned(id) => write!(
                f,
                "the change of the ring that is under way concerns node {id}; nothing was changed: abort it, or wait \
                 until it is finished"
            ),
            Self::Plan(error) => write!(f, "{error}"),
            Self::Stale { now } => write!(
                f,
                "this is not the plan any more, nothing was changed: look at the plan that there is now ({now:016x}) and \
                 commit that"
            ),
            Self::NoChange => {
                f.write_str("no change of the ring is under way; nothing was changed: commit a plan first")
            }
            Self::Paused(true) => f.write_str("the change of the ring is paused; nothing was changed: resume it first"),
            Self::Paused(false) => {
                f.write_str("the change of the ring is not paused; nothing was changed: pause it first")
            }
            Self::GainsNothing(core) => write!(
                f,
                "core {core} gains nothing by the change that is under way; nothing was changed: there is nothing to \
                 confirm"
            ),
            Self::Unconfirmed(count, first) => write!(
                f,
                "{count} cores do not have all that they gain yet, core {first} among them; nothing was changed: wait for \
                 them, or abort the change"
            ),
            Self::Gone(id) => write!(
                f,
                "node {id} was to gain by the change of the ring and does not belong any more; nothing was changed: abort \
                 it, then plan again"
            ),
            Self::Terms => f.write_str(
                "the ring was changed more often than can be counted; nothing was changed: begin a new cluster",
            ),
        }
    }
}

impl std::error::Error for ChangeError {}

/// What can be done with a node that stands so, if not what was asked.
fn advice(status: Status) -> &'static str {
    match status {
        Status::Joining => ": commit a plan to make it a member, or remove it",
        Status::Member => ": it can leave, be removed or be replaced",
        Status::Leaving => ": commit a plan to let it go, let it stay, or remove it if it is dead",
        Status::Removing => ": commit a plan to let it go, or let it stay",
        Status::Removed => ": let the machine join as a new node",
    }
}

impl ClusterState {
    /// Makes a change here, one version or term after what is known.
    ///
    /// # Errors
    ///
    /// When the change does not fit what is known; the state is then as it was.
    pub fn change(&mut self, change: Change) -> Result<(), ChangeError> {
        match change {
            Change::Join(description) => self.put(vec![self.joined(description)?]),
            Change::Leave(id) => self.put(vec![self.moved(id, &[Status::Member], Status::Leaving)?]),
            Change::Stay(id) => self.put(self.stayed(id)?),
            Change::Remove(id) => self.put(vec![self.removed(id)?]),
            Change::Replace { old, new } => self.put(self.replaced(old, new)?),
            Change::Commit { plan } => {
                let now = self.plan().map_err(ChangeError::Plan)?;
                if now.id != plan {
                    return Err(ChangeError::Stale { now: now.id });
                }
                let table = self.ring.table().expect("there is a plan").clone();
                self.ring = self.ring_after(1, table, Some(now.next))?;
            }
            Change::Abort => {
                self.under_way()?;
                let table = self.ring.table().expect("a change has a table").clone();
                self.ring = self.ring_after(1, table, None)?;
            }
            Change::Pause => self.pause(true)?,
            Change::Resume => self.pause(false)?,
            Change::Confirm(endpoint) => {
                self.under_way()?;
                if !self.is_mover(endpoint) {
                    return Err(ChangeError::GainsNothing(endpoint));
                }
                self.ring.change_mut().expect("under way").confirmed.insert(endpoint);
            }
            Change::Finish => self.finish()?,
        }
        self.follow();
        Ok(())
    }

    fn put(&mut self, entries: Vec<NodeEntry>) {
        self.entries.extend(entries.into_iter().map(|entry| (entry.identity, entry)));
    }

    fn joined(&self, description: Description) -> Result<NodeEntry, ChangeError> {
        let (identity, id) = (description.identity, description.id);
        if let Standing::Refused(refusal) = self.standing(identity, id) {
            return Err(ChangeError::Refused(refusal));
        }
        let Some(known) = self.entries.get(&identity) else {
            if self.holders.len() >= NODES_MAX || self.entries.len() >= ENTRIES_MAX {
                return Err(ChangeError::TooMany);
            }
            return Ok(entry(description, Status::Joining, 1, 0));
        };
        if known.id != id {
            return Err(ChangeError::OtherId(known.id));
        }
        let mut now = entry(description, known.status, known.version, known.admitted);
        now.replaces = known.replaces;
        if now != *known {
            now.version = next_version(known)?;
        }
        Ok(now)
    }

    fn moved(&self, id: NodeId, from: &[Status], to: Status) -> Result<NodeEntry, ChangeError> {
        let entry = self.node(id).ok_or(ChangeError::Unknown(id))?;
        if !from.contains(&entry.status) {
            return Err(ChangeError::Status(id, entry.status));
        }
        Ok(NodeEntry { status: to, version: next_version(entry)?, ..entry.clone() })
    }

    fn stayed(&self, id: NodeId) -> Result<Vec<NodeEntry>, ChangeError> {
        let mut entries = vec![self.moved(id, &[Status::Leaving, Status::Removing], Status::Member)?];
        if self.ring.change().is_some_and(|change| !change.next.has(id)) {
            return Err(ChangeError::Concerned(id));
        }
        for other in self.nodes().filter(|other| other.replaces == Some(id)) {
            entries.push(NodeEntry { replaces: None, version: next_version(other)?, ..other.clone() });
        }
        Ok(entries)
    }

    fn removed(&self, id: NodeId) -> Result<NodeEntry, ChangeError> {
        let entry = self.node(id).ok_or(ChangeError::Unknown(id))?;
        match entry.status {
            Status::Joining if self.ring.machine(id).is_some() => Err(ChangeError::Concerned(id)),
            Status::Joining => Ok(removed(entry)),
            _ => self.moved(id, &[Status::Member, Status::Leaving], Status::Removing),
        }
    }

    fn replaced(&self, old: NodeId, new: NodeId) -> Result<Vec<NodeEntry>, ChangeError> {
        let joining = self.moved(new, &[Status::Joining], Status::Joining)?;
        let going = self.node(old).ok_or(ChangeError::Unknown(old))?;
        if going.status == Status::Joining {
            return Err(ChangeError::Status(old, going.status));
        }
        if let Some(concerned) =
            [old, new].into_iter().find(|id| self.ring.change().is_some() && self.ring.machine(*id).is_some())
        {
            return Err(ChangeError::Concerned(concerned));
        }
        if let Some(other) = self.nodes().find(|other| other.id != new && other.replaces == Some(old)) {
            return Err(ChangeError::Replaced(old, other.id));
        }
        let mut entries = vec![NodeEntry { replaces: Some(old), ..joining }];
        if going.status == Status::Member {
            entries.push(self.moved(old, &[Status::Member], Status::Leaving)?);
        }
        Ok(entries)
    }

    fn under_way(&self) -> Result<&super::RingChange, ChangeError> {
        self.ring.change().ok_or(ChangeError::NoChange)
    }

    fn pause(&mut self, paused: bool) -> Result<(), ChangeError> {
        let change = self.under_way()?;
        if change.is_paused() == paused {
            return Err(ChangeError::Paused(paused));
        }
        if change.pauses >= TERM_MAX {
            return Err(ChangeError::Terms);
        }
        self.ring.change_mut().expect("under way").pauses += 1;
        Ok(())
    }

    /// The ring of a later term; the machines of its nodes are those that the ring named, else those that have the ids.
    fn ring_after(&self, terms: u64, table: Table, next: Option<Table>) -> Result<RingState, ChangeError> {
        let term = self.ring.term() + terms;
        if term > TERM_MAX {
            return Err(ChangeError::Terms);
        }
        let machines = self.nodes().map(|node| (node.id, node.identity)).chain(self.ring.machines());
        Ok(RingState::new(term, table, next, machines))
    }

    fn finish(&mut self) -> Result<(), ChangeError> {
        let change = self.under_way()?;
        if change.is_paused() {
            return Err(ChangeError::Paused(true));
        }
        let next = change.next.clone();
        if let Some(gone) = next.nodes().into_iter().find(|node| self.named(*node).is_none()) {
            return Err(ChangeError::Gone(gone));
        }
        let unconfirmed = self.unconfirmed();
        if let Some(first) = unconfirmed.first() {
            return Err(ChangeError::Unconfirmed(unconfirmed.len(), *first));
        }
        let admitted = self.digest.epoch + 1;
        let mut entries = Vec::new();
        for node in self.nodes() {
            let places = next.has(node.id);
            match node.status {
                // One of no weight has no places, and is a member all the same.
                Status::Joining if places || node.weight_thousandths == 0 => {
                    let version = next_version(node)?;
                    entries.push(NodeEntry {
                        status: Status::Member,
                        version,
                        admitted,
                        replaces: None,
                        ..node.clone()
                    });
                }
                Status::Leaving | Status::Removing if !places => entries.push(removed(node)),
                _ => {}
            }
        }
        // Two terms: what is finished cannot be taken back, so it counts for more than an abort at the same time.
        self.ring = self.ring_after(2, next, None)?;
        self.put(entries);
        Ok(())
    }
}

/// What belongs no more, for ever. Always possible.
fn removed(entry: &NodeEntry) -> NodeEntry {
    let version = (entry.version + 1).min(VERSION_MAX);
    NodeEntry { status: Status::Removed, version, replaces: None, ..entry.clone() }
}

fn next_version(entry: &NodeEntry) -> Result<u64, ChangeError> {
    if entry.version < VERSION_MAX { Ok(entry.version + 1) } else { Err(ChangeError::Versions(entry.id)) }
}
