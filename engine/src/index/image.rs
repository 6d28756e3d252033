//! A table as bytes, for a checkpoint.
//!
//! The rule: an image is read back only when every length and every entry's bucket is right; bad bytes give an error, and
//! never a table that would lose or invent keys.
//!
//! Format, in little-endian 64-bit words: magic and format version, keys, buckets, root; then for each bucket its number
//! of entries n, its leaf, and the words of a bucket that is exactly full: n × (fingerprint, place, summary), then the
//! tags, eight in a word, those past the last entry 0.
//!
//! Not here: checksums and where images lie (`checkpoint`).

use super::{
    bucket::{self, Bucket},
    table::{self, Table},
};
use std::fmt;

/// "quindex" and the version of the format, 1.
const MAGIC: u64 = 0x7869_6e64_6571_7501;
const WORD: usize = 8;
const HEADER_WORDS: usize = 4;
const BUCKET_HEADER_WORDS: usize = 2;

/// Why an image was not taken. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ImageError {
    /// It is not an image, or one of another format version.
    Unknown,
    /// It is shorter or longer than it says.
    Length,
    /// It contradicts itself: a key in the wrong bucket, or counts or sums that do not agree.
    Inconsistent,
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "not an index image of this format version; nothing was changed",
            Self::Length => "the index image is shorter or longer than it says; nothing was changed",
            Self::Inconsistent => "the index image contradicts itself; nothing was changed",
        })
    }
}

impl std::error::Error for ImageError {}

pub(super) fn write(table: &Table, into: &mut Vec<u8>) {
    // Exact to within a tag word for each bucket.
    into.reserve(WORD * (HEADER_WORDS + table.bucket_count() as usize * 4 + table.len() as usize * 25 / 8));
    put(into, &[MAGIC, table.len(), u64::from(table.bucket_count()), table.root()]);
    for bucket in table.buckets() {
        let len = bucket.len();
        put(into, &[len as u64, bucket.leaf]);
        let (entries, tags) = bucket.words().split_at(bucket.capacity() * 3);
        put(into, &entries[..len * 3]);
        put(into, &tags[..len.div_ceil(8)]);
    }
}

pub(super) fn read(image: &[u8]) -> Result<Table, ImageError> {
    let (words, rest) = image.as_chunks::<WORD>();
    let mut words = Words { words };
    if words.next()? != MAGIC {
        return Err(ImageError::Unknown);
    }
    let (keys, count, root) = (words.next()?, words.next()?, words.next()?);
    // Each bucket takes two words at least, so a count that passes cannot ask for more memory than the image has.
    let count = u32::try_from(count).map_err(|_| ImageError::Length)?;
    if !rest.is_empty() || count as usize > words.words.len() / BUCKET_HEADER_WORDS {
        return Err(ImageError::Length);
    }
    let mut buckets = Vec::with_capacity(count as usize);
    for address in 0..count {
        buckets.push(read_bucket(&mut words, address, count)?);
    }
    if !words.words.is_empty() {
        return Err(ImageError::Length);
    }
    let table = Table::from_buckets(buckets);
    if table.len() == keys && table.root() == root { Ok(table) } else { Err(ImageError::Inconsistent) }
}

fn read_bucket(words: &mut Words<'_>, address: u32, buckets: u32) -> Result<Bucket, ImageError> {
    let (len, leaf) = (words.next()?, words.next()?);
    let len = usize::try_from(len).ok().filter(|len| *len <= words.words.len()).ok_or(ImageError::Length)?;
    let source = words.take(bucket::words_for(len))?;
    let mut bucket = Bucket::from_words(source.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect());
    let (entries, tags) = bucket.words().split_at(len * 3);
    let at_home = entries.iter().step_by(3).all(|fingerprint| table::address(*fingerprint, buckets) == address);
    let tags_are_dense = tags.iter().enumerate().all(|(word, tags)| {
        let used = (len - word * 8).min(8);
        tags.to_le_bytes().iter().enumerate().all(|(at, tag)| (*tag != 0) == (at < used))
    });
    if !at_home || !tags_are_dense {
        return Err(ImageError::Inconsistent);
    }
    bucket.leaf = leaf;
    Ok(bucket)
}

fn put(into: &mut Vec<u8>, words: &[u64]) {
    let start = into.len();
    into.resize(start + words.len() * WORD, 0);
    // Shaped like this it compiles to a copy.
    let (bytes, _) = into[start..].as_chunks_mut::<WORD>();
    bytes.iter_mut().zip(words).for_each(|(bytes, word)| *bytes = word.to_le_bytes());
}

struct Words<'a> {
    words: &'a [[u8; WORD]],
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Result<u64, ImageError> {
        Ok(u64::from_le_bytes(self.take(1)?[0]))
    }

    fn take(&mut self, count: usize) -> Result<&'a [[u8; WORD]], ImageError> {
        let (taken, rest) = self.words.split_at_checked(count).ok_or(ImageError::Length)?;
        self.words = rest;
        Ok(taken)
    }
}
