//! What the face of the store and its background tasks share.
//!
//! The rule: the state is borrowed for one synchronous step at a time, never across a wait.
//!
//! Not here: what any of them does with it.

use crate::{
    cache::Cache, chore::Chores, config::Config, disk::Disk, index::Index, log::Log, scrub::Listing, signal::Signal,
    space::Space, statistics::Counters, store::AppendError, versions::Versions,
};
use futures_lite::future;
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    fmt,
    rc::Rc,
    time::Duration,
};

/// Damage that is not asked for is forgotten beyond this many entries, but for the count.
const DAMAGE_MAX: usize = 1024;

/// Bytes that cannot be read as they were written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Damage {
    /// Whose records are affected; `None` when it cannot be told, so any may be.
    pub partition: Option<u16>,
    /// What it is.
    pub kind: DamageKind,
    /// The slot number of the segment.
    pub segment: u32,
    /// Where in the segment.
    pub offset: u32,
    /// How many bytes.
    pub length: u32,
}

impl fmt::Display for Damage {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, kind, segment, offset, length } = self;
        let what = match kind {
            DamageKind::Segment => "its header",
            DamageKind::Frame => "a frame",
            DamageKind::Record => "a record",
            DamageKind::Body => "the body of a record",
        };
        write!(to, "{what} in segment {segment}, {length} bytes at {offset}")?;
        match partition {
            Some(partition) => write!(to, ", of partition {partition}"),
            None => write!(to, ", of any partition"),
        }
    }
}

/// Kinds of [`Damage`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DamageKind {
    /// A segment's file or its header is gone.
    Segment,
    /// A frame that was acknowledged does not validate.
    Frame,
    /// A record that the index points at does not validate. The key is lost until it is written anew.
    Record,
    /// A record validates but its body is not an object, or its partition does not exist.
    Body,
}

/// A place in a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Position {
    pub(crate) generation: u64,
    pub(crate) offset: u32,
    /// The number of the frame that begins there.
    pub(crate) number: u64,
}

pub(crate) struct State<D: Disk> {
    pub(crate) index: Index,
    pub(crate) cache: Cache,
    pub(crate) log: Log<D>,
    pub(crate) space: Space<D>,
    /// The highest sequence given out.
    pub(crate) last_sequence: u64,
    /// That of the last record that forgets something.
    pub(crate) last_forget: u64,
    /// Keys in the index whose version is nothing but tombstones.
    pub(crate) tombstones: u64,
    /// Keys in the index whose record is lost.
    pub(crate) lost: u64,
    /// Every copy of compaction before this is in the index.
    pub(crate) survivors: Position,
    pub(crate) damage: VecDeque<Damage>,
}

pub(crate) struct Shared<D: Disk> {
    pub(crate) disk: D,
    pub(crate) config: Config,
    /// The store's own number, part of every checksum.
    pub(crate) store: u64,
    pub(crate) versions: Rc<dyn Versions>,
    pub(crate) state: RefCell<State<D>>,
    /// Why nothing is written any more.
    pub(crate) failed: RefCell<Option<Rc<str>>>,
    /// No more appends; background tasks end.
    pub(crate) closing: Cell<bool>,
    /// There is something to write.
    pub(crate) work: Signal,
    /// The watermark rose, or will never rise again.
    pub(crate) progress: Signal,
    /// A segment was taken, sealed or given back.
    pub(crate) segments: Signal,
    /// Background tasks are to end.
    pub(crate) over: Signal,
    /// The scrub has come round, so the checkpoints are to be read.
    pub(crate) checkpoints_unread: Cell<bool>,
    /// Nothing was appended for a while.
    pub(crate) idle: Cell<bool>,
    /// Background tasks that must have ended before the store is closed.
    pub(crate) background: Rc<Background>,
    pub(crate) counters: Counters,
    /// How fast background work goes.
    pub(crate) chores: Chores,
    /// What the scrub is about to read.
    pub(crate) scrub: RefCell<Listing>,
    /// The scrub reads so many bytes a second; 0: none.
    pub(crate) scrub_rate: Cell<u64>,
    /// That is another number now.
    pub(crate) scrub_rate_changed: Signal,
}

