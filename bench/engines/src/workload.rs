//! What the engines are asked to do: which keys, which values, in which order.
//!
//! The rule: all of it is a pure function of the seed, so that every engine gets the same, and another process knows after
//! a kill what must be there. Every put has a number of its own, its version, which is in the value; a key's versions rise.
//! A value is random bytes: nothing to compress.
//!
//! Not here: how it is measured (`drive`).

use clap::ValueEnum;
use fastrand::Rng;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// A value holds at least its version and its key's number.
pub(crate) const VALUE_BYTES_MIN: usize = 16;
pub(crate) const KEY_BYTES: usize = 16;
const POOL_BYTES: usize = 4 << 20;
const PUTS_OF_100_IN_MIX: u64 = 5;

/// One kind of work. They are done in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Work {
    /// Put every key once, in random order.
    Load,
    /// Get random keys, all of which fit into the cache and have been read before.
    Get,
    /// Put random keys.
    Overwrite,
    /// 95 gets, as above, to 5 puts of random keys.
    Mix,
    /// Get random keys after a restart; a sixteenth of the data fits into the cache, nothing is in the page cache.
    Uncached,
}

impl Work {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().expect("no work is hidden").get_name().to_owned()
    }

    pub(crate) fn writes(self) -> bool {
        matches!(self, Self::Load | Self::Overwrite | Self::Mix)
    }
}

/// How much of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Amount {
    pub keys: u64,
    pub value_bytes: usize,
    /// Puts of one batch.
    pub group: usize,
    /// Operations of each work but the load.
    pub operations: u64,
    pub seed: u64,
}

impl Amount {
    pub(crate) fn pair_bytes(&self) -> u64 {
        (KEY_BYTES + self.value_bytes) as u64
    }

    /// Bytes of keys and values after the load.
    pub(crate) fn data_bytes(&self) -> u64 {
        self.keys * self.pair_bytes()
    }
}

/// By the key's number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operation {
    Get(u64),
    Put(u64),
}

/// The operations of one work, in order.
pub(crate) struct Operations {
    random: Rng,
    work: Option<Work>,
    keys: u64,
    done: u64,
    end: u64,
    /// The keys that may be in the same group as the next put, and so are not drawn for it.
    recent: VecDeque<u64>,
    group: usize,
}

impl Operations {
    pub(crate) fn new(work: Work, amount: &Amount) -> Self {
        let end = if work == Work::Load { amount.keys } else { amount.operations };
        Self { end, ..Self::endless(Some(work), amount) }
    }

    /// Puts of random keys until the process is killed.
    pub(crate) fn until_killed(amount: &Amount) -> Self {
        Self::endless(None, amount)
    }

    fn endless(work: Option<Work>, amount: &Amount) -> Self {
        let stream = work.map_or(0, |work| 1 + work as u64);
        let random = Rng::with_seed(amount.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(stream));
        Self { random, work, keys: amount.keys, done: 0, end: u64::MAX, recent: VecDeque::new(), group: amount.group }
    }

    fn draw_put(&mut self) -> u64 {
        let key = loop {
            let key = self.random.u64(..self.keys);
            if !self.recent.contains(&key) {
                break key;
            }
        };
        if self.recent.len() + 1 >= self.group {
            self.recent.pop_front();
        }
        if self.group > 1 {
            self.recent.push_back(key);
        }
        key
    }
}

impl Iterator for Operations {
    type Item = Operation;

    fn next(&mut self) -> Option<Operation> {
        if self.done == self.end {
            return None;
        }
        self.done += 1;
        Some(match self.work {
            Some(Work::Load) => Operation::Put(self.done - 1),
            Some(Work::Get | Work::Uncached) => Operation::Get(self.random.u64(..self.keys)),
            Some(Work::Mix) if self.random.u64(..100) >= PUTS_OF_100_IN_MIX => {
                Operation::Get(self.random.u64(..self.keys))
            }
            Some(Work::Mix | Work::Overwrite) | None => Operation::Put(self.draw_put()),
        })
    }
}

/// A key's bytes: its number, spread over the whole range by a bijection, so that counting up is a random order.
pub(crate) fn key_bytes(number: u64) -> [u8; KEY_BYTES] {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^= x >> 31;
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&x.to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

/// The version that a value begins with.
pub(crate) fn version_of(value: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(value.get(..8)?.try_into().ok()?))
}

/// Makes values.
pub(crate) struct Values {
    pool: Vec<u8>,
    bytes: usize,
}

impl Values {
    pub(crate) fn new(amount: &Amount) -> Self {
        let mut pool = vec![0; POOL_BYTES + amount.value_bytes];
        Rng::with_seed(amount.seed).fill(&mut pool);
        Self { pool, bytes: amount.value_bytes }
    }

    fn random_part(&self, version: u64) -> &[u8] {
        let start = version.wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize % POOL_BYTES;
        &self.pool[start..][..self.bytes - VALUE_BYTES_MIN]
    }

    fn append(&self, number: u64, version: u64, to: &mut Vec<u8>) {
        to.extend_from_slice(&version.to_le_bytes());
        to.extend_from_slice(&number.to_le_bytes());
        to.extend_from_slice(self.random_part(version));
    }

