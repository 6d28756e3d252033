//! Who belongs to the cluster and who keeps what, as it travels with the gossip.
//!
//! The rule: two states that differ, however they came to differ, reconcile into one: whoever takes in what, in whatever order
//! and how often, ends with the same. Of one machine's entry the higher version counts, of equal versions the greater
//! content; but what was removed stays removed, whatever its version. An entry is never forgotten. The epoch of a node
//! never falls. Of two rings one counts, whole ([`RingState`]).
//!
//! | change | from | to |
//! |---|---|---|
//! | join | nothing | joining |
//! | leave | member | leaving |
//! | remove | member, leaving | removing: nobody waits for it |
//! | remove | joining | removed |
//! | stay | leaving, removing | member |
//! | replace | joining, and a member | joining in its place, and leaving |
//! | commit | what is staged | a next table beside the one in force |
//! | abort | a next table | none; what was staged stays so |
//! | finish | a next table that all who gain have confirmed | in force; joining: member; leaving, removing: removed |
//!
//! # Two operators on the two sides of a split
//!
//! Both may commit, abort and finish, and one of the rings counts in the end. No data is dropped by it, because its owner
//! drops a partition only if all of this holds:
//!
//! - no change is under way, and the table in force does not name this node;
//! - every core of every node that is joining, a member or leaving has shown that it goes by these very tables
//!   (`Membership::all_know_ring`). Across a split none can, so neither side drops anything until both agree; a node that
//!   is removing does not count, since its operator said that it will never speak again;
//! - the table names no machine that does not belong (the same question says no as long as it does). Such a table comes
//!   about when one side removed a machine that the other side's ring still counts on: its places stay empty, a plan
//!   fills them (nobody waits for that machine while the change is under way that does);
//! - and the partition was compared with the primaries of that table, which have all that this node has. This the state
//!   cannot know: a write that one side acknowledged may lie on those alone whom only that side's ring named, when the
//!   other side's ring is the one that counts.
//!
//! What wins: a removal over everything. A finish counts two terms, so that an abort at the same time does not undo what
//! removed nodes for ever. Two machines let in under one node id: the one that the ring names which counts, else the one
//! that was admitted first; the other is refused, and keeps what it has. A confirmation counts for the tables that it was
//! made for and no others, since each commit has a term and tables of its own.
//!
//! Pure. Not here: how a state reaches the others (`membership`), how one table follows from another (`ring/table`), who
//! transfers what, the cluster's name: a peer with another is refused before it can say anything.

mod change;
mod disk;
mod plan;
mod ring;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use quorate_net::{
    id::{CoreId, Endpoint, NodeId},
    message::{
        MappedNode,
        gossip::{Digest, ENTRIES_MAX, NodeEntry, NodeIdentity, RingStamp, StateBody, Status},
    },
};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

pub use self::{
    change::{Change, ChangeError},
    disk::{STATE_BYTES_MAX, StateError},
    plan::{Plan, PlanError, PlannedNode},
    ring::{RingChange, RingState},
};
use crate::ring::{Member, Ring, RingError, Table, core_of};

/// What a node is, apart from how it belongs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    /// Which machine.
    pub identity: NodeIdentity,
    /// Its node id.
    pub id: NodeId,
    /// Where it listens.
    pub address: IpAddr,
    /// How many cores it runs.
    pub cores: u16,
    /// RESP and native clients, on whichever core accepts.
    pub port: u16,
    /// RESP and native clients of core i: this + i.
    pub core_port: u16,
    /// Other nodes, to core i: this + i.
    pub peer_port: u16,
    /// HTTP.
    pub http_port: u16,
    /// Nodes of one rack fail together.
    pub rack: String,
    /// Its share of the data beside the other nodes', in thousandths.
    pub weight_thousandths: u32,
}

/// Why a node's gossip is not listened to. Nothing of what it said was taken in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// This machine was removed from the cluster. It may come back only as a new one, with its disk emptied.
    Removed,
    /// Another machine has the same node id.
    IdTaken {
        /// The id.
        id: NodeId,
        /// The machine that keeps it.
        by: NodeIdentity,
        /// Where that is.
        address: IpAddr,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Removed => f.write_str(
                "this node was removed from the cluster, nothing was changed: to bring the machine back, empty its data \
                 directory, set `join = true` in [node] of its configuration and let it join as a new node",
            ),
            Self::IdTaken { id, by, address } => write!(
                f,
                "node id {id} belongs to the machine at {address} ({by}), nothing was changed: give this node an id of \
                 its own and an empty data directory, or remove the other one first"
            ),
        }
    }
}

