//! One partition's linear-hashing table.
//!
//! The rule: with B buckets and b = 2^⌈log2 B⌉, a key lies in bucket `fingerprint mod b`, or `mod b/2` when there is no
//! such bucket yet. Adding bucket B therefore splits one bucket and touches no other, and the keys whose fingerprints
//! share their low bits are always together in a few known buckets, which is what makes a bucket a Merkle leaf.
//!
//! Not here: the layout of a bucket (`bucket`), images (`image`).

use super::{Entry, KeyHash, Listed, Mixer, Place, allocated, bucket::Bucket};
use crate::planted::{Bug, planted};

/// A bucket is split when there are more keys than this for each bucket on the average: 24 keys cost about 27 bytes each,
/// and a leaf then holds 12 to 48.
const KEYS_PER_BUCKET: u64 = 24;

/// The last bucket is joined to another when there are fewer keys than this for each; far from the above, so that a table
/// at the edge does not split and join in turn.
const KEYS_PER_BUCKET_MIN: u64 = 16;

/// The directory is made of parts of this many buckets, so that no step of its growth copies much.
const PART: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Table {
    /// All parts but the last have `PART` buckets.
    parts: Vec<Vec<Bucket>>,
    buckets: u32,
    root: u64,
    keys: u64,
    /// Of the buckets' own allocations.
    bucket_bytes: u64,
}

impl Table {
    /// A table of these buckets, which the caller has checked. `root` is the sum of their leaves.
    pub(super) fn from_buckets(buckets: impl IntoIterator<Item = Bucket>) -> Self {
        let mut table = Self::default();
        for bucket in buckets {
            table.root = table.root.wrapping_add(bucket.leaf);
            table.keys += bucket.len() as u64;
            table.bucket_bytes += bucket.heap_bytes();
            table.push_bucket(bucket);
        }
        table
    }

    pub(super) fn find(&self, hash: KeyHash) -> Option<Entry> {
        let bucket = self.bucket_of(hash)?;
        bucket.position(hash).map(|at| bucket.entry(at))
    }

    pub(super) fn insert(&mut self, hash: KeyHash, entry: Entry, mixer: &Mixer<'_>) -> Option<Entry> {
        if self.buckets == 0 {
            self.push_bucket(Bucket::default());
        }
        let bucket = self.address(hash.fingerprint);
        let mut change = mixer.mix(hash, entry.summary);
        let old = self.change(bucket, |bucket| {
            let old = bucket.position(hash).map(|at| {
                let old = bucket.entry(at);
                bucket.set_entry(at, entry);
                old
            });
            match old {
                Some(_) if planted(Bug::MerkleKeepsOld) => {}
                Some(old) => change = change.wrapping_sub(mixer.mix(hash, old.summary)),
                None => bucket.push(Listed { hash, entry }),
            }
            bucket.leaf = bucket.leaf.wrapping_add(change);
            old
        });
        self.root = self.root.wrapping_add(change);
        if old.is_none() {
            self.keys += 1;
            if self.keys > KEYS_PER_BUCKET * u64::from(self.buckets) {
                self.split(mixer);
            }
        }
        old
    }

    pub(super) fn relocate(&mut self, hash: KeyHash, from: Place, to: Place) -> bool {
        if self.buckets == 0 {
            return false;
        }
        let address = self.address(hash.fingerprint);
        let bucket = self.bucket_mut(address);
        let Some(at) = bucket.position(hash) else { return false };
        let entry = bucket.entry(at);
        if entry.place != from {
            return false;
        }
        bucket.set_entry(at, Entry { place: to, ..entry });
        true
    }

