//! Reads the logs back into the index, and cuts torn tails for good.
//!
//! The rule: of one key the highest sequence wins. An equal sequence is a copy that compaction made, and the copy wins,
//! since what it was copied from may be recycled at any time. A record that a checkpoint's image already reflects only
//! matters as such a copy.
//!
//! A record that forgets wins over all that is older; one that the image reflects already matters no more, but is noted:
//! an older checkpoint may need it.
//!
//! Not here: the verdict on a segment's bytes (`recovery`), which files there are (`open`).

use crate::{
    commit::end_segment,
    config::{Config, OpenError},
    disk::{BLOCK, Disk, File},
    frame,
    index::{Index, KeyHash, Place},
    planted::{Bug, planted},
    record::{self, Kind, Record},
    recovery::{Bad, Sighting, Step, judge, survey},
    segment::{START, Segment, Stream, name},
    shared::{Damage, DamageKind, Position},
    store::RecoveryReport,
    versions::{Summary, Versions},
};
use futures_lite::future::zip;
use std::{collections::HashMap, io, rc::Rc};

/// Nothing is disturbed by large reads while the store is being opened.
const READ_CHUNK: usize = 1 << 20;

pub(crate) struct Replay<'a, D: Disk> {
    pub(crate) disk: &'a D,
    pub(crate) config: &'a Config,
    pub(crate) versions: &'a dyn Versions,
    pub(crate) index: Index,
    /// For each partition: the sequence up to which the index already reflects it.
    pub(crate) reflected: Vec<u64>,
    /// Sequences of the keys that were replayed.
    pub(crate) newest: HashMap<(u16, KeyHash), u64, ahash::RandomState>,
    pub(crate) dropped: Dropped,
    /// Slots with records that forget, and their sequences.
    pub(crate) forgets: Vec<(u32, u64)>,
    pub(crate) damage: Vec<Damage>,
    pub(crate) last_sequence: u64,
    /// The highest frame number seen of the stream in hand.
    pub(crate) last_number: u64,
    pub(crate) report: RecoveryReport,
}

/// Merkle leaves of partitions that were dropped.
#[derive(Default)]
pub(crate) struct Dropped {
    /// By partition, level and leaf: the sequence of the last drop.
    upto: HashMap<(u16, u32, u64), u64, ahash::RandomState>,
    /// For each partition, a bit for each level of its drops.
    levels: HashMap<u16, u64, ahash::RandomState>,
}

impl Dropped {
    fn add(&mut self, partition: u16, level: u32, leaf: u64, sequence: u64) {
        let upto = self.upto.entry((partition, level, leaf)).or_default();
        *upto = sequence.max(*upto);
        *self.levels.entry(partition).or_default() |= 1 << level;
    }

    /// Whether the key's part of the partition was dropped after `sequence`.
    fn after(&self, partition: u16, hash: KeyHash, sequence: u64) -> bool {
        let levels = self.levels.get(&partition).copied().unwrap_or(0);
        (0..=Index::LEVEL_MAX).filter(|level| levels >> level & 1 == 1).any(|level| {
            let leaf = hash.fingerprint() & ((1 << level) - 1);
            self.upto.get(&(partition, level, leaf)).is_some_and(|upto| *upto > sequence)
        })
    }
}

/// The bytes of a segment from some offset on.
struct Content {
    start: u32,
    bytes: Vec<u8>,
    /// The disk failed to read part of it, which is zeros here.
    unreadable: bool,
}

