//! Which segments are free, which are ready, which are full, and how much of each is still wanted.
//!
//! The rule: a segment is given back only when nothing in the index points into it, everything that took the place of
//! its records is durable, no write to it is under way and nobody reads it from end to end. Recovery may then meet its
//! old content or its new one: whatever it held is found elsewhere.
//!
//! A segment with records that forget waits longer: until the checkpoints reflect them (`forget`).
//!
//! A few free segments are kept back, so that compaction can work on a full disk, and one ready segment is kept for
//! deletes.
//!
//! Not here: which segment is compacted next (`compaction`), writing headers and zeros (`preparer`).

use crate::{checkpoint, disk::Disk, index::Place, segment::Segment};
use std::{collections::VecDeque, rc::Rc};

/// Free segments that only compaction may take: one to fill, and one for what comes when that is full.
pub(crate) const RESERVE: usize = 2;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// Its content is of no use.
    Free,
    /// Being made, or its header is being written.
    Preparing,
    /// Header written, waiting in line for the log.
    Ready,
    /// Frames are being added.
    Active,
    /// Full.
    Sealed,
}

pub(crate) struct Slot<D: Disk> {
    pub(crate) file: Rc<D::File>,
    /// Its present use; `None` until the first.
    pub(crate) segment: Option<Rc<Segment<D>>>,
    pub(crate) state: State,
    /// Bytes of the records that the index points at.
    pub(crate) live: u64,
    /// Bytes of all records that were put into it, as far as is known.
    pub(crate) written: u64,
    /// Value of [`Space::clock`] when it was sealed.
    pub(crate) sealed_at: u64,
    /// Somebody reads it from end to end.
    pub(crate) held: bool,
    /// Part of it cannot be read: it stays until its last record is replaced.
    pub(crate) damaged: bool,
    /// The highest sequence of a record in it that forgets; 0 when there is none that may be needed.
    pub(crate) forgets_upto: u64,
}

pub(crate) struct Space<D: Disk> {
    pub(crate) slots: Vec<Slot<D>>,
    /// Ready for the log, oldest generation first.
    pub(crate) ready: VecDeque<Rc<Segment<D>>>,
    pub(crate) free: VecDeque<u32>,
    /// Slots without live records, each with the sequence that must be durable before it is free.
    dying: VecDeque<(u32, u64)>,
    /// For each checkpoint that recovery may begin with, newest last: what it reflects. Fewer than [`checkpoint::KEPT`]
    /// when that is not known of all.
    checkpoints: VecDeque<u64>,
    /// How many segments could be given back if only the checkpoints reflected what they say was forgotten.
    pub(crate) waiting: usize,
    /// What all of them reflect, as was known at some time.
    forgotten_upto: u64,
    pub(crate) next_generation: u64,
    /// The disk had no room for another file when last asked.
    pub(crate) blocked: bool,
    /// Bytes appended since the store was opened: the age of segments is counted in it.
    pub(crate) clock: u64,
    /// The most segments there may be.
    pub(crate) slots_max: usize,
    pub(crate) live: u64,
}

impl<D: Disk> Space<D> {
    pub(crate) fn new(slots_max: usize) -> Self {
        Self {
            slots: Vec::new(),
            ready: VecDeque::new(),
            free: VecDeque::new(),
            dying: VecDeque::new(),
            checkpoints: VecDeque::new(),
            waiting: 0,
            forgotten_upto: 0,
            next_generation: 1,
            blocked: false,
            clock: 0,
            slots_max,
            live: 0,
        }
    }

    pub(crate) fn slot(&self, slot: u32) -> &Slot<D> {
        &self.slots[slot as usize]
    }

    pub(crate) fn slot_mut(&mut self, slot: u32) -> &mut Slot<D> {
        &mut self.slots[slot as usize]
    }

    /// Adds a file whose content is of no use.
    pub(crate) fn add_slot(&mut self, file: Rc<D::File>, state: State) -> u32 {
        let slot = self.slots.len() as u32;
        self.slots.push(Slot {
            file,
            segment: None,
            state,
            live: 0,
            written: 0,
            sealed_at: 0,
            held: false,
            damaged: false,
            forgets_upto: 0,
        });
        slot
    }

