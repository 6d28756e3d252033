//! What a message may hold at most, whatever a node is configured to.
//!
//! The rule: a frame's length is checked against its kind before a byte of it is kept, and [`check`] runs on every
//! message that was received before anyone looks at it. A node may be stricter, never laxer.
//!
//! Not here: the shape of the bytes (`frame`).

use std::fmt;

use crate::{
    key,
    message::{
        ArchivedClusterMap, ArchivedFailure, ArchivedMessage, ArchivedOperation, ArchivedOutcome,
        ArchivedProbedVersion, Kind,
        gossip::{self, GossipFault},
        reap,
    },
};

/// The most bytes in a value, whatever a node is configured to.
pub const VALUE_BYTES_MAX: usize = 8 << 20;

/// The most bytes in a client's context.
pub const CONTEXT_BYTES_MAX: usize = 64 << 10;

/// The most bytes in an object: its clock and all its siblings.
pub const OBJECT_BYTES_MAX: usize = 32 << 20;

/// The most values in an answer.
pub const SIBLINGS_MAX: usize = 1024;

/// The most partitions of a ring: one for each slot of Redis Cluster.
pub const PARTITIONS_MAX: usize = 1 << 14;

/// The most nodes in a cluster map.
pub const NODES_MAX: usize = 1 << 10;

/// The most bytes in a node's address or in the text of a refusal.
pub const TEXT_BYTES_MAX: usize = 1 << 10;

/// Room for all that has a fixed size in a message.
const FIXED: usize = 1 << 10;

/// Before a peer has said who it is, a frame is no longer than this.
pub const HANDSHAKE_BYTES_MAX: usize = 64 << 10;

/// The most bytes in the payload of a frame of this kind.
#[must_use]
pub fn payload_bytes_max(kind: Kind) -> usize {
    match kind {
        Kind::Hello | Kind::Replicated => FIXED,
        Kind::Request => FIXED + key::KEY_BYTES_MAX + VALUE_BYTES_MAX + CONTEXT_BYTES_MAX,
        // An answer's values come out of one object; a map of the largest cluster is not much larger.
        Kind::Reply => FIXED + CONTEXT_BYTES_MAX + OBJECT_BYTES_MAX + (2 << 20),
        Kind::Replicate | Kind::Exchange => FIXED + key::KEY_BYTES_MAX + OBJECT_BYTES_MAX,
        Kind::Probe => FIXED + key::KEY_BYTES_MAX,
        Kind::Probed => FIXED + OBJECT_BYTES_MAX,
        Kind::Gossip => gossip::GOSSIP_BYTES_MAX,
        Kind::Reap => FIXED + 32 * reap::KEYS_MAX,
    }
}

/// What of a message is over its bound or makes no sense. Nothing was done with the message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Violation {
    /// A key that is none.
    Key(key::KeyError),
    /// More than [`VALUE_BYTES_MAX`].
    Value(usize),
    /// More than [`CONTEXT_BYTES_MAX`].
    Context(usize),
    /// More than [`OBJECT_BYTES_MAX`].
    Object(usize),
    /// More than [`SIBLINGS_MAX`].
    Siblings(usize),
    /// A partition, or a number of partitions, that no ring has.
    Partition(usize),
    /// More than [`TEXT_BYTES_MAX`].
    Text(usize),
    /// A map of the cluster that refers to what it does not hold.
    ClusterMap,
    /// A step of an exchange with too long a list, or a level, branch or key that there cannot be.
    Exchange,
    /// A step of forgetting with too long a list, or a key that there cannot be.
    Reap,
    /// Gossip that is over a bound or contradicts itself.
    Gossip(GossipFault),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(error) => write!(f, "{error}"),
            Self::Value(bytes) => write!(f, "a value of {bytes} bytes, at most {VALUE_BYTES_MAX} are allowed"),
            Self::Context(bytes) => write!(f, "a context of {bytes} bytes, at most {CONTEXT_BYTES_MAX} are allowed"),
            Self::Object(bytes) => write!(f, "an object of {bytes} bytes, at most {OBJECT_BYTES_MAX} are allowed"),
            Self::Siblings(count) => write!(f, "{count} siblings, at most {SIBLINGS_MAX} are allowed"),
            Self::Partition(number) => write!(f, "{number} partitions, at most {PARTITIONS_MAX} are allowed"),
            Self::Text(bytes) => write!(f, "a text of {bytes} bytes, at most {TEXT_BYTES_MAX} are allowed"),
            Self::ClusterMap => write!(f, "a cluster map that contradicts itself"),
            Self::Exchange => write!(f, "a step of an exchange that there cannot be"),
            Self::Reap => write!(f, "a step of forgetting that there cannot be"),
            Self::Gossip(fault) => write!(f, "{fault}"),
        }
    }
}

