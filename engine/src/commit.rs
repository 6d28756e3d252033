//! The committer: writes the log's frames, several at a time, as soon as there is something to write.
//!
//! The rule: no timer and no minimum: a lane that is free takes all that waits. While all lanes are busy the next frame
//! fills, so groups grow with the load by themselves. Only while segments are short a lane rests after each. The first error ends
//! all lanes for good.
//!
//! Not here: what a frame is (`frame`), in what order frames count (`log`).

use crate::{
    disk::{BLOCK, Disk, File},
    frame,
    planted::{Bug, planted},
    segment::{Commit, START, Segment, write_durably},
    shared::Shared,
    statistics::count,
};
use std::rc::Rc;

/// One of the `commits_in_flight` lanes.
pub(crate) async fn lane<D: Disk>(shared: Rc<Shared<D>>) {
    loop {
        let seen = shared.work.count();
        let frame = {
            let state = &mut *shared.state.borrow_mut();
            if shared.has_failed() { None } else { state.log.take(state.last_sequence) }
        };
        let Some(frame) = frame else {
            if shared.is_over() {
                return;
            }
            shared.work.after(seen).await;
            continue;
        };
        let file = &*frame.segment.file;
        let mut outcome =
            write_durably(file, shared.config.commit, frame.buffer.clone(), u64::from(frame.offset)).await;
        if outcome.is_err() && planted(Bug::FsyncRetried) {
            outcome = file.sync().await;
        }
        match outcome {
            Ok(()) => written(&shared, &frame),
            Err(error) => {
                shared.fail(format_args!("writing {}: {error}", crate::segment::name(frame.segment.slot)));
                return;
            }
        }
        let rest = shared.rest_of_log(frame.buffer.len());
        drop(frame);
        if !rest.is_zero() {
            shared.rest(rest).await;
        }
    }
}

fn written<D: Disk>(shared: &Shared<D>, frame: &crate::log::Frame<D>) {
    // A lane that failed meanwhile wins: nothing is acknowledged after the first error.
    if shared.has_failed() {
        return;
    }
    count(&shared.counters.commits, 1);
    count(&shared.counters.log_bytes, frame.buffer.len() as u64);
    let mut advanced = false;
    shared.state.borrow_mut().log.written(frame, |_| advanced = true);
    if advanced {
        shared.settle();
        shared.progress.notify();
    }
}

/// Says in the log that all is durable, when the log has been idle for a moment.
pub(crate) async fn idle_sealer<D: Disk>(shared: Rc<Shared<D>>) {
    while !shared.is_over() {
        let seen = shared.progress.count();
        if !shared.state.borrow().log.wants_seal() {
            shared.progress.after(seen).await;
            continue;
        }
        shared.disk.sleep(shared.config.seal_idle).await;
        if shared.progress.count() != seen || shared.is_over() {
            continue;
        }
        let state = &mut *shared.state.borrow_mut();
        if state.log.seal_idle(state.last_sequence) {
            shared.work.notify();
        }
    }
}

/// Writes, durably, the frame that ends `segment` at `offset`. What lies behind it never counts again.
pub(crate) async fn end_segment<D: Disk>(
    disk: &D,
    segment: &Segment<D>,
    commit: Commit,
    header: frame::Header,
) -> std::io::Result<()> {
    assert!(header.last && header.offset >= START, "only the last frame ends a segment");
    let mut buffer = disk.buffer(BLOCK);
    header.write(&mut buffer, segment.salt);
    write_durably(&*segment.file, commit, Rc::new(buffer), u64::from(header.offset)).await
}

/// Closes the log: ends its segment and waits until all is durable, or the log has failed.
pub(crate) async fn drain<D: Disk>(shared: &Shared<D>) {
    loop {
        let seen = shared.progress.count();
        if shared.has_failed() || shared.state.borrow().log.is_idle() {
            return;
        }
        shared.work.notify();
        shared.progress.after(seen).await;
    }
}