/// Counts tasks that run.
#[derive(Default)]
pub(crate) struct Background {
    running: Cell<u32>,
    ended: Signal,
}

/// Held by a task while it runs.
pub(crate) struct Running(Rc<Background>);

impl Background {
    pub(crate) fn enter(self: &Rc<Self>) -> Running {
        self.running.set(self.running.get() + 1);
        Running(self.clone())
    }

    /// Waits until none runs.
    pub(crate) async fn finished(&self) {
        loop {
            let seen = self.ended.count();
            if self.running.get() == 0 {
                return;
            }
            self.ended.after(seen).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
        self.0.ended.notify();
    }
}

impl<D: Disk> Shared<D> {
    /// The log failed: nothing is written or acknowledged any more.
    pub(crate) fn fail(&self, what: impl fmt::Display) {
        let mut failed = self.failed.borrow_mut();
        if failed.is_none() {
            *failed = Some(what.to_string().into());
        }
        drop(failed);
        self.wake_all();
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.borrow().is_some()
    }

    /// Background tasks are to end.
    pub(crate) fn is_over(&self) -> bool {
        self.closing.get() || self.has_failed()
    }

    pub(crate) fn wake_all(&self) {
        self.work.notify();
        self.progress.notify();
        self.segments.notify();
        self.over.notify();
    }

    /// Waits for `duration`, or until background tasks are to end.
    pub(crate) async fn rest(&self, duration: Duration) {
        if !self.is_over() {
            let seen = self.over.count();
            future::or(self.disk.sleep(duration), self.over.after(seen)).await;
        }
    }

    /// How long the log rests after a commit of so many bytes: while segments are short puts slow down, to a rate that is the
    /// lower the fewer are left, so that they need not stop dead when none is.
    pub(crate) fn rest_of_log(&self, committed: usize) -> Duration {
        const MOST_BYTES_PER_SECOND: f64 = (32 << 20) as f64;
        const LONGEST: f64 = 0.1;
        let space = &self.state.borrow().space;
        // One less is nothing but the compactor's turn.
        let lacking = self.config.free_wanted().saturating_sub(space.free_count() + 1);
        let lacking = lacking.max(usize::from(space.ready.is_empty()));
        if lacking == 0 {
            return Duration::ZERO;
        }
        let rate = MOST_BYTES_PER_SECOND / 4f64.powi(lacking.min(4) as i32 - 1);
        Duration::from_secs_f64((committed as f64 / rate).min(LONGEST))
    }

    /// Makes room in the log for a record of `length` bytes.
    pub(crate) fn make_room(&self, state: &mut State<D>, length: usize, for_delete: bool) -> Result<(), AppendError> {
        if self.is_over() {
            return Err(if self.has_failed() { AppendError::Failed } else { AppendError::Closed });
        }
        if state.log.queued() + length > self.config.queue_bytes_max && state.log.queued() > 0 {
            return Err(AppendError::Busy);
        }
        if !state.log.has_room(length) {
            let Some(next) = state.space.take_ready(for_delete) else {
                let soon = state.space.has_room_soon(self.config.segment_bytes.into());
                return Err(if soon { AppendError::Busy } else { AppendError::Full });
            };
            let ended = state.log.roll(next, state.last_sequence);
            state.space.seal(ended, state.last_sequence);
            self.segments.notify();
        }
        Ok(())
    }

    pub(crate) fn report(&self, damage: Damage) {
        self.counters.damaged.set(self.counters.damaged.get() + 1);
        let queue = &mut self.state.borrow_mut().damage;
        if queue.len() < DAMAGE_MAX {
            queue.push_back(damage);
        }
    }

    /// Gives back segments whose last live record is gone for good.
    pub(crate) fn settle(&self) {
        let state = &mut *self.state.borrow_mut();
        if state.space.is_settled() {
            return;
        }
        let (log, space) = (&state.log, &mut state.space);
        let waited = space.waiting;
        if space.settle(log.durable_sequence(), |slot| log.writes_to(slot)) || space.waiting > waited {
            self.segments.notify();
        }
    }
}
