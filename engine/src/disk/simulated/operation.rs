//! The operations under way on a simulated disk, from the first poll of their future to the moment of their effect.
//!
//! The rule: operations take effect in the order of their moments, and of their starts where moments are equal. An operation
//! whose future is dropped takes effect all the same, but for a sleep.
//!
//! Not here: what a file or a crash is (`files`), who moves the time (`super`).

use super::{
    BLOCK, Kind, SilentFault, SimulatedBuffer, SimulatedDisk, State,
    files::{FileId, WriteId},
};
use std::{
    collections::BTreeMap,
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

type OperationId = u64;

pub(super) enum Action {
    Open { name: String },
    List,
    Rename { from: String, to: String },
    Remove { name: String },
    SyncDirectory,
    Length { file: FileId },
    Read { file: FileId, position: u64, length: usize },
    Write { file: FileId, position: u64, buffer: Rc<SimulatedBuffer>, durable: bool },
    Sync { file: FileId },
    Allocate { file: FileId, length: u64 },
    Truncate { file: FileId, length: u64 },
    Sleep(Duration),
}

impl Action {
    fn kind(&self) -> Option<Kind> {
        match self {
            Self::Read { .. } => Some(Kind::Read),
            Self::Write { .. } => Some(Kind::Write),
            Self::Sync { .. } => Some(Kind::Sync),
            Self::Allocate { .. } | Self::Truncate { .. } => Some(Kind::Resize),
            Self::Length { .. } | Self::Sleep(_) => None,
            Self::Open { .. } | Self::List | Self::Rename { .. } | Self::Remove { .. } | Self::SyncDirectory => {
                Some(Kind::Directory)
            }
        }
    }

    /// True when a crash in the middle of it may show.
    fn changes(&self) -> bool {
        !matches!(self, Self::List | Self::Length { .. } | Self::Read { .. } | Self::Sleep(_))
    }

    /// The numbers that go into the trace.
    fn trace(&self) -> (u8, u64, u64) {
        let named = |name: &String| xxh3_64_with_seed(name.as_bytes(), 0);
        match self {
            Self::Open { name } => (1, named(name), 0),
            Self::List => (2, 0, 0),
            Self::Rename { from, to } => (3, named(from), named(to)),
            Self::Remove { name } => (4, named(name), 0),
            Self::SyncDirectory => (5, 0, 0),
            Self::Length { file } => (6, *file, 0),
            Self::Read { position, length, .. } => (7, *position, *length as u64),
            Self::Write { position, buffer, .. } => (8, *position, xxh3_64_with_seed(buffer, 0)),
            Self::Sync { file } => (9, *file, 0),
            Self::Allocate { file, length } => (10, *file, *length),
            Self::Truncate { file, length } => (11, *file, *length),
            Self::Sleep(duration) => (12, duration.as_nanos() as u64, 0),
        }
    }
}

pub(super) struct Operation {
    action: Action,
    pub(super) due: Duration,
    start: Start,
}

/// What an operation holds from its start on.
#[derive(Clone, Copy)]
enum Start {
    Nothing,
    /// Where the write really goes.
    Write {
        write: WriteId,
        position: u64,
    },
    Sync {
        moment: u64,
    },
    SyncDirectory {
        changes: u64,
    },
}

/// What an operation gives.
#[derive(Debug)]
pub(super) enum Output {
    Nothing,
    File { file: FileId, held: Rc<()> },
    Names(Vec<(String, u64)>),
    Length(u64),
    Bytes(Vec<u8>),
}

type OperationResult = io::Result<Output>;

enum Slot {
    Waiting(Waker),
    Done(OperationResult),
}

#[derive(Default)]
pub(super) struct Operations {
    next: OperationId,
    under_way: BTreeMap<(Duration, OperationId), Operation>,
    /// Of the futures that still live.
    slots: BTreeMap<OperationId, Slot>,
    trace_hash: u64,
}

impl Operations {
    /// glommio asks for a file's name again when it has opened it, and ends the process when nothing is there.
    fn check_names(&self, action: &Action) {
        let opens = |action: &Action| if let Action::Open { name } = action { Some(name.clone()) } else { None };
        let takes = |action: &Action| match action {
            Action::Rename { from: name, .. } | Action::Remove { name } => Some(name.clone()),
            _ => None,
        };
        let others = || self.under_way.values().map(|operation| &operation.action);
        let taken = takes(action).is_some_and(|name| others().any(|other| opens(other).as_ref() == Some(&name)));
        let opened = opens(action).is_some_and(|name| others().any(|other| takes(other).as_ref() == Some(&name)));
        assert!(!taken && !opened, "a file is taken away while it is being opened");
    }

    pub(super) fn next_due(&self) -> Option<Duration> {
        self.under_way.first_key_value().map(|((due, _), _)| *due)
    }

    pub(super) fn pop_due(&mut self, now: Duration) -> Option<(OperationId, Operation)> {
        let first = self.under_way.first_entry().filter(|first| first.key().0 <= now)?;
        let ((due, id), operation) = first.remove_entry();
        let (kind, a, b) = operation.action.trace();
        self.trace([u64::from(kind), a, b, due.as_nanos() as u64]);
        Some((id, operation))
    }

    /// Hands a result to the future that waits for it.
    pub(super) fn complete(&mut self, id: OperationId, result: OperationResult) -> Option<Waker> {
        match std::mem::replace(self.slots.get_mut(&id)?, Slot::Done(result)) {
            Slot::Waiting(waker) => Some(waker),
            Slot::Done(_) => unreachable!("an operation ends once"),
        }
    }

    /// File, write, position and length of each write under way.
    pub(super) fn writes(&self) -> Vec<(FileId, WriteId, u64, u64)> {
        let write = |operation: &Operation| match (&operation.action, operation.start) {
            (Action::Write { file, buffer, .. }, Start::Write { write, position }) => {
                Some((*file, write, position, buffer.len() as u64))
            }
            _ => None,
        };
        self.under_way.values().filter_map(write).collect()
    }

    pub(super) fn forget_all(&mut self) {
        self.trace([u64::MAX; 4]);
        self.under_way.clear();
        self.slots.clear();
    }

    pub(super) fn trace_hash(&self) -> u64 {
        self.trace_hash
    }

    fn trace(&mut self, numbers: [u64; 4]) {
        let bytes = numbers.map(u64::to_le_bytes);
        self.trace_hash = xxh3_64_with_seed(bytes.as_flattened(), self.trace_hash);
    }
}

impl SimulatedDisk {
    /// A future that starts the operation when it is first polled. On a handle from before a crash it never ends.
    pub(super) fn submit(&self, action: Action) -> Submitted {
        Submitted { disk: self.clone(), step: Step::New(action) }
    }
}

pub(super) struct Submitted {
    disk: SimulatedDisk,
    step: Step,
}

enum Step {
    New(Action),
    UnderWay { due: Duration, id: OperationId },
    Ended,
}

impl Future for Submitted {
    type Output = OperationResult;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<OperationResult> {
        let disk = self.disk.clone();
        let mut state = disk.state.borrow_mut();
        if disk.epoch != state.epoch {
            return Poll::Pending;
        }
        let operations = match std::mem::replace(&mut self.step, Step::Ended) {
            Step::New(action) => {
                if !state.is_halted() {
                    let (due, id) = state.begin(action, context.waker().clone());
                    self.step = Step::UnderWay { due, id };
                }
                return Poll::Pending;
            }
            step => {
                self.step = step;
                &mut state.operations
            }
        };
        let Step::UnderWay { id, .. } = self.step else { return Poll::Pending };
        match operations.slots.remove(&id) {
            Some(Slot::Done(result)) => {
                self.step = Step::Ended;
                Poll::Ready(result)
            }
            Some(Slot::Waiting(_)) => {
                operations.slots.insert(id, Slot::Waiting(context.waker().clone()));
                Poll::Pending
            }
            None => unreachable!("an operation of this epoch has its slot until its future has ended"),
        }
    }
}

impl Drop for Submitted {
    fn drop(&mut self) {
        let mut state = self.disk.state.borrow_mut();
        if let Step::UnderWay { due, id } = self.step
            && self.disk.epoch == state.epoch
        {
            let slot = state.operations.slots.remove(&id);
            let under_way = &mut state.operations.under_way;
            if under_way.get(&(due, id)).is_some_and(|operation| matches!(operation.action, Action::Sleep(_))) {
                under_way.remove(&(due, id));
            }
            // A waker and a result may hold what drops back into this disk.
            drop(state);
            drop(slot);
        }
    }
}

impl State {
    fn begin(&mut self, action: Action, waker: Waker) -> (Duration, OperationId) {
        if action.changes()
            && let Some(left) = &mut self.halt_after
        {
            *left -= 1;
        }
        self.operations.check_names(&action);
        let start = self.start(&action);
        let timing = self.timing;
        let takes = match &action {
            Action::Sleep(duration) => *duration,
            Action::Read { length, .. } => self.takes(timing.read, *length),
            Action::Write { buffer, durable, .. } => {
                let sync = if *durable { timing.sync / 2 } else { Duration::ZERO };
                self.takes(timing.write + sync, buffer.len())
            }
            Action::Sync { .. } | Action::SyncDirectory => self.takes(timing.sync, 0),
            Action::Length { .. } => Duration::ZERO,
            _ => self.takes(timing.metadata, 0),
        };
        let due = self.now + takes;
        let id = self.operations.next;
        self.operations.next += 1;
        self.operations.under_way.insert((due, id), Operation { action, due, start });
        self.operations.slots.insert(id, Slot::Waiting(waker));
        (due, id)
    }

    fn start(&mut self, action: &Action) -> Start {
        match action {
            Action::Write { file, position, buffer, .. } => {
                let position = match self.silent.take() {
                    None => *position,
                    Some(SilentFault::Misdirected) => self.elsewhere(*file, *position, buffer.len()),
                    Some(SilentFault::Lost) => return Start::Nothing,
                };
                Start::Write { write: self.files.start_write(*file, position, buffer), position }
            }
            Action::Sync { .. } => Start::Sync { moment: self.files.start_sync() },
            Action::SyncDirectory => Start::SyncDirectory { changes: self.files.name_changes() },
            _ => Start::Nothing,
        }
    }

    /// Another position in the file for a write, if it has one.
    fn elsewhere(&mut self, file: FileId, position: u64, length: usize) -> u64 {
        let places = self.files.length(file).saturating_sub(length as u64) / BLOCK as u64 + 1;
        let other = self.random.range(0..places) * BLOCK as u64;
        if other == position { (other + BLOCK as u64) % (places * BLOCK as u64) } else { other }
    }

    /// The operation takes effect.
    pub(super) fn perform(&mut self, operation: &Operation) -> OperationResult {
        let failure = operation.action.kind().and_then(|kind| self.failure(kind));
        match &operation.action {
            Action::Read { file, position, length } => {
                failure.map_or(Ok(()), Err)?;
                let bytes = self.files.read(*file, *position, *length);
                self.statistics.reads += 1;
                self.statistics.read_bytes += bytes.len() as u64;
                Ok(Output::Bytes(bytes))
            }
            Action::Write { file, buffer, durable, .. } => {
                self.end_write(*file, buffer.len() as u64, *durable, operation.start, failure)
            }
            Action::Sync { file } => {
                let Start::Sync { moment } = operation.start else { unreachable!("a sync has a moment") };
                if let Some(error) = failure {
                    self.files.fail_sync(*file, moment);
                    return Err(error);
                }
                self.files.end_sync(*file, moment);
                self.statistics.syncs += 1;
                Ok(Output::Nothing)
            }
            other => {
                failure.map_or(Ok(()), Err)?;
                self.perform_small(other, operation.start)
            }
        }
    }

    fn end_write(
        &mut self,
        file: FileId,
        length: u64,
        durable: bool,
        start: Start,
        failure: Option<io::Error>,
    ) -> OperationResult {
        if let Start::Write { write, position } = start {
            if let Some(error) = failure {
                self.files.fail_write(file, write, position, length, &mut self.random);
                return Err(error);
            }
            if let Err(error) = self.check_room(file, position + length) {
                self.files.forget_write(file, write, position, length);
                return Err(error);
            }
            self.files.end_write(file, write, position, length, durable);
        }
        self.statistics.writes += 1;
        self.statistics.written_bytes += length;
        Ok(Output::Nothing)
    }

    fn perform_small(&mut self, action: &Action, start: Start) -> OperationResult {
        match action {
            Action::Open { name } => {
                let file = self.files.open(name);
                return Ok(Output::File { file, held: self.files.hold(file) });
            }
            Action::List => return Ok(Output::Names(self.files.names())),
            Action::Length { file } => return Ok(Output::Length(self.files.length(*file))),
            Action::Rename { from, to } => found(self.files.rename(from, to))?,
            Action::Remove { name } => found(self.files.remove(name))?,
            Action::SyncDirectory => {
                let Start::SyncDirectory { changes } = start else { unreachable!("it has counted the changes") };
                self.files.sync_names(changes);
            }
            Action::Allocate { file, length } => {
                if *length > self.files.length(*file) {
                    self.check_room(*file, *length)?;
                    self.files.set_length(*file, *length);
                }
            }
            Action::Truncate { file, length } => self.files.set_length(*file, *length),
            Action::Sleep(_) => {}
            Action::Read { .. } | Action::Write { .. } | Action::Sync { .. } => unreachable!("done by the caller"),
        }
        Ok(Output::Nothing)
    }

    /// An error when the file cannot grow to `end` bytes.
    fn check_room(&self, file: FileId, end: u64) -> io::Result<()> {
        let more = end.saturating_sub(self.files.length(file));
        let full = self.capacity.is_some_and(|capacity| more > 0 && self.files.used_bytes() + more > capacity);
        if full { Err(io::Error::from_raw_os_error(libc::ENOSPC)) } else { Ok(()) }
    }
}

fn found(found: bool) -> io::Result<()> {
    if found { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ENOENT)) }
}
