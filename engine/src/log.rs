//! A log: records are copied into the open frame, frames go to the disk in order, several at a time, and count as durable
//! in order.
//!
//! The rule: frame k counts as durable only when it and every frame before it are written. A failed write is never
//! tried again, nor is anything after it.
//!
//! Until it is durable a frame stays readable from its buffer.
//!
//! Not here: who writes the frames (`store`), where the next segment comes from (`space`).

use crate::{
    disk::{BLOCK, Buffer, Disk},
    frame,
    index::Place,
    record::{self, Head},
    segment::{START, Segment},
    shared::Position,
};
use std::{cell::Cell, collections::VecDeque, rc::Rc};

/// A frame on its way to the disk.
pub(crate) struct Frame<D: Disk> {
    pub(crate) segment: Rc<Segment<D>>,
    pub(crate) offset: u32,
    pub(crate) number: u64,
    pub(crate) buffer: Rc<D::Buffer>,
    /// The highest sequence given out when it was closed.
    pub(crate) last_sequence: u64,
    /// Bytes of its records.
    payload: usize,
    written: Cell<bool>,
}

/// The frame that records are being added to.
struct Open<B> {
    buffer: B,
    used: usize,
    records: u32,
}

pub(crate) struct Log<D: Disk> {
    disk: D,
    frame_bytes_max: usize,
    segment_bytes: u32,
    segment: Rc<Segment<D>>,
    /// Where the open frame, or the next, begins.
    offset: u32,
    open: Option<Open<D::Buffer>>,
    /// The room that a frame gets first: what the last one took. It doubles when more comes before the frame is written.
    room: usize,
    closed: VecDeque<Rc<Frame<D>>>,
    writing: VecDeque<Rc<Frame<D>>>,
    next_number: u64,
    /// Of the segment in use.
    first_number: u64,
    durable_number: u64,
    durable_sequence: u64,
    /// Bytes that wait for the disk or are on their way.
    queued: usize,
    /// The last frame that counts as durable was built when all before it was known durable, and is empty.
    idle_sealed: bool,
    /// Where the frame is that ended the segment in use.
    ended_at: Option<Position>,
}

impl<D: Disk> Log<D> {
    /// A log that begins with the empty `segment`; frames up to `next_number` and sequences up to `sequence` are durable.
    pub(crate) fn new(
        disk: D,
        frame_bytes_max: usize,
        segment_bytes: u32,
        segment: Rc<Segment<D>>,
        next_number: u64,
        sequence: u64,
    ) -> Self {
        Self {
            disk,
            frame_bytes_max,
            segment_bytes,
            segment,
            offset: START,
            open: None,
            room: BLOCK,
            closed: VecDeque::new(),
            writing: VecDeque::new(),
            next_number,
            first_number: next_number,
            durable_number: next_number - 1,
            durable_sequence: sequence,
            queued: 0,
            idle_sealed: true,
            ended_at: None,
        }
    }

    /// Whether a record of `length` bytes has room in the present segment.
    pub(crate) fn has_room(&self, length: usize) -> bool {
        match &self.open {
            Some(open) if open.used + length <= self.frame_bytes_max => {
                self.ends_before_last_block(self.offset, open.used - frame::HEADER + length)
            }
            Some(open) => {
                let next = self.offset as usize + open.used.next_multiple_of(BLOCK);
                self.ends_before_last_block(next as u32, length)
            }
            None => self.ends_before_last_block(self.offset, length),
        }
    }

    /// The last block of a segment is kept for the frame that ends it.
    fn ends_before_last_block(&self, offset: u32, payload: usize) -> bool {
        offset as usize + frame::length(payload) <= self.segment_bytes as usize - BLOCK
    }

    /// Adds a record, which must have room, and says where it will lie.
    pub(crate) fn push(&mut self, head: Head, key: &[u8], body: &[&[u8]], length: usize) -> Place {
        assert!(self.has_room(length), "a record is pushed where it has no room");
        if self.open.as_ref().is_some_and(|open| open.used + length > self.frame_bytes_max) {
            self.close(head.sequence - 1);
        }
        let needed = frame::HEADER + length;
        let room = needed.next_multiple_of(BLOCK).max(self.room);
        let first = || Open { buffer: self.disk.buffer(room), used: frame::HEADER, records: 0 };
        let open = self.open.get_or_insert_with(first);
        if open.used + length > open.buffer.len() {
            let room = (open.used + length).next_power_of_two();
            let mut larger = self.disk.buffer(room.next_multiple_of(BLOCK));
            larger[..open.used].copy_from_slice(&open.buffer[..open.used]);
            open.buffer = larger;
        }
        let at = self.offset + open.used as u32;
        let into = &mut open.buffer[open.used..open.used + length];
        record::write(into, head, key, body, self.segment.salt, at);
        open.used += length;
        open.records += 1;
        self.queued += length;
        Place::new(self.segment.slot, at, length as u32)
    }

    /// Closes the open frame, if there is one: it gets its header and waits for the disk.
    fn close(&mut self, last_sequence: u64) {
        if let Some(open) = self.open.take() {
            self.enqueue(open, last_sequence, false);
        }
    }

