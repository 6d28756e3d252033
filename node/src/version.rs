//! Versions of one key: actors, dots and version vectors.
//!
//! The rule: an entry (a, n) claims that **all** of a's dots up to n *for this key* were seen. So an actor may mint a
//! dot only while its core's store holds everything that it ever minted for that key; when that can be in doubt (a
//! start, a regained partition, a lost record, hints handed off) the core takes a new incarnation, which is a new actor.
//!
//! Sources: Dynamo section 4.4; dotted version vectors (Preguiça et al., 2010). Pure. Not here: values (`object`), when a
//! core renews its actor (`core`).

use std::{cmp::Ordering, fmt};

use quorate_net::id::Endpoint;
use rkyv::{Archive, Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};

/// One incarnation of one core: who mints dots. See [`incarnation`].
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[rkyv(derive(Clone, Copy))]
pub struct Actor {
    /// The node's id.
    pub node: u16,
    /// The core on it.
    pub core: u16,
    /// Which life of that core.
    pub incarnation: u64,
}

/// One write event: the `counter`-th of an actor. Counters rise core-wide and are never reused.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[rkyv(derive(Clone, Copy))]
pub struct Dot {
    /// Who wrote.
    pub actor: Actor,
    /// Its how-manieth write, from 1.
    pub counter: u64,
}

/// Mostly one, which then needs no allocation.
pub type Dots = SmallVec<[Dot; 1]>;

/// For each actor the highest counter up to which all was seen. Sorted by actor, no counter is 0.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Hash, Default)]
pub struct VersionVector(Dots);

/// What has been seen of a key's past: all that a version vector claims, and single dots beyond it.
///
/// The dots are there for one case: a put that leaves siblings hands out a context that covers its own write but not an
/// older sibling by the same actor. They go as soon as a vector covers them.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Hash, Default)]
pub struct Clock {
    vector: VersionVector,
    beyond: Vec<Dot>,
}

/// A new incarnation. It is random enough that no other life of the core has it, even if its disk was wiped or put back;
/// the upper 28 bits tell when it began, in steps of 16 s, so that of two actors the older one is known.
#[must_use]
pub fn incarnation(wall_ms: u64, random: u64) -> u64 {
    const RANDOM_BITS: u32 = 36;
    let (begun, random) = ((wall_ms / 16_000) << RANDOM_BITS, random & ((1 << RANDOM_BITS) - 1));
    (begun | random).max(1)
}

impl Actor {
    /// The actor of `core` in the life `incarnation`.
    #[must_use]
    pub fn new(core: Endpoint, incarnation: u64) -> Self {
        Self { node: core.node.0, core: core.core.0, incarnation }
    }
}

impl VersionVector {
    /// A vector that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The vector that has seen `dot` and all before it.
    #[must_use]
    pub fn of(dot: Dot) -> Self {
        Self(smallvec![dot])
    }

    /// The vector with these entries, or `None` when they are not sorted by actor, or repeat one, or hold a counter of 0.
    #[must_use]
    pub fn from_entries(entries: impl IntoIterator<Item = Dot>) -> Option<Self> {
        let entries: Dots = entries.into_iter().collect();
        let sorted = entries.windows(2).all(|pair| pair[0].actor < pair[1].actor);
        (sorted && entries.iter().all(|entry| entry.counter > 0)).then_some(Self(entries))
    }

    /// For each actor its newest dot that was seen, by actor.
    #[must_use]
    pub fn entries(&self) -> &[Dot] {
        &self.0
    }

    /// True when nothing was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The highest counter of `actor` that was seen, 0 for none.
    #[must_use]
    pub fn counter(&self, actor: Actor) -> u64 {
        self.0.binary_search_by_key(&actor, |entry| entry.actor).map_or(0, |at| self.0[at].counter)
    }

    /// Whether the write was seen.
    #[must_use]
    pub fn covers(&self, dot: Dot) -> bool {
        self.counter(dot.actor) >= dot.counter
    }

    /// Whether all that `other` has seen was seen.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        other.0.iter().all(|&entry| self.covers(entry))
    }

    /// Adds a write and all before it by the same actor.
    pub fn add(&mut self, dot: Dot) {
        match self.0.binary_search_by_key(&dot.actor, |entry| entry.actor) {
            Ok(at) => self.0[at].counter = self.0[at].counter.max(dot.counter),
            Err(at) => self.0.insert(at, dot),
        }
    }

    /// Adds all that `other` has seen.
    pub fn join(&mut self, other: &Self) {
        for &entry in &other.0 {
            self.add(entry);
        }
    }
}

