//! The ring as it travels and as it lies on disk: tables packed to a few bits a place, and what is known of a change.
//!
//! The rule: a packed table has one form only, and [`unpack`] gives back nothing that breaks what a table promises: the
//! places of a partition are distinct nodes, and of all the listed nodes each has a place.
//!
//! Not here: what a table means, how one follows from another, which of two rings counts (`node/ring`, `node/membership`).

use rkyv::{Archive, Deserialize, Serialize};

use super::{CORES_MAX, NodeIdentity, REPLICAS_MAX, TERM_MAX};
use crate::{
    bounds::{NODES_MAX, PARTITIONS_MAX},
    id::NodeId,
};

/// The fewest partitions of a ring.
const PARTITIONS_MIN: u16 = 64;

const HEADER_BYTES: usize = 6;

/// The most bytes of a packed table: header, node ids, and for each place the bits of the number of a node.
pub const TABLE_BYTES_MAX: usize =
    HEADER_BYTES + 2 * NODES_MAX + PARTITIONS_MAX * REPLICAS_MAX as usize * NODES_MAX.ilog2() as usize / 8;

const CONFIRMED_WORDS: usize = CORES_MAX as usize / 64;

/// The most bytes that a ring takes in a message.
pub(super) const RING_BYTES_MAX: usize =
    256 + 2 * TABLE_BYTES_MAX + NODES_MAX * (2 + 16) + NODES_MAX * (2 + 8 * CONFIRMED_WORDS);

/// Which tables a core goes by, whatever it knows of the progress of a change.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct RingStamp {
    /// The ring's term; 0 as long as it knows no ring.
    pub term: u64,
    /// The stable hash of the tables, and of the machines that their nodes are.
    pub hash: u64,
}

/// Who keeps what, and how that changes. Of term 0 it holds nothing; of any other term there is a table, `machines` are
/// exactly the nodes of both tables, and both are of one Q and N.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct RingBody {
    /// Grows with each change; up to [`TERM_MAX`].
    pub term: u64,
    /// The table in force, [packed](pack); empty if none is known.
    pub table: Vec<u8>,
    /// Which machines the tables mean by their node ids, by id.
    pub machines: Vec<Machine>,
    /// The change that is under way.
    pub change: Option<ChangeBody>,
}

/// Which machine a table means by a node id.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Machine {
    /// The id.
    pub node: NodeId,
    /// The machine.
    pub identity: NodeIdentity,
}

/// A change of the ring that is under way.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct ChangeBody {
    /// The table that is to be in force, packed.
    pub next: Vec<u8>,
    /// Which cores have all that they gain, by node.
    pub confirmed: Vec<Confirmed>,
    /// How often it was paused or resumed: it is paused when this is odd.
    pub pauses: u64,
}

/// Which cores of a node have all that they gain.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Confirmed {
    /// The node; of those in the next table.
    pub node: NodeId,
    /// A bit for each core, the lowest first; not all 0.
    pub cores: [u64; CONFIRMED_WORDS],
}

/// What a table says: for each partition its places.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Places {
    /// Q: a power of two from 64 to [`PARTITIONS_MAX`].
    pub partitions: u16,
    /// N, from 1 to [`REPLICAS_MAX`].
    pub replicas: u8,
    /// The places of each partition, from 1 to N.
    pub copies: u8,
    /// The places of all partitions, one partition after the other.
    pub nodes: Vec<NodeId>,
}

impl Places {
    /// The nodes that have a place, by id.
    #[must_use]
    pub fn distinct(&self) -> Vec<NodeId> {
        let mut nodes = self.nodes.clone();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }
}

/// The bits that tell one of `nodes` from the others.
fn bits(nodes: usize) -> u32 {
    (nodes - 1).checked_ilog2().map_or(0, |log| log + 1)
}

