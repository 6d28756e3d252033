//! All that processes say to each other: clients to nodes, cores to cores.
//!
//! The rule: every request carries how long its sender will wait, so that expired work is dropped; a replica is sent
//! whole objects, never a bare value; no type is recursive and none has zero size.
//!
//! Times travel as durations (clocks differ between machines). Object bodies are opaque here: `node/object` has their
//! form. Not here: how messages become bytes (`frame`).

#![allow(missing_docs, reason = "the derive makes resolvers whose fields carry none; all written here carry theirs")]

pub mod exchange;
pub mod gossip;
pub mod reap;

use std::fmt;

use bytes::Bytes;
pub use exchange::Exchange;
pub use reap::Reap;
use rkyv::{Archive, Deserialize, Serialize};
use smallvec::SmallVec;

use crate::{
    id::{CoreId, Endpoint, NodeId},
    key::Key,
};

/// The version of this protocol; peers of another version are refused.
pub const PROTOCOL: u16 = 1;

/// Anything that a frame can hold.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub enum Message {
    /// The first message on a peer connection, from the side that connected.
    Hello(Hello),
    /// A client's request; between nodes, one that is forwarded to a core that owns the key.
    Request(Request),
    /// The answer to a request.
    Reply(Reply),
    /// A coordinator gives a replica an object to keep.
    Replicate(Replicate),
    /// The replica's answer.
    Replicated(Replicated),
    /// A coordinator asks a replica for its version of a key.
    Probe(Probe),
    /// The replica's answer.
    Probed(Probed),
    /// A step of anti-entropy between two primaries.
    Exchange(Exchange),
    /// Who is alive, and who belongs to the cluster. Behind a pointer where it is archived: every message takes as many
    /// bytes as the largest variant.
    Gossip(#[rkyv(with = rkyv::with::AsBox)] gossip::Gossip),
    /// A step of forgetting.
    Reap(Reap),
}

/// What a [`Message`] is, as its frame's header says it: its maximum length follows from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// [`Message::Hello`]
    Hello = 1,
    /// [`Message::Request`]
    Request = 2,
    /// [`Message::Reply`]
    Reply = 3,
    /// [`Message::Replicate`]
    Replicate = 4,
    /// [`Message::Replicated`]
    Replicated = 5,
    /// [`Message::Probe`]
    Probe = 6,
    /// [`Message::Probed`]
    Probed = 7,
    /// [`Message::Exchange`]
    Exchange = 8,
    /// [`Message::Gossip`]
    Gossip = 9,
    /// [`Message::Reap`]
    Reap = 10,
}

impl Kind {
    /// The kind that a frame's header names.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::Hello,
            Self::Request,
            Self::Reply,
            Self::Replicate,
            Self::Replicated,
            Self::Probe,
            Self::Probed,
            Self::Exchange,
            Self::Gossip,
            Self::Reap,
        ]
        .into_iter()
        .find(|&kind| kind as u8 == byte)
    }
}

/// Who connects to a peer port. A peer with another cluster, protocol or shape of the ring is refused.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// [`PROTOCOL`] of the sender.
    pub protocol: u16,
    /// The cluster's name, hashed.
    pub cluster: u64,
    /// Who connects.
    pub from: Endpoint,
    /// Whom it means to reach.
    pub to: Endpoint,
    /// Q, the number of partitions.
    pub partitions: u16,
    /// N, the replicas of each partition.
    pub replicas: u8,
    /// Which machine connects: two with one node id are told apart by it, and one that was removed is known again.
    pub identity: gossip::NodeIdentity,
}

/// Whether an answer may rest on fallbacks.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Consistency {
    /// Only primaries count: R + W > N then means that a read sees the last write.
    Strict,
    /// Fallbacks count, with a hint for the primary that they stand for: always writable.
    #[default]
    Sloppy,
}

/// How many copies are on disk before a put is answered.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// W nodes have it on disk.
    #[default]
    Durable,
    /// W nodes have it, one of them on disk.
    One,
    /// W nodes have it in memory; the disk follows within milliseconds.
    Buffered,
}

/// A client's request.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Request {
    /// Chosen by the sender; the reply carries it.
    pub id: u64,
    /// How long the sender waits, in microseconds. 0 is the cluster's default.
    pub timeout_us: u32,
    /// How often this request was forwarded. A node refuses to forward one that came far enough.
    pub hops: u8,
    /// What to do.
    pub operation: Operation,
}

/// What a client can ask for.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub enum Operation {
    /// All concurrent values of a key.
    Get(Get),
    /// A new value, or a tombstone.
    Put(Put),
    /// Who owns what: for clients that route by themselves.
    ClusterMap,
}

/// `get(key) → values + context` (section 4.1).
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Get {
    /// The key.
    pub key: Key,
    /// R for this request; 0 is the cluster's default.
    pub quorum: u8,
    /// Whether fallbacks count.
    pub consistency: Consistency,
    /// Whether the answer is to bring the context; else it is empty.
    pub wants_context: bool,
}