    /// Records of so many bytes were put into the segment.
    pub(crate) fn put(&mut self, slot: u32, bytes: usize) {
        self.slot_mut(slot).written += bytes as u64;
    }

    /// The index points at `place` from now on.
    pub(crate) fn gain(&mut self, place: Place) {
        let length = u64::from(place.length());
        self.slot_mut(place.segment()).live += length;
        self.live += length;
    }

    /// The index does not point at `place` any more, because of what has sequence `because` or a lower one.
    pub(crate) fn lose(&mut self, place: Place, because: u64) {
        let length = u64::from(place.length());
        let slot = self.slot_mut(place.segment());
        slot.live = slot.live.checked_sub(length).expect("a segment's live bytes fall below zero");
        let empty = slot.live == 0 && slot.state == State::Sealed;
        self.live -= length;
        if empty {
            self.dying.push_back((place.segment(), because));
        }
    }

    /// The segment is full. `last` is the highest sequence given out so far.
    pub(crate) fn seal(&mut self, slot: u32, last: u64) {
        let clock = self.clock;
        let entry = self.slot_mut(slot);
        assert_eq!(entry.state, State::Active, "only the segment in use is sealed");
        entry.state = State::Sealed;
        entry.sealed_at = clock;
        if entry.live == 0 {
            self.dying.push_back((slot, last));
        }
    }

    /// Gives back what may be given back, now that all up to `durable` is durable. `writes_to` says whether a write to
    /// a slot is under way. True if anything was given back.
    pub(crate) fn settle(&mut self, durable: u64, writes_to: impl Fn(u32) -> bool) -> bool {
        let mut any = false;
        self.waiting = 0;
        for _ in 0..self.dying.len() {
            let Some((slot, because)) = self.dying.pop_front() else { break };
            let entry = &mut self.slots[slot as usize];
            assert!(entry.state == State::Sealed && entry.live == 0, "a dying segment came back to life");
            let needed = entry.forgets_upto > self.forgotten_upto;
            if because > durable || entry.held || needed || writes_to(slot) {
                self.waiting += usize::from(needed);
                self.dying.push_back((slot, because));
                continue;
            }
            entry.state = State::Free;
            entry.written = 0;
            entry.damaged = false;
            entry.forgets_upto = 0;
            self.free.push_back(slot);
            any = true;
        }
        any
    }

    /// The store was opened with what a checkpoint says: `reflected` by itself, and `forgotten_upto`, `forgets` of those
    /// before it.
    pub(crate) fn restore(&mut self, reflected: u64, forgotten_upto: u64, forgets: &[(u32, u64, u64)]) {
        self.checkpoints.push_back(reflected);
        self.forgotten_upto = forgotten_upto;
        for (slot, generation, upto) in forgets {
            let entry = self.slots.get(*slot as usize).and_then(|entry| entry.segment.as_ref());
            // Else it was given back meanwhile.
            if entry.is_some_and(|segment| segment.generation == *generation) {
                self.forget(*slot, *upto);
            }
        }
    }

    /// A checkpoint that reflects all up to `reflected` is durable, and only the newest are still there.
    pub(crate) fn checkpointed(&mut self, reflected: u64) {
        self.checkpoints.push_back(reflected);
        if self.checkpoints.len() > checkpoint::KEPT {
            self.checkpoints.pop_front();
        }
        if self.checkpoints.len() == checkpoint::KEPT {
            let all = self.checkpoints.iter().copied().min().unwrap_or(0);
            self.forgotten_upto = self.forgotten_upto.max(all);
        }
    }

    /// A record that forgets lies in the slot.
    pub(crate) fn forget(&mut self, slot: u32, sequence: u64) {
        if sequence > self.forgotten_upto {
            let entry = self.slot_mut(slot);
            entry.forgets_upto = entry.forgets_upto.max(sequence);
        }
    }

    /// See `checkpoint::End`.
    pub(crate) fn forgotten_upto(&self) -> u64 {
        self.forgotten_upto
    }

