//! An object: all that a replica knows of one key, its clock and its siblings.
//!
//! The rule: replicas send and store whole objects, never a bare value; [`Object::reconcile`] is commutative,
//! associative and idempotent, so the order and the number of deliveries do not matter; a value leaves an object only
//! when a write that had seen it takes its place.
//!
//! One encoding: rkyv, little-endian, unaligned. The coordinator encodes an object once; the same bytes travel to the
//! replicas, lie in the log and in the answer to a read. Pure. Not here: quorums, contexts' seals (`context`).

use bytes::Bytes;
use quorate_engine::planted::{Bug, planted};
use rkyv::{Archive, Deserialize, Serialize, rancor::Error};
use xxhash_rust::xxh3::xxh3_64;

use crate::version::{Actor, Clock, Dot, VersionVector};

/// The most siblings in a body that is accepted from anywhere. Far above any configured limit: a bound on the work.
pub const SIBLINGS_MAX: usize = 4096;

/// The most clock entries in a body that is accepted from anywhere.
pub const CLOCK_ENTRIES_MAX: usize = 4096;

/// All that a replica knows of one key.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct Object {
    /// Every write that was seen, live or replaced.
    pub clock: Clock,
    /// The writes that nothing has replaced, sorted by dot.
    pub siblings: Vec<Sibling>,
}

/// One live write.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Sibling {
    /// The write event.
    pub dot: Dot,
    /// When its coordinator took it, in milliseconds of its wall clock: only to name a winner.
    pub timestamp_ms: u64,
    /// The client's name for the logical write: two writes of one token are one.
    pub token: Option<u128>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
}

/// An object without its values: all that a put needs to know of what it replaces whole.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outline {
    /// Every write that was seen.
    pub clock: Clock,
    /// The writes that nothing has replaced.
    pub live: Vec<Dot>,
}

/// Bytes that are not an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

/// The stable hash of a version, equal on every node; 0 stands for an absent key. 62 bits, as the index keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct VersionHash(pub u64);

impl VersionHash {
    /// No object at all.
    pub const ABSENT: Self = Self(0);
    /// Hashes fit into this many bits.
    pub const BITS: u32 = 62;
}

impl Object {
    /// The object after a write that had seen `context`: what the context covers is replaced, the rest stays beside it.
    #[must_use]
    pub fn after_write(&self, context: &Clock, write: Sibling) -> Self {
        let mut clock = self.clock.clone();
        clock.join(context);
        assert!(!clock.covers(write.dot), "dot {:?} was minted twice", write.dot);
        clock.mint(write.dot);
        let mut siblings: Vec<_> =
            self.siblings.iter().filter(|sibling| !context.covers(sibling.dot)).cloned().collect();
        let at = siblings.partition_point(|sibling| sibling.dot < write.dot);
        siblings.insert(at, write);
        let mut object = Self { clock, siblings };
        object.collapse_tokens();
        object
    }

    /// Joins two replicas' knowledge: a write lives when each side has it live or has not seen it.
    #[must_use]
    pub fn reconcile(&self, other: &Self) -> Self {
        let lives_in = |sibling: &Sibling, there: &Self| {
            !there.clock.covers(sibling.dot) || there.siblings.iter().any(|theirs| theirs.dot == sibling.dot)
        };
        let mut siblings: Vec<_> = self.siblings.iter().filter(|mine| lives_in(mine, other)).cloned().collect();
        siblings.extend(other.siblings.iter().filter(|theirs| !self.clock.covers(theirs.dot)).cloned());
        siblings.sort_unstable_by_key(|sibling| sibling.dot);
        if planted(Bug::NewestWins) {
            let latest = siblings.iter().map(|sibling| sibling.timestamp_ms).max();
            siblings.retain(|sibling| Some(sibling.timestamp_ms) == latest);
        }
        let mut clock = self.clock.clone();
        clock.join(&other.clock);
        let mut object = Self { clock, siblings };
        object.collapse_tokens();
        object
    }

