//! Summaries: 64 bits of a version that the index keeps in RAM, so that most puts and gets need no disk,
//! and what RAM remembers beyond them.
//!
//! Top two bits, then 62 more:
//!
//! | top | the version is | below |
//! |---|---|---|
//! | 0 | one write with a value, all that was ever seen | the actor's number (14), the counter (48) |
//! | 1 | one tombstone, likewise | the same |
//! | 2 | anything else, with a value | the version's hash |
//! | 3 | anything else, all tombstones | the version's hash, which is never 0: with 0 it is [`Summary::LOST`] |
//!
//! The rule: an actor's number is never given to another actor; the table is saved with each checkpoint, whose summaries
//! use it. An outline is found by its version's hash, or not at all.
//!
//! Not here: values.

use std::cell::RefCell;

use ahash::AHashMap;
use quorate_engine::versions::{Summary, Versions};
use smallvec::smallvec;

use crate::{
    object::{self, ArchivedObject, Outline, VersionHash, single_version},
    version::{Actor, Dot, VersionVector},
};

const COUNTER_BITS: u32 = 48;
const ACTORS_MAX: usize = 1 << 14;
const ACTOR_BYTES: usize = 12;

/// Outlines that are kept: about 50 MiB when all have two entries.
const OUTLINES: usize = 1 << 18;
const PAGE: usize = 64;

/// An outline with more entries and live dots than this is not kept.
const OUTLINE_DOTS_MAX: usize = 16;

const SINGLE_VALUE: u64 = 0;
const SINGLE_TOMBSTONE: u64 = 1;
const MANY_WITH_VALUE: u64 = 2;
const MANY_TOMBSTONES: u64 = 3;

/// The actors that summaries name by number, and the outlines of versions that summaries do not tell: one table per store.
#[derive(Debug, Default)]
pub struct ActorTable {
    actors: RefCell<Interned>,
    outlines: RefCell<Outlines>,
}

#[derive(Debug, Default)]
struct Interned {
    actors: Vec<Actor>,
    numbers: AHashMap<Actor, u64>,
}

impl ActorTable {
    /// The summary of the version that is this one write, if it can be told in a summary.
    fn single(&self, dot: Dot, value: bool) -> Option<Summary> {
        if dot.counter >= 1 << COUNTER_BITS {
            return None;
        }
        let kind = if value { SINGLE_VALUE } else { SINGLE_TOMBSTONE };
        let number = self.actors.borrow_mut().number(dot.actor)?;
        Some(Summary(kind << VersionHash::BITS | number << COUNTER_BITS | dot.counter))
    }

    /// The summary of the object's version.
    #[must_use]
    pub fn summary(&self, object: &ArchivedObject) -> Summary {
        let value = object.has_value();
        let single = object.single().and_then(|dot| self.single(dot, value));
        let kind = if value { MANY_WITH_VALUE } else { MANY_TOMBSTONES };
        single.unwrap_or_else(|| {
            let version = object.version();
            self.outlines.borrow_mut().insert(version, object);
            Summary(kind << VersionHash::BITS | version.0)
        })
    }

    /// All but the values of the version, when the summary tells it or it is remembered.
    #[must_use]
    pub fn outline(&self, summary: Summary) -> Option<Outline> {
        match self.dot(summary) {
            Some(dot) => Some(Outline { clock: VersionVector::of(dot).into(), live: smallvec![dot] }),
            None => self.outlines.borrow().find(self.version(summary)).cloned(),
        }
    }

    /// The only write of the version, when it is one.
    fn dot(&self, summary: Summary) -> Option<Dot> {
        if kind(summary) > SINGLE_TOMBSTONE {
            return None;
        }
        let number = payload(summary) >> COUNTER_BITS;
        let actor = self.actors.borrow().actors[number as usize];
        Some(Dot { actor, counter: summary.0 & ((1 << COUNTER_BITS) - 1) })
    }

    /// The stable hash of the version.
    #[must_use]
    pub fn version(&self, summary: Summary) -> VersionHash {
        self.dot(summary).map_or(VersionHash(payload(summary)), single_version)
    }

    /// Whether the version has a long past, see [`object::Object::has_long_past`].
    #[must_use]
    pub fn has_long_past(&self, summary: Summary) -> bool {
        self.version(summary).has_long_past()
    }

    /// Whether the version has a live value.
    #[must_use]
    pub fn has_value(&self, summary: Summary) -> bool {
        matches!(kind(summary), SINGLE_VALUE | MANY_WITH_VALUE)
    }
}

/// Outlines of versions that more than one actor made: a key is written by another actor after each restart of its
/// coordinator. Without them each further put of such a key would have to read the body for its clock.
///
/// A version's place follows from its hash, and the newer one pushes the older one out: nothing ever grows or is moved. The
/// places come in small pages, each made when it is first needed, so that no step takes long.
#[derive(Debug, Default)]
struct Outlines(Vec<Option<Box<Page>>>);

type Page = [Option<Box<(VersionHash, Outline)>>; PAGE];

impl Outlines {
    fn find(&self, version: VersionHash) -> Option<&Outline> {
        let (page, place) = Self::place(version);
        let (held, outline) = &**self.0.get(page)?.as_ref()?[place].as_ref()?;
        (*held == version).then_some(outline)
    }

