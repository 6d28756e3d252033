//! The face of the store: one core's records, by partition and key.
//!
//! The rule: an append is in RAM when [`Store::append`] returns and durable when the watermark has reached its sequence;
//! between the two it is readable. What was refused changed nothing.
//!
//! The store starts no tasks: who opens it runs [`Opened::tasks`] beside everything else on the same core.
//!
//! Not here: formats (`record`, `frame`, `segment`), what a body means (`node`).

use crate::{
    blob,
    chore::{Chore, Progress},
    config::{Config, OpenError},
    disk::{BLOCK, Disk, File},
    index::{Entry, Index, KeyHash, Listed, Place},
    record::{self, Head, KEY_MAX, Kind},
    shared::{Damage, DamageKind, Shared},
    statistics::{Statistics, count},
    versions::{Summary, Versions},
};
use bytes::Bytes;
use std::{fmt, future::Future, io, pin::Pin, rc::Rc};

/// When a record was appended: store-wide and rising. After a crash it goes on above all that reached the disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub struct Sequence(pub u64);

/// How far the store is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Watermark {
    /// Everything up to this sequence survives any crash.
    Durable(Sequence),
    /// Writing failed. What was not durable before never counts as durable; the store is read-only until it is opened anew.
    Failed,
}

/// A background task of the store.
pub struct Task {
    name: &'static str,
    work: Pin<Box<dyn Future<Output = ()>>>,
}

impl Task {
    pub(crate) fn new(name: &'static str, work: impl Future<Output = ()> + 'static) -> Self {
        Self { name, work: Box::pin(work) }
    }

    /// What it does, in a word or two.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        self.work.as_mut().poll(context)
    }
}

/// What [`Store::open`] gives.
pub struct Opened<D: Disk> {
    /// The store.
    pub store: Store<D>,
    /// To be run on the same executor until they end, which they do after [`Store::close`] or a failure.
    pub tasks: Vec<Task>,
    /// What was found.
    pub report: RecoveryReport,
}

/// What opening a store found.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecoveryReport {
    /// The store's own number.
    pub store: u64,
    /// The directory was empty: this is a new store.
    pub new: bool,
    /// The store was closed in order. After an unclean end buffered appends may be missing.
    pub clean: bool,
    /// The number of the checkpoint that was used.
    pub checkpoint: Option<u64>,
    /// Newer checkpoints that did not validate.
    pub checkpoints_bad: u64,
    /// Records read from the log.
    pub records_replayed: u64,
    /// Bytes of the log that were read.
    pub bytes_read: u64,
    /// A torn tail was cut: commits that were under way at the crash and never acknowledged.
    pub torn: bool,
    /// Damaged places found: see [`Store::damage`].
    pub damaged: u64,
    /// Keys found.
    pub keys: u64,
}

/// A record to append.
#[derive(Clone, Copy, Debug)]
pub struct Append<'a> {
    /// Of the ring.
    pub partition: u16,
    /// At most [`KEY_MAX`] bytes.
    pub key: &'a [u8],
    /// In pieces, so that nobody has to join them first.
    pub body: &'a [&'a [u8]],
    /// What `Versions::summarise` says of the body. Never [`Summary::LOST`].
    pub summary: Summary,
}

/// What RAM knows of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Which version.
    pub summary: Summary,
    /// Where it lies.
    pub place: Place,
    /// Durable when the watermark reaches this; `None` when it is durable already.
    pub pending: Option<Sequence>,
}

/// Why an append was refused. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AppendError {
    /// There is no room. Deletes are still accepted. A retry is safe when something was deleted or the disk has grown.
    Full,
    /// Writing has failed before: the store is read-only until it is opened anew.
    Failed,
    /// Too much waits for the disk. A retry after a moment is safe.
    Busy,
    /// The key or the body is larger than the store takes. A retry is useless.
    TooLarge,
    /// The store is being closed.
    Closed,
}

impl fmt::Display for AppendError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::Full => "the disk is full: nothing was stored",
            Self::Failed => "writing to the log failed earlier: nothing was stored",
            Self::Busy => "too much waits for the disk: nothing was stored, try again",
            Self::TooLarge => "the key or the value is too large: nothing was stored",
            Self::Closed => "the store is being closed: nothing was stored",
        })
    }
}

impl std::error::Error for AppendError {}

/// Why a record that is in the index could not be read.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReadError {
    /// Its bytes are not what was written. Reported as damage once; the key is [`Summary::LOST`] until it is written anew.
    Corrupt {
        /// Whose.
        partition: u16,
        /// Where.
        place: Place,
    },
    /// The disk failed to read. A retry is safe.
    Io(io::Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt { partition, place } => write!(
                to,
                "the record at offset {} of segment {} (partition {partition}) is corrupt",
                place.offset(),
                place.segment()
            ),
            Self::Io(error) => write!(to, "reading a record: {error}"),
        }
    }
}