/// The word for a status that people read.
#[must_use]
pub fn word(status: Status) -> &'static str {
    match status {
        Status::Joining => "joining",
        Status::Member => "a member",
        Status::Leaving => "leaving",
        Status::Removing => "about to be removed",
        Status::Removed => "removed",
    }
}

/// Why a state was not taken in. Nothing of it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReconcileError {
    /// Two states know more machines together than can be remembered.
    TooManyEntries,
    /// The rings differ in Q or N: they are of two clusters.
    OtherRing,
}

impl fmt::Display for ReconcileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyEntries => write!(
                f,
                "together there would be more than {ENTRIES_MAX} nodes with those that were removed; nothing was changed: \
                 begin a new cluster for more"
            ),
            Self::OtherRing => f.write_str(
                "the other ring has another number of partitions or replicas, nothing was changed: give the node the \
                 cluster's configuration",
            ),
        }
    }
}

impl std::error::Error for ReconcileError {}

/// How a machine stands that says something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It is the node that its id stands for.
    Belongs,
    /// Nobody told of it yet.
    Unknown,
    /// It does not belong, or not under this id.
    Refused(Refusal),
}

/// Who belongs to the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClusterState {
    entries: BTreeMap<NodeIdentity, NodeEntry>,
    /// Who keeps each id; follows from `entries`.
    holders: BTreeMap<NodeId, NodeIdentity>,
    ring: RingState,
    digest: Digest,
}

/// The identity of a node that a cluster's configuration names from the start: every node computes the same, so that
/// all begin with one state. One that joins later draws its own at random.
#[must_use]
pub fn founding_identity(cluster: &str, id: NodeId) -> NodeIdentity {
    let named = [cluster.as_bytes(), &[0], &id.0.to_le_bytes()].concat();
    NodeIdentity(xxh3_128(&named).max(1))
}

impl ClusterState {
    /// The state of a cluster of Q partitions and N replicas that begins with these members.
    ///
    /// # Errors
    ///
    /// When they make no ring.
    pub fn founded(partitions: u16, replicas: u8, members: Vec<Description>) -> Result<Self, RingError> {
        let entries: Vec<NodeEntry> = members.into_iter().map(|member| entry(member, Status::Member, 1, 1)).collect();
        let ids: BTreeSet<NodeId> = entries.iter().map(|entry| entry.id).collect();
        let table = Table::founded(partitions, replicas, &entries.iter().map(member).collect::<Vec<_>>())?;
        assert_eq!(ids.len(), entries.len(), "the table would have been refused");
        let ring = RingState::new(1, table, None, entries.iter().map(|entry| (entry.id, entry.identity)));
        let mut state = Self::default();
        state.reconcile(&entries, &ring).expect("a configuration lists far fewer nodes");
        Ok(state)
    }

    /// All entries, those of removed machines among them, by identity.
    #[must_use]
    pub fn entries(&self) -> Vec<NodeEntry> {
        self.entries.values().cloned().collect()
    }