    fn insert(&mut self, version: VersionHash, object: &ArchivedObject) {
        if object.dots() > OUTLINE_DOTS_MAX {
            return;
        }
        if self.0.is_empty() {
            self.0.resize_with(OUTLINES / PAGE, || None);
        }
        let (page, place) = Self::place(version);
        let page = self.0[page].get_or_insert_with(|| Box::new([const { None }; PAGE]));
        page[place] = Some(Box::new((version, object.outline())));
    }

    fn place(version: VersionHash) -> (usize, usize) {
        let place = version.0 as usize % OUTLINES;
        (place / PAGE, place % PAGE)
    }
}

impl Interned {
    fn number(&mut self, actor: Actor) -> Option<u64> {
        if let Some(&number) = self.numbers.get(&actor) {
            return Some(number);
        }
        if self.actors.len() == ACTORS_MAX {
            return None;
        }
        let number = self.actors.len() as u64;
        self.actors.push(actor);
        self.numbers.insert(actor, number);
        Some(number)
    }
}

impl Versions for ActorTable {
    fn summarise(&self, body: &[u8]) -> Option<Summary> {
        object::view(body).ok().map(|object| self.summary(object))
    }

    fn stable_hash(&self, summary: Summary) -> u64 {
        self.version(summary).0
    }

    fn is_tombstone(&self, summary: Summary) -> bool {
        summary != Summary::LOST && !self.has_value(summary)
    }

    fn save(&self) -> Vec<u8> {
        let mut saved = Vec::new();
        for actor in &self.actors.borrow().actors {
            saved.extend_from_slice(&actor.node.to_le_bytes());
            saved.extend_from_slice(&actor.core.to_le_bytes());
            saved.extend_from_slice(&actor.incarnation.to_le_bytes());
        }
        saved
    }

    fn restore(&self, saved: &[u8]) -> bool {
        let (actors, rest) = saved.as_chunks::<ACTOR_BYTES>();
        let mut interned = Interned::default();
        for bytes in actors {
            let [n0, n1, c0, c1, incarnation @ ..] = *bytes;
            interned.number(Actor {
                node: u16::from_le_bytes([n0, n1]),
                core: u16::from_le_bytes([c0, c1]),
                incarnation: u64::from_le_bytes(incarnation),
            });
        }
        let whole = rest.is_empty() && interned.actors.len() == actors.len();
        if whole {
            *self.actors.borrow_mut() = interned;
        }
        whole
    }
}

fn kind(summary: Summary) -> u64 {
    summary.0 >> VersionHash::BITS
}

fn payload(summary: Summary) -> u64 {
    summary.0 & ((1 << VersionHash::BITS) - 1)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        object::{Object, Sibling},
        version::Clock,
    };

    fn write(node: u16, counter: u64, value: Option<&'static [u8]>) -> Sibling {
        let dot = Dot { actor: Actor { node, core: 0, incarnation: 7 }, counter };
        Sibling { dot, timestamp_ms: 0, token: None, value: value.map(Bytes::from_static) }
    }

    #[test]
    fn a_summary_tells_what_the_body_tells() {
        let table = ActorTable::default();
        let first = Object::default().after_write(&Clock::new(), write(1, 5, Some(b"v")));
        let second = first.after_write(&first.clock, write(2, 9, Some(b"w")));
        let deleted = second.after_write(&second.clock, write(1, 6, None));
        let tombstone = Object::default().after_write(&Clock::new(), write(3, 1, None));
        for (object, single) in [(first, true), (second, false), (deleted, false), (tombstone, true)] {
            let summary = table.summarise(&object.encode()).unwrap();
            assert_eq!(table.version(summary), object.version());
            assert_eq!(table.has_value(summary), object.has_value());
            let live = object.siblings.iter().map(|sibling| sibling.dot).collect();
            assert_eq!(table.outline(summary), Some(Outline { clock: object.clock, live }));
            assert_eq!(table.dot(summary).is_some(), single);
        }
    }

    #[test]
    fn the_table_survives_its_saved_form() {
        let table = ActorTable::default();
        let object = |node| Object::default().after_write(&Clock::new(), write(node, 5, Some(b"v")));
        let summaries: Vec<_> = (0..9).map(|node| table.summarise(&object(node).encode()).unwrap()).collect();
        let restored = ActorTable::default();
        assert!(restored.restore(&table.save()));
        for (node, summary) in summaries.into_iter().enumerate() {
            assert_eq!(restored.outline(summary).map(|outline| outline.clock), Some(object(node as u16).clock));
        }
        assert!(!restored.restore(&table.save()[1..]));
    }

    #[test]
    fn what_is_lost_has_no_version() {
        let table = ActorTable::default();
        assert_eq!((table.stable_hash(Summary::LOST), table.outline(Summary::LOST)), (0, None));
        assert!(!table.has_value(Summary::LOST) && !table.is_tombstone(Summary::LOST));
    }

    #[test]
    fn what_does_not_fit_is_told_by_its_hash() {
        let table = ActorTable::default();
        let object = Object::default().after_write(&Clock::new(), write(1, 1 << COUNTER_BITS, Some(b"v")));
        let summary = table.summarise(&object.encode()).unwrap();
        assert_eq!((table.dot(summary), table.version(summary)), (None, object.version()));
        assert_eq!(table.summarise(b"no object"), None);
    }
}
