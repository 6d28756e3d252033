//! Bodies of records that were read or written lately, bounded by bytes.
//!
//! The rule: a body is given out only for the same whole key and for the version that the index holds, so a forgotten
//! invalidation costs a miss and never serves an old version.
//!
//! Its tables are reserved whole at the start (address space; memory comes with use), since growing one of a million
//! entries would stall the core for tens of milliseconds.
//!
//! Not here: records that are not on disk yet (`log`), the index.

use crate::{index::KeyHash, versions::Summary};
use bytes::Bytes;
use quick_cache::{OptionsBuilder, Weighter, unsync};

/// An entry weighs this beside its key and body: the slots in the tables, the reference count and the allocators' headers.
const ENTRY_BYTES: usize = 136;

/// And this at least, which bounds the number of entries and so the tables.
const ENTRY_BYTES_MIN: usize = 256;

/// The tables have room for twice the entries, since a crowded hash table tidies up in one long step.
const ROOM: usize = 2;

/// One part in so many of the memory is left for the hash table, which is not weighed with the entries.
const TABLE_SHARE: usize = 12;

/// An entry larger than one part in so many of the cache is not kept: it would push out too much else.
const SHARE_MAX: usize = 16;

type Entries = unsync::Cache<(u16, KeyHash), Record, Weigh, ahash::RandomState>;

/// The record cache of one core.
pub struct Cache {
    entries: Entries,
    weight_max: usize,
}

impl Cache {
    /// A cache that uses about `bytes` of memory when it is full; 0 keeps nothing.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let weight = bytes - bytes / TABLE_SHARE;
        let items = weight / ENTRY_BYTES_MIN;
        let options = OptionsBuilder::new()
            .weight_capacity(weight as u64)
            .estimated_items_capacity(items)
            // Keys that were pushed out lately, and are let in at once when they return.
            .ghost_allocation(0.25)
            .build()
            .expect("all that the options need is set");
        // The order of a hash table is never seen, so its seeds may be fixed: a run repeats.
        let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
        let mut entries = Entries::with_options(options, Weigh, hasher, unsync::DefaultLifecycle::default());
        entries.reserve(ROOM * items);
        Self { entries, weight_max: weight / SHARE_MAX }
    }

    /// The body of `key`, if it is here in the version that the index holds.
    #[must_use]
    pub fn find(&self, partition: u16, hash: &KeyHash, key: &[u8], summary: Summary) -> Option<Bytes> {
        let record = self.entries.get(&(partition, *hash))?;
        (record.summary == summary && record.key() == key).then(|| record.body())
    }

    /// Keeps a copy of a body instead of any other version, unless it is too large. The copy is exact: a slice of a read
    /// buffer would pin the whole buffer.
    pub fn insert(&mut self, partition: u16, hash: &KeyHash, key: &[u8], body: &[u8], summary: Summary) {
        if weight_of(key.len() + body.len()) > self.weight_max as u64 {
            self.remove(partition, hash);
            return;
        }
        let mut bytes = Vec::with_capacity(key.len() + body.len());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(body);
        let record = Record { bytes: bytes.into(), key_length: key.len() as u32, summary };
        self.entries.insert((partition, *hash), record);
    }

    /// Forgets a key.
    pub fn remove(&mut self, partition: u16, hash: &KeyHash) {
        self.entries.remove(&(partition, *hash));
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// Records in the cache.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes that the records take, with what belongs to them.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.entries.weight()
    }
}

/// A key and a body in one allocation.
#[derive(Clone)]
struct Record {
    bytes: Bytes,
    key_length: u32,
    summary: Summary,
}

impl Record {
    fn key(&self) -> &[u8] {
        &self.bytes[..self.key_length as usize]
    }

    fn body(&self) -> Bytes {
        self.bytes.slice(self.key_length as usize..)
    }
}

#[derive(Clone)]
struct Weigh;