/// `put(key, context, value)` (section 4.1).
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Put {
    /// The key.
    pub key: Key,
    /// The value; `None` deletes.
    pub value: Option<Bytes>,
    /// What the writer has seen: `None` replaces all that the coordinator holds at that moment, an empty context has
    /// seen nothing, so the value becomes a sibling of what is there.
    pub context: Option<Bytes>,
    /// W for this request; 0 is the cluster's default.
    pub quorum: u8,
    /// What must be on disk before the answer.
    pub durability: Durability,
    /// Whether fallbacks count.
    pub consistency: Consistency,
    /// The same for each retry of one logical write: it is then applied once.
    pub token: Option<u128>,
    /// Whether the answer is to bring the context; else it is empty.
    pub wants_context: bool,
}

/// The answer to a [`Request`].
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Reply {
    /// The request's id.
    pub id: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a request.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub enum Outcome {
    /// To a get. No values: the key is absent, and the context says what was seen of its past.
    Values {
        /// To be handed back with the put that resolves them.
        context: Bytes,
        /// All siblings, the winner (latest timestamp, then dot) first.
        values: SmallVec<[Bytes; 1]>,
        /// Whether the answer rests on a fallback.
        sloppy: bool,
    },
    /// To a put.
    Written {
        /// Covers the value that was written and all that it replaced.
        context: Bytes,
        /// Whether the coordinator held a live value that this replaced.
        replaced: bool,
        /// Whether the answer rests on a fallback.
        sloppy: bool,
    },
    /// To [`Operation::ClusterMap`].
    ClusterMap(ClusterMap),
    /// To anything that did not work.
    Failed(Failure),
}

/// Why a request failed. Each says whether state changed and whether a retry is safe.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// Too few replicas answered in time. A put may still have reached some: retry it with its token or its context.
    Timeout {
        /// Replicas that did answer.
        acks: u8,
        /// Replicas that had to.
        needed: u8,
    },
    /// Too few nodes are reachable for the quorum. A put may have reached some of them.
    Unavailable {
        /// Replicas that did answer.
        reachable: u8,
        /// Replicas that had to.
        needed: u8,
    },
    /// A queue is full. Nothing was started: back off, then retry.
    Overloaded {
        /// When to retry, in microseconds.
        retry_after_us: u32,
    },
    /// The coordinator's disk is full: nothing was written. Reads and deletes go on.
    DiskFull,
    /// The coordinator's store failed and is read-only: nothing was written. Ask another node.
    StoreFailed,
    /// The context is not one that this cluster gave out for this key: nothing was written. Read again.
    BadContext,
    /// The value, or the object with its siblings, is over its limit: nothing was written.
    TooLarge {
        /// The limit in bytes.
        limit: u32,
    },
    /// The key has too many siblings: nothing was written. Read, resolve, and put with the context.
    TooManySiblings {
        /// The limit.
        limit: u16,
    },
    /// This copy is damaged and too few others could stand in. Nothing was changed.
    Corrupt,
    /// The request makes no sense: nothing was done.
    BadRequest(String),
}

impl Failure {
    /// What there is, as it is counted.
    pub const KINDS: [&'static str; 10] = [
        "timeout",
        "unavailable",
        "overloaded",
        "disk_full",
        "store_failed",
        "bad_context",
        "too_large",
        "too_many_siblings",
        "corrupt",
        "bad_request",
    ];

    /// Its place in [`Failure::KINDS`].
    #[must_use]
    pub fn kind(&self) -> usize {
        match self {
            Self::Timeout { .. } => 0,
            Self::Unavailable { .. } => 1,
            Self::Overloaded { .. } => 2,
            Self::DiskFull => 3,
            Self::StoreFailed => 4,
            Self::BadContext => 5,
            Self::TooLarge { .. } => 6,
            Self::TooManySiblings { .. } => 7,
            Self::Corrupt => 8,
            Self::BadRequest(_) => 9,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout { acks, needed } => write!(
                f,
                "{acks} of {needed} replicas answered in time; if this was a write it may have been done: retry it \
                 with its token or context"
            ),
            Self::Unavailable { reachable, needed } => write!(
                f,
                "{reachable} of {needed} replicas are reachable; if this was a write it may have been done: retry it \
                 with its token or context"
            ),
            Self::Overloaded { retry_after_us } => {
                write!(f, "a queue is full, nothing was done: retry after {} ms", retry_after_us.div_ceil(1000))
            }
            Self::DiskFull => f.write_str("the disk is full, nothing was written; reads and deletes go on"),
            Self::StoreFailed => {
                f.write_str("this node's store has failed and is read-only, nothing was written: ask another node")
            }
            Self::BadContext => {
                f.write_str("the context is none that was given out for this key, nothing was written: read again")
            }
            Self::TooLarge { limit } => write!(f, "the value is over the limit of {limit} bytes, nothing was written"),
            Self::TooManySiblings { limit } => write!(
                f,
                "the key has {limit} siblings, nothing was written: read them, resolve, and write with their context"
            ),
            Self::Corrupt => f.write_str("this copy is damaged and too few others can stand in, nothing was changed"),
            Self::BadRequest(why) => write!(f, "{why}; nothing was done"),
        }
    }
}

