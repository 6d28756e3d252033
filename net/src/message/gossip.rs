//! What cores tell each other about who is alive and who belongs to the cluster (Dynamo 4.8, SWIM).
//!
//! The rule: every message is bounded, whoever made it; what has no bound of its own in its type is checked here before
//! anyone looks at it. Liveness ([`Claim`]) says what answers now; belonging ([`NodeEntry`]) and the ring ([`RingBody`])
//! change only by command.
//!
//! Not here: which claim, entry or ring counts when two differ (`node/membership`).

mod ring;

use std::{fmt, net::IpAddr};

use rkyv::{Archive, Deserialize, Serialize};

pub use self::ring::{ChangeBody, Confirmed, Machine, Places, RingBody, RingStamp, TABLE_BYTES_MAX, pack, unpack};
use crate::{
    bounds::NODES_MAX,
    id::{Endpoint, NodeId},
};

/// The most claims that travel with one message.
pub const CLAIMS_MAX: usize = 32;

/// The most entries in a cluster's state, those of removed nodes among them: these are never forgotten.
pub const ENTRIES_MAX: usize = 4 * NODES_MAX;

/// The most cores of a node.
pub const CORES_MAX: u16 = 256;

/// The most bytes in a rack's name.
pub const RACK_BYTES_MAX: usize = 64;

/// The largest weight, in thousandths.
pub const WEIGHT_THOUSANDTHS_MAX: u32 = 100_000;

/// The highest version of an entry: the sum over all entries stays far below 2^64.
pub const VERSION_MAX: u64 = 1 << 48;

/// The most replicas of a partition.
pub const REPLICAS_MAX: u8 = 7;

/// The highest term of a ring, and the most pauses of one change.
pub const TERM_MAX: u64 = 1 << 48;

/// The most bytes that an entry takes in a message.
const ENTRY_BYTES_MAX: usize = 192;

/// The most bytes that a claim takes in a message.
const CLAIM_BYTES_MAX: usize = 32;

/// The most bytes in the payload of a gossip message.
pub const GOSSIP_BYTES_MAX: usize =
    (1 << 10) + CLAIMS_MAX * CLAIM_BYTES_MAX + ENTRIES_MAX * ENTRY_BYTES_MAX + ring::RING_BYTES_MAX;

/// Which machine a node's id stands for: drawn once, kept with the node's data. Two with one id are told apart by it,
/// and one that was removed is known again. Never 0.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeIdentity(pub u128);

impl fmt::Display for NodeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// One message of the gossip between two cores. Each carries news by the way, whatever it is for.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Gossip {
    /// The sender's node.
    pub identity: NodeIdentity,
    /// The sender's incarnation.
    pub incarnation: u64,
    /// How often the sender had to refute what was said of it.
    pub refutation: u32,
    /// The state of the cluster as the sender knows it.
    pub digest: Digest,
    /// The tables that the sender goes by.
    pub ring: RingStamp,
    /// The sender holds nothing at all.
    pub empty: bool,
    /// News of who is alive, at most [`CLAIMS_MAX`].
    pub claims: Vec<Claim>,
    /// What the message is for.
    pub body: GossipBody,
}

/// What a message of the gossip is for.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum GossipBody {
    /// Asks whether the receiver lives.
    Ping {
        /// The answer carries it.
        sequence: u32,
    },
    /// Yes.
    Ack {
        /// The ping's.
        sequence: u32,
    },
    /// Asks the receiver to ping `target`, which the sender got no answer from.
    PingFor {
        /// The answer carries it.
        sequence: u32,
        /// Whom to ping.
        target: Endpoint,
    },
    /// The target of a [`GossipBody::PingFor`] has answered.
    AckFor {
        /// The request's.
        sequence: u32,
    },
    /// All that the sender knows of who belongs to the cluster, and who keeps what.
    State(StateBody),
    /// The sender stops on purpose: nobody needs to find out that it is dead.
    Farewell,
}

/// A cluster's state: what travels, and what lies on disk.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct StateBody {
    /// All machines that ever belonged, by identity; at most [`ENTRIES_MAX`].
    pub entries: Vec<NodeEntry>,
    /// Who keeps what.
    pub ring: RingBody,
}

/// Enough to see whether two know the same of who belongs to the cluster.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Digest {
    /// Never falls; two sides that changed concurrently may have the same.
    pub epoch: u64,
    /// The stable hash of all entries and of the ring's state: 64 bits, so two that differ have the same only by a miracle.
    pub hash: u64,
}

/// Whether a core answers.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Liveness {
    /// It does, as far as is known.
    Alive,
    /// It did not answer somebody, neither directly nor through others. It has time to refute that.
    Suspect,
    /// It let that time pass, or stopped on purpose.
    Dead,
}

/// What is said of one core.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The core.
    pub endpoint: Endpoint,
    /// Its newest incarnation that the speaker knows; 0 if it knows none.
    pub incarnation: u64,
    /// How often the core had refuted what was said of it, as far as the speaker knows.
    pub refutation: u32,
    /// What is said.
    pub liveness: Liveness,
}

/// How a node belongs to the cluster.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Status {
    /// It asked to join, and is no part of the ring yet.
    Joining,
    /// It is part of the ring.
    Member,
    /// It is part of the ring until a change of the ring is finished, and hands its share over then.
    Leaving,
    /// It is gone for good, and part of the ring until a change of the ring is finished. Nobody waits for it.
    Removing,
    /// It does not belong any more, for ever.
    Removed,
}

