//! Who belongs to the cluster, as it travels with the gossip.
//!
//! The rule: two states that differ, however they came to differ, reconcile into one: whoever takes in what, in whatever order
//! and how often, ends with the same. Of one machine's entry the higher version counts, of equal versions the greater
//! content; but what was removed stays removed, whatever its version. An entry is never forgotten. The epoch of a node
//! never falls.
//!
//! | change | from | to |
//! |---|---|---|
//! | join | nothing | joining |
//! | admit | joining | member |
//! | leave | member | leaving |
//! | stay | leaving | member |
//! | remove | any | removed |
//!
//! Pure. Not here: how a state reaches the others (`membership`), which partitions a member owns (`ring`), the cluster's
//! name, N and Q, which are fixed: a peer with others is refused before it can say anything.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use quorate_net::{
    bounds::NODES_MAX,
    id::{CoreId, Endpoint, NodeId},
    message::{
        MappedNode,
        gossip::{Digest, ENTRIES_MAX, NodeEntry, NodeIdentity, Status, VERSION_MAX},
    },
};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::ring::Member;

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

/// A change of one node's entry. Made on one node, it reaches the others by gossip.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A machine asks to join; one that is known already has moved, or changed its cores, rack or weight.
    Join(Description),
    /// A joining node owns its share from now on.
    Admit(NodeId),
    /// A member shall hand its share over.
    Leave(NodeId),
    /// A leaving member stays after all.
    Stay(NodeId),
    /// A node belongs no more, for ever.
    Remove(NodeId),
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
                 directory and let it join as a new node",
            ),
            Self::IdTaken { id, by, address } => write!(
                f,
                "node id {id} belongs to the machine at {address} ({by}), nothing was changed: give this node an id of \
                 its own, or remove the other one first"
            ),
        }
    }
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
    /// The entry was changed more often than can be counted; it can still be removed.
    Versions(NodeId),
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => write!(f, "{refusal}"),
            Self::OtherId(id) => write!(f, "this machine is node {id} already; nothing was changed"),
            Self::Unknown(id) => write!(f, "the cluster has no node {id}; nothing was changed"),
            Self::Status(id, status) => write!(f, "node {id} is {}; nothing was changed", word(*status)),
            Self::TooMany => write!(
                f,
                "a cluster has at most {NODES_MAX} nodes, and remembers at most {ENTRIES_MAX} with those that were \
                 removed; nothing was changed"
            ),
            Self::Versions(id) => write!(f, "node {id} was changed too often; nothing was changed: remove it"),
        }
    }
}

impl std::error::Error for ChangeError {}

/// The word for a status that people read.
#[must_use]
pub fn word(status: Status) -> &'static str {
    match status {
        Status::Joining => "joining",
        Status::Member => "a member",
        Status::Leaving => "leaving",
        Status::Removed => "removed",
    }
}

/// Two states know more machines together than can be remembered. Neither changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooManyEntries;

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
    /// The state of a cluster that begins with these members.
    #[must_use]
    pub fn founded(members: Vec<Description>) -> Self {
        let entries: Vec<NodeEntry> = members.into_iter().map(|member| entry(member, Status::Member, 1, 1)).collect();
        let mut state = Self::default();
        state.reconcile(&entries).expect("a configuration lists far fewer nodes");
        state
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

    /// Whether a core belongs.
    #[must_use]
    pub fn has(&self, endpoint: Endpoint) -> bool {
        self.node(endpoint.node).is_some_and(|node| endpoint.core.0 < node.cores)
    }

    /// What a ring of the nodes of these statuses is made of.
    pub fn members(&self, counts: impl Fn(Status) -> bool) -> Vec<Member> {
        let member = |node: &NodeEntry| Member {
            node: MappedNode {
                id: node.id,
                address: node.address.to_string(),
                cores: node.cores,
                port: node.port,
                core_port: node.core_port,
            },
            rack: node.rack.clone(),
            weight: f64::from(node.weight_thousandths) / 1000.0,
        };
        self.nodes().filter(|node| counts(node.status)).map(member).collect()
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

    /// Makes a change here, one version after what is known.
    ///
    /// # Errors
    ///
    /// When the change does not fit what is known; the state is then as it was.
    pub fn change(&mut self, change: Change) -> Result<(), ChangeError> {
        let entry = match change {
            Change::Join(description) => self.joined(description)?,
            Change::Admit(id) => {
                let admitted = self.digest.epoch + 1;
                NodeEntry { admitted, ..self.moved(id, Status::Joining, Status::Member)? }
            }
            Change::Leave(id) => self.moved(id, Status::Member, Status::Leaving)?,
            Change::Stay(id) => self.moved(id, Status::Leaving, Status::Member)?,
            Change::Remove(id) => {
                let entry = self.node(id).ok_or(ChangeError::Unknown(id))?;
                let version = (entry.version + 1).min(VERSION_MAX);
                NodeEntry { status: Status::Removed, version, ..entry.clone() }
            }
        };
        self.entries.insert(entry.identity, entry);
        self.follow();
        Ok(())
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
        let same = entry(description.clone(), known.status, known.version, known.admitted);
        if same == *known {
            return Ok(same);
        }
        Ok(entry(description, known.status, next_version(known)?, known.admitted))
    }

    fn moved(&self, id: NodeId, from: Status, to: Status) -> Result<NodeEntry, ChangeError> {
        let entry = self.node(id).ok_or(ChangeError::Unknown(id))?;
        if entry.status != from {
            return Err(ChangeError::Status(id, entry.status));
        }
        Ok(NodeEntry { status: to, version: next_version(entry)?, ..entry.clone() })
    }

    /// Takes in what another knows. Says whether that was news.
    ///
    /// # Errors
    ///
    /// When there would be more than [`ENTRIES_MAX`]; nothing is then taken.
    pub fn reconcile(&mut self, entries: &[NodeEntry]) -> Result<bool, TooManyEntries> {
        // One identity given twice counts twice here: a list from outside has each once.
        let new = entries.iter().filter(|entry| !self.entries.contains_key(&entry.identity)).count();
        if self.entries.len() + new > ENTRIES_MAX {
            return Err(TooManyEntries);
        }
        let mut news = false;
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
            if claim_to_id(entry) < claim_to_id(&self.entries[holder]) {
                *holder = entry.identity;
            }
        }
        let epoch = self.entries.values().map(|entry| entry.version).sum();
        assert!(epoch >= self.digest.epoch, "the epoch fell from {} to {epoch}", self.digest.epoch);
        let mut hasher = Xxh3::new();
        self.entries.values().for_each(|entry| hash(entry, &mut hasher));
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
    }
}

fn next_version(entry: &NodeEntry) -> Result<u64, ChangeError> {
    if entry.version < VERSION_MAX { Ok(entry.version + 1) } else { Err(ChangeError::Versions(entry.id)) }
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

/// Who keeps a node id that several machines have taken, the least first: who owns data before who only asked to; who
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
    hasher.update(&(entry.rack.len() as u64).to_le_bytes());
    hasher.update(entry.rack.as_bytes());
}

#[cfg(test)]
pub(crate) mod tests;
