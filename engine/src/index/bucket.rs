//! The entries of one bucket, in one small allocation.
//!
//! The rule: the entries are the first `len` of `capacity`, and exactly their tags are not 0.
//!
//! Layout, in 64-bit words: three for each entry (fingerprint, place, summary), then the tags, eight in a word. A bucket
//! grows by [`STEP`] entries and not by doubling, since at 25 bytes an entry the slack is what costs memory.
//!
//! Not here: which bucket a key belongs to (`table`).

use super::{Entry, KeyHash, Listed, Place, allocated};
use crate::versions::Summary;

/// A bucket grows and shrinks by this many entries.
const STEP: usize = 2;

const ENTRY_WORDS: usize = 3;
const TAGS_IN_WORD: usize = 8;
const LOW_BITS: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = LOW_BITS << 7;

#[derive(Debug, Default)]
pub(super) struct Bucket {
    words: Box<[u64]>,
    /// The wrapping sum of the entries' hashes: kept by the table.
    pub(super) leaf: u64,
}

impl Bucket {
    /// A bucket with room for exactly `capacity` entries.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { words: vec![0; words_for(capacity)].into_boxed_slice(), leaf: 0 }
    }

    /// The bucket with these words, which the caller has checked.
    pub(super) fn from_words(words: Box<[u64]>) -> Self {
        Self { words, leaf: 0 }
    }

    /// Where the entry of `hash` is.
    pub(super) fn position(&self, hash: KeyHash) -> Option<usize> {
        let (entries, tags) = self.words.split_at(self.capacity() * ENTRY_WORDS);
        let wanted = LOW_BITS * u64::from(hash.tag);
        for (word, tags) in tags.iter().enumerate() {
            // Bytes equal to the tag become 0. The test may also mark a byte above one that is, even a free one, so look
            // at the tag itself before the entry.
            let difference = tags ^ wanted;
            let mut zeros = difference.wrapping_sub(LOW_BITS) & !difference & HIGH_BITS;
            while zeros != 0 {
                let at = word * TAGS_IN_WORD + zeros.trailing_zeros() as usize / 8;
                if tag_in(*tags, at) == hash.tag && entries[at * ENTRY_WORDS] == hash.fingerprint {
                    return Some(at);
                }
                zeros &= zeros - 1;
            }
        }
        None
    }

    pub(super) fn entry(&self, at: usize) -> Entry {
        let words = &self.words[at * ENTRY_WORDS..][..ENTRY_WORDS];
        Entry { place: Place(words[1]), summary: Summary(words[2]) }
    }

    pub(super) fn listed(&self, at: usize) -> Listed {
        let tag = tag_in(self.tags()[at / TAGS_IN_WORD], at);
        Listed { hash: KeyHash { fingerprint: self.words[at * ENTRY_WORDS], tag }, entry: self.entry(at) }
    }

    pub(super) fn set_entry(&mut self, at: usize, entry: Entry) {
        let words = &mut self.words[at * ENTRY_WORDS..][..ENTRY_WORDS];
        words[1] = entry.place.0;
        words[2] = entry.summary.0;
    }

    /// Adds an entry that is not there yet.
    pub(super) fn push(&mut self, listed: Listed) {
        let len = self.len();
        if len == self.capacity() {
            self.resize(len + STEP);
        }
        self.put(len, listed);
    }

    /// Takes an entry out; the last one moves to its position.
    pub(super) fn swap_remove(&mut self, at: usize) {
        let last = self.len() - 1;
        let moved = self.listed(last);
        self.put(at, moved);
        self.put_tag(last, 0);
        if last + 2 * STEP <= self.capacity() {
            self.resize(last.next_multiple_of(STEP));
        }
    }

    pub(super) fn listing(&self) -> impl Iterator<Item = Listed> + '_ {
        (0..self.len()).map(|at| self.listed(at))
    }

    pub(super) fn len(&self) -> usize {
        let tags = self.tags();
        // All tag words but the last used one are full, so look from the back.
        let used = tags.iter().rposition(|tags| *tags != 0);
        used.map_or(0, |word| word * TAGS_IN_WORD + TAGS_IN_WORD - tags[word].leading_zeros() as usize / 8)
    }

    pub(super) fn capacity(&self) -> usize {
        self.words.len() * TAGS_IN_WORD / (TAGS_IN_WORD * ENTRY_WORDS + 1)
    }

    pub(super) fn heap_bytes(&self) -> u64 {
        allocated(self.words.len() * size_of::<u64>())
    }

    /// The words of a full bucket, for its image.
    pub(super) fn words(&self) -> &[u64] {
        &self.words
    }

    fn resize(&mut self, capacity: usize) {
        let (old, len) = (self.capacity(), self.len());
        debug_assert!(len <= capacity);
        let kept = old.min(capacity) * ENTRY_WORDS;
        let tags_kept = len.div_ceil(TAGS_IN_WORD);
        let (old_tags, tags) = (old * ENTRY_WORDS, capacity * ENTRY_WORDS);
        let mut words = vec![0; words_for(capacity)].into_boxed_slice();
        words[..kept].copy_from_slice(&self.words[..kept]);
        words[tags..][..tags_kept].copy_from_slice(&self.words[old_tags..][..tags_kept]);
        self.words = words;
    }

    fn put(&mut self, at: usize, listed: Listed) {
        self.words[at * ENTRY_WORDS] = listed.hash.fingerprint;
        self.set_entry(at, listed.entry);
        self.put_tag(at, listed.hash.tag);
    }

    fn put_tag(&mut self, at: usize, tag: u8) {
        let word = self.capacity() * ENTRY_WORDS + at / TAGS_IN_WORD;
        let shift = at % TAGS_IN_WORD * 8;
        self.words[word] = self.words[word] & !(0xff << shift) | u64::from(tag) << shift;
    }

    fn tags(&self) -> &[u64] {
        &self.words[self.capacity() * ENTRY_WORDS..]
    }
}

/// The words of a bucket of `capacity` entries.
pub(super) fn words_for(capacity: usize) -> usize {
    capacity * ENTRY_WORDS + capacity.div_ceil(TAGS_IN_WORD)
}

fn tag_in(tags: u64, at: usize) -> u8 {
    (tags >> (at % TAGS_IN_WORD * 8)) as u8
}