impl<D: Disk> Replay<'_, D> {
    /// Replays the segments of one stream, which are in order of generation, from `from` on.
    pub(crate) async fn stream(&mut self, segments: &[Rc<Segment<D>>], from: Position) -> Result<(), OpenError> {
        self.last_number = from.number.saturating_sub(1);
        for (i, segment) in segments.iter().enumerate() {
            let resumed = segment.generation == from.generation;
            let start = if resumed { from.offset } else { START };
            // A killed process leaves writes that can be read but would not survive a power cut. What is taken for
            // part of the log must, since it counts as durable from now on.
            let name = name(segment.slot);
            segment.file.sync().await.map_err(|error| OpenError::Io { what: format!("syncing {name}"), error })?;
            let content = self.read(segment, start).await?;
            let sightings = survey(&content.bytes, start, segment.generation, segment.salt);
            self.note(&sightings);
            let first = sightings.first().map(|sighting| sighting.header.first_number());
            let judged = judge(&sightings, start, resumed.then_some(from.number));
            for step in &judged.steps {
                match *step {
                    Step::Take(k) => self.take(segment, &content, &sightings[k]),
                    Step::Bad(bad) => {
                        if bad.acknowledged
                            || content.unreadable
                            || self.proven_later(&segments[i + 1..], bad.number).await?
                        {
                            self.corrupt(segment, &content, &sightings, bad);
                        } else {
                            return self.cut(&segments[i..], bad.offset, bad.number, first.unwrap_or(bad.number)).await;
                        }
                    }
                }
            }
            // A segment without any frame was made ready but never used.
            let Some(next_number) = judged.next_number.filter(|_| !judged.ended) else { continue };
            if content.unreadable || self.proven_later(&segments[i + 1..], next_number).await? {
                let length = self.config.segment_bytes - judged.end;
                let lost = Bad { offset: judged.end, length, number: next_number, sighting: None, acknowledged: true };
                self.corrupt(segment, &content, &sightings, lost);
            } else {
                return self.cut(&segments[i..], judged.end, next_number, first.unwrap_or(next_number)).await;
            }
        }
        Ok(())
    }

    /// Numbers and sequences are never given out again, not even those of frames that are cut.
    fn note(&mut self, sightings: &[Sighting]) {
        for sighting in sightings {
            self.last_number = self.last_number.max(sighting.header.number);
            self.last_sequence = self.last_sequence.max(sighting.header.last_sequence);
        }
    }

    /// Whether a frame of a later segment says that frame `number` was durable. Only asked after something bad.
    async fn proven_later(&mut self, later: &[Rc<Segment<D>>], number: u64) -> Result<bool, OpenError> {
        for segment in later {
            let content = self.read(segment, START).await?;
            let sightings = survey(&content.bytes, START, segment.generation, segment.salt);
            self.note(&sightings);
            if sightings.iter().any(|sighting| sighting.header.durable_upto >= number) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn take(&mut self, segment: &Segment<D>, content: &Content, sighting: &Sighting) {
        let header = &sighting.header;
        let bytes = &content.bytes[(header.offset - content.start) as usize..];
        for (offset, length, record) in frame::records(header, bytes) {
            self.apply(segment, offset, length, &record);
        }
    }

    /// Something acknowledged is lost: reports it, and saves what is left of it.
    fn corrupt(&mut self, segment: &Segment<D>, content: &Content, sightings: &[Sighting], bad: Bad) {
        self.damage.push(Damage {
            partition: None,
            kind: DamageKind::Frame,
            segment: segment.slot,
            offset: bad.offset,
            length: bad.length,
        });
        if let Some(k) = bad.sighting {
            let header = &sightings[k].header;
            let bytes = &content.bytes[(header.offset - content.start) as usize..];
            for (offset, length, record) in frame::salvage(header, bytes, segment.salt) {
                self.apply(segment, offset, length, &record);
            }
        }
    }

    /// Makes sure that nothing at or behind `offset` of the first segment, nor anything in the later ones, is ever taken
    /// for part of the log: their sequences and numbers were never acknowledged.
    /// `number` is the number that the frame at `offset` had or would have had, `first` that of the segment's first frame.
    async fn cut(
        &mut self,
        segments: &[Rc<Segment<D>>],
        offset: u32,
        number: u64,
        first: u64,
    ) -> Result<(), OpenError> {
        let segments = if planted(Bug::TornTailUncut) { &[] } else { segments };
        for (i, segment) in segments.iter().enumerate() {
            let offset = if i == 0 { offset } else { START };
            let content = self.read(segment, offset).await?;
            let sightings = survey(&content.bytes, offset, segment.generation, segment.salt);
            self.note(&sightings);
            if i > 0 && sightings.is_empty() {
                continue;
            }
            self.report.torn |= !sightings.is_empty();
            if offset as usize + BLOCK > self.config.segment_bytes as usize {
                continue;
            }
            let number = if i == 0 { number } else { self.last_number + 1 };
            self.last_number = self.last_number.max(number);
            let header = frame::Header {
                generation: segment.generation,
                number,
                durable_upto: 0,
                offset,
                payload: 0,
                records: 0,
                ordinal: if i == 0 { number.saturating_sub(first) as u32 } else { 0 },
                last_sequence: self.last_sequence,
                last: true,
                stream: segment.stream,
            };
            end_segment(self.disk, segment, self.config.commit, header)
                .await
                .map_err(|error| OpenError::Io { what: format!("cutting {}", name(segment.slot)), error })?;
        }
        Ok(())
    }

    fn apply(&mut self, segment: &Segment<D>, offset: u32, length: usize, record: &Record<'_>) {
        self.report.records_replayed += 1;
        self.last_sequence = self.last_sequence.max(record.sequence);
        let lost = |partition| Damage {
            partition,
            kind: DamageKind::Body,
            segment: segment.slot,
            offset,
            length: length as u32,
        };
        let Some(reflected) = self.reflected.get(record.partition as usize).copied() else {
            self.damage.push(lost(None));
            return;
        };
        match record.kind {
            Kind::Body | Kind::Lost => {}
            Kind::Forget => return self.forget(segment.slot, record, reflected),
            Kind::Drop => {
                let Some(leaf) = record::leaf_of(record.body) else {
                    self.damage.push(lost(Some(record.partition)));
                    return;
                };
                return self.drop_leaf(segment.slot, record, reflected, leaf);
            }
        }
        let copy = segment.stream == Stream::Survivors;
        let Some(hash) = record::hash_of(record, &self.index) else {
            self.damage.push(lost(Some(record.partition)));
            return;
        };
        let newest = self.newest.get(&(record.partition, hash)).copied();
        let known = newest.is_none() && record.sequence <= reflected;
        let older = newest.is_some_and(|newest| record.sequence < newest || (record.sequence == newest && !copy));
        if older || (known && !copy) || self.dropped.after(record.partition, hash, record.sequence) {
            return;
        }
        let summary = if record.kind == Kind::Lost { None } else { self.versions.summarise(record.body) };
        if summary.is_none() && record.kind == Kind::Body {
            self.damage.push(lost(Some(record.partition)));
        }
        let summary = summary.unwrap_or(Summary::LOST);
        let place = Place::new(segment.slot, offset, length as u32);
        if known {
            // The image holds this version, or a later one that this is not.
            if let Some(entry) = self.index.find(record.partition, &hash)
                && entry.summary == summary
            {
                self.index.relocate(record.partition, &hash, entry.place, place);
            }
            return;
        }
        self.index.insert(record.partition, &hash, place, summary, self.versions);
        self.newest.insert((record.partition, hash), record.sequence);
    }

    fn forget(&mut self, slot: u32, record: &Record<'_>, reflected: u64) {
        self.forgets.push((slot, record.sequence));
        let hash = self.index.hash(record.key);
        let newest = self.newest.get(&(record.partition, hash)).copied().unwrap_or(reflected);
        if newest < record.sequence {
            self.index.remove(record.partition, &hash, self.versions);
            self.newest.insert((record.partition, hash), record.sequence);
        }
    }

    fn drop_leaf(&mut self, slot: u32, record: &Record<'_>, reflected: u64, (level, leaf): (u32, u64)) {
        self.forgets.push((slot, record.sequence));
        let (partition, sequence) = (record.partition, record.sequence);
        if sequence <= reflected {
            return;
        }
        let listed: Vec<_> = self.index.entries(partition, level, leaf).collect();
        for listed in listed {
            if self.newest.get(&(partition, listed.hash)).copied().unwrap_or(reflected) < sequence {
                self.index.remove(partition, &listed.hash, self.versions);
            }
        }
        self.dropped.add(partition, level, leaf, sequence);
    }

    /// The segment's bytes from `start` to its end, two reads at a time.
    async fn read(&mut self, segment: &Segment<D>, start: u32) -> Result<Content, OpenError> {
        let end = self.config.segment_bytes;
        let mut content = Content { start, bytes: vec![0; (end - start) as usize], unreadable: false };
        let mut at = 0;
        while at < content.bytes.len() {
            let (first, second) = content.bytes[at..].split_at_mut(READ_CHUNK.min((end - start) as usize - at));
            let second_length = second.len().min(READ_CHUNK);
            let second = &mut second[..second_length];
            let position = u64::from(start) + at as u64;
            at += first.len() + second.len();
            let (one, two) = zip(
                read_into(&*segment.file, position, first),
                read_into(&*segment.file, position + READ_CHUNK as u64, second),
            )
            .await;
            for outcome in [one, two] {
                // What cannot be read is worse than torn: it may have been acknowledged.
                content.unreadable |= outcome.is_err();
            }
        }
        self.report.bytes_read += content.bytes.len() as u64;
        Ok(content)
    }
}

async fn read_into<F: File>(file: &F, position: u64, into: &mut [u8]) -> io::Result<()> {
    if into.is_empty() {
        return Ok(());
    }
    let bytes = file.read(position, into.len()).await?;
    // A file that is cut short reads as zeros behind its end.
    into[..bytes.len()].copy_from_slice(&bytes);
    Ok(())
}
