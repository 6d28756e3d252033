//! Reads every live record from the disk, to find what has rotted while nobody asked for it.
//!
//! The rule: whoever drives a pass from its start to its end has had every record read that was durable at the start and was
//! not moved, replaced or forgotten meanwhile: compaction verifies what it moves, and what is new was just written. A
//! record is sound when its checksum, its key, its partition and the version in its body are what the index says.
//!
//! A pass goes segment by segment, in order of offset, in reads of at most 128 KiB, one at a time, with rests between.
//! Which places are live is listed once for each segment, by a walk over the index in slices.
//!
//! Who opens the store may have passes made one after the other, at a rate ([`run`]); the checkpoints are read after each.
//!
//! Not here: repair (`node`, told by [`Store::damage`]).

use crate::{
    checkpoint,
    chore::Chore,
    disk::{BACKGROUND_CHUNK, BLOCK, Disk, File},
    index::Listed,
    record,
    segment::Segment,
    shared::{DamageKind, Shared},
    statistics::count,
    store::Store,
    versions::Summary,
};
use futures_lite::future;
use std::{collections::VecDeque, rc::Rc, time::Duration};

/// So many entries of the index are looked at in one slice.
const LIST_SLICE: usize = 4096;

/// How far a pass has come. It may be kept and used after the store was opened anew.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct ScrubPosition {
    /// The slot number of the segment that is next.
    pub segment: u32,
    /// What lies before this offset of it was read.
    pub offset: u32,
}

/// The live records of one segment that are still to be read, in order of offset.
#[derive(Default)]
pub(crate) struct Listing {
    at: ScrubPosition,
    records: VecDeque<(u16, Listed)>,
}

/// One pass after the other, until the store is closed.
pub(crate) async fn run<D: Disk>(shared: Rc<Shared<D>>) {
    let store = Store { shared: shared.clone() };
    let (mut at, mut begun) = (ScrubPosition::default(), shared.disk.now());
    let mut pass = None;
    while !shared.is_over() {
        let (rate, changed, over) = (shared.scrub_rate.get(), shared.scrub_rate_changed.count(), shared.over.count());
        if rate == 0 {
            pass = None;
            future::or(shared.scrub_rate_changed.after(changed), shared.over.after(over)).await;
            continue;
        }
        let slots = shared.state.borrow().space.slots.len() as u64;
        pass.get_or_insert_with(|| shared.chores.begin(Chore::Scrub, slots)).reached(at.segment.into());
        let before = shared.counters.scrub_read_bytes.get();
        let next = store.scrub_step(at, 1).await;
        at = next.unwrap_or_default();
        // A step that found nothing to read rests, too.
        let bytes = (shared.counters.scrub_read_bytes.get() - before).max(BACKGROUND_CHUNK as u64);
        let rest = Duration::from_secs_f64(bytes as f64 / rate as f64) * shared.chores.stretch(Chore::Scrub);
        // Another rate shall not have to wait for the end of a rest that a very small one asked for.
        let rest_at_most = |rest| future::or(shared.rest(rest), shared.scrub_rate_changed.after(changed));
        if next.is_some() {
            rest_at_most(rest).await;
            continue;
        }
        checkpoint::scrub(&shared);
        pass = None;
        count(&shared.counters.scrub_passes, 1);
        let next_pass = begun + shared.config.scrub_pass_min;
        rest_at_most(rest.max(next_pass.saturating_sub(shared.disk.now()))).await;
        begun = shared.disk.now();
    }
}

impl<D: Disk> Store<D> {
    /// Goes on with a pass at `from` (the default is the start) until about `budget_bytes` were read, at least one chunk.
    /// `None` at the end of the pass. Damage is reported as [`Store::damage`]; the reads are counted in the statistics.
    /// One step at a time. When the store is closed or has failed, it comes back at once.
    pub async fn scrub_step(&self, from: ScrubPosition, budget_bytes: u64) -> Option<ScrubPosition> {
        let mut at = from;
        let mut read = 0;
        while read < budget_bytes.max(1) {
            if self.shared.is_over() {
                return Some(at);
            }
            let slots = self.shared.state.borrow().space.slots.len() as u32;
            if at.segment >= slots {
                return None;
            }
            let mut listing = match self.shared.scrub.take() {
                listing if listing.at == at && at.offset > 0 => listing,
                _ => self.list_live(at).await,
            };
            let segment = self.shared.state.borrow().space.slot(at.segment).segment.clone();
            match segment {
                Some(segment) => read += self.scrub_chunk(&segment, &mut listing.records).await,
                // Its file was lost: nothing can be read.
                None => {
                    for (partition, listed) in listing.records.drain(..) {
                        self.judge(None, partition, &listed, None);
                    }
                }
            }
            at = match listing.records.front() {
                Some((_, next)) => ScrubPosition { segment: at.segment, offset: next.entry.place.offset() },
                None => ScrubPosition { segment: at.segment + 1, offset: 0 },
            };
            self.shared.scrub.replace(Listing { at, ..listing });
        }
        Some(at)
    }