    /// What tells whether two states are the same.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The nodes that belong, by id.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeEntry> {
        self.holders.values().map(|identity| &self.entries[identity])
    }

    /// The node that an id stands for.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&NodeEntry> {
        self.holders.get(&id).map(|identity| &self.entries[identity])
    }

    /// All cores of the nodes that belong, in order.
    pub fn endpoints(&self) -> impl Iterator<Item = Endpoint> {
        self.nodes().flat_map(|node| (0..node.cores).map(|core| Endpoint::new(node.id, CoreId(core))))
    }

    /// Whether somebody of these entries knows every machine that is known here, as one of this cluster does that knows more.
    /// Machines of another cluster have other identities, unless that one was founded under the same name.
    #[must_use]
    pub fn is_known_to(&self, entries: &[NodeEntry]) -> bool {
        let theirs: BTreeSet<NodeIdentity> = entries.iter().map(|entry| entry.identity).collect();
        self.entries.keys().all(|identity| theirs.contains(identity))
    }

    /// Whether a core belongs.
    #[must_use]
    pub fn has(&self, endpoint: Endpoint) -> bool {
        self.node(endpoint.node).is_some_and(|node| endpoint.core.0 < node.cores)
    }

    /// What a ring of the nodes of these statuses is made of.
    pub fn members(&self, counts: impl Fn(Status) -> bool) -> Vec<Member> {
        self.members_of(|node| counts(node.status))
    }

    fn members_of(&self, counts: impl Fn(&NodeEntry) -> bool) -> Vec<Member> {
        self.nodes().filter(|node| counts(node)).map(member).collect()
    }

    /// The state of the ring.
    #[must_use]
    pub fn ring_state(&self) -> &RingState {
        &self.ring
    }

    /// Which tables this node goes by.
    #[must_use]
    pub fn stamp(&self) -> RingStamp {
        self.ring.stamp()
    }

    /// The ring; none as long as no table is known. A node that asked to join is part of it once a table names it; a
    /// machine whose id the tables give to another one is not.
    #[must_use]
    pub fn ring(&self) -> Option<Ring> {
        let members = self.members_of(|node| match self.ring.machine(node.id) {
            Some(machine) => machine == node.identity,
            None => node.status != Status::Joining,
        });
        Some(Ring::of(self.ring.table()?, self.ring.change().map(|change| &change.next), members))
    }

    /// Whether a ring of these tables says of its nodes what is known of them: where they are, and what they are.
    #[must_use]
    pub fn is_current(&self, ring: &Ring) -> bool {
        ring.members().iter().all(|known| self.named(known.node.id).is_none_or(|node| member(node) == *known))
    }

    /// The node that the tables mean by an id, if it belongs.
    fn named(&self, id: NodeId) -> Option<&NodeEntry> {
        self.node(id).filter(|node| self.ring.machine(id) == Some(node.identity))
    }

    /// Whether all machines belong that the table names which is in force, or is to be when a change is under way: a change
    /// may go on that is just about to fill the places of one that is gone.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let last = self.ring.change().map(|change| &change.next).or(self.ring.table());
        last.is_none_or(|table| table.nodes().into_iter().all(|node| self.named(node).is_some()))
    }

    /// The cores that have something to do for the change that is under way, in order: those that get partitions, and those
    /// of nodes that leave, which have to give away the hints that they hold.
    fn movers(&self) -> BTreeSet<Endpoint> {
        let (Some(table), Some(change)) = (self.ring.table(), self.ring.change()) else { return BTreeSet::new() };
        let core = |of: crate::ring::Move| {
            let cores = self.named(of.gains).map_or(1, |node| node.cores);
            Endpoint::new(of.gains, core_of(of.partition, cores))
        };
        let leave = self.nodes().filter(|node| node.status == Status::Leaving);
        let leaving = leave.flat_map(|node| (0..node.cores).map(|core| Endpoint::new(node.id, CoreId(core))));
        table.moves(&change.next).into_iter().map(core).chain(leaving).collect()
    }

    /// Whether a core has something to do for the change that is under way.
    #[must_use]
    pub fn is_mover(&self, endpoint: Endpoint) -> bool {
        self.movers().contains(&endpoint)
    }

    /// The cores that have not done yet what they have to do for the change that is under way, in order.
    #[must_use]
    pub fn unconfirmed(&self) -> Vec<Endpoint> {
        let Some(change) = self.ring.change() else { return Vec::new() };
        self.movers().difference(&change.confirmed).copied().collect()
    }

    /// All that is known, as it travels and lies on disk.
    #[must_use]
    pub fn body(&self) -> StateBody {
        StateBody { entries: self.entries(), ring: self.ring.body() }
    }

    /// How the machine stands that calls itself node `id`.
    #[must_use]
    pub fn standing(&self, identity: NodeIdentity, id: NodeId) -> Standing {
        match self.entries.get(&identity) {
            Some(entry) if entry.status == Status::Removed => return Standing::Refused(Refusal::Removed),
            _ => {}
        }
        match self.node(id) {
            Some(holder) if holder.identity == identity => Standing::Belongs,
            Some(holder) => {
                let taken = Refusal::IdTaken { id, by: holder.identity, address: holder.address };
                Standing::Refused(taken)
            }
            None => Standing::Unknown,
        }
    }

    /// Takes in what another knows. Says whether that was news.
    ///
    /// # Errors
    ///
    /// When there would be more than [`ENTRIES_MAX`], or the ring is another cluster's; nothing is then taken.
    pub fn reconcile(&mut self, entries: &[NodeEntry], ring: &RingState) -> Result<bool, ReconcileError> {
        // One identity given twice counts twice here: a list from outside has each once.
        let new = entries.iter().filter(|entry| !self.entries.contains_key(&entry.identity)).count();
        if self.entries.len() + new > ENTRIES_MAX {
            return Err(ReconcileError::TooManyEntries);
        }
        let mut reconciled = self.ring.clone();
        reconciled.reconcile(ring).map_err(|_| ReconcileError::OtherRing)?;
        let mut news = reconciled != self.ring;
        self.ring = reconciled;
        for theirs in entries {
            match self.entries.get_mut(&theirs.identity) {
                Some(ours) => {
                    let reconciled = reconcile_entries(ours, theirs);
                    news |= reconciled != *ours;
                    *ours = reconciled;
                }
                None => {
                    self.entries.insert(theirs.identity, theirs.clone());
                    news = true;
                }
            }
        }
        if news {
            self.follow();
        }
        Ok(news)
    }

    /// Brings up to date what follows from the entries.
    fn follow(&mut self) {
        self.holders.clear();
        for entry in self.entries.values().filter(|entry| entry.status != Status::Removed) {
            let holder = self.holders.entry(entry.id).or_insert(entry.identity);
            let claim = |entry: &NodeEntry| {
                let named = self.ring.machine(entry.id) == Some(entry.identity);
                (!named, claim_to_id(entry))
            };
            if claim(entry) < claim(&self.entries[holder]) {
                *holder = entry.identity;
            }
        }
        let epoch = self.entries.values().map(|entry| entry.version).sum::<u64>() + self.ring.term();
        assert!(epoch >= self.digest.epoch, "the epoch fell from {} to {epoch}", self.digest.epoch);
        let mut hasher = Xxh3::new();
        self.entries.values().for_each(|entry| hash(entry, &mut hasher));
        self.ring.hash_into(&mut hasher);
        self.digest = Digest { epoch, hash: hasher.digest() };
    }
}