    /// Whether a value has the right length and belongs to the key: cheap enough to be asked of every get.
    pub(crate) fn belongs(&self, number: u64, value: &[u8]) -> bool {
        value.len() == self.bytes && value[8..16] == number.to_le_bytes()
    }

    /// The version of a value that is right in every byte; `None` when it is not.
    pub(crate) fn verify(&self, number: u64, value: &[u8]) -> Option<u64> {
        let version = version_of(value)?;
        (self.belongs(number, value) && value[VALUE_BYTES_MIN..] == *self.random_part(version)).then_some(version)
    }
}

/// Pairs to be put together.
pub(crate) struct Group {
    keys: Vec<[u8; KEY_BYTES]>,
    values: Vec<u8>,
    value_bytes: usize,
    room: usize,
}

impl Group {
    pub(crate) fn new(amount: &Amount) -> Self {
        Self { keys: Vec::new(), values: Vec::new(), value_bytes: amount.value_bytes, room: amount.group }
    }

    pub(crate) fn push(&mut self, number: u64, version: u64, values: &Values) {
        self.keys.push(key_bytes(number));
        values.append(number, version, &mut self.values);
    }

    pub(crate) fn puts(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.keys.iter().map(|key| &key[..]).zip(self.values.chunks_exact(self.value_bytes))
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.keys.len() == self.room
    }

    pub(crate) fn clear(&mut self) {
        self.keys.clear();
        self.values.clear();
    }
}

/// What must be there after a kill.
pub(crate) struct Expected {
    /// At the least, by the key's number.
    versions: Vec<u64>,
    /// The last version that the works gave.
    works_end: u64,
}

impl Expected {
    /// After the works, in order, and so many acknowledged puts of [`Operations::until_killed`].
    pub(crate) fn after(works: &[Work], acknowledged: u64, amount: &Amount) -> Self {
        let mut expected = Self { versions: vec![0; amount.keys as usize], works_end: 0 };
        let mut version = 0;
        for operation in works.iter().flat_map(|&work| Operations::new(work, amount)) {
            expected.put(operation, &mut version);
        }
        expected.works_end = version;
        for operation in Operations::until_killed(amount).take(acknowledged as usize) {
            expected.put(operation, &mut version);
        }
        expected
    }

    fn put(&mut self, operation: Operation, version: &mut u64) {
        if let Operation::Put(key) = operation {
            *version += 1;
            self.versions[key as usize] = *version;
        }
    }

    /// Numbers and versions of all keys that were put until the kill, and of each `stride`th of the others.
    pub(crate) fn of_some(&self, stride: u64) -> impl Iterator<Item = (u64, u64)> {
        let all = (0_u64..).zip(self.versions.iter().copied());
        all.filter(move |&(number, version)| version > self.works_end || number.is_multiple_of(stride))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AMOUNT: Amount = Amount { keys: 100, value_bytes: 100, group: 32, operations: 5000, seed: 7 };

    #[test]
    fn a_work_repeats_and_a_group_has_each_key_once() {
        for work in [Work::Load, Work::Get, Work::Overwrite, Work::Mix] {
            let all: Vec<_> = Operations::new(work, &AMOUNT).collect();
            assert_eq!(all, Operations::new(work, &AMOUNT).collect::<Vec<_>>());
            let puts: Vec<_> = all.iter().filter(|operation| matches!(operation, Operation::Put(_))).collect();
            for group in puts.chunks(AMOUNT.group) {
                for (i, put) in group.iter().enumerate() {
                    assert!(!group[..i].contains(put), "{work:?} puts {put:?} twice");
                }
            }
        }
        let puts = Operations::new(Work::Mix, &AMOUNT).filter(|one| matches!(one, Operation::Put(_))).count();
        assert!((150..350).contains(&puts), "{puts} of 5000");
    }

    #[test]
    fn a_changed_byte_of_a_value_is_seen() {
        let values = Values::new(&AMOUNT);
        let mut value = Vec::new();
        values.append(5, 77, &mut value);
        assert_eq!((value.len(), values.verify(5, &value), values.verify(6, &value)), (100, Some(77), None));
        for byte in 0..value.len() {
            value[byte] ^= 1;
            assert_ne!(values.verify(5, &value), Some(77), "byte {byte}");
            value[byte] ^= 1;
        }
    }

    #[test]
    fn versions_rise_with_every_put_that_was_acknowledged() {
        let loaded = Expected::after(&[Work::Load, Work::Get], 0, &AMOUNT);
        assert_eq!(loaded.versions, (1..=100).collect::<Vec<_>>());
        assert_eq!(loaded.of_some(10).count(), 10);
        let later = Expected::after(&[Work::Load, Work::Get], 64, &AMOUNT);
        assert_eq!(later.versions.iter().max(), Some(&164));
        assert!(later.versions.iter().zip(&loaded.versions).all(|(later, loaded)| later >= loaded));
        let recent = later.versions.iter().filter(|&&version| version > 100).count();
        assert_eq!(later.of_some(1 << 20).count(), recent + usize::from(later.versions[0] <= 100));
    }
}