/// The packed form: the logarithm of Q, N, the places of a partition, the number of nodes and their ids in order; then,
/// for each place, the number of its node among these, in as few bits as tell them apart, the lowest first.
///
/// # Panics
///
/// When there are more than [`NODES_MAX`] nodes or none.
#[must_use]
pub fn pack(places: &Places) -> Vec<u8> {
    let nodes = places.distinct();
    assert!((1..=NODES_MAX).contains(&nodes.len()), "a table of {} nodes", nodes.len());
    let bits = bits(nodes.len());
    let mut packed = vec![places.partitions.ilog2() as u8, places.replicas, places.copies, 0];
    packed.extend((nodes.len() as u16).to_le_bytes());
    nodes.iter().for_each(|node| packed.extend(node.0.to_le_bytes()));
    let (mut held, mut count) = (0_u64, 0);
    for node in &places.nodes {
        held |= (nodes.binary_search(node).expect("it is one of them") as u64) << count;
        count += bits;
        while count >= 8 {
            packed.push(held as u8);
            (held, count) = (held >> 8, count - 8);
        }
    }
    if count > 0 {
        packed.push(held as u8);
    }
    packed
}

/// What [`pack`] had packed; nothing if it cannot have.
#[must_use]
pub fn unpack(packed: &[u8]) -> Option<Places> {
    if packed.len() > TABLE_BYTES_MAX {
        return None;
    }
    let (&[log, replicas, copies, 0, low, high], rest) = packed.split_first_chunk::<HEADER_BYTES>()? else {
        return None;
    };
    let partitions = 1_u16.checked_shl(log.into()).filter(|count| *count >= PARTITIONS_MIN)?;
    let count = usize::from(u16::from_le_bytes([low, high]));
    let sound = usize::from(partitions) <= PARTITIONS_MAX
        && (1..=REPLICAS_MAX).contains(&replicas)
        && (1..=replicas).contains(&copies)
        && (usize::from(copies)..=NODES_MAX).contains(&count);
    if !sound {
        return None;
    }
    let (ids, rest) = rest.split_at_checked(2 * count)?;
    let ids: Vec<NodeId> = ids.chunks_exact(2).map(|id| NodeId(u16::from_le_bytes([id[0], id[1]]))).collect();
    let (bits, all) = (bits(count), usize::from(partitions) * usize::from(copies));
    if !ids.is_sorted_by(|a, b| a < b) || rest.len() != (all * bits as usize).div_ceil(8) {
        return None;
    }
    let (mut rest, mut held, mut have) = (rest.iter(), 0_u64, 0);
    let mut nodes: Vec<NodeId> = Vec::with_capacity(all);
    let mut used = vec![false; count];
    for place in 0..all {
        while have < bits {
            held |= u64::from(*rest.next()?) << have;
            have += 8;
        }
        let number = (held & ((1 << bits) - 1)) as usize;
        (held, have) = (held >> bits, have - bits);
        let node = *ids.get(number)?;
        if nodes[place - place % usize::from(copies)..].contains(&node) {
            return None;
        }
        used[number] = true;
        nodes.push(node);
    }
    (held == 0 && used.iter().all(|used| *used)).then_some(Places { partitions, replicas, copies, nodes })
}

impl ArchivedRingBody {
    /// Whether it is as [`RingBody`] says. Unpacks the tables: some hundred kilobytes at most.
    pub(super) fn is_sound(&self) -> bool {
        if self.term.to_native() == 0 {
            return self.table.is_empty() && self.machines.is_empty() && self.change.is_none();
        }
        let Some(table) = unpack(&self.table) else { return false };
        let mut nodes = table.distinct();
        if let Some(change) = self.change.as_ref() {
            let Some(next) = unpack(&change.next) else { return false };
            let gaining = next.distinct();
            let confirmed = &change.confirmed;
            let sound = (next.partitions, next.replicas) == (table.partitions, table.replicas)
                && change.pauses.to_native() <= TERM_MAX
                && confirmed.is_sorted_by(|a, b| a.node.0.to_native() < b.node.0.to_native())
                && confirmed.iter().all(|of| of.cores.iter().any(|word| word.to_native() != 0));
            if !sound {
                return false;
            }
            nodes.extend(gaining);
            nodes.sort_unstable();
            nodes.dedup();
            // Who gains confirms, and so does who leaves, once it has given away what it holds for others.
            if !confirmed.iter().all(|of| nodes.binary_search(&NodeId(of.node.0.to_native())).is_ok()) {
                return false;
            }
        }
        self.term.to_native() <= TERM_MAX
            && nodes.len() <= NODES_MAX
            && self.machines.iter().all(|machine| machine.identity.0.to_native() != 0)
            && self.machines.iter().map(|machine| NodeId(machine.node.0.to_native())).eq(nodes)
    }
}