fn entry(description: Description, status: Status, version: u64, admitted: u64) -> NodeEntry {
    let Description { identity, id, address, cores, port, core_port, peer_port, http_port, rack, weight_thousandths } =
        description;
    NodeEntry {
        identity,
        version,
        status,
        id,
        admitted,
        address,
        cores,
        port,
        core_port,
        peer_port,
        http_port,
        rack,
        weight_thousandths,
        replaces: None,
    }
}

fn member(node: &NodeEntry) -> Member {
    let NodeEntry { id, cores, port, core_port, .. } = *node;
    Member {
        node: MappedNode { id, address: node.address.to_string(), cores, port, core_port },
        rack: node.rack.clone(),
        weight: f64::from(node.weight_thousandths) / 1000.0,
    }
}

/// The least upper bound of what two sides know of one machine. The version of a removed one is the greatest that
/// anybody gave it, apart from its content: else the epoch could fall, or the order would show.
fn reconcile_entries(a: &NodeEntry, b: &NodeEntry) -> NodeEntry {
    let version = a.version.max(b.version);
    let removed = [a, b].map(|entry| entry.status == Status::Removed);
    let greater = match removed {
        [true, false] => a,
        [false, true] => b,
        [true, true] => [a, b].into_iter().max_by_key(|entry| NodeEntry { version, ..(*entry).clone() }).expect("two"),
        // By identity, which is the same, then version, then content.
        [false, false] => a.max(b),
    };
    NodeEntry { version, ..greater.clone() }
}

/// Who keeps a node id that several machines have taken and the ring gives to none, the least first: who owns data before who only asked to; who
/// was admitted earlier; then by identity, which is chance but the same for all.
fn claim_to_id(entry: &NodeEntry) -> (bool, u64, NodeIdentity) {
    (entry.status == Status::Joining, entry.admitted, entry.identity)
}

/// All of an entry, each part with its length fixed or told.
fn hash(entry: &NodeEntry, hasher: &mut Xxh3) {
    hasher.update(&entry.identity.0.to_le_bytes());
    hasher.update(&entry.version.to_le_bytes());
    hasher.update(&[entry.status as u8, u8::from(entry.address.is_ipv6())]);
    hasher.update(&entry.admitted.to_le_bytes());
    match entry.address {
        IpAddr::V4(address) => hasher.update(&address.octets()),
        IpAddr::V6(address) => hasher.update(&address.octets()),
    }
    for number in [entry.id.0, entry.cores, entry.port, entry.core_port, entry.peer_port, entry.http_port] {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(&entry.weight_thousandths.to_le_bytes());
    hasher.update(&[u8::from(entry.replaces.is_some())]);
    hasher.update(&entry.replaces.map_or(0, |old| old.0).to_le_bytes());
    hasher.update(&(entry.rack.len() as u64).to_le_bytes());
    hasher.update(entry.rack.as_bytes());
}

#[cfg(test)]
pub(crate) mod tests;
