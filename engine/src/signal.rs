//! Waking tasks of one core: a count of happenings that tasks wait on.
//!
//! The rule: a task that saw count `n` and waits for more than `n` never misses a happening, whatever runs in between.
//!
//! Not here: waiting for time, which only `Disk::sleep` does.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    task::{Poll, Waker},
};

/// Counts happenings and wakes who waits for the next.
#[derive(Default)]
pub(crate) struct Signal {
    count: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Signal {
    /// How often it has happened.
    pub(crate) fn count(&self) -> u64 {
        self.count.get()
    }

    /// It happened: wakes all who wait.
    pub(crate) fn notify(&self) {
        self.count.set(self.count.get() + 1);
        // Swapped out first: a woken task that is polled at once may wait again.
        let mut waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        for waker in waiting.drain(..) {
            waker.wake();
        }
        // The allocation goes back, unless somebody waits already.
        let mut current = self.waiting.borrow_mut();
        if current.is_empty() {
            *current = waiting;
        }
    }

    /// Waits until it has happened more often than `seen` times.
    pub(crate) async fn after(&self, seen: u64) {
        poll_fn(|context| {
            if self.count.get() > seen {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            // A task polled for another reason is there already.
            if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}