    pub(super) fn remove(&mut self, hash: KeyHash, mixer: &Mixer<'_>) -> Option<Entry> {
        let at = self.bucket_of(hash)?.position(hash)?;
        let (old, gone) = self.change(self.address(hash.fingerprint), |bucket| {
            let old = bucket.entry(at);
            let gone = if planted(Bug::MerkleForgetsNot) { 0 } else { mixer.mix(hash, old.summary) };
            bucket.swap_remove(at);
            bucket.leaf = bucket.leaf.wrapping_sub(gone);
            (old, gone)
        });
        self.root = self.root.wrapping_sub(gone);
        self.keys -= 1;
        if self.keys == 0 {
            *self = Self::default();
        } else if self.buckets > 1 && self.keys < KEYS_PER_BUCKET_MIN * u64::from(self.buckets) {
            self.join();
        }
        Some(old)
    }

    pub(super) fn len(&self) -> u64 {
        self.keys
    }

    pub(super) fn root(&self) -> u64 {
        self.root
    }

    pub(super) fn level(&self) -> u32 {
        self.buckets.max(1).ilog2()
    }

    pub(super) fn leaf(&self, level: u32, i: u64, mixer: &Mixer<'_>) -> u64 {
        self.addresses(level, i).fold(0, |sum: u64, address| {
            let bucket = self.bucket(address);
            sum.wrapping_add(if self.holds_more_than(address, level) {
                sum_of(bucket.listing().filter(|listed| is_in_leaf(listed, level, i)), mixer)
            } else {
                bucket.leaf
            })
        })
    }

