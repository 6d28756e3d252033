//! One hint under way to the primaries of its partition, and what is remembered of those that are not.
//!
//! The rule: who has acknowledged counts only for the version that it has acknowledged.
//!
//! Not here: in which order hints are taken (`schedule`), what is done with one (`offer`).

use std::collections::BTreeMap;

use quorate_engine::planted::{Bug, planted};
use quorate_net::{
    id::Endpoint,
    message::exchange::{HashedKey, Whole},
};

use super::schedule::Place;
use crate::{clock::Instant, object::Object};

/// A hint under way.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) partition: u16,
    pub(super) key: HashedKey,
    /// The version that was listed, then that of the body that was read.
    pub(super) version: u64,
    /// Its share of the bytes under way.
    pub(super) bytes: u64,
    /// The primaries that have this version, or what covers it, on disk.
    pub(super) acknowledged: Vec<Endpoint>,
    /// The primaries that it is under way to.
    pub(super) asks: BTreeMap<Endpoint, Ask>,
    pub(super) stage: Stage,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// The core reads it.
    Loading,
    /// Primaries are asked.
    Offering { whole: Whole, object: Object },
    /// The core forgets it, since all have it; or it is `unreadable`, and nobody ever will.
    Forgetting { unreadable: bool },
}

/// What a primary was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ask {
    /// Nothing yet: the body is being read.
    Waiting,
    /// Whether it has the hint's object.
    Probe { operation: u64, until: Instant },
    /// The object.
    Replicate { operation: u64, until: Instant },
}

impl Ask {
    /// The number of the message, and until when its answer counts.
    pub(super) fn sent(self) -> Option<(u64, Instant)> {
        match self {
            Self::Waiting => None,
            Self::Probe { operation, until } | Self::Replicate { operation, until } => Some((operation, until)),
        }
    }
}

impl Delivery {
    pub(super) fn place(&self) -> Place {
        Place::of(self.key)
    }

    pub(super) fn is_for(&self, primary: Endpoint) -> bool {
        self.acknowledged.contains(&primary) || self.asks.contains_key(&primary)
    }

    pub(super) fn acknowledged_by_all(&self, primaries: &[Endpoint]) -> bool {
        primaries.iter().all(|primary| self.acknowledged.contains(primary))
            || (planted(Bug::HintForgottenEarly) && !self.acknowledged.is_empty())
    }
}

/// Who has acknowledged which hints that are still held. Bounded: what finds no room is not remembered, and costs
/// another probe. (What is there stays, since hints are gone through in turn: the oldest is the next to be needed.)
#[derive(Debug, Default)]
pub(super) struct Acknowledged {
    by_hint: BTreeMap<(u16, HashedKey), (u64, Vec<Endpoint>)>,
}

impl Acknowledged {
    /// Who has this version.
    pub(super) fn of(&self, partition: u16, key: HashedKey, version: u64) -> &[Endpoint] {
        match self.by_hint.get(&(partition, key)) {
            Some((known, by)) if *known == version => by,
            _ => &[],
        }
    }

    /// Who has this version; forgotten here.
    pub(super) fn take(&mut self, partition: u16, key: HashedKey, version: u64) -> Vec<Endpoint> {
        let taken = self.by_hint.remove(&(partition, key));
        taken.filter(|(known, _)| *known == version).map(|(_, by)| by).unwrap_or_default()
    }

    pub(super) fn remember(&mut self, delivery: &Delivery, max: usize) {
        if !delivery.acknowledged.is_empty() && self.by_hint.len() < max {
            let known = (delivery.version, delivery.acknowledged.clone());
            self.by_hint.insert((delivery.partition, delivery.key), known);
        }
    }

    /// Forgets all about the hints of a partition.
    pub(super) fn clear(&mut self, partition: u16) {
        let first = (partition, HashedKey { fingerprint: 0, tag: 0 });
        let last = (partition, HashedKey { fingerprint: u64::MAX, tag: u8::MAX });
        while let Some((&hint, _)) = self.by_hint.range(first..=last).next() {
            self.by_hint.remove(&hint);
        }
    }

    /// Keeps only those who `owns` names: who was no owner for a while may have dropped what it had.
    pub(super) fn retain(&mut self, owns: impl Fn(Endpoint, u16) -> bool) {
        self.by_hint.retain(|&(partition, _), (_, by)| {
            by.retain(|&endpoint| owns(endpoint, partition));
            !by.is_empty()
        });
    }

    pub(super) fn len(&self) -> usize {
        self.by_hint.len()
    }
}