impl Weighter<(u16, KeyHash), Record> for Weigh {
    fn weight(&self, _key: &(u16, KeyHash), record: &Record) -> u64 {
        weight_of(record.bytes.len())
    }
}

fn weight_of(bytes: usize) -> u64 {
    (bytes + ENTRY_BYTES).max(ENTRY_BYTES_MIN) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const OLD: Summary = Summary(1);
    const NEW: Summary = Summary(2);

    fn hash(key: &[u8]) -> KeyHash {
        KeyHash::new(key, 0)
    }

    #[test]
    fn gives_out_the_version_that_is_asked_for_alone() {
        let mut cache = Cache::new(1 << 20);
        cache.insert(3, &hash(b"a"), b"a", b"old", OLD);
        assert_eq!(cache.find(3, &hash(b"a"), b"a", OLD).as_deref(), Some(&b"old"[..]));
        assert_eq!(cache.find(3, &hash(b"a"), b"a", NEW), None);
        cache.insert(3, &hash(b"a"), b"a", b"new", NEW);
        assert_eq!(cache.find(3, &hash(b"a"), b"a", OLD), None);
        assert_eq!(cache.find(3, &hash(b"a"), b"a", NEW).as_deref(), Some(&b"new"[..]));
        assert_eq!(cache.find(2, &hash(b"a"), b"a", NEW), None);
        cache.remove(3, &hash(b"a"));
        assert_eq!(cache.find(3, &hash(b"a"), b"a", NEW), None);
    }

    #[test]
    fn another_key_with_the_same_hash_is_another_key() {
        let mut cache = Cache::new(1 << 20);
        cache.insert(0, &hash(b"a"), b"a", b"body", OLD);
        assert_eq!(cache.find(0, &hash(b"a"), b"b", OLD), None);
    }

    #[test]
    fn a_body_over_a_sixteenth_is_not_kept_and_does_not_leave_an_old_one() {
        let mut cache = Cache::new(1 << 20);
        cache.insert(0, &hash(b"a"), b"a", b"old", OLD);
        cache.insert(0, &hash(b"a"), b"a", &[0; 1 << 16], OLD);
        assert!(cache.is_empty());
        cache.insert(0, &hash(b"a"), b"a", &[0; 1 << 15], OLD);
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn a_cache_of_no_bytes_keeps_nothing() {
        let mut cache = Cache::new(0);
        cache.insert(0, &hash(b"a"), b"a", b"", OLD);
        assert_eq!((cache.len(), cache.bytes()), (0, 0));
    }

    #[test]
    fn what_is_asked_for_often_stays() {
        let mut cache = Cache::new(1 << 20);
        let key = |n: u32| n.to_le_bytes();
        for n in 0..100_000 {
            cache.insert(0, &hash(&key(n)), &key(n), &[0; 500], OLD);
            for hot in 0..50 {
                let found = cache.find(0, &hash(&key(hot)), &key(hot), OLD);
                assert!(found.is_some() || hot > n, "{hot} is gone at {n}");
            }
        }
        assert!(cache.bytes() <= 1 << 20);
    }

    proptest! {
        #[test]
        fn never_exceeds_its_bytes_and_never_gives_a_wrong_body(
            steps in prop::collection::vec((0..200_u8, 0..3000_usize, any::<bool>()), 1..1000),
        ) {
            let mut cache = Cache::new(100_000);
            let mut model = BTreeMap::new();
            for (step, (key, length, removes)) in steps.into_iter().enumerate() {
                let (key, summary) = ([key], Summary(step as u64));
                if removes {
                    cache.remove(0, &hash(&key));
                    model.remove(&key);
                } else {
                    let body = vec![step as u8; length];
                    cache.insert(0, &hash(&key), &key, &body, summary);
                    model.insert(key, (body, summary));
                }
                prop_assert!(cache.bytes() <= 100_000);
            }
            for (key, (body, summary)) in model {
                if let Some(found) = cache.find(0, &hash(&key), &key, summary) {
                    prop_assert_eq!(&found[..], &body[..]);
                }
            }
        }
    }
}
