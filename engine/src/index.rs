//! Where each key's newest record lies, with a summary of its version: one linear-hashing table per partition.
//!
//! The rule: a table grows by one bucket at a time, so no insert ever waits for a table to be copied; and each bucket
//! carries the sum of its entries' hashes, kept in step with every change, so that a Merkle leaf is read, not computed.
//!
//! A key is known by 72 bits of its hash within its partition (a 64-bit fingerprint and a tag of 255 values). Two of n
//! keys in Q partitions share them with a probability of about n²/2 / Q / 2^72: 1e-11 for 10 million keys in 1024
//! partitions. Readers compare the whole key with the record's anyway, so a collision is never served as another key.
//!
//! Cost: 25 bytes an entry, 27 to 28 with the slack of the buckets and the allocator, at any number of keys; beside it a
//! fixed cost for each partition, [`Index::FIXED_BYTES`] at most, which is within 32 bytes a key from 32 keys on.
//!
//! Not here: the records (`segment`), which change comes first (`store`), what a summary means ([`crate::versions`]).

mod bucket;
mod image;
mod table;

use crate::versions::{Summary, Versions};
pub use image::ImageError;
use table::Table;
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

/// Where a record lies, in 64 bits: segment slot (20), offset in units of 16 bytes (22), length in units of 16 bytes (22).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Place(u64);

impl Place {
    /// Records start and end on multiples of this many bytes.
    pub const UNIT: u64 = 16;

    /// A place from byte figures. `offset` and `length` are multiples of [`Place::UNIT`], below 64 MiB.
    #[must_use]
    pub fn new(segment: u32, offset: u32, length: u32) -> Self {
        assert!(segment < 1 << 20, "segment slot {segment} out of range");
        let (offset, length) = (u64::from(offset), u64::from(length));
        assert!(offset.is_multiple_of(Self::UNIT) && offset / Self::UNIT < 1 << 22, "bad record offset {offset}");
        assert!(length.is_multiple_of(Self::UNIT) && length / Self::UNIT < 1 << 22, "bad record length {length}");
        Self(u64::from(segment) << 44 | (offset / Self::UNIT) << 22 | (length / Self::UNIT))
    }

    /// The slot number of the segment's file.
    #[must_use]
    pub fn segment(self) -> u32 {
        (self.0 >> 44) as u32
    }

    /// Bytes from the start of the segment's file.
    #[must_use]
    pub fn offset(self) -> u32 {
        ((self.0 >> 22 & 0x3f_ffff) * Self::UNIT) as u32
    }

    /// Bytes of the whole record, padding included.
    #[must_use]
    pub fn length(self) -> u32 {
        ((self.0 & 0x3f_ffff) * Self::UNIT) as u32
    }

    /// All 64 bits, for storing. Every value is some place: what it points at has to be checked by its user.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The place that [`Place::bits`] came from.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// What the index knows a key by. The low bits of the fingerprint are the key's Merkle leaf.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct KeyHash {
    fingerprint: u64,
    /// Never 0, which marks a free entry.
    tag: u8,
}

impl KeyHash {
    /// The hash of `key` under the cluster's `seed`, the same on every machine.
    #[must_use]
    pub fn new(key: &[u8], seed: u64) -> Self {
        let hash = xxh3_128_with_seed(key, seed);
        Self { fingerprint: hash as u64, tag: ((hash >> 64) as u64 % 255 + 1) as u8 }
    }

    /// The hash that another replica told in its parts. `None` when there can be none with this tag.
    #[must_use]
    pub fn from_parts(fingerprint: u64, tag: u8) -> Option<Self> {
        (tag != 0).then_some(Self { fingerprint, tag })
    }

    /// Beside the fingerprint, what tells keys apart.
    #[must_use]
    pub fn tag(self) -> u8 {
        self.tag
    }