    /// Segments with records that forget and may be needed: slot, generation, highest sequence.
    pub(crate) fn forgets(&self) -> Vec<(u32, u64, u64)> {
        let needed = self.slots.iter().enumerate().filter(|(_, slot)| slot.forgets_upto > self.forgotten_upto);
        let listed = |(i, slot): (usize, &Slot<D>)| {
            slot.segment.as_ref().map(|segment| (i as u32, segment.generation, slot.forgets_upto))
        };
        needed.filter_map(listed).collect()
    }

    /// After an opening: nothing points into the slot. It is free, unless records in it that forget are needed.
    pub(crate) fn is_empty(&mut self, slot: u32) {
        let needed = self.slot(slot).forgets_upto > self.forgotten_upto;
        let entry = self.slot_mut(slot);
        if needed {
            self.dying.push_back((slot, 0));
            self.waiting += 1;
        } else {
            entry.state = State::Free;
            entry.written = 0;
            entry.forgets_upto = 0;
            self.free.push_back(slot);
        }
    }

    /// Whether [`Space::settle`] may find something to do.
    pub(crate) fn is_settled(&self) -> bool {
        self.dying.is_empty()
    }

    /// Segments that could be filled before the disk is full, the reserve included.
    pub(crate) fn free_count(&self) -> usize {
        self.ready.len() + self.free.len() + self.creatable()
    }

    /// Bytes that moving the slot's live records elsewhere would gain.
    pub(crate) fn gain_of(slot: &Slot<D>, segment_bytes: u64) -> u64 {
        if slot.live * 2 <= segment_bytes {
            // Two of these fit into one, whatever is dead in them.
            return segment_bytes - slot.live;
        }
        // The end of a segment that the next record did not fit into would be just as empty in another.
        slot.written.min(segment_bytes).saturating_sub(slot.live)
    }

    /// Files that may still be made.
    pub(crate) fn creatable(&self) -> usize {
        if self.blocked { 0 } else { self.slots_max.saturating_sub(self.slots.len()) }
    }

    /// Whether the log, which has no room, will have some without anything being deleted: who needs it has only to wait.
    pub(crate) fn has_room_soon(&self, segment_bytes: u64) -> bool {
        self.can_prepare() || self.can_regain(segment_bytes)
    }

    /// Whether compacting what has died in full segments will give it.
    fn can_regain(&self, segment_bytes: u64) -> bool {
        let full = self.slots.iter().filter(|slot| slot.state == State::Sealed && !slot.damaged);
        let gained: u64 =
            full.map(|slot| Self::gain_of(slot, segment_bytes)).filter(|gain| gain * 20 > segment_bytes).sum();
        // The reserve, the one that is kept for deletes, and one that the ends of segments may come to.
        self.free_count() + (gained / segment_bytes) as usize > RESERVE + 2
    }

    /// Whether the log may have more room soon, without anything being compacted.
    pub(crate) fn can_prepare(&self) -> bool {
        self.free.len() > RESERVE
            || self.creatable() > 0
            || self.slots.iter().any(|slot| slot.state == State::Preparing)
    }

    /// The next segment for the log. The last one is kept for deletes.
    pub(crate) fn take_ready(&mut self, for_delete: bool) -> Option<Rc<Segment<D>>> {
        if self.ready.len() < 2 && !for_delete && !self.can_prepare() {
            return None;
        }
        let segment = self.ready.pop_front()?;
        self.slot_mut(segment.slot).state = State::Active;
        Some(segment)
    }

    /// What the preparer is to do next, `wanted` segments being wanted ready for the log.
    pub(crate) fn next_preparation(&self, wanted: usize) -> Option<Preparation> {
        let used = self.slots.iter().any(|slot| slot.state == State::Sealed);
        if used && self.free.len() < RESERVE && self.slots.len() < self.slots_max {
            return Some(Preparation::Create);
        }
        // The last ready segment is kept for deletes: a disk that was full is asked again until there is another.
        let wanted = if self.blocked { wanted.max(2) } else { wanted };
        if self.ready.len() >= wanted {
            return None;
        }
        if self.free.len() > RESERVE || (!used && !self.free.is_empty()) {
            return Some(Preparation::Recycle);
        }
        (self.slots.len() < self.slots_max).then_some(Preparation::Create)
    }
}

/// What the preparer is to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Preparation {
    /// Make the first free segment ready for the log.
    Recycle,
    /// Make another file, zeroed: it becomes a free segment.
    Create,
}
