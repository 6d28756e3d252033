//! A core's two logs, each with a store of its own: the objects that it owns, and the hints that it keeps for others.
//!
//! The rule: an object is kept in the log of objects by its owners, in the log of hints by all others; both are asked in the
//! same way, and what waits for a disk waits for the log that it was appended to.
//!
//! Not here: what is appended (`puts`, `replicas`), who is given the hints (`hinted_handoff`).

use std::{collections::VecDeque, rc::Rc};

use bytes::Bytes;
use quorate_engine::{
    Append, AppendError, Found, Sequence, Store, Watermark,
    disk::{Disk, prefixed::Prefixed},
    planted::{Bug, planted},
    versions::{Summary, Versions},
};

use super::Waiter;
use crate::{
    coordinator::Local,
    object::{ArchivedObject, Object},
    summary::ActorTable,
};

/// The files of the hint log, in the directory of the core, begin with this.
pub const HINT_PREFIX: &str = "hints";

/// The store of hints.
pub type HintStore<D> = Store<Prefixed<D>>;

/// Which of a core's logs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LogId {
    /// What this core owns.
    Objects,
    /// What it keeps for owners that could not be reached.
    Hints,
}

impl LogId {
    /// What its operator knows it by.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Objects => "the store",
            Self::Hints => "the store of hints",
        }
    }
}

/// A store, and what its summaries mean.
pub(super) struct Log<D: Disk> {
    /// The store.
    pub store: Store<D>,
    /// What its summaries refer to.
    pub actors: Rc<ActorTable>,
    /// What waits for the store's watermark, roughly by sequence.
    waiting: VecDeque<(Sequence, Waiter)>,
}

impl<D: Disk> Log<D> {
    pub(super) fn new(store: Store<D>, actors: Rc<ActorTable>) -> Self {
        Self { store, actors, waiting: VecDeque::new() }
    }

    /// What is told of the key without reading the disk, with the body if it was loaded, and the sequence to wait for
    /// before others may see this version.
    pub(super) fn local(&self, partition: u16, key: &[u8], loaded: Option<Object>) -> (Local, Option<Sequence>) {
        let (mut local, found) = self.look(partition, key);
        if let Some(found) = found {
            local.outline = self.actors.outline(found.summary);
            local.object = loaded.filter(|object| object.version() == local.version);
        }
        (local, found.and_then(|found| found.pending))
    }

    /// The same for whom only the version matters: an outline costs.
    pub(super) fn glance(&self, partition: u16, key: &[u8]) -> (Local, Option<Sequence>) {
        let (local, found) = self.look(partition, key);
        (local, found.and_then(|found| found.pending))
    }

    fn look(&self, partition: u16, key: &[u8]) -> (Local, Option<Found>) {
        let Some(found) = self.store.lookup(partition, key) else { return (Local::absent(), None) };
        if found.summary == Summary::LOST {
            return (if planted(Bug::LostSaysAbsent) { Local::absent() } else { Local::lost() }, None);
        }
        let forgets = planted(Bug::TombstoneDropped) || planted(Bug::Doomstone);
        if forgets && found.pending.is_none() && !self.actors.has_value(found.summary) {
            return (Local::absent(), None);
        }
        let version = self.actors.version(found.summary);
        let has_value = self.actors.has_value(found.summary);
        (Local { version, has_value, ..Local::default() }, Some(found))
    }

    pub(super) fn append(&self, partition: u16, key: &[u8], body: &Bytes) -> Result<Sequence, AppendError> {
        let summary = self.actors.summarise(body).expect("what was encoded here is an object");
        self.store.append(Append { partition, key, body: &[body], summary })
    }

    /// The object comes as it is.
    pub(super) fn append_view(
        &self,
        partition: u16,
        key: &[u8],
        body: &[u8],
        object: &ArchivedObject,
    ) -> Result<Sequence, AppendError> {
        let summary: Summary = self.actors.summary(object);
        self.store.append(Append { partition, key, body: &[body], summary })
    }

    /// Does `waiter` once `sequence` is durable, or at once when it is.
    pub(super) fn when_durable(&mut self, sequence: Sequence, waiter: Waiter) {
        self.waiting.push_back((sequence, waiter));
    }

    /// The next that the watermark lets go, and whether what it waits for is on disk.
    pub(super) fn next_due(&mut self, watermark: Watermark) -> Option<(Waiter, bool)> {
        let due = |sequence: Sequence| match watermark {
            Watermark::Durable(upto) => sequence <= upto,
            Watermark::Failed => true,
        };
        let (_, waiter) = self.waiting.pop_front_if(|(sequence, _)| due(*sequence))?;
        Some((waiter, watermark != Watermark::Failed))
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// A store that failed says so once; who begins to wait for it later must not wait for ever.
    pub(super) fn waits_in_vain(&self) -> bool {
        !self.waiting.is_empty() && self.store.durable() == Watermark::Failed
    }
}