    /// The low bits choose the bucket and the Merkle leaf.
    #[must_use]
    pub fn fingerprint(self) -> u64 {
        self.fingerprint
    }
}

/// What the index keeps of one key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Where the newest record lies.
    pub place: Place,
    /// Which version it is.
    pub summary: Summary,
}

/// One key of a Merkle leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listed {
    /// The key, as far as the index knows it; the record at `entry.place` holds it whole.
    pub hash: KeyHash,
    /// Where it lies, and its version.
    pub entry: Entry,
}

/// The tables of all partitions of one core's store.
#[derive(Debug)]
pub struct Index {
    seed: u64,
    tables: Vec<Table>,
}

impl Index {
    /// Merkle levels below this are answered: a leaf of this level would be the only key of 2^40.
    pub const LEVEL_MAX: u32 = 40;

    /// No partition costs more than this beside its keys' bytes.
    pub const FIXED_BYTES: u64 = 256;

    /// An empty index. `seed` is the cluster's, so that replicas agree on leaves.
    #[must_use]
    pub fn new(partitions: u16, seed: u64) -> Self {
        Self { seed, tables: (0..partitions).map(|_| Table::default()).collect() }
    }

    /// What the other calls know `key` by.
    #[must_use]
    pub fn hash(&self, key: &[u8]) -> KeyHash {
        KeyHash::new(key, self.seed)
    }

    /// The number of partitions.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.tables.len() as u16
    }

    /// The entry of a key.
    #[must_use]
    pub fn find(&self, partition: u16, hash: &KeyHash) -> Option<Entry> {
        self.table(partition).find(*hash)
    }

    /// Sets the entry of a key and returns the one that it replaced. Splits at most one bucket.
    pub fn insert(
        &mut self,
        partition: u16,
        hash: &KeyHash,
        place: Place,
        summary: Summary,
        versions: &dyn Versions,
    ) -> Option<Entry> {
        let mixer = Mixer { seed: self.seed, versions };
        self.table_mut(partition).insert(*hash, Entry { place, summary }, &mixer)
    }

    /// Moves the entry of a key to where its record was copied, unless a newer record has taken its place since. True when
    /// it moved.
    pub fn relocate(&mut self, partition: u16, hash: &KeyHash, from: Place, to: Place) -> bool {
        self.table_mut(partition).relocate(*hash, from, to)
    }

    /// Forgets a key and returns its entry.
    pub fn remove(&mut self, partition: u16, hash: &KeyHash, versions: &dyn Versions) -> Option<Entry> {
        let mixer = Mixer { seed: self.seed, versions };
        self.table_mut(partition).remove(*hash, &mixer)
    }

    /// Forgets all keys of a partition.
    pub fn clear(&mut self, partition: u16) {
        *self.table_mut(partition) = Table::default();
    }

    /// Keys in all partitions.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.tables.iter().map(Table::len).sum()
    }

    /// True when no partition has a key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keys in one partition.
    #[must_use]
    pub fn partition_len(&self, partition: u16) -> u64 {
        self.table(partition).len()
    }

    /// The Merkle root of a partition: the wrapping sum of the hashes of its entries, 0 when it is empty.
    #[must_use]
    pub fn root(&self, partition: u16) -> u64 {
        self.table(partition).root()
    }

    /// The level at which a Merkle leaf is about one bucket (12 to 48 keys): the finest that costs no scan.
    #[must_use]
    pub fn level(&self, partition: u16) -> u32 {
        self.table(partition).level()
    }

    /// The Merkle leaf `i` of 2^`level`: the wrapping sum of the hashes of all entries whose fingerprint ends in `i`. It
    /// depends on the keys and versions alone, so two replicas with different numbers of buckets can be compared at any
    /// level.
    ///
    /// # Panics
    /// When `level` is over [`Index::LEVEL_MAX`] or `i` is not below 2^`level`.
    #[must_use]
    pub fn leaf(&self, partition: u16, level: u32, i: u64, versions: &dyn Versions) -> u64 {
        check_leaf(level, i);
        self.table(partition).leaf(level, i, &Mixer { seed: self.seed, versions })
    }

    /// The keys of Merkle leaf `i` of 2^`level`, in no useful order; level 0 is the whole partition. A walk over all
    /// leaves of one level meets every key that stays in the index meanwhile, however much is inserted between them.
    ///
    /// # Panics
    /// When `level` is over [`Index::LEVEL_MAX`] or `i` is not below 2^`level`.
    pub fn entries(&self, partition: u16, level: u32, i: u64) -> impl Iterator<Item = Listed> + '_ {
        check_leaf(level, i);
        self.table(partition).entries(level, i)
    }

    /// True when the sums of all buckets of Merkle leaf `i` of 2^`level` equal ones computed from their entries: the
    /// background check against a fault in the incremental sums.
    #[must_use]
    pub fn leaf_is_sound(&self, partition: u16, level: u32, i: u64, versions: &dyn Versions) -> bool {
        check_leaf(level, i);
        self.table(partition).leaf_is_sound(level, i, &Mixer { seed: self.seed, versions })
    }

    /// True when the Merkle root and every sum below it equal ones computed from a scan of the entries, and each entry
    /// lies where it is looked for. About 20 ns a key: a large partition is rather checked leaf by leaf.
    #[must_use]
    pub fn root_is_sound(&self, partition: u16, versions: &dyn Versions) -> bool {
        self.table(partition).is_sound(&Mixer { seed: self.seed, versions })
    }

    /// Appends the image of one partition, for a checkpoint: about 25.5 bytes a key, copied at the speed of memory.
    /// It has no checksum of its own.
    pub fn image(&self, partition: u16, into: &mut Vec<u8>) {
        image::write(self.table(partition), into);
    }

    /// Replaces a partition by its image. On an error the partition is as before.
    pub fn restore(&mut self, partition: u16, image: &[u8]) -> Result<(), ImageError> {
        *self.table_mut(partition) = image::read(image)?;
        Ok(())
    }

    /// Bytes of RAM in use, the allocator's headers and rounding included.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        let tables = self.tables.capacity() * size_of::<Table>();
        allocated(tables) + self.tables.iter().map(Table::heap_bytes).sum::<u64>()
    }

    fn table(&self, partition: u16) -> &Table {
        &self.tables[usize::from(partition)]
    }

    fn table_mut(&mut self, partition: u16) -> &mut Table {
        &mut self.tables[usize::from(partition)]
    }
}