impl Clock {
    /// A clock that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The clock of these parts, or `None` when the dots are not sorted, or repeat, or the vector covers one.
    #[must_use]
    pub fn from_parts(vector: VersionVector, beyond: Vec<Dot>) -> Option<Self> {
        let sorted = beyond.windows(2).all(|pair| pair[0] < pair[1]);
        (sorted && !beyond.iter().any(|&dot| vector.covers(dot))).then_some(Self { vector, beyond })
    }

    /// What was seen without gaps.
    #[must_use]
    pub fn vector(&self) -> &VersionVector {
        &self.vector
    }

    /// Single writes that were seen, by dot; the vector covers none of them.
    #[must_use]
    pub fn beyond(&self) -> &[Dot] {
        &self.beyond
    }

    /// Whether the write was seen.
    #[must_use]
    pub fn covers(&self, dot: Dot) -> bool {
        self.vector.covers(dot) || self.beyond.binary_search(&dot).is_ok()
    }

    /// Whether all that `other` has seen was seen.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        self.vector.includes(&other.vector) && other.beyond.iter().all(|&dot| self.covers(dot))
    }

    /// Adds a write **and all before it by its actor for this key**: for the core that mints, which holds them all.
    pub fn mint(&mut self, dot: Dot) {
        self.vector.add(dot);
        self.settle();
    }

    /// Adds this one write.
    pub fn add(&mut self, dot: Dot) {
        self.beyond.push(dot);
        self.settle();
    }

    /// Adds all that `other` has seen.
    pub fn join(&mut self, other: &Self) {
        self.vector.join(&other.vector);
        self.beyond.extend_from_slice(&other.beyond);
        self.settle();
    }

    /// How many entries of the vector and dots beyond it there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.vector.0.len() + self.beyond.len()
    }

    /// True when nothing was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entries of the vector, then the dots beyond it.
    pub fn dots(&self) -> impl Iterator<Item = Dot> + '_ {
        self.vector.0.iter().chain(&self.beyond).copied()
    }

    /// Forgets the entries and the dots that `keep` does not hold.
    pub fn retain(&mut self, keep: impl Fn(Dot) -> bool) {
        self.vector.0.retain(|entry| keep(*entry));
        self.beyond.retain(|&dot| keep(dot));
    }

    fn settle(&mut self) {
        if !self.beyond.is_empty() {
            self.beyond.retain(|&dot| !self.vector.covers(dot));
            self.beyond.sort_unstable();
            self.beyond.dedup();
        }
    }
}

impl From<VersionVector> for Clock {
    fn from(vector: VersionVector) -> Self {
        Self { vector, beyond: Vec::new() }
    }
}

/// `Less`: `a` is in the past of `b`. `None`: they are concurrent.
impl PartialOrd for Clock {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self.includes(other), other.includes(self)) {
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Greater),
            (false, true) => Some(Ordering::Less),
            (false, false) => None,
        }
    }
}

impl ArchivedVersionVector {
    /// The entries, not checked for order.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = Dot> + Clone + '_ {
        self.0.iter().map(ArchivedDot::to_dot)
    }
}

impl ArchivedClock {
    /// The entries of the vector and the dots beyond it, not checked.
    pub fn parts(
        &self,
    ) -> (impl ExactSizeIterator<Item = Dot> + Clone + '_, impl ExactSizeIterator<Item = Dot> + Clone + '_) {
        (self.vector.entries(), self.beyond.iter().map(ArchivedDot::to_dot))
    }
}

impl ArchivedDot {
    /// The dot itself.
    #[must_use]
    pub fn to_dot(&self) -> Dot {
        let actor = Actor {
            node: self.actor.node.to_native(),
            core: self.actor.core.to_native(),
            incarnation: self.actor.incarnation.to_native(),
        };
        Dot { actor, counter: self.counter.to_native() }
    }
}

impl fmt::Debug for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}~{:x}", self.node, self.core, self.incarnation)
    }
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:{}", self.actor, self.counter)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.vector)?;
        if self.beyond.is_empty() { Ok(()) } else { write!(f, "+{:?}", self.beyond) }
    }
}

impl fmt::Debug for VersionVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(&self.0).finish()
    }
}