    pub(super) fn entries(&self, level: u32, i: u64) -> impl Iterator<Item = Listed> + '_ {
        self.addresses(level, i)
            .flat_map(|address| self.bucket(address).listing())
            .filter(move |listed| is_in_leaf(listed, level, i))
    }

    pub(super) fn leaf_is_sound(&self, level: u32, i: u64, mixer: &Mixer<'_>) -> bool {
        self.addresses(level, i).all(|address| {
            let bucket = self.bucket(address);
            bucket.leaf == sum_of(bucket.listing(), mixer)
        })
    }

    pub(super) fn is_sound(&self, mixer: &Mixer<'_>) -> bool {
        let (mut root, mut keys) = (0_u64, 0);
        let buckets = (0..self.buckets).all(|address| {
            let bucket = self.bucket(address);
            let sum = sum_of(bucket.listing(), mixer);
            root = root.wrapping_add(sum);
            keys += bucket.len() as u64;
            bucket.leaf == sum && bucket.listing().all(|listed| self.address(listed.hash.fingerprint) == address)
        });
        buckets && root == self.root && keys == self.keys
    }

    pub(super) fn heap_bytes(&self) -> u64 {
        let parts = self.parts.iter().map(|part| allocated(part.capacity() * size_of::<Bucket>())).sum::<u64>();
        allocated(self.parts.capacity() * size_of::<Vec<Bucket>>()) + parts + self.bucket_bytes
    }

    pub(super) fn buckets(&self) -> impl Iterator<Item = &Bucket> {
        self.parts.iter().flatten()
    }

    pub(super) fn bucket_count(&self) -> u32 {
        self.buckets
    }

    /// Adds one bucket, which takes its keys from one other.
    fn split(&mut self, mixer: &Mixer<'_>) {
        let bit = 1 << self.buckets.ilog2();
        let address = self.buckets ^ bit;
        let old = std::mem::take(self.bucket_mut(address));
        let moves = |listed: &Listed| listed.hash.fingerprint & u64::from(bit) != 0;
        let moving = old.listing().filter(moves).count();
        let mut high = Bucket::with_capacity(moving);
        let mut low = Bucket::with_capacity(old.len() - moving);
        old.listing().for_each(|listed| if moves(&listed) { high.push(listed) } else { low.push(listed) });
        high.leaf = sum_of(high.listing(), mixer);
        low.leaf = old.leaf.wrapping_sub(high.leaf);
        self.bucket_bytes = self.bucket_bytes + low.heap_bytes() + high.heap_bytes() - old.heap_bytes();
        *self.bucket_mut(address) = low;
        self.push_bucket(high);
    }

    /// Takes the last bucket away: its keys go back to the bucket that they came from.
    fn join(&mut self) {
        let last_part = self.parts.last_mut().expect("a table with buckets has a part");
        let high = last_part.pop().expect("the last part has a bucket");
        if last_part.is_empty() {
            self.parts.pop();
            shrink(&mut self.parts);
        } else {
            shrink(last_part);
        }
        self.buckets -= 1;
        let address = self.buckets ^ (1 << self.buckets.ilog2());
        self.bucket_bytes -= high.heap_bytes();
        self.change(address, |low| {
            high.listing().for_each(|listed| low.push(listed));
            low.leaf = low.leaf.wrapping_add(high.leaf);
        });
    }

    fn push_bucket(&mut self, bucket: Bucket) {
        if self.parts.last().is_none_or(|part| part.len() == PART) {
            let more = 1 + self.parts.len() / 4;
            reserve(&mut self.parts, more);
            self.parts.push(Vec::new());
        }
        let part = self.parts.last_mut().expect("was just made");
        let more = 1 + part.len() / 4;
        reserve(part, more.min(PART - part.len()));
        part.push(bucket);
        self.buckets += 1;
    }

    /// Runs `change` on a bucket and keeps the account of its bytes.
    fn change<T>(&mut self, address: u32, change: impl FnOnce(&mut Bucket) -> T) -> T {
        let bucket = self.bucket_mut(address);
        let before = bucket.heap_bytes();
        let result = change(bucket);
        let after = bucket.heap_bytes();
        self.bucket_bytes = self.bucket_bytes + after - before;
        result
    }

    fn bucket_of(&self, hash: KeyHash) -> Option<&Bucket> {
        (self.buckets != 0).then(|| self.bucket(self.address(hash.fingerprint)))
    }

    fn bucket(&self, address: u32) -> &Bucket {
        &self.parts[address as usize / PART][address as usize % PART]
    }

    fn bucket_mut(&mut self, address: u32) -> &mut Bucket {
        &mut self.parts[address as usize / PART][address as usize % PART]
    }

    fn address(&self, fingerprint: u64) -> u32 {
        address(fingerprint, self.buckets)
    }

    /// The buckets that hold the keys of Merkle leaf `i` of 2^`level`: every 2^`level`-th one, or the one in which all of
    /// them lie.
    fn addresses(&self, level: u32, i: u64) -> impl Iterator<Item = u32> + use<> {
        let first = if self.buckets == 0 { 0 } else { self.address(i) };
        let step = 1_u64 << level;
        (u64::from(first)..u64::from(self.buckets)).step_by(step as usize).map(|address| address as u32)
    }

    /// True when the keys of a bucket share fewer than `level` low bits.
    fn holds_more_than(&self, address: u32, level: u32) -> bool {
        let all = self.buckets.next_power_of_two();
        // A bucket whose twin is still missing shares one bit less.
        let bits = if address < all / 2 && address + all / 2 >= self.buckets { all / 2 } else { all }.ilog2();
        bits < level
    }
}

/// The bucket of a fingerprint among `buckets` of them (not 0).
pub(super) fn address(fingerprint: u64, buckets: u32) -> u32 {
    let all = u64::from(buckets).next_power_of_two();
    let address = fingerprint & (all - 1);
    if address < u64::from(buckets) { address as u32 } else { (address & (all / 2 - 1)) as u32 }
}

fn is_in_leaf(listed: &Listed, level: u32, i: u64) -> bool {
    listed.hash.fingerprint & ((1 << level) - 1) == i
}

fn sum_of(listing: impl Iterator<Item = Listed>, mixer: &Mixer<'_>) -> u64 {
    listing.fold(0, |sum: u64, listed| sum.wrapping_add(mixer.mix(listed.hash, listed.entry.summary)))
}

/// Gives memory back when more than half as much again is reserved.
fn shrink<T>(vec: &mut Vec<T>) {
    if vec.capacity() > vec.len() + vec.len() / 2 + 1 {
        vec.shrink_to(vec.len() + vec.len() / 4);
    }
}

/// Makes room for one more, and for no more than `more`.
fn reserve<T>(vec: &mut Vec<T>, more: usize) {
    if vec.len() == vec.capacity() {
        vec.reserve_exact(more);
    }
}
