//! Moves the live records of a segment into the survivors' stream, so that the segment can be given back.
//!
//! The rule: a copy is durable before the index points at it, and a segment is given back only when the index points at
//! nothing in it. What cannot be read is never copied: it is lost (`lost`), and holds its segment no longer.
//!
//! Reads and writes at most 128 KiB at a time, one at a time, with rests between. Survivors are grouped by partition.
//!
//! Not here: which segment (`compaction`).

use crate::{
    chore::Chore,
    compaction::{self, Candidate, Situation},
    disk::{BACKGROUND_CHUNK, BLOCK, Disk, File},
    frame,
    index::{KeyHash, Place},
    planted::{Bug, planted},
    preparer,
    record::{self, Head},
    segment::{Commit, START, Segment, name, write_durably},
    shared::{DamageKind, Position, Shared},
    space::{RESERVE, Space, State},
    statistics::count,
};
use std::{io, rc::Rc, time::Duration};

/// Survivors are collected up to this many bytes, to be grouped by partition.
const BATCH: usize = 1 << 20;
/// Frames of survivors are no larger than this, unless a record is.
const FRAME: usize = BACKGROUND_CHUNK - frame::HEADER;

/// The store is idle when nothing was appended for so long.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// A live record that is to be moved.
struct Survivor {
    partition: u16,
    hash: KeyHash,
    from: Place,
    bytes: Vec<u8>,
}

/// Where survivors are written.
struct Target<D: Disk> {
    segment: Rc<Segment<D>>,
    offset: u32,
    /// The number of the segment's first frame.
    first_number: u64,
}

/// Why a victim was not finished.
enum Stop {
    /// The store is being closed, or has failed.
    Over,
    /// No segment is free to move survivors into.
    NoRoom,
    Io(io::Error),
}

struct Compactor<D: Disk> {
    shared: Rc<Shared<D>>,
    target: Option<Target<D>>,
    /// Slots that are full, but whose copies the index does not point at yet. Until it does they look empty, and must not
    /// be taken for segments whose records have all died.
    ended: Vec<u32>,
    next_number: u64,
    batch: Vec<Survivor>,
    batch_bytes: usize,
}

/// Compacts whenever the planner wants it.
pub(crate) async fn run<D: Disk>(shared: Rc<Shared<D>>) {
    let next_number = shared.state.borrow().survivors.number;
    let mut compactor =
        Compactor { shared, target: None, ended: Vec::new(), next_number, batch: Vec::new(), batch_bytes: 0 };
    while !compactor.shared.is_over() {
        let seen = compactor.shared.segments.count();
        let (victim, pressed) = compactor.plan();
        let outcome = match victim {
            Some(victim) => compactor.compact(victim).await,
            // Deletes go on, and may make something worth compacting, without any segment being sealed.
            None if pressed => Err(Stop::NoRoom),
            None => {
                compactor.shared.segments.after(seen).await;
                continue;
            }
        };
        match outcome {
            Ok(()) => compactor.shared.settle(),
            Err(Stop::NoRoom) => compactor.shared.disk.sleep(compactor.shared.config.full_retry).await,
            Err(Stop::Over) => break,
            Err(Stop::Io(error)) => compactor.shared.fail(format_args!("compaction: {error}")),
        }
    }
    if !compactor.shared.has_failed()
        && let Err(Stop::Io(error)) = compactor.end_target().await
    {
        compactor.shared.fail(format_args!("ending the survivors' segment: {error}"));
    }
}

/// Sees when nothing has been appended for a while. Once it has, it rests until something is.
pub(crate) async fn watch_idle<D: Disk>(shared: Rc<Shared<D>>) {
    let mut last = (0, shared.disk.now());
    while !shared.is_over() {
        let seen = shared.work.count();
        if shared.idle.get() && shared.state.borrow().space.clock == last.0 {
            shared.work.after(seen).await;
        } else {
            shared.disk.sleep(IDLE_AFTER / 4).await;
        }
        let (clock, now) = (shared.state.borrow().space.clock, shared.disk.now());
        if clock != last.0 {
            last = (clock, now);
        }
        let idle = now - last.1 >= IDLE_AFTER;
        if shared.idle.replace(idle) != idle {
            shared.segments.notify();
        }
    }
}