    /// Of several live writes of one token only the one with the highest dot stays: they are one logical write.
    fn collapse_tokens(&mut self) {
        if self.siblings.len() < 2 || self.siblings.iter().all(|sibling| sibling.token.is_none()) {
            return;
        }
        let newest = |token| self.siblings.iter().rev().find(|s| s.token == Some(token)).map(|s| s.dot);
        let doubled: Vec<Dot> = self
            .siblings
            .iter()
            .filter(|s| s.token.is_some_and(|token| newest(token) != Some(s.dot)))
            .map(|s| s.dot)
            .collect();
        self.siblings.retain(|sibling| !doubled.contains(&sibling.dot));
    }

    /// The stable hash of this version.
    #[must_use]
    pub fn version(&self) -> VersionHash {
        let vector = self.clock.vector().entries().iter().copied();
        hash(vector, self.clock.beyond().iter().copied(), self.siblings.iter().map(|sibling| sibling.dot))
    }

    /// The live values, the winner first: the latest timestamp, then the highest dot.
    #[must_use]
    pub fn values(&self) -> Vec<Bytes> {
        let mut live: Vec<_> = self.siblings.iter().filter(|sibling| sibling.value.is_some()).collect();
        live.sort_unstable_by_key(|sibling| std::cmp::Reverse((sibling.timestamp_ms, sibling.dot)));
        live.into_iter().filter_map(|sibling| sibling.value.clone()).collect()
    }

    /// Whether any live write is a value, not a tombstone.
    #[must_use]
    pub fn has_value(&self) -> bool {
        self.siblings.iter().any(|sibling| sibling.value.is_some())
    }

    /// The encoded form: the one that travels and lies on disk.
    ///
    /// # Panics
    /// Never: encoding into memory has no error but a length beyond 2 GiB, which the limits exclude.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let value_bytes: usize = self.siblings.iter().map(|s| s.value.as_ref().map_or(0, Bytes::len) + 64).sum();
        let room = 64 + 20 * (self.clock.vector().entries().len() + self.clock.beyond().len()) + value_bytes;
        let encoded: Result<Vec<u8>, Error> = rkyv::api::high::to_bytes_in(self, Vec::with_capacity(room));
        Bytes::from(encoded.expect("an object within its limits encodes"))
    }

    /// The object in `body`; its values share the memory of `body`.
    ///
    /// # Errors
    /// When the bytes are not an object, or one that no coordinator makes.
    pub fn decode(body: &Bytes) -> Result<Self, Malformed> {
        view(body)?.with_values(|value| body.slice_ref(value))
    }
}

/// The encoded object in place, with its shape checked.
///
/// # Errors
/// When the bytes are not an object, or one that no coordinator makes.
pub fn view(body: &[u8]) -> Result<&ArchivedObject, Malformed> {
    let archived = rkyv::access::<ArchivedObject, Error>(body).map_err(|_| Malformed)?;
    let (vector, beyond) = archived.clock.parts();
    if vector.len() + beyond.len() > CLOCK_ENTRIES_MAX || archived.siblings.len() > SIBLINGS_MAX {
        return Err(Malformed);
    }
    let mut live = archived.siblings.iter().map(|sibling| sibling.dot.to_dot());
    let whole = vector.clone().all(|entry| entry.counter > 0)
        && vector.map(|entry| entry.actor).is_sorted_by(|a, b| a < b)
        && beyond.clone().all(|dot| dot.counter > 0)
        && beyond.clone().is_sorted_by(|a, b| a < b)
        && !beyond.clone().any(|dot| archived.covers_all_up_to(dot))
        && live.len() > 0
        && live.clone().is_sorted_by(|a, b| a < b)
        && live.all(|dot| archived.covers(dot));
    if whole { Ok(archived) } else { Err(Malformed) }
}

impl ArchivedObject {
    /// The object, with copies of its values. Only for objects that came through [`view`].
    ///
    /// # Panics
    /// When the shape was not checked before.
    #[must_use]
    pub fn to_object(&self) -> Object {
        self.with_values(Bytes::copy_from_slice).expect("an object that was viewed is whole")
    }