    fn enqueue(&mut self, mut open: Open<D::Buffer>, last_sequence: u64, last: bool) {
        let header = frame::Header {
            generation: self.segment.generation,
            number: self.next_number,
            durable_upto: self.durable_number,
            offset: self.offset,
            payload: (open.used - frame::HEADER) as u32,
            records: open.records,
            ordinal: (self.next_number - self.first_number) as u32,
            last_sequence,
            last,
            stream: self.segment.stream,
        };
        header.write(&mut open.buffer, self.segment.salt);
        open.buffer.truncate(header.frame_length());
        self.room = header.frame_length();
        self.next_number += 1;
        self.idle_sealed = open.records == 0 && header.durable_upto + 1 == header.number;
        self.closed.push_back(Rc::new(Frame {
            segment: self.segment.clone(),
            offset: self.offset,
            number: header.number,
            buffer: Rc::new(open.buffer),
            last_sequence,
            payload: header.payload as usize,
            written: Cell::new(false),
        }));
        self.offset += header.frame_length() as u32;
    }

    /// Adds an empty frame, which says how far the log is durable. `last`: it ends the segment.
    fn enqueue_empty(&mut self, last_sequence: u64, last: bool) {
        let open = Open { buffer: self.disk.buffer(BLOCK), used: frame::HEADER, records: 0 };
        self.enqueue(open, last_sequence, last);
    }

    /// Ends the present segment and goes on in `next`. Gives the slot of the ended one.
    pub(crate) fn roll(&mut self, next: Rc<Segment<D>>, last_sequence: u64) -> u32 {
        self.end(last_sequence);
        let ended = std::mem::replace(&mut self.segment, next);
        self.offset = START;
        self.first_number = self.next_number;
        self.ended_at = None;
        ended.slot
    }

    /// Ends the present segment: nothing may be pushed before the next [`Log::roll`].
    pub(crate) fn end(&mut self, last_sequence: u64) {
        self.close(last_sequence);
        self.ended_at = Some(self.position());
        self.enqueue_empty(last_sequence, true);
    }

    /// When the log is idle and does not say so yet: adds an empty frame behind the last, so that recovery can tell that
    /// the last one was acknowledged. True if it did.
    pub(crate) fn seal_idle(&mut self, last_sequence: u64) -> bool {
        if !self.wants_seal() || !self.is_idle() {
            return false;
        }
        self.enqueue_empty(last_sequence, false);
        true
    }

    /// Whether the last frame is not yet known to be durable by what the log itself says. Behind the last frame there is
    /// always a block, but it must stay for the frame that ends the segment.
    pub(crate) fn wants_seal(&self) -> bool {
        !self.idle_sealed && self.ends_before_last_block(self.offset, 0)
    }

    /// Nothing waits and nothing is being written.
    pub(crate) fn is_idle(&self) -> bool {
        self.open.is_none() && self.closed.is_empty() && self.writing.is_empty()
    }

    /// The next frame to write. It stays readable until it is durable.
    pub(crate) fn take(&mut self, last_sequence: u64) -> Option<Rc<Frame<D>>> {
        if self.closed.is_empty() {
            self.close(last_sequence);
        }
        let frame = self.closed.pop_front()?;
        self.writing.push_back(frame.clone());
        Some(frame)
    }

    /// The frame was written. `became_durable` is called for each frame that counts as durable now, in order.
    pub(crate) fn written(&mut self, frame: &Frame<D>, mut became_durable: impl FnMut(&Frame<D>)) {
        frame.written.set(true);
        while self.writing.front().is_some_and(|first| first.written.get()) {
            let Some(first) = self.writing.pop_front() else { break };
            assert_eq!(first.number, self.durable_number + 1, "frames become durable in order");
            self.durable_number = first.number;
            self.durable_sequence = first.last_sequence;
            self.queued -= first.payload;
            became_durable(&first);
        }
    }

    /// All up to this sequence is durable.
    pub(crate) fn durable_sequence(&self) -> u64 {
        self.durable_sequence
    }

    /// Whether a frame of this slot's segment is not durable yet.
    pub(crate) fn writes_to(&self, slot: u32) -> bool {
        self.segment.slot == slot || self.closed.iter().chain(&self.writing).any(|frame| frame.segment.slot == slot)
    }

    /// Bytes of records that are not durable yet.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// Where the open frame, or the next, begins; once the log was ended, where its last frame is.
    pub(crate) fn position(&self) -> Position {
        let next = Position { generation: self.segment.generation, offset: self.offset, number: self.next_number };
        self.ended_at.unwrap_or(next)
    }

    /// The bytes of a record that is not durable yet.
    pub(crate) fn pending(&self, place: Place) -> Option<&[u8]> {
        let (offset, length) = (place.offset(), place.length() as usize);
        if let Some(open) = &self.open
            && self.segment.slot == place.segment()
            && offset >= self.offset
        {
            let at = (offset - self.offset) as usize;
            return Some(&open.buffer[at..at + length]);
        }
        let holds = |frame: &&Rc<Frame<D>>| {
            frame.segment.slot == place.segment()
                && offset >= frame.offset
                && ((offset - frame.offset) as usize) < frame.buffer.len()
        };
        let frame = self.closed.iter().chain(&self.writing).find(holds)?;
        let at = (offset - frame.offset) as usize;
        Some(&frame.buffer[at..at + length])
    }
}
