//! An object: all that a replica knows of one key, its clock and its siblings.
//!
//! The rule: replicas send and store whole objects, never a bare value; [`Object::reconcile`] is commutative,
//! associative and idempotent, so the order and the number of deliveries do not matter; a value leaves an object only
//! when a write that had seen it takes its place.
//!
//! The past of a version is what its clock has seen by actors of which no write lives in it. It is there to tell older
//! versions from newer ones, so it may go where nobody has an older one any more (`reaper`). Should a clock grow beyond
//! [`CLOCK_DOTS_MAX`] before that is proven, then the oldest of its past goes, as in Dynamo: a replica that was away since
//! before may then bring back what that had replaced, as a sibling.
//!
//! One encoding: rkyv, little-endian, unaligned. The coordinator encodes an object once; the same bytes travel to the
//! replicas, lie in the log and in the answer to a read. Pure. Not here: quorums, contexts' seals (`context`).

use bytes::Bytes;
use quorate_engine::planted::{Bug, planted};
use rkyv::{
    Archive, Deserialize, Serialize,
    rancor::{Failure, Panic, ResultExt},
};
use xxhash_rust::xxh3::xxh3_64;

use crate::version::{Actor, Clock, Dot, Dots, VersionVector};

/// The most siblings in a body that is accepted from anywhere. Far above any configured limit: a bound on the work.
pub const SIBLINGS_MAX: usize = 4096;

/// The most clock entries in a body that is accepted from anywhere.
pub const CLOCK_ENTRIES_MAX: usize = 4096;

/// No clock that is made here has more entries and dots, unless writes of as many actors live.
pub const CLOCK_DOTS_MAX: usize = 256;

/// A past of more dots than this is long. Three owners that take turns have one of two.
const PAST_DOTS_MAX: usize = 4;

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
    pub live: Dots,
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

    /// Whether the version has a long past: the lowest bit of the hash tells, so that the index knows.
    #[must_use]
    pub fn has_long_past(self) -> bool {
        self.0 & 1 == 1
    }
}

impl Object {
    /// The object after a write that had seen `context`: what the context covers is replaced, the rest stays beside it.
    #[must_use]
    pub fn after_write(&self, context: &Clock, write: Sibling) -> Self {
        let mut clock = self.clock.clone();
        clock.join(context);
        assert!(!clock.covers(write.dot), "dot {:?} was minted twice", write.dot);
        clock.mint(write.dot);
        let mut siblings = Vec::with_capacity(self.siblings.len() + 1);
        siblings.extend(self.siblings.iter().filter(|sibling| !context.covers(sibling.dot)).cloned());
        let at = siblings.partition_point(|sibling| sibling.dot < write.dot);
        siblings.insert(at, write);
        Self { clock, siblings }.settled()
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
        Self { clock, siblings }.settled()
    }

    /// Whether the clock's past has more than a few dots.
    #[must_use]
    pub fn has_long_past(&self) -> bool {
        self.version().has_long_past()
    }

    /// How many entries and dots of these clocks, of which it was made, this object's clock had no room for.
    #[must_use]
    pub fn dropped_of(&self, clocks: [&Clock; 2]) -> u64 {
        if self.clock.len() < CLOCK_DOTS_MAX {
            return 0;
        }
        let mut all = clocks[0].clone();
        all.join(clocks[1]);
        all.dots().filter(|&dot| !self.clock.covers(dot)).count() as u64
    }

    /// The same values without any past.
    #[must_use]
    pub fn without_past(&self) -> Self {
        let mut object = self.clone();
        object.clock.retain(|dot| !is_past(dot, self.siblings.iter().map(|sibling| sibling.dot)));
        object
    }

    /// What was just made, within its bounds.
    fn settled(mut self) -> Self {
        let dots_max = if planted(Bug::PastDropped) { PAST_DOTS_MAX } else { CLOCK_DOTS_MAX };
        let surplus = self.clock.len().saturating_sub(dots_max);
        if surplus > 0 {
            let live: Vec<Dot> = self.siblings.iter().map(|sibling| sibling.dot).collect();
            let mut past: Vec<Dot> = self.clock.dots().filter(|&dot| is_past(dot, live.iter().copied())).collect();
            past.sort_unstable_by_key(|dot| (dot.actor.incarnation, *dot));
            past.truncate(surplus);
            self.clock.retain(|dot| !past.contains(&dot));
        }
        self
    }

    /// The stable hash of this version.
    #[must_use]
    pub fn version(&self) -> VersionHash {
        let vector = self.clock.vector().entries().iter().copied();
        hash(vector, self.clock.beyond().iter().copied(), self.siblings.iter().map(|sibling| sibling.dot))
    }