    /// What is live in a segment from an offset on.
    async fn list_live(&self, at: ScrubPosition) -> Listing {
        let mut listing = Listing { at, records: VecDeque::new() };
        if self.shared.state.borrow().space.slot(at.segment).live == 0 {
            return listing;
        }
        let mut found = Vec::new();
        let mut looked = 0;
        for partition in 0..self.shared.config.partitions {
            // A leaf of this level is about one slice. The level may change between two leaves, what a leaf is does not.
            let level = (self.shared.state.borrow().index.partition_len(partition) / LIST_SLICE as u64).max(1).ilog2();
            for leaf in 0..1 << level {
                looked += {
                    let state = self.shared.state.borrow();
                    let all = state.index.entries(partition, level, leaf);
                    let live_here = |listed: &Listed| {
                        let place = listed.entry.place;
                        place.segment() == at.segment && place.offset() >= at.offset
                    };
                    let mut seen = 0;
                    found.extend(all.inspect(|_| seen += 1).filter(live_here).map(|listed| (partition, listed)));
                    seen
                };
                if looked >= LIST_SLICE {
                    looked = 0;
                    self.shared.disk.sleep(self.shared.chores.pause(Chore::Scrub)).await;
                }
            }
        }
        found.sort_unstable_by_key(|(_, listed)| listed.entry.place.offset());
        listing.records = found.into();
        listing
    }

    /// Reads and checks as many of the records as one chunk holds, or one that is larger. Gives the bytes that it read.
    async fn scrub_chunk(&self, segment: &Segment<D>, records: &mut VecDeque<(u16, Listed)>) -> u64 {
        let block = BLOCK as u32;
        let end_of =
            |listed: &Listed| (listed.entry.place.offset() + listed.entry.place.length()).next_multiple_of(block);
        // What has died, or is not on the disk yet, is not read for.
        while records.front().is_some_and(|(partition, listed)| !self.is_on_disk(*partition, listed)) {
            records.pop_front();
        }
        let Some((_, first)) = records.front() else { return 0 };
        let begin = first.entry.place.offset() / block * block;
        let mut end = end_of(first);
        let mut chunk = Vec::new();
        while let Some((partition, listed)) = records.front() {
            let fits = end_of(listed) - begin <= BACKGROUND_CHUNK as u32;
            if !chunk.is_empty() && !fits {
                break;
            }
            if self.is_on_disk(*partition, listed) {
                end = end.max(end_of(listed));
                chunk.push((*partition, *listed));
            }
            records.pop_front();
        }
        let bytes = self.read_chunks(segment, begin, end).await;
        for (partition, listed) in chunk {
            let place = listed.entry.place;
            let at = (place.offset() - begin) as usize;
            let found = match &bytes {
                Some(bytes) => bytes.get(at..at + place.length() as usize).map(<[u8]>::to_vec),
                // Part of the chunk cannot be read: which records is told one by one.
                None => {
                    let (from, to) = (place.offset() / block * block, end_of(&listed));
                    let bytes = self.read_chunks(segment, from, to).await;
                    let at = (place.offset() - from) as usize;
                    bytes.and_then(|bytes| bytes.get(at..at + place.length() as usize).map(<[u8]>::to_vec))
                }
            };
            // What has changed meanwhile says nothing.
            if self.is_on_disk(partition, &listed) {
                self.judge(Some(segment), partition, &listed, found.as_deref());
            }
        }
        (end - begin).into()
    }

    fn judge(&self, segment: Option<&Segment<D>>, partition: u16, listed: &Listed, bytes: Option<&[u8]>) {
        count(&self.shared.counters.scrubbed_records, 1);
        let place = listed.entry.place;
        let salt = segment.map(|segment| segment.salt);
        let verified = bytes.zip(salt).and_then(|(bytes, salt)| record::verify(bytes, salt, place.offset()));
        let own = |record: &record::Record<'_>| {
            let hash = record::hash_of(record, &self.shared.state.borrow().index);
            record.partition == partition && hash == Some(listed.hash)
        };
        let record = verified.map(|(record, _)| record).filter(own);
        let found = record.and_then(|record| match record.kind {
            record::Kind::Body => Some(self.shared.versions.summarise(record.body)),
            record::Kind::Lost => Some(Some(Summary::LOST)),
            record::Kind::Forget | record::Kind::Drop => None,
        });
        let kind = match found {
            Some(Some(summary)) if summary == listed.entry.summary => return,
            Some(None) => DamageKind::Body,
            _ => DamageKind::Record,
        };
        count(&self.shared.counters.scrub_damaged, u64::from(listed.entry.summary != Summary::LOST));
        self.shared.lose(partition, listed, kind);
    }

    /// Whether the index still points there, and the bytes are durable.
    fn is_on_disk(&self, partition: u16, listed: &Listed) -> bool {
        let state = self.shared.state.borrow();
        state.index.find(partition, &listed.hash) == Some(listed.entry)
            && state.log.pending(listed.entry.place).is_none()
    }

    /// The bytes of a segment from `begin` to `end`, in chunks with rests between; `None` when the disk cannot read them.
    async fn read_chunks(&self, segment: &Segment<D>, begin: u32, end: u32) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity((end - begin) as usize);
        while bytes.len() < (end - begin) as usize {
            let position = begin as usize + bytes.len();
            let length = BACKGROUND_CHUNK.min(end as usize - position);
            let read = segment.file.read(position as u64, length).await;
            count(&self.shared.counters.scrub_read_bytes, length as u64);
            self.shared.disk.sleep(self.shared.chores.pause(Chore::Scrub)).await;
            bytes.extend_from_slice(&read.ok().filter(|read| read.len() == length)?);
        }
        Some(bytes)
    }
}