/// One machine of the cluster, as all know it.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct NodeEntry {
    /// Which machine.
    pub identity: NodeIdentity,
    /// One more than before at each change of this entry; from 1 to [`VERSION_MAX`].
    pub version: u64,
    /// How it belongs.
    pub status: Status,
    /// Its node id.
    pub id: NodeId,
    /// The epoch in which it became a member; 0 until then.
    pub admitted: u64,
    /// Where it listens.
    pub address: IpAddr,
    /// How many cores it runs, up to [`CORES_MAX`].
    pub cores: u16,
    /// RESP and native clients, on whichever core accepts.
    pub port: u16,
    /// RESP and native clients of core i: this + i.
    pub core_port: u16,
    /// Other nodes, to core i: this + i.
    pub peer_port: u16,
    /// HTTP.
    pub http_port: u16,
    /// Nodes of one rack fail together. At most [`RACK_BYTES_MAX`].
    pub rack: String,
    /// Its share of the data beside the other nodes', in thousandths.
    pub weight_thousandths: u32,
    /// The node whose places in the ring it asked to take.
    pub replaces: Option<NodeId>,
}

/// What of a gossip message is over its bound or makes no sense. Nothing was done with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GossipFault {
    /// More than [`CLAIMS_MAX`].
    Claims(usize),
    /// More than [`ENTRIES_MAX`].
    Entries(usize),
    /// Entries are not in the order of their identities, or one is there twice.
    Order,
    /// A machine without identity.
    Identity,
    /// A core that no node has.
    Core(u16),
    /// An entry of this node holds what no configuration may hold: no core, a port out of range, an address that
    /// nobody can connect to, a rack or a weight or a version over its bound.
    Entry(NodeId),
    /// A ring that contradicts itself: see [`RingBody`] for what must hold.
    Ring,
}

impl fmt::Display for GossipFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claims(count) => write!(f, "{count} claims, at most {CLAIMS_MAX} are allowed"),
            Self::Entries(count) => write!(f, "{count} nodes in a state, at most {ENTRIES_MAX} are allowed"),
            Self::Order => f.write_str("a state whose nodes are not in order"),
            Self::Identity => f.write_str("a node without identity"),
            Self::Core(core) => write!(f, "core {core}, a node has at most {CORES_MAX}"),
            Self::Entry(id) => write!(f, "an entry of node {id} that no configuration allows"),
            Self::Ring => f.write_str("a ring that contradicts itself"),
        }
    }
}

/// Whether all parts of a message that has a valid shape are within their bounds.
///
/// # Errors
///
/// The first part that is not.
pub fn check(gossip: &ArchivedGossip) -> Result<(), GossipFault> {
    identity(gossip.identity.0.to_native())?;
    if gossip.claims.len() > CLAIMS_MAX {
        return Err(GossipFault::Claims(gossip.claims.len()));
    }
    gossip.claims.iter().try_for_each(|claim| core(claim.endpoint.core.0.to_native()))?;
    if gossip.ring.term.to_native() > TERM_MAX {
        return Err(GossipFault::Ring);
    }
    match &gossip.body {
        ArchivedGossipBody::PingFor { target, .. } => core(target.core.0.to_native()),
        ArchivedGossipBody::State(state) => check_state(state),
        ArchivedGossipBody::Ping { .. }
        | ArchivedGossipBody::Ack { .. }
        | ArchivedGossipBody::AckFor { .. }
        | ArchivedGossipBody::Farewell => Ok(()),
    }
}

/// Whether all parts of a state that has a valid shape are within their bounds.
///
/// # Errors
///
/// The first part that is not.
pub fn check_state(state: &ArchivedStateBody) -> Result<(), GossipFault> {
    check_entries(&state.entries)?;
    if state.ring.is_sound() { Ok(()) } else { Err(GossipFault::Ring) }
}

fn check_entries(entries: &[ArchivedNodeEntry]) -> Result<(), GossipFault> {
    if entries.len() > ENTRIES_MAX {
        return Err(GossipFault::Entries(entries.len()));
    }
    if !entries.is_sorted_by(|a, b| a.identity.0.to_native() < b.identity.0.to_native()) {
        return Err(GossipFault::Order);
    }
    entries.iter().try_for_each(|entry| {
        identity(entry.identity.0.to_native())?;
        let version = entry.version.to_native();
        let cores = entry.cores.to_native();
        let listens = |port: u16, count: u16| port > 0 && count - 1 <= u16::MAX - port;
        let sound = (1..=VERSION_MAX).contains(&version)
            && entry.admitted.to_native() <= VERSION_MAX * ENTRIES_MAX as u64
            && (1..=CORES_MAX).contains(&cores)
            && listens(entry.port.to_native(), 1)
            && listens(entry.core_port.to_native(), cores)
            && listens(entry.peer_port.to_native(), cores)
            && listens(entry.http_port.to_native(), 1)
            && can_connect(entry.address.as_ipaddr())
            && entry.rack.len() <= RACK_BYTES_MAX
            && entry.weight_thousandths.to_native() <= WEIGHT_THOUSANDTHS_MAX;
        if sound { Ok(()) } else { Err(GossipFault::Entry(NodeId(entry.id.0.to_native()))) }
    })
}

fn identity(number: u128) -> Result<(), GossipFault> {
    if number == 0 { Err(GossipFault::Identity) } else { Ok(()) }
}

fn core(number: u16) -> Result<(), GossipFault> {
    if number < CORES_MAX { Ok(()) } else { Err(GossipFault::Core(number)) }
}

fn can_connect(address: IpAddr) -> bool {
    !address.is_unspecified() && !address.is_multicast()
}

#[cfg(test)]
mod tests;
