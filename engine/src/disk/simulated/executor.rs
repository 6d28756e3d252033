//! A single-thread executor whose order of polls is the order of wakes, for simulations and unit tests.
//!
//! The rule: nothing runs but in [`Executor::run_until_stalled`], first woken first polled, so a run depends on its seed
//! alone. Tasks are spawned in groups: the tasks of one core die together.
//!
//! Not here: time. Who drives the executor also moves the clocks, see [`super::SimulatedDisk::advance`].

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

/// A future that stays on its thread.
pub type LocalBoxFuture = Pin<Box<dyn Future<Output = ()>>>;

/// More polls than this without a stall mean that a task wakes itself for ever.
const POLLS_MAX: u64 = 50_000_000;

/// Runs tasks in the order in which they were woken. Clones are the same executor.
#[derive(Clone, Default)]
pub struct Executor {
    tasks: Rc<RefCell<Tasks>>,
    ready: Arc<Ready>,
}

#[derive(Default)]
struct Tasks {
    next: u64,
    by_id: BTreeMap<u64, Task>,
}

struct Task {
    group: u64,
    /// Taken out while it is polled.
    future: Option<LocalBoxFuture>,
    waker: Waker,
}

/// The queue of woken tasks. A waker has to be `Send`, though all of them stay on one thread.
#[derive(Default)]
struct Ready(Mutex<VecDeque<Arc<TaskWaker>>>);

impl Ready {
    fn push(&self, woken: Arc<TaskWaker>) {
        if !woken.queued.swap(true, Ordering::Relaxed) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(woken);
        }
    }

    fn pop(&self) -> Option<Arc<TaskWaker>> {
        let woken = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()?;
        woken.queued.store(false, Ordering::Relaxed);
        Some(woken)
    }
}

struct TaskWaker {
    id: u64,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let ready = self.ready.clone();
        ready.push(self);
    }
}

impl Executor {
    /// An executor without tasks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a task to a group. It is first polled by the next [`Executor::run_until_stalled`], or by the one under way.
    pub fn spawn(&self, group: u64, future: LocalBoxFuture) {
        let mut tasks = self.tasks.borrow_mut();
        let id = tasks.next;
        tasks.next += 1;
        let waker = Arc::new(TaskWaker { id, queued: AtomicBool::new(false), ready: self.ready.clone() });
        tasks.by_id.insert(id, Task { group, future: Some(future), waker: Waker::from(waker.clone()) });
        drop(tasks);
        self.ready.push(waker);
    }

    /// Polls woken tasks until none is left, and returns the number of polls.
    ///
    /// # Panics
    /// When tasks wake each other without end.
    pub fn run_until_stalled(&self) -> u64 {
        let mut polls = 0;
        while let Some(woken) = self.ready.pop() {
            self.poll(woken.id);
            polls += 1;
            assert!(polls < POLLS_MAX, "tasks wake each other without end; the last one is {}", woken.id);
        }
        polls
    }

    /// Drops all tasks of a group, wherever they wait: its core has crashed. A task may drop its own group; it then ends
    /// when it next waits.
    pub fn drop_group(&self, group: u64) {
        let mut tasks = self.tasks.borrow_mut();
        let doomed = tasks.by_id.extract_if(.., |_, task| task.group == group).collect::<Vec<_>>();
        // What a task's end does may spawn or wake others.
        drop(tasks);
        drop(doomed);
    }

    /// Tasks of a group that have not ended.
    #[must_use]
    pub fn group_len(&self, group: u64) -> usize {
        self.tasks.borrow().by_id.values().filter(|task| task.group == group).count()
    }

    fn poll(&self, id: u64) {
        let mut tasks = self.tasks.borrow_mut();
        // Woken after its end, or dropped with its group.
        let Some(task) = tasks.by_id.get_mut(&id) else { return };
        let Some(mut future) = task.future.take() else { return };
        let waker = task.waker.clone();
        drop(tasks);
        let ended = future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let mut tasks = self.tasks.borrow_mut();
        if ended {
            tasks.by_id.remove(&id);
        } else if let Some(task) = tasks.by_id.get_mut(&id) {
            task.future = Some(future);
            return;
        }
        drop(tasks);
        drop(future);
    }
}

/// Where a spawned future leaves its result: see [`Executor::spawn_for_result`].
pub struct Outcome<T>(Rc<RefCell<Option<T>>>);

impl<T> Outcome<T> {
    /// The result, once, when the task has ended.
    #[must_use]
    pub fn take(&self) -> Option<T> {
        self.0.borrow_mut().take()
    }
}

impl Executor {
    /// Adds a task to a group and keeps what it returns.
    pub fn spawn_for_result<T: 'static>(&self, group: u64, future: impl Future<Output = T> + 'static) -> Outcome<T> {
        let slot = Rc::new(RefCell::new(None));
        let outcome = Outcome(slot.clone());
        self.spawn(
            group,
            Box::pin(async move {
                let result = future.await;
                *slot.borrow_mut() = Some(result);
            }),
        );
        outcome
    }
}

/// Waits until all other woken tasks have been polled once.
pub async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_run_in_the_order_of_their_wakes() {
        let (executor, seen) = (Executor::new(), Rc::new(RefCell::new(Vec::new())));
        for task in 0..3 {
            let seen = seen.clone();
            executor.spawn(
                0,
                Box::pin(async move {
                    for step in 0..2 {
                        seen.borrow_mut().push((step, task));
                        yield_once().await;
                    }
                }),
            );
        }
        executor.run_until_stalled();
        assert_eq!(*seen.borrow(), [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]);
        assert_eq!(executor.group_len(0), 0);
    }

    #[test]
    fn a_dropped_group_never_runs_again_and_frees_what_it_held() {
        let (executor, held) = (Executor::new(), Rc::new(()));
        for group in [1, 2] {
            let (held, executor_again) = (held.clone(), executor.clone());
            executor.spawn(
                group,
                Box::pin(async move {
                    yield_once().await;
                    executor_again.drop_group(2);
                    yield_once().await;
                    assert_eq!(group, 1);
                    drop(held);
                }),
            );
        }
        executor.run_until_stalled();
        assert_eq!((Rc::strong_count(&held), executor.group_len(2)), (1, 0));
    }

    #[test]
    fn a_task_that_drops_its_own_group_ends() {
        let executor = Executor::new();
        let again = executor.clone();
        let outcome = executor.spawn_for_result(1, async move {
            again.drop_group(1);
            yield_once().await;
        });
        executor.run_until_stalled();
        assert_eq!((outcome.take(), executor.group_len(1)), (None, 0));
    }
}