    /// The live values, the winner first: the latest timestamp, then the highest dot. Live writes of one token are one logical
    /// write, of which the first is shown. Both stay siblings here: to say that one of them replaced the other would be untrue,
    /// and where other writes have replaced the one in some places and the other elsewhere, nothing would be left.
    #[must_use]
    pub fn values(&self) -> Vec<Bytes> {
        let mut live: Vec<_> = self.siblings.iter().filter(|sibling| sibling.value.is_some()).collect();
        live.sort_unstable_by_key(|sibling| std::cmp::Reverse((sibling.timestamp_ms, sibling.dot)));
        let again =
            |at: usize| live[at].token.is_some() && live[..at].iter().any(|first| first.token == live[at].token);
        (0..live.len()).filter(|&at| !again(at)).filter_map(|at| live[at].value.clone()).collect()
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
        let encoded: Result<Vec<u8>, Panic> = rkyv::api::high::to_bytes_in(self, Vec::with_capacity(room));
        Bytes::from(encoded.always_ok())
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
    let archived = rkyv::access::<ArchivedObject, Failure>(body).map_err(|_| Malformed)?;
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

    /// The value of the only live write, when there is just one, and it has one.
    #[must_use]
    pub fn only_value(&self) -> Option<&[u8]> {
        match self.siblings.as_slice() {
            [only] => only.value.as_ref().map(|value| value.as_slice()),
            _ => None,
        }
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
        let vector = VersionVector::from_entries(vector).ok_or(Malformed)?;
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
    // What `hash` makes of it, without its generality: most versions are one write.
    let (encoded, part) = (encoded(dot), [0; DOT_BYTES]);
    version_hash([encoded, part, part, encoded].as_flattened(), false)
}

/// Whether the dot, of a clock, is past: no write of its actor lives.
fn is_past(dot: Dot, mut live: impl Iterator<Item = Dot>) -> bool {
    live.all(|live| live.actor != dot.actor)
}

/// Of an encoded dot.
const DOT_BYTES: usize = 20;

fn encoded(dot: Dot) -> [u8; DOT_BYTES] {
    let mut bytes = [0; DOT_BYTES];
    bytes[..2].copy_from_slice(&dot.actor.node.to_le_bytes());
    bytes[2..4].copy_from_slice(&dot.actor.core.to_le_bytes());
    bytes[4..12].copy_from_slice(&dot.actor.incarnation.to_le_bytes());
    bytes[12..].copy_from_slice(&dot.counter.to_le_bytes());
    bytes
}

fn version_hash(dots: &[u8], long_past: bool) -> VersionHash {
    VersionHash((xxh3_64(dots) >> (65 - VersionHash::BITS)).max(1) << 1 | u64::from(long_past))
}

fn hash(
    vector: impl Iterator<Item = Dot> + Clone,
    beyond: impl Iterator<Item = Dot> + Clone,
    live: impl Iterator<Item = Dot> + Clone,
) -> VersionHash {
    let past = vector.clone().chain(beyond.clone()).filter(|&dot| is_past(dot, live.clone()));
    let long = past.take(PAST_DOTS_MAX + 1).count() > PAST_DOTS_MAX;
    let mut few = [0; 16 * DOT_BYTES];
    let mut many = Vec::new();
    let mut len = 0;
    let mut add = |dot: Dot| {
        let bytes = encoded(dot);
        match few.get_mut(len..len + DOT_BYTES) {
            Some(place) => place.copy_from_slice(&bytes),
            None if many.is_empty() => {
                many.extend_from_slice(&few);
                many.extend_from_slice(&bytes);
            }
            None => many.extend_from_slice(&bytes),
        }
        len += DOT_BYTES;
    };
    // No counter is 0, so this dot parts the three lists.
    let part = Dot { actor: Actor { node: 0, core: 0, incarnation: 0 }, counter: 0 };
    vector.for_each(&mut add);
    add(part);
    beyond.for_each(&mut add);
    add(part);
    live.for_each(&mut add);
    version_hash(if many.is_empty() { &few[..len] } else { &many }, long)
}

/// Bodies are read in place wherever they lie in a buffer.
const _: () = assert!(align_of::<ArchivedObject>() == 1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::{Decision, decide};

    fn write(incarnation: u64, counter: u64) -> Sibling {
        let dot = Dot { actor: Actor { node: 1, core: 0, incarnation }, counter };
        Sibling { dot, timestamp_ms: 0, token: None, value: Some(Bytes::from(counter.to_string())) }
    }

    /// A key that each of these actors wrote once, having seen all before.
    fn written_by(incarnations: impl IntoIterator<Item = u64>) -> Object {
        incarnations
            .into_iter()
            .fold(Object::default(), |object, incarnation| object.after_write(&object.clock, write(incarnation, 1)))
    }

    #[test]
    fn a_version_of_one_write_is_hashed_as_any_other() {
        for (incarnation, counter) in [(1, 1), (u64::MAX, 7), (1 << 40, u64::MAX)] {
            let write = write(incarnation, counter);
            let dot = write.dot;
            assert_eq!(single_version(dot), hash([dot].into_iter(), [].into_iter(), [dot].into_iter()));
            assert_eq!(Object::default().after_write(&Clock::new(), write).version(), single_version(dot));
        }
    }

    #[test]
    fn a_past_is_long_when_more_than_a_few_actors_have_no_live_write() {
        for writers in 1..12 {
            let object = written_by(0..writers);
            let (body, long) = (object.encode(), writers > PAST_DOTS_MAX as u64 + 1);
            assert_eq!(object.has_long_past(), long, "{writers}");
            assert_eq!(view(&body).unwrap().version(), object.version());
            let shortened = object.without_past();
            assert_eq!(shortened, Object::default().after_write(&Clock::new(), write(writers - 1, 1)));
            assert_eq!(shortened.without_past(), shortened);
        }
    }

    #[test]
    fn who_lives_is_no_past() {
        let old = written_by(0..10);
        let left = old.after_write(&Clock::new(), write(20, 1));
        let both = left.after_write(&Clock::new(), write(21, 1)).without_past();
        assert_eq!(both.siblings.len(), 3);
        let seen: Vec<u64> = both.clock.dots().map(|dot| dot.actor.incarnation).collect();
        assert_eq!(seen, [9, 20, 21]);
        assert!(view(&both.encode()).is_ok() && !both.has_long_past());
    }

    /// A replica that has forgotten the past takes it back from one that has not, and loses nothing.
    #[test]
    fn with_and_without_a_past_it_is_the_same_to_a_replica() {
        let whole = written_by(0..9);
        let shortened = whole.without_past();
        let local = |object: &Object| crate::coordinator::Local {
            version: object.version(),
            has_value: true,
            outline: Some(view(&object.encode()).unwrap().outline()),
            object: Some(object.clone()),
            lost: false,
        };
        let decision =
            |held: &Object, sent: &Object| decide(&local(held), view(&sent.encode()).unwrap(), VersionHash::ABSENT);
        assert_eq!(decision(&shortened, &whole), Decision::Take);
        assert_eq!(decision(&whole, &shortened), Decision::Keep);
        let newer = shortened.after_write(&shortened.clock, write(30, 1));
        assert_eq!(whole.reconcile(&newer).siblings, newer.siblings);
        assert_eq!(newer.reconcile(&whole).siblings, newer.siblings);
    }

    /// Three tries of one logical write, each blind at another replica, with another write in between that had seen the first.
    #[test]
    fn several_writes_of_one_token_are_shown_once_and_never_replace_each_other() {
        let with_token = |incarnation| Sibling { token: Some(7), ..write(incarnation, 1) };
        let first = Object::default().after_write(&Clock::new(), with_token(3));
        let second = Object::default().after_write(&Clock::new(), with_token(2));
        let between = first.after_write(&first.clock, write(5, 1));
        let third = between.after_write(&between.clock, with_token(1));
        let one = second.reconcile(&first);
        let other = second.reconcile(&between).reconcile(&third);
        assert_eq!((one.values().len(), other.values().len()), (1, 1));
        let all = one.reconcile(&other);
        assert_eq!(all.values(), ["1"]);
        assert_eq!(all, other.reconcile(&one));
        assert_eq!(all.siblings.iter().map(|s| s.dot.actor.incarnation).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_clock_at_its_limit_drops_the_oldest_of_its_past() {
        let many = CLOCK_DOTS_MAX as u64 + 44;
        let object = written_by((0..many).rev());
        let seen: Vec<u64> = object.clock.dots().map(|dot| dot.actor.incarnation).collect();
        // The live write is by the oldest of all.
        assert_eq!(seen, [0].into_iter().chain(45..many).collect::<Vec<_>>());
        assert!(view(&object.encode()).is_ok());
        let (odd, even) = (written_by((1..many).step_by(2)), written_by((0..many + 300).step_by(2)));
        let both = odd.reconcile(&even);
        assert_eq!((both.clock.len(), both.siblings.len()), (CLOCK_DOTS_MAX, 2));
        assert_eq!(both, even.reconcile(&odd));
        assert_eq!(
            both.dropped_of([&odd.clock, &even.clock]),
            (odd.clock.len() + even.clock.len() - CLOCK_DOTS_MAX) as u64
        );
        assert_eq!(odd.dropped_of([&odd.clock, &Clock::new()]), 0);
    }
}