fn check_leaf(level: u32, i: u64) {
    assert!(level <= Index::LEVEL_MAX && i >> level == 0, "no Merkle leaf {i} on level {level}");
}

/// Turns an entry into its share of a Merkle leaf: the same on every replica that holds the same version of the key.
struct Mixer<'a> {
    seed: u64,
    versions: &'a dyn Versions,
}

impl Mixer<'_> {
    fn mix(&self, hash: KeyHash, summary: Summary) -> u64 {
        if summary == Summary::LOST {
            // Who has it differs from who lost it, and who lost the only copy there was does not differ from the others.
            return 0;
        }
        let mut bytes = [0; 17];
        bytes[..8].copy_from_slice(&hash.fingerprint.to_le_bytes());
        let stable_hash = if summary == Summary::LOST { 0 } else { self.versions.stable_hash(summary) };
        bytes[8..16].copy_from_slice(&stable_hash.to_le_bytes());
        bytes[16] = hash.tag;
        xxh3_64_with_seed(&bytes, self.seed)
    }
}

/// What a heap block of `bytes` takes in glibc's allocator: a header of 8 bytes, rounded up to 16, 32 at least.
fn allocated(bytes: usize) -> u64 {
    if bytes == 0 { 0 } else { ((bytes as u64 + 8).next_multiple_of(16)).max(32) }
}

#[cfg(test)]
mod tests;
