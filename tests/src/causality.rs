//! The oracle: what each write had seen, kept as explicit sets of writes.
//!
//! The rule: nothing in here reads a version vector to learn the truth; a vector is only ever compared with the sets. A
//! write is replaced when another one that is known had seen it, and for no other reason.
//!
//! Not here: who wrote what when (`history`), the versions that replicas hold (`checkers`).

use ahash::AHashMap;
use bytes::Bytes;
use quorate_node::version::{Clock, Dot};

/// A set of writes of one key, by their numbers in its [`Histories`].
///
/// The rule: the last word is not zero, so that equal sets are equal.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Events(Vec<u64>);

/// One write of a key.
#[derive(Clone, Debug)]
pub struct Write {
    /// Its name in the system under test.
    pub dot: Dot,
    /// What was written; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The client's name for it.
    pub token: Option<u128>,
    /// The writes that it had seen, and all that these had seen.
    pub past: Events,
}

/// All writes of one key.
#[derive(Clone, Debug, Default)]
pub struct Histories {
    writes: Vec<Write>,
    by_dot: AHashMap<Dot, usize>,
    /// Deleted everywhere, so that nobody has to know of them any more.
    forgotten: Events,
}

impl Events {
    fn of_words(mut words: Vec<u64>) -> Self {
        let length = words.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
        words.truncate(length);
        Self(words)
    }

    /// Adds one write.
    pub fn insert(&mut self, event: usize) {
        if self.0.len() <= event / 64 {
            self.0.resize(event / 64 + 1, 0);
        }
        self.0[event / 64] |= 1 << (event % 64);
    }

    /// Whether the write is in the set.
    #[must_use]
    pub fn contains(&self, event: usize) -> bool {
        self.0.get(event / 64).is_some_and(|word| word & 1 << (event % 64) != 0)
    }

    /// Adds all of another set.
    pub fn extend(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine |= theirs;
        }
    }

    /// The union of both.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut all = self.clone();
        all.extend(other);
        all
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let theirs = other.0.iter().chain(std::iter::repeat(&0));
        Self::of_words(self.0.iter().zip(theirs).map(|(mine, theirs)| mine & !theirs).collect())
    }

    /// What is in both.
    #[must_use]
    pub fn common(&self, other: &Self) -> Self {
        Self::of_words(self.0.iter().zip(&other.0).map(|(mine, theirs)| mine & theirs).collect())
    }

    /// Whether all of this set is in the other.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.without(other).is_empty()
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The numbers in the set, rising.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0
            .iter()
            .enumerate()
            .flat_map(|(at, word)| (0..64).filter(move |bit| word & 1 << bit != 0).map(move |bit| at * 64 + bit))
    }
}

impl FromIterator<usize> for Events {
    fn from_iter<I: IntoIterator<Item = usize>>(events: I) -> Self {
        let mut set = Self::default();
        events.into_iter().for_each(|event| set.insert(event));
        set
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl Histories {
    /// Records a write that had seen `seen`, and returns its number.
    ///
    /// # Errors
    /// The earlier write of the same dot (property P11).
    pub fn add(&mut self, dot: Dot, value: Option<Bytes>, token: Option<u128>, seen: &Events) -> Result<usize, usize> {
        if let Some(&earlier) = self.by_dot.get(&dot) {
            return Err(earlier);
        }
        let past = seen.iter().fold(seen.clone(), |past, event| past.union(&self.writes[event].past));
        let event = self.writes.len();
        self.writes.push(Write { dot, value, token, past });
        self.by_dot.insert(dot, event);
        Ok(event)
    }

    /// Takes back the write that was added last.
    pub fn remove_last(&mut self) {
        if let Some(write) = self.writes.pop() {
            self.by_dot.remove(&write.dot);
        }
    }

    /// The number of the write with this dot.
    #[must_use]
    pub fn event(&self, dot: Dot) -> Option<usize> {
        self.by_dot.get(&dot).copied()
    }

    /// A write by its number.
    #[must_use]
    pub fn write(&self, event: usize) -> &Write {
        &self.writes[event]
    }

    /// All writes, by number.
    #[must_use]
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// The writes that a clock claims to have seen.
    #[must_use]
    pub fn covered(&self, clock: &Clock) -> Events {
        (0..self.writes.len()).filter(|&event| clock.covers(self.writes[event].dot)).collect()
    }

    /// Of the known writes those that no other known write had seen.
    #[must_use]
    pub fn maximal(&self, known: &Events) -> Events {
        let replaced = known.iter().fold(Events::default(), |replaced, event| replaced.union(&self.writes[event].past));
        known.without(&replaced)
    }

    /// The writes that nobody has to know of any more.
    #[must_use]
    pub fn forgotten(&self) -> &Events {
        &self.forgotten
    }

    /// Nobody has to know of these any more.
    pub fn forget(&mut self, events: &Events) {
        self.forgotten.extend(events);
    }

    /// Of what is forgotten a value that who knows `known` would show again.
    #[must_use]
    pub fn risen(&self, known: &Events) -> Option<usize> {
        let risen = self.maximal(known).common(&self.forgotten);
        risen.iter().find(|&event| self.writes[event].value.is_some())
    }

    /// What is wrong with `live` as the siblings of who knows `known`, if anything: a write that is missing though nothing
    /// that is known had seen it (P1, P2), or one that is there though something had (P3).
    #[must_use]
    pub fn fault(&self, live: &Events, known: &Events) -> Option<String> {
        let maximal = self.maximal(known);
        let describe = |event: usize| format!("{:?}", self.writes[event].dot);
        if let Some(event) = live.without(&maximal).without(&self.forgotten).iter().next() {
            return Some(format!("{} is a sibling, though it was replaced or is not known", describe(event)));
        }
        let missing = maximal.without(live).without(&self.forgotten);
        missing
            .iter()
            .next()
            .map(|event| format!("{} is lost: it is known, and nothing that is known had seen it", describe(event)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_equal_however_they_came_to_be() {
        let few: Events = [3, 59].into_iter().collect();
        let many: Events = [3, 59, 64, 200].into_iter().collect();
        assert_eq!(many.without(&[64, 200].into_iter().collect()), few);
        assert_eq!(many.common(&few), few);
        assert_eq!(many.without(&many), Events::default());
    }
}