impl std::error::Error for ReadError {}

/// One core's store. A cheap handle.
pub struct Store<D: Disk> {
    pub(crate) shared: Rc<Shared<D>>,
}

impl<D: Disk> Clone for Store<D> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<D: Disk> Store<D> {
    /// Opens the store in `disk`, or makes one there.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(disk: D, config: Config, versions: Rc<dyn Versions>) -> Result<Opened<D>, OpenError> {
        crate::open::open(disk, config, versions).await
    }

    /// What RAM knows of a key. Reads no disk.
    #[must_use]
    pub fn lookup(&self, partition: u16, key: &[u8]) -> Option<Found> {
        let state = &*self.shared.state.borrow();
        let entry = state.index.find(partition, &state.index.hash(key))?;
        let pending = state.log.pending(entry.place).map(|bytes| Sequence(record::number::<8>(bytes, 16)));
        Some(Found { summary: entry.summary, place: entry.place, pending })
    }

    /// Appends a record, which replaces what the key had. It is durable when the watermark has reached the sequence.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append(&self, append: Append<'_>) -> Result<Sequence, AppendError> {
        let shared = &*self.shared;
        let body: usize = append.body.iter().map(|piece| piece.len()).sum();
        if append.key.len() > KEY_MAX || body > shared.config.body_bytes_max {
            return Err(AppendError::TooLarge);
        }
        let length = record::length(append.key.len(), body);
        let state = &mut *shared.state.borrow_mut();
        shared.make_room(state, length, shared.versions.is_tombstone(append.summary))?;
        state.last_sequence += 1;
        let sequence = state.last_sequence;
        let stable_hash = shared.versions.stable_hash(append.summary);
        let head = Head { kind: Kind::Body, partition: append.partition, sequence, stable_hash };
        let place = state.log.push(head, append.key, append.body, length);
        let hash = state.index.hash(append.key);
        let old = state.index.insert(append.partition, &hash, place, append.summary, &*shared.versions);
        state.tombstones += u64::from(shared.versions.is_tombstone(append.summary));
        state.space.put(place.segment(), length);
        state.space.gain(place);
        state.space.clock += length as u64;
        if let Some(old) = old {
            state.tombstones -= u64::from(shared.is_tombstone(old.summary));
            state.lost -= u64::from(old.summary == Summary::LOST);
            state.space.lose(old.place, sequence);
            // What is read often is replaced; what is only written does not push it out.
            if state.cache.find(append.partition, &hash, append.key, old.summary).is_some()
                && let Some((record, _)) = state.log.pending(place).and_then(record::parse)
            {
                state.cache.insert(append.partition, &hash, append.key, record.body, append.summary);
            }
        }
        count(&shared.counters.records, 1);
        count(&shared.counters.record_bytes, length as u64);
        shared.work.notify();
        Ok(Sequence(sequence))
    }

    /// The body of a key when it is in RAM: not yet on the disk, or cached.
    #[must_use]
    pub fn recent(&self, partition: u16, key: &[u8]) -> Option<Bytes> {
        let state = &*self.shared.state.borrow();
        let hash = state.index.hash(key);
        let entry = state.index.find(partition, &hash).filter(|entry| entry.summary != Summary::LOST)?;
        if let Some(body) = state.cache.find(partition, &hash, key, entry.summary) {
            count(&self.shared.counters.cache_hits, 1);
            return Some(body);
        }
        let bytes = state.log.pending(entry.place)?;
        let (record, _) = record::parse(bytes)?;
        // Two keys of one hash: the index holds one of them.
        (record.key == key).then(|| {
            count(&self.shared.counters.pending_hits, 1);
            Bytes::copy_from_slice(record.body)
        })
    }

    /// The body of a key; `None` when there is no such key. At most one disk read, unless the record moves meanwhile.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read(&self, partition: u16, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        loop {
            if let Some(body) = self.recent(partition, key) {
                return Ok(Some(body));
            }
            let Some(listed) = self.list(partition, key) else { return Ok(None) };
            let Listed { hash, entry } = listed;
            let place = entry.place;
            if entry.summary == Summary::LOST {
                return Err(ReadError::Corrupt { partition, place });
            }
            let outcome = self.read_at(entry, Some((partition, key))).await;
            // Compaction may have moved it, or an append replaced it, while the disk was read.
            if self.list(partition, key).map(|now| now.entry) != Some(entry) {
                continue;
            }
            return match outcome? {
                ReadAt::Record(owned) => {
                    self.shared.state.borrow_mut().cache.insert(partition, &hash, key, &owned.body, entry.summary);
                    Ok(Some(owned.body))
                }
                // Another key of the same hash.
                ReadAt::OtherKey => Ok(None),
                ReadAt::Corrupt => {
                    self.shared.lose(partition, &listed, DamageKind::Record);
                    Err(ReadError::Corrupt { partition, place })
                }
            };
        }
    }

    /// The record of an entry that was listed: key and body. `None` when the entry is out of date.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read_listed(&self, partition: u16, listed: &Listed) -> Result<Option<OwnedRecord>, ReadError> {
        let place = listed.entry.place;
        let current = || {
            let state = self.shared.state.borrow();
            state.index.find(partition, &listed.hash).map(|entry| entry.place) == Some(place)
        };
        if !current() {
            return Ok(None);
        }
        let now = self.shared.state.borrow().index.find(partition, &listed.hash);
        if now.is_some_and(|entry| entry.summary == Summary::LOST) {
            return Err(ReadError::Corrupt { partition, place });
        }
        let pending = {
            let state = self.shared.state.borrow();
            state.log.pending(place).and_then(record::parse).map(|(record, _)| OwnedRecord::copy(&record))
        };
        if let Some(pending) = pending {
            return Ok(Some(pending));
        }
        let outcome = self.read_at(listed.entry, None).await;
        if !current() {
            return Ok(None);
        }
        match outcome? {
            ReadAt::Record(owned) if owned.partition == partition && self.hash(&owned.key) == listed.hash => {
                Ok(Some(owned))
            }
            _ => {
                self.shared.lose(partition, listed, DamageKind::Record);
                Err(ReadError::Corrupt { partition, place })
            }
        }
    }

    fn hash(&self, key: &[u8]) -> KeyHash {
        self.shared.state.borrow().index.hash(key)
    }

    fn list(&self, partition: u16, key: &[u8]) -> Option<Listed> {
        let state = &*self.shared.state.borrow();
        let hash = state.index.hash(key);
        state.index.find(partition, &hash).map(|entry| Listed { hash, entry })
    }

    async fn read_at(&self, entry: Entry, wanted: Option<(u16, &[u8])>) -> Result<ReadAt, ReadError> {
        let place = entry.place;
        let segment = self.shared.state.borrow().space.slot(place.segment()).segment.clone();
        let Some(segment) = segment else { return Ok(ReadAt::Corrupt) };
        let begin = place.offset() as usize / BLOCK * BLOCK;
        let end = (place.offset() as usize + place.length() as usize).next_multiple_of(BLOCK);
        count(&self.shared.counters.disk_reads, 1);
        count(&self.shared.counters.disk_read_bytes, (end - begin) as u64);
        let bytes = segment.file.read(begin as u64, end - begin).await.map_err(ReadError::Io)?;
        let at = place.offset() as usize - begin;
        let verified = bytes
            .get(at..at + place.length() as usize)
            .and_then(|bytes| record::verify(bytes, segment.salt, place.offset()));
        let Some((record, _)) = verified else { return Ok(ReadAt::Corrupt) };
        Ok(match wanted {
            _ if record.kind != Kind::Body => ReadAt::Corrupt,
            Some((partition, _)) if record.partition != partition => ReadAt::Corrupt,
            Some((_, key)) if record.key != key && self.hash(record.key) != self.hash(key) => ReadAt::Corrupt,
            Some((_, key)) if record.key != key => ReadAt::OtherKey,
            _ => ReadAt::Record(OwnedRecord::copy(&record)),
        })
    }

    /// How far the store is durable now.
    #[must_use]
    pub fn durable(&self) -> Watermark {
        if self.shared.has_failed() {
            return Watermark::Failed;
        }
        Watermark::Durable(Sequence(self.shared.state.borrow().log.durable_sequence()))
    }

    /// Whether the record survives any crash.
    #[must_use]
    pub fn is_durable(&self, place: Place) -> bool {
        !self.shared.has_failed() && self.shared.state.borrow().log.pending(place).is_none()
    }

    /// Whether all that was forgotten stays forgotten after any crash.
    #[must_use]
    pub fn forgets_for_good(&self) -> bool {
        let state = self.shared.state.borrow();
        !self.shared.has_failed() && state.last_forget <= state.log.durable_sequence()
    }

    /// Waits until the watermark is past `seen`, or the log has failed.
    pub async fn advanced(&self, seen: Sequence) -> Watermark {
        loop {
            let count = self.shared.progress.count();
            match self.durable() {
                Watermark::Durable(upto) if upto <= seen => self.shared.progress.after(count).await,
                other => return other,
            }
        }
    }

    /// Why nothing is written any more, if so.
    #[must_use]
    pub fn failure(&self) -> Option<Rc<str>> {
        self.shared.failed.borrow().clone()
    }

    /// What the store has done, and how it stands.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let mut statistics = Statistics::default();
        self.shared.counters.copy(&mut statistics);
        let state = &*self.shared.state.borrow();
        statistics.keys = state.index.len();
        statistics.tombstones = state.tombstones;
        statistics.lost = state.lost;
        statistics.index_bytes = state.index.memory_bytes();
        statistics.live_bytes = state.space.live;
        statistics.queued_bytes = state.log.queued() as u64;
        statistics.segments = state.space.slots.len() as u64;
        statistics.segments_free = state.space.free_count() as u64;
        statistics.segment_bytes = self.shared.config.segment_bytes.into();
        statistics.cache_bytes = state.cache.bytes();
        let room = state.space.ready.len() >= 2 || state.space.has_room_soon(statistics.segment_bytes);
        statistics.full = u64::from(!room);
        statistics
    }

    /// The damage found since last asked.
    #[must_use]
    pub fn damage(&self) -> Vec<Damage> {
        self.shared.state.borrow_mut().damage.drain(..).collect()
    }

    /// Keys in the index, tombstones included.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.shared.state.borrow().index.len()
    }

    /// Keys in the index that are not tombstones.
    #[must_use]
    pub fn live_keys(&self) -> u64 {
        let state = self.shared.state.borrow();
        state.index.len() - state.tombstones
    }

    /// Looks at the index: Merkle roots, leaves, the keys of a leaf. `look` must not call the store.
    pub fn index<T>(&self, look: impl FnOnce(&Index) -> T) -> T {
        look(&self.shared.state.borrow().index)
    }

    /// True when the incremental Merkle tree of a partition equals one built anew from its entries: the background check
    /// against a fault in the sums. A step of about 20 ns a key.
    #[must_use]
    pub fn root_is_sound(&self, partition: u16) -> bool {
        self.shared.state.borrow().index.root_is_sound(partition, &*self.shared.versions)
    }

    /// What the index knows of a hash that another replica listed.
    #[must_use]
    pub fn find(&self, partition: u16, hash: &KeyHash) -> Option<Listed> {
        let entry = self.shared.state.borrow().index.find(partition, hash)?;
        Some(Listed { hash: *hash, entry })
    }

    /// Replaces the small durable file `name` by `bytes`, at most 1 MiB. When it returns, the new content survives any
    /// crash; before, the old does.
    ///
    /// # Errors
    /// The disk's; `InvalidInput` for a bad name or too many bytes.
    pub async fn store_blob(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        blob::store(&self.shared.disk, name, bytes).await
    }

    /// What [`Store::store_blob`] stored last; `None` when nothing was.
    ///
    /// # Errors
    /// The disk's; `InvalidData` when the file is corrupt.
    pub async fn load_blob(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        blob::load(&self.shared.disk, name).await
    }

    /// From now on this work rests so many times as long, at least once.
    pub fn set_stretch(&self, chore: Chore, factor: u32) {
        self.shared.chores.set_stretch(chore, factor);
    }

    /// From now on the scrub reads so many bytes a second: see [`Config::scrub_bytes_per_second`].
    pub fn set_scrub_rate(&self, bytes_per_second: u64) {
        if self.shared.scrub_rate.replace(bytes_per_second) != bytes_per_second {
            self.shared.scrub_rate_changed.notify();
        }
    }

    /// How far this work is; `None` when there is nothing to do.
    #[must_use]
    pub fn chore_progress(&self, chore: Chore) -> Option<Progress> {
        self.shared.chores.progress(chore)
    }

    /// Makes everything durable, writes a checkpoint so that the next start is fast, and lets the background tasks end.
    /// Further appends are refused; reads go on.
    pub async fn close(&self) -> Watermark {
        crate::open::close(&self.shared).await;
        self.durable()
    }
}

enum ReadAt {
    Record(OwnedRecord),
    OtherKey,
    Corrupt,
}

/// A record by value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnedRecord {
    /// Of the ring.
    pub partition: u16,
    /// Whose it is.
    pub key: Bytes,
    /// What was stored.
    pub body: Bytes,
}

impl OwnedRecord {
    fn copy(record: &record::Record<'_>) -> Self {
        Self {
            partition: record.partition,
            key: Bytes::copy_from_slice(record.key),
            body: Bytes::copy_from_slice(record.body),
        }
    }
}