impl<D: Disk> Compactor<D> {
    /// The victim, and whether segments are short.
    fn plan(&self) -> (Option<u32>, bool) {
        let config = &self.shared.config;
        let state = self.shared.state.borrow();
        let space = &state.space;
        let situation = Situation {
            segment_bytes: config.segment_bytes.into(),
            free: space.free_count(),
            free_wanted: config.free_wanted(),
            dead_percent_max: if self.shared.idle.get() { config.dead_percent_idle } else { config.dead_percent_max },
        };
        let candidates: Vec<_> = space
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.state == State::Sealed && !slot.damaged && slot.live > 0)
            // Its last frames may not be on the disk yet.
            .filter(|(i, _)| !state.log.writes_to(*i as u32))
            .map(|(i, slot)| Candidate {
                slot: i as u32,
                gain: Space::gain_of(slot, config.segment_bytes.into()),
                age: space.clock - slot.sealed_at,
            })
            .collect();
        (compaction::victim(&situation, &candidates), situation.free < situation.free_wanted)
    }

    async fn compact(&mut self, victim: u32) -> Result<(), Stop> {
        let segment = {
            let entry = &mut self.shared.state.borrow_mut().space.slots[victim as usize];
            entry.held = true;
            entry.segment.clone()
        };
        let outcome = self.move_all(victim, segment).await;
        self.batch.clear();
        self.batch_bytes = 0;
        self.seal_ended();
        let entry = &mut self.shared.state.borrow_mut().space.slots[victim as usize];
        entry.held = false;
        count(&self.shared.counters.compacted_segments, u64::from(entry.live == 0));
        outcome
    }

    async fn move_all(&mut self, victim: u32, segment: Option<Rc<Segment<D>>>) -> Result<(), Stop> {
        if let Some(segment) = &segment {
            self.scan(segment).await?;
            self.flush().await?;
        }
        if self.shared.state.borrow().space.slot(victim).live > 0 {
            self.move_singly(victim, segment.as_deref()).await?;
            self.flush().await?;
        }
        if self.shared.state.borrow().space.slot(victim).live > 0 {
            self.shared.state.borrow_mut().space.slot_mut(victim).damaged = true;
        }
        Ok(())
    }

    /// Reads the victim from its start to its end, frame by frame.
    async fn scan(&mut self, segment: &Rc<Segment<D>>) -> Result<(), Stop> {
        let mut window = Window { segment, start: START, bytes: Vec::new() };
        let mut at = START;
        let shared = self.shared.clone();
        let underway = shared.chores.begin(Chore::Compaction, shared.config.segment_bytes.into());
        while at < self.shared.config.segment_bytes {
            underway.reached(at.into());
            let header = match self.fill(&mut window, at, BLOCK).await? {
                Some(bytes) => frame::Header::read(bytes, segment.generation, segment.salt, at),
                None => None,
            };
            let Some(header) = header else {
                at += BLOCK as u32;
                continue;
            };
            if header.last {
                break;
            }
            let length = header.frame_length();
            if let Some(bytes) = self.fill(&mut window, at, length).await? {
                let found = self.shared.state.borrow();
                for (offset, length, record) in frame::salvage(&header, bytes, segment.salt) {
                    let Some(hash) = record::hash_of(&record, &found.index) else { continue };
                    let from = Place::new(segment.slot, offset, length as u32);
                    if found.index.find(record.partition, &hash).is_some_and(|entry| entry.place == from) {
                        let at = (offset - header.offset) as usize;
                        let bytes = bytes[at..at + length].to_vec();
                        self.batch_bytes += length;
                        self.batch.push(Survivor { partition: record.partition, hash, from, bytes });
                    }
                }
            }
            at += length as u32;
            if self.batch_bytes >= BATCH {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// The bytes of the victim from `at` on, read in chunks; `None` when the disk cannot read them.
    async fn fill<'w>(&self, window: &'w mut Window<'_, D>, at: u32, length: usize) -> Result<Option<&'w [u8]>, Stop> {
        let end = self.shared.config.segment_bytes as usize;
        if at as usize + length > end {
            return Ok(None);
        }
        window.forget_before(at);
        while window.bytes.len() < length {
            if self.shared.is_over() {
                return Err(Stop::Over);
            }
            let position = window.start as usize + window.bytes.len();
            let chunk = BACKGROUND_CHUNK.min(end - position);
            match window.segment.file.read(position as u64, chunk).await {
                Ok(bytes) if bytes.len() == chunk => window.bytes.extend_from_slice(&bytes),
                // What lives there is tried again record by record.
                _ => return Ok(None),
            }
            count(&self.shared.counters.compaction_read_bytes, chunk as u64);
            self.rest().await;
        }
        Ok(Some(&window.bytes[..length]))
    }

    /// Rests as long as segments are not short.
    async fn rest(&self) {
        let pause = {
            let free = self.shared.state.borrow().space.free_count();
            if free <= RESERVE + 1 { Duration::ZERO } else { self.shared.chores.pause(Chore::Compaction) }
        };
        if !pause.is_zero() {
            self.shared.disk.sleep(pause).await;
        }
    }

    /// Moves what the scan did not reach, since a frame's header or part of the segment cannot be read, and reports what
    /// is lost.
    async fn move_singly(&mut self, victim: u32, segment: Option<&Segment<D>>) -> Result<(), Stop> {
        let shared = self.shared.clone();
        for partition in 0..shared.config.partitions {
            if shared.is_over() {
                return Err(Stop::Over);
            }
            let listed: Vec<_> = {
                let index = &shared.state.borrow().index;
                index.entries(partition, 0, 0).filter(|listed| listed.entry.place.segment() == victim).collect()
            };
            for listed in listed {
                let place = listed.entry.place;
                let bytes = match segment {
                    Some(segment) => read_record(segment, place).await.filter(|bytes| {
                        let index = &shared.state.borrow().index;
                        record::parse(bytes).is_some_and(|(record, _)| {
                            record.partition == partition && record::hash_of(&record, index) == Some(listed.hash)
                        })
                    }),
                    None => None,
                };
                let now = shared.state.borrow().index.find(partition, &listed.hash);
                if now != Some(listed.entry) {
                    continue;
                }
                let Some(bytes) = bytes else {
                    if !shared.lose(partition, &listed, DamageKind::Record) {
                        return Err(Stop::NoRoom);
                    }
                    continue;
                };
                self.batch_bytes += bytes.len();
                self.batch.push(Survivor { partition, hash: listed.hash, from: place, bytes });
            }
            shared.disk.sleep(shared.chores.pause(Chore::Compaction)).await;
            if self.batch_bytes >= BATCH {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Writes the batch, and when all of it is durable lets the index point at the copies.
    async fn flush(&mut self) -> Result<(), Stop> {
        let mut batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        batch.sort_by_key(|survivor| survivor.partition);
        let mut moved = Vec::with_capacity(batch.len());
        let mut rest = &batch[..];
        while !rest.is_empty() {
            let mut bytes = rest[0].bytes.len();
            let mut records = 1;
            // A segment is filled to its end, or nothing might be gained.
            let room = self.room_left().filter(|room| *room >= bytes).unwrap_or(FRAME).min(FRAME);
            while records < rest.len() && bytes + rest[records].bytes.len() <= room {
                bytes += rest[records].bytes.len();
                records += 1;
            }
            self.write_frame(&rest[..records], bytes, &mut moved).await?;
            rest = &rest[records..];
        }
        let Some(target) = &self.target else { return Ok(()) };
        let state = &mut *self.shared.state.borrow_mut();
        let because = state.last_sequence;
        for (survivor, to) in batch.iter().zip(moved) {
            if state.index.relocate(survivor.partition, &survivor.hash, survivor.from, to) {
                state.space.gain(to);
                state.space.lose(survivor.from, because);
            }
        }
        state.survivors =
            Position { generation: target.segment.generation, offset: target.offset, number: self.next_number };
        Ok(())
    }

    /// Writes one frame of survivors durably, and says where each lies now.
    async fn write_frame(
        &mut self,
        survivors: &[Survivor],
        payload: usize,
        moved: &mut Vec<Place>,
    ) -> Result<(), Stop> {
        let length = frame::length(payload);
        let (segment, offset, first_number) = self.room(length).await?;
        let last_sequence = self.shared.state.borrow().last_sequence;
        let mut bytes = vec![0; length];
        let header = frame::Header {
            generation: segment.generation,
            number: self.next_number,
            durable_upto: self.next_number - 1,
            offset,
            payload: payload as u32,
            records: survivors.len() as u32,
            ordinal: (self.next_number - first_number) as u32,
            last_sequence,
            last: false,
            stream: segment.stream,
        };
        header.write(&mut bytes, segment.salt);
        let mut at = frame::HEADER;
        for survivor in survivors {
            let (record, length) = record::parse(&survivor.bytes).expect("the record was verified when it was read");
            let here = offset + at as u32;
            let head = Head {
                kind: record.kind,
                partition: record.partition,
                sequence: record.sequence,
                stable_hash: record.stable_hash,
            };
            record::write(&mut bytes[at..at + length], head, record.key, &[record.body], segment.salt, here);
            moved.push(Place::new(segment.slot, here, length as u32));
            at += length;
        }
        self.write(&segment, offset, &bytes).await?;
        self.shared.state.borrow_mut().space.put(segment.slot, payload);
        self.next_number += 1;
        Ok(())
    }

    /// Bytes of records that fit into one more frame of the survivors' segment.
    fn room_left(&self) -> Option<usize> {
        let end = self.shared.config.segment_bytes as usize - BLOCK;
        let target = self.target.as_ref()?;
        (end - target.offset as usize).checked_sub(frame::HEADER)
    }

    /// Room for a frame in the survivors' segment, or in the next one: the segment, where, and its first frame's number.
    async fn room(&mut self, length: usize) -> Result<(Rc<Segment<D>>, u32, u64), Stop> {
        let end = self.shared.config.segment_bytes as usize - BLOCK;
        if self.target.as_ref().is_some_and(|target| target.offset as usize + length > end) {
            self.end_target().await?;
        }
        if self.target.is_none() {
            let slot = preparer::take_free(&self.shared).ok_or(Stop::NoRoom)?;
            let stream = crate::segment::Stream::Survivors;
            let segment = preparer::begin(&self.shared, slot, stream).await.map_err(Stop::Io)?;
            self.shared.state.borrow_mut().space.slot_mut(slot).state = State::Active;
            self.shared.segments.notify();
            self.target = Some(Target { segment, offset: START, first_number: self.next_number });
        }
        let target = self.target.as_mut().expect("it was just made");
        let offset = target.offset;
        target.offset += length as u32;
        Ok((target.segment.clone(), offset, target.first_number))
    }

    /// Ends the survivors' segment, if there is one.
    async fn end_target(&mut self) -> Result<(), Stop> {
        let Some(Target { segment, offset, first_number }) = self.target.take() else { return Ok(()) };
        let header = frame::Header {
            generation: segment.generation,
            number: self.next_number,
            durable_upto: self.next_number - 1,
            offset,
            payload: 0,
            records: 0,
            ordinal: (self.next_number - first_number) as u32,
            last_sequence: self.shared.state.borrow().last_sequence,
            last: true,
            stream: segment.stream,
        };
        let (disk, commit) = (&self.shared.disk, self.shared.config.commit);
        crate::commit::end_segment(disk, &segment, commit, header).await.map_err(Stop::Io)?;
        self.next_number += 1;
        self.ended.push(segment.slot);
        Ok(())
    }

    /// The index points at all copies that it ever will: what is full may be compacted, or given back.
    fn seal_ended(&mut self) {
        let state = &mut *self.shared.state.borrow_mut();
        for slot in self.ended.drain(..) {
            state.space.seal(slot, state.last_sequence);
        }
    }

    async fn write(&self, segment: &Segment<D>, offset: u32, bytes: &[u8]) -> Result<(), Stop> {
        for (i, chunk) in bytes.chunks(BACKGROUND_CHUNK).enumerate() {
            let mut buffer = self.shared.disk.buffer(chunk.len());
            buffer.copy_from_slice(chunk);
            let position = offset as usize + i * BACKGROUND_CHUNK;
            let commit = if planted(Bug::CopyUnsynced) { Commit::Dsync } else { self.shared.config.commit };
            write_durably(&*segment.file, commit, Rc::new(buffer), position as u64).await.map_err(|error| {
                Stop::Io(io::Error::new(error.kind(), format!("writing {}: {error}", name(segment.slot))))
            })?;
            count(&self.shared.counters.compaction_bytes, chunk.len() as u64);
            self.rest().await;
        }
        Ok(())
    }
}

/// The part of a victim that was read.
struct Window<'a, D: Disk> {
    segment: &'a Rc<Segment<D>>,
    start: u32,
    bytes: Vec<u8>,
}

impl<D: Disk> Window<'_, D> {
    fn forget_before(&mut self, at: u32) {
        let gone = ((at - self.start) as usize).min(self.bytes.len());
        self.bytes.drain(..gone);
        if self.bytes.is_empty() {
            self.start = at;
        } else {
            self.start += gone as u32;
        }
    }
}

/// The bytes of a record, if they validate.
async fn read_record<D: Disk>(segment: &Segment<D>, place: Place) -> Option<Vec<u8>> {
    let begin = place.offset() as usize / BLOCK * BLOCK;
    let end = (place.offset() as usize + place.length() as usize).next_multiple_of(BLOCK);
    let bytes = segment.file.read(begin as u64, end - begin).await.ok()?;
    let at = place.offset() as usize - begin;
    let bytes = bytes.get(at..at + place.length() as usize)?;
    record::verify(bytes, segment.salt, place.offset())?;
    Some(bytes.to_vec())
}
