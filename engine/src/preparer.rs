//! Makes segments: zeroed files, and headers on those that come into use again.
//!
//! The rule: a segment is ready only when its header is durable. Zeros are written in the background, long before the log
//! needs them: writing into a file that was never written costs twice as much, and zeroing at a roll would stall every
//! commit.
//!
//! Not here: how many are wanted (`space`).

use crate::{
    chore::Chore,
    disk::{BACKGROUND_CHUNK, BLOCK, Disk, File, is_full},
    planted::{Bug, planted},
    record::Salt,
    segment::{self, Commit, Header, Segment, Stream, write_durably},
    shared::Shared,
    space::{Preparation, State},
    statistics::count,
};
use std::{io, rc::Rc, time::Duration};

/// At the first start nothing is disturbed by large writes.
const FIRST_CHUNK: usize = 1 << 20;

/// Keeps segments ready for the log, so that it never waits for one, and a reserve for compaction.
pub(crate) async fn run<D: Disk>(shared: Rc<Shared<D>>) {
    while !shared.is_over() {
        let seen = shared.segments.count();
        let next = shared.state.borrow().space.next_preparation(shared.config.segments_ready);
        let outcome = match next {
            None => {
                shared.segments.after(seen).await;
                continue;
            }
            Some(Preparation::Recycle) => recycle_for_log(&shared).await,
            Some(Preparation::Create) => create(&shared).await,
        };
        match outcome {
            Ok(()) => {}
            Err(error) if is_full(&error) => {
                shared.state.borrow_mut().space.blocked = true;
                // What is free already may serve meanwhile. Room may come back without any event: another file is
                // removed, a quota is raised.
                shared.disk.sleep(shared.config.full_retry).await;
            }
            Err(error) => shared.fail(format_args!("preparing a segment: {error}")),
        }
    }
}

/// Makes the first free segment ready for the log.
async fn recycle_for_log<D: Disk>(shared: &Shared<D>) -> io::Result<()> {
    let Some(slot) = take_free(shared) else { return Ok(()) };
    let segment = begin(shared, slot, Stream::Hot).await?;
    shared.state.borrow_mut().space.slot_mut(slot).state = State::Ready;
    shared.state.borrow_mut().space.ready.push_back(segment);
    shared.segments.notify();
    Ok(())
}

/// Takes the first free segment.
pub(crate) fn take_free<D: Disk>(shared: &Shared<D>) -> Option<u32> {
    let space = &mut shared.state.borrow_mut().space;
    let slot = space.free.pop_front()?;
    space.slot_mut(slot).state = State::Preparing;
    Some(slot)
}

/// Begins a new generation in a slot: its header is durable when this returns.
pub(crate) async fn begin<D: Disk>(shared: &Shared<D>, slot: u32, stream: Stream) -> io::Result<Rc<Segment<D>>> {
    let (generation, file) = {
        let space = &mut shared.state.borrow_mut().space;
        let generation = space.next_generation;
        space.next_generation += 1;
        (generation, space.slot(slot).file.clone())
    };
    let (store, commit) = (shared.store, shared.config.commit);
    write_header(&shared.disk, &*file, commit, store, generation, stream, shared.config.segment_bytes).await?;
    count(&shared.counters.prepared_bytes, BLOCK as u64);
    let segment = Rc::new(Segment { slot, stream, generation, salt: Salt::new(store, generation), file });
    shared.state.borrow_mut().space.slot_mut(slot).segment = Some(segment.clone());
    Ok(segment)
}

/// Writes a segment's header durably.
pub(crate) async fn write_header<D: Disk>(
    disk: &D,
    file: &D::File,
    commit: Commit,
    store: u64,
    generation: u64,
    stream: Stream,
    length: u32,
) -> io::Result<()> {
    let mut buffer = disk.buffer(BLOCK);
    Header { stream, store, generation, length }.write(&mut buffer);
    write_durably(file, commit, Rc::new(buffer), 0).await
}

/// Makes another file, in the background.
async fn create<D: Disk>(shared: &Shared<D>) -> io::Result<()> {
    // Only the preparer makes files, so the next slot stays the next while it waits.
    let slot = shared.state.borrow().space.slots.len() as u32;
    let length = shared.config.segment_bytes;
    let pause = || {
        // The log is about to run dry: no rest.
        let urgent = shared.state.borrow().space.ready.is_empty();
        if urgent { Duration::ZERO } else { shared.chores.pause(Chore::Zeroing) }
    };
    let underway = shared.chores.begin(Chore::Zeroing, length.into());
    let reached = |at| {
        underway.reached(at);
        shared.is_over()
    };
    let outcome = zero(&shared.disk, slot, length, BACKGROUND_CHUNK, pause, reached).await;
    drop(underway);
    if outcome.as_ref().is_err_and(is_full) {
        // What could be had of it must not be missing elsewhere, for instance for a checkpoint.
        shared.disk.remove(&segment::name(slot)).await?;
    }
    if !outcome? {
        return Ok(());
    }
    count(&shared.counters.prepared_bytes, length.into());
    let file = shared.disk.open(&segment::name(slot), shared.config.commit == Commit::Dsync).await?;
    let space = &mut shared.state.borrow_mut().space;
    let added = space.add_slot(Rc::new(file), State::Free);
    assert_eq!(added, slot, "only the preparer makes segments");
    space.blocked = false;
    space.free.push_back(slot);
    shared.segments.notify();
    Ok(())
}

/// Makes a slot's file at once: for the first start, when there is nobody to disturb.
pub(crate) async fn create_at_once<D: Disk>(disk: &D, slot: u32, length: u32) -> io::Result<()> {
    zero(disk, slot, length, FIRST_CHUNK, || Duration::ZERO, |_| false).await.map(|_| ())
}

/// Fills a slot's file with zeros, durably. False when `stop` said so, which is asked before each chunk with what is done.
async fn zero<D: Disk>(
    disk: &D,
    slot: u32,
    length: u32,
    chunk: usize,
    pause: impl Fn() -> Duration,
    stop: impl Fn(u64) -> bool,
) -> io::Result<bool> {
    let file = disk.open(&segment::name(slot), false).await?;
    // First of all asks for the room, so that a full disk says so before anything is written.
    file.allocate(length.into()).await?;
    let zeros = Rc::new(disk.buffer(chunk));
    let mut at = 0;
    while at < length as usize {
        if stop(at as u64) {
            return Ok(false);
        }
        let left = length as usize - at;
        let part = if left < chunk { Rc::new(disk.buffer(left)) } else { zeros.clone() };
        at += part.len();
        file.write(part, (at - left.min(chunk)) as u64).await?;
        let rest = pause();
        if !rest.is_zero() {
            disk.sleep(rest).await;
        }
    }
    file.sync().await?;
    if !planted(Bug::DirectoryUnsynced) {
        disk.sync_directory().await?;
    }
    Ok(true)
}