    fn with_values(&self, value: impl Fn(&[u8]) -> Bytes) -> Result<Object, Malformed> {
        let clock = self.clock()?;
        let siblings = self.siblings.iter().map(|sibling| Sibling {
            dot: sibling.dot.to_dot(),
            timestamp_ms: sibling.timestamp_ms.to_native(),
            token: sibling.token.as_ref().map(|token| token.to_native()),
            value: sibling.value.as_ref().map(|bytes| value(bytes.as_slice())),
        });
        Ok(Object { siblings: siblings.collect(), clock })
    }

    /// The stable hash of this version.
    #[must_use]
    pub fn version(&self) -> VersionHash {
        let (vector, beyond) = self.clock.parts();
        hash(vector, beyond, self.siblings.iter().map(|sibling| sibling.dot.to_dot()))
    }

    /// Whether the clock has seen the write.
    #[must_use]
    pub fn covers(&self, dot: Dot) -> bool {
        let (_, mut beyond) = self.clock.parts();
        self.covers_all_up_to(dot) || beyond.any(|single| single == dot)
    }

    /// Whether the clock has seen the write and all before it by its actor.
    #[must_use]
    pub fn covers_all_up_to(&self, dot: Dot) -> bool {
        let (mut vector, _) = self.clock.parts();
        vector.any(|entry| entry.actor == dot.actor && entry.counter >= dot.counter)
    }

    /// Whether any live write is a value, not a tombstone.
    #[must_use]
    pub fn has_value(&self) -> bool {
        self.siblings.iter().any(|sibling| sibling.value.is_some())
    }

    /// The object without its values.
    ///
    /// # Panics
    /// When the shape was not checked before.
    #[must_use]
    pub fn outline(&self) -> Outline {
        let live = self.siblings.iter().map(|sibling| sibling.dot.to_dot()).collect();
        Outline { clock: self.clock().expect("an object that was viewed is whole"), live }
    }

    /// Entries of the clock and live writes, together.
    #[must_use]
    pub fn dots(&self) -> usize {
        let (vector, beyond) = self.clock.parts();
        vector.len() + beyond.len() + self.siblings.len()
    }

    fn clock(&self) -> Result<Clock, Malformed> {
        let (vector, beyond) = self.clock.parts();
        let vector = VersionVector::from_entries(vector.collect()).ok_or(Malformed)?;
        Clock::from_parts(vector, beyond.collect()).ok_or(Malformed)
    }

    /// The dot of the only live write, when the clock has seen nothing else by other actors, nor later.
    #[must_use]
    pub fn single(&self) -> Option<Dot> {
        let (mut entries, beyond) = self.clock.parts();
        let entry = entries.next()?;
        let alone = entries.next().is_none()
            && beyond.len() == 0
            && self.siblings.len() == 1
            && self.siblings[0].dot.to_dot() == entry;
        alone.then_some(entry)
    }
}

/// The hash of a version that is this one write and nothing else.
#[must_use]
pub fn single_version(dot: Dot) -> VersionHash {
    hash([dot].into_iter(), [].into_iter(), [dot].into_iter())
}

fn hash(
    vector: impl Iterator<Item = Dot>,
    beyond: impl Iterator<Item = Dot>,
    live: impl Iterator<Item = Dot>,
) -> VersionHash {
    let mut bytes = Vec::with_capacity(128);
    let mut add = |dot: Dot| {
        bytes.extend_from_slice(&dot.actor.node.to_le_bytes());
        bytes.extend_from_slice(&dot.actor.core.to_le_bytes());
        bytes.extend_from_slice(&dot.actor.incarnation.to_le_bytes());
        bytes.extend_from_slice(&dot.counter.to_le_bytes());
    };
    // No counter is 0, so this dot parts the three lists.
    let part = Dot { actor: Actor { node: 0, core: 0, incarnation: 0 }, counter: 0 };
    vector.for_each(&mut add);
    add(part);
    beyond.for_each(&mut add);
    add(part);
    live.for_each(&mut add);
    VersionHash((xxh3_64(&bytes) >> (64 - VersionHash::BITS)).max(1))
}

/// Bodies are read in place wherever they lie in a buffer.
const _: () = assert!(align_of::<ArchivedObject>() == 1);