/// Who owns what.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct ClusterMap {
    /// N.
    pub replicas: u8,
    /// The members.
    pub nodes: Vec<MappedNode>,
    /// For each partition its whole preference list, as indexes into `nodes`.
    pub preference: Vec<Vec<u16>>,
    /// For each partition the number by which its core is chosen: core = `spread` × cores >> 32.
    pub spread: Vec<u32>,
}

/// A member, as a client must know it.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct MappedNode {
    /// Its id.
    pub id: NodeId,
    /// Its IP address.
    pub address: String,
    /// How many cores it runs.
    pub cores: u16,
    /// The port that all its cores share, for RESP and native clients.
    pub port: u16,
    /// Core i listens on this port + i.
    pub core_port: u16,
}

/// A coordinator gives a replica an object to keep.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Replicate {
    /// The coordinator's number for the put; the answer carries it.
    pub operation: u64,
    /// How long the coordinator waits.
    pub timeout_us: u32,
    /// The key's partition.
    pub partition: u16,
    /// Whether the answer must wait for the disk.
    pub durable: bool,
    /// The primary that the receiver stands in for, if it is a fallback.
    pub hint_for: Option<NodeId>,
    /// The stable hash of the version that the object was built on: a replica that holds it need not look further.
    pub base: u64,
    /// The key.
    pub key: Key,
    /// The whole object: clock and all siblings.
    pub body: Bytes,
}

/// The replica's answer to [`Replicate`].
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Replicated {
    /// The coordinator's number for the put.
    pub operation: u64,
    /// What came of it.
    pub outcome: ReplicaOutcome,
}

/// What a replica did with an object.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplicaOutcome {
    /// It is in the log and on disk.
    Durable,
    /// It is in the log, in memory.
    Buffered,
    /// The disk is full.
    DiskFull,
    /// The store failed and is read-only, or this copy is damaged.
    StoreFailed,
    /// Its queue is full.
    Overloaded,
    /// The receiver does not own the partition by its view of the ring.
    NotOwner,
    /// The object is over a limit.
    TooLarge,
    /// The body is no object.
    Malformed,
}

/// A coordinator asks a replica for its version of a key.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Probe {
    /// The coordinator's number for the get; the answer carries it.
    pub operation: u64,
    /// How long the coordinator waits.
    pub timeout_us: u32,
    /// The key's partition.
    pub partition: u16,
    /// The stable hash of the coordinator's own version (0: it has none). A replica that holds another one sends it
    /// whole.
    pub known: u64,
    /// Whether only an owner's copy counts, and not a hint that the receiver holds.
    pub owner: bool,
    /// The key.
    pub key: Key,
}

/// The replica's answer to [`Probe`].
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Probed {
    /// The coordinator's number for the get.
    pub operation: u64,
    /// What the replica has.
    pub version: ProbedVersion,
}

/// What a replica has of a key.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub enum ProbedVersion {
    /// The very version that the coordinator named (which may be none).
    Same,
    /// Nothing, while the coordinator has something.
    Absent,
    /// Another version: the whole object.
    Object(Bytes),
    /// It cannot say: not an owner, overloaded, or its copy is damaged. No credit towards R.
    Unknown,
}

impl Operation {
    /// Whether fallbacks count.
    #[must_use]
    pub fn consistency(&self) -> Consistency {
        match self {
            Self::Get(get) => get.consistency,
            Self::Put(put) => put.consistency,
            Self::ClusterMap => Consistency::Sloppy,
        }
    }
}

impl Message {
    /// What this is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Request(_) => Kind::Request,
            Self::Reply(_) => Kind::Reply,
            Self::Replicate(_) => Kind::Replicate,
            Self::Replicated(_) => Kind::Replicated,
            Self::Probe(_) => Kind::Probe,
            Self::Probed(_) => Kind::Probed,
            Self::Exchange(_) => Kind::Exchange,
            Self::Gossip(_) => Kind::Gossip,
            Self::Reap(_) => Kind::Reap,
        }
    }
}

impl ArchivedMessage {
    /// What this is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Request(_) => Kind::Request,
            Self::Reply(_) => Kind::Reply,
            Self::Replicate(_) => Kind::Replicate,
            Self::Replicated(_) => Kind::Replicated,
            Self::Probe(_) => Kind::Probe,
            Self::Probed(_) => Kind::Probed,
            Self::Exchange(_) => Kind::Exchange,
            Self::Gossip(_) => Kind::Gossip,
            Self::Reap(_) => Kind::Reap,
        }
    }
}

impl ClusterMap {
    /// The core of a node with `cores` cores that owns the partition with this `spread`.
    #[must_use]
    pub fn core(spread: u32, cores: u16) -> CoreId {
        CoreId(((u64::from(spread) * u64::from(cores)) >> 32) as u16)
    }
}
