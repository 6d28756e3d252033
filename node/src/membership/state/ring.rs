//! The ring as part of the cluster's state: the table in force, and the change that is under way.
//!
//! The rule: of two rings the one of the higher term counts, whole. Of one term and the same tables the progress of both
//! sides counts; of one term and other tables the one with the greater hash, whole. So all come to the same one,
//! whatever they hear in which order.
//!
//! A table means machines, not ids: when two sides of a split let two machines in under one id, the ring that counts
//! says which one it means.
//!
//! Not here: who may change it and when (`change`), what follows for the data (`super`).

use std::collections::{BTreeMap, BTreeSet};

use quorate_engine::planted::{Bug, planted};
use quorate_net::{
    id::{CoreId, Endpoint, NodeId},
    message::gossip::{ChangeBody, Confirmed, Machine, NodeIdentity, RingBody, RingStamp},
};
use xxhash_rust::xxh3::Xxh3;

use crate::ring::Table;

/// Who keeps what, and how that changes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RingState {
    term: u64,
    table: Option<Table>,
    machines: BTreeMap<NodeId, NodeIdentity>,
    change: Option<RingChange>,
    /// Of the tables and machines.
    hash: u64,
}

/// A change of the ring that is under way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RingChange {
    /// The table that is to be in force.
    pub next: Table,
    /// The cores that have all that they gain.
    pub confirmed: BTreeSet<Endpoint>,
    /// How often it was paused or resumed: it is paused when this is odd.
    pub pauses: u64,
}

impl RingChange {
    /// Whether nothing shall be transferred for now.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        !self.pauses.is_multiple_of(2)
    }
}

/// Two rings differ in Q or N, which never change: they are of two clusters. Neither changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct OtherShape;

impl RingState {
    /// The ring of a term. Of the machines only those count that the tables name.
    pub(super) fn new(
        term: u64,
        table: Table,
        next: Option<Table>,
        machines: impl IntoIterator<Item = (NodeId, NodeIdentity)>,
    ) -> Self {
        assert!(term > 0, "of term 0 nothing is known");
        let change = next.map(|next| RingChange { next, confirmed: BTreeSet::new(), pauses: 0 });
        let named: BTreeSet<NodeId> =
            table.nodes().into_iter().chain(change.iter().flat_map(|change| change.next.nodes())).collect();
        let machines: BTreeMap<NodeId, NodeIdentity> =
            machines.into_iter().filter(|(node, _)| named.contains(node)).collect();
        assert_eq!(machines.len(), named.len(), "a node of the tables is no machine");
        let mut hasher = Xxh3::new();
        for packed in [Some(table.pack()), change.as_ref().map(|change| change.next.pack())] {
            let packed = packed.unwrap_or_default();
            hasher.update(&(packed.len() as u64).to_le_bytes());
            hasher.update(&packed);
        }
        for (node, identity) in &machines {
            hasher.update(&node.0.to_le_bytes());
            hasher.update(&identity.0.to_le_bytes());
        }
        Self { term, table: Some(table), machines, change, hash: hasher.digest() }
    }

    /// Grows with each commit, abort and finish; 0 as long as no ring is known.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.term
    }

    /// The table in force.
    #[must_use]
    pub fn table(&self) -> Option<&Table> {
        self.table.as_ref()
    }

    /// The change that is under way.
    #[must_use]
    pub fn change(&self) -> Option<&RingChange> {
        self.change.as_ref()
    }

    pub(super) fn change_mut(&mut self) -> Option<&mut RingChange> {
        self.change.as_mut()
    }

    /// The machine that the tables mean by a node id.
    #[must_use]
    pub fn machine(&self, node: NodeId) -> Option<NodeIdentity> {
        self.machines.get(&node).copied()
    }

    /// The nodes of both tables, by id, and their machines.
    pub fn machines(&self) -> impl Iterator<Item = (NodeId, NodeIdentity)> {
        self.machines.iter().map(|(node, identity)| (*node, *identity))
    }

    /// Tells which tables these are, whatever the progress.
    #[must_use]
    pub fn stamp(&self) -> RingStamp {
        RingStamp { term: self.term, hash: self.hash }
    }

    /// Takes in what another knows.
    pub(super) fn reconcile(&mut self, other: &Self) -> Result<(), OtherShape> {
        if let (Some(ours), Some(theirs)) = (&self.table, &other.table)
            && (ours.partitions(), ours.replicas()) != (theirs.partitions(), theirs.replicas())
        {
            return Err(OtherShape);
        }
        if self.stamp() != other.stamp() {
            let is_later = self.stamp() < other.stamp();
            if is_later && !(planted(Bug::SplitRingsStay) && self.term == other.term) {
                *self = other.clone();
            }
            return Ok(());
        }
        if let (Some(ours), Some(theirs)) = (&mut self.change, &other.change) {
            ours.confirmed.extend(&theirs.confirmed);
            ours.pauses = ours.pauses.max(theirs.pauses);
        }
        Ok(())
    }

    /// All that there is to know.
    pub(super) fn hash_into(&self, hasher: &mut Xxh3) {
        hasher.update(&self.term.to_le_bytes());
        hasher.update(&self.hash.to_le_bytes());
        if let Some(change) = &self.change {
            hasher.update(&change.pauses.to_le_bytes());
            for Endpoint { node, core } in &change.confirmed {
                hasher.update(&node.0.to_le_bytes());
                hasher.update(&core.0.to_le_bytes());
            }
        }
    }

    /// Its form on the wire and on disk.
    #[must_use]
    pub fn body(&self) -> RingBody {
        let change = |change: &RingChange| {
            let mut confirmed: Vec<Confirmed> = Vec::new();
            for Endpoint { node, core } in &change.confirmed {
                if confirmed.last().is_none_or(|last| last.node != *node) {
                    confirmed.push(Confirmed { node: *node, cores: [0; 4] });
                }
                let last = confirmed.last_mut().expect("just pushed");
                last.cores[usize::from(core.0) / 64] |= 1 << (core.0 % 64);
            }
            ChangeBody { next: change.next.pack(), confirmed, pauses: change.pauses }
        };
        RingBody {
            term: self.term,
            table: self.table.as_ref().map(Table::pack).unwrap_or_default(),
            machines: self.machines().map(|(node, identity)| Machine { node, identity }).collect(),
            change: self.change.as_ref().map(change),
        }
    }

    /// What a body says that was checked when it came in; nothing if it contradicts itself nevertheless.
    #[must_use]
    pub fn of_body(body: &RingBody) -> Option<Self> {
        if body.term == 0 {
            return (*body == RingBody::default()).then(Self::default);
        }
        let table = Table::unpack(&body.table)?;
        let next = match &body.change {
            Some(change) => Some(Table::unpack(&change.next)?),
            None => None,
        };
        let named: BTreeSet<NodeId> =
            [Some(&table), next.as_ref()].into_iter().flatten().flat_map(Table::nodes).collect();
        let machines = body.machines.iter().map(|machine| (machine.node, machine.identity));
        if !machines.clone().map(|(node, _)| node).eq(named) {
            return None;
        }
        let mut state = Self::new(body.term, table, next, machines);
        if let (Some(change), Some(body)) = (&mut state.change, &body.change) {
            change.pauses = body.pauses;
            for Confirmed { node, cores } in &body.confirmed {
                let has = |core: &u16| cores[usize::from(*core) / 64] >> (core % 64) & 1 == 1;
                let cores = (0..64 * cores.len() as u16).filter(has);
                change.confirmed.extend(cores.map(|core| Endpoint::new(*node, CoreId(core))));
            }
        }
        Some(state)
    }
}