impl std::error::Error for Violation {}

/// Whether all parts of a message that has a valid shape are within their bounds.
///
/// # Errors
///
/// The first part that is not.
pub fn check(message: &ArchivedMessage) -> Result<(), Violation> {
    match message {
        ArchivedMessage::Hello(hello) => partitions(usize::from(hello.partitions)),
        ArchivedMessage::Request(request) => match &request.operation {
            ArchivedOperation::Get(get) => check_key(get.key.encoded()),
            ArchivedOperation::Put(put) => {
                check_key(put.key.encoded())?;
                at_most(put.value.as_ref().map_or(0, |value| value.len()), VALUE_BYTES_MAX, Violation::Value)?;
                context(put.context.as_ref().map_or(0, |context| context.len()))
            }
            ArchivedOperation::ClusterMap => Ok(()),
        },
        ArchivedMessage::Reply(reply) => match &reply.outcome {
            ArchivedOutcome::Values { context: seen, values, .. } => {
                context(seen.len())?;
                at_most(values.len(), SIBLINGS_MAX, Violation::Siblings)?;
                values.iter().try_for_each(|value| at_most(value.len(), VALUE_BYTES_MAX, Violation::Value))
            }
            ArchivedOutcome::Written { context: seen, .. } => context(seen.len()),
            ArchivedOutcome::ClusterMap(map) => cluster_map(map),
            ArchivedOutcome::Failed(ArchivedFailure::BadRequest(text)) => {
                at_most(text.len(), TEXT_BYTES_MAX, Violation::Text)
            }
            ArchivedOutcome::Failed(_) => Ok(()),
        },
        ArchivedMessage::Replicate(replicate) => {
            partition(replicate.partition.to_native())?;
            check_key(replicate.key.encoded())?;
            object(replicate.body.len())
        }
        ArchivedMessage::Probe(probe) => {
            partition(probe.partition.to_native())?;
            check_key(probe.key.encoded())
        }
        ArchivedMessage::Probed(probed) => match &probed.version {
            ArchivedProbedVersion::Object(body) => object(body.len()),
            _ => Ok(()),
        },
        ArchivedMessage::Replicated(_) => Ok(()),
        ArchivedMessage::Exchange(exchange) => {
            partition(exchange.partition.to_native())?;
            if let Some((key, bytes)) = exchange.step.object() {
                check_key(key)?;
                object(bytes)?;
            }
            if exchange.step.is_sound() { Ok(()) } else { Err(Violation::Exchange) }
        }
        ArchivedMessage::Reap(message) => {
            message.partition().map_or(Ok(()), partition)?;
            if message.is_sound() { Ok(()) } else { Err(Violation::Reap) }
        }
        ArchivedMessage::Gossip(message) => gossip::check(message).map_err(Violation::Gossip),
    }
}

fn check_key(encoded: &[u8]) -> Result<(), Violation> {
    key::check(encoded).map_err(Violation::Key)
}

fn at_most(size: usize, max: usize, violation: fn(usize) -> Violation) -> Result<(), Violation> {
    if size <= max { Ok(()) } else { Err(violation(size)) }
}

fn context(bytes: usize) -> Result<(), Violation> {
    at_most(bytes, CONTEXT_BYTES_MAX, Violation::Context)
}

fn object(bytes: usize) -> Result<(), Violation> {
    at_most(bytes, OBJECT_BYTES_MAX, Violation::Object)
}

fn partition(number: u16) -> Result<(), Violation> {
    at_most(usize::from(number), PARTITIONS_MAX - 1, Violation::Partition)
}

fn partitions(count: usize) -> Result<(), Violation> {
    if count.is_power_of_two() && count <= PARTITIONS_MAX { Ok(()) } else { Err(Violation::Partition(count)) }
}

fn cluster_map(map: &ArchivedClusterMap) -> Result<(), Violation> {
    partitions(map.preference.len())?;
    let nodes = map.nodes.len();
    let consistent = (1..=NODES_MAX).contains(&nodes)
        && map.spread.len() == map.preference.len()
        && map.nodes.iter().all(|node| node.cores > 0)
        && map.preference.iter().flat_map(|list| list.iter()).all(|index| usize::from(*index) < nodes);
    if !consistent {
        return Err(Violation::ClusterMap);
    }
    map.nodes.iter().try_for_each(|node| at_most(node.address.len(), TEXT_BYTES_MAX, Violation::Text))
}
