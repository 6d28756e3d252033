//! What keeps a core from everything else: work that takes longer than a millisecond at a time, by its name.
//!
//! The rule: whatever runs on a core is watched: what its machine is told ([`Stalls::note`]), and every task
//! ([`Stalls::watched`]). A timer that fires late tells of the rest: of what is not ours, as the kernel giving the CPU to others.
//!
//! Not here: what requests waited for meanwhile (`recorder`).

use std::{
    cell::RefCell,
    collections::BTreeMap,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// Shorter ones are no stalls.
const STALL: Duration = Duration::from_millis(1);

/// What a timer may be late without having been kept waiting: its own granularity.
const LATE: Duration = Duration::from_millis(2);

/// The stalls of one core since its start.
#[derive(Default)]
pub(super) struct Stalls(RefCell<BTreeMap<&'static str, Stalled>>);

#[derive(Default)]
struct Stalled {
    count: u64,
    total: Duration,
    longest: Duration,
    last: Option<Instant>,
}

/// A task that is watched.
struct Watched<F> {
    stalls: Rc<Stalls>,
    name: &'static str,
    task: Pin<Box<F>>,
}

impl Stalls {
    /// The same task; each of its steps is looked at.
    pub(super) fn watched<F: Future>(
        self: &Rc<Self>,
        name: &'static str,
        task: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        Watched { stalls: self.clone(), name, task: Box::pin(task) }
    }

    /// A timer fired late by so much.
    pub(super) fn late(&self, by: Duration) {
        if by >= LATE {
            self.note("a late timer", by);
        }
    }

    /// Work of this name has taken so long.
    pub(super) fn note(&self, name: &'static str, took: Duration) {
        if took < STALL {
            return;
        }
        let mut stalls = self.0.borrow_mut();
        let stalled = stalls.entry(name).or_default();
        stalled.count += 1;
        stalled.total += took;
        stalled.longest = stalled.longest.max(took);
        stalled.last = Some(Instant::now());
    }

    /// How many there were, and how long all of them took together.
    pub(super) fn sum(&self) -> (u64, Duration) {
        let stalls = self.0.borrow();
        stalls
            .values()
            .fold((0, Duration::ZERO), |(count, total), stalled| (count + stalled.count, total + stalled.total))
    }

    /// What there was, the costliest first.
    pub(super) fn describe(&self) -> Vec<Value> {
        let stalls = self.0.borrow();
        let mut costliest: Vec<_> = stalls.iter().collect();
        costliest.sort_by_key(|(_, stalled)| std::cmp::Reverse(stalled.total));
        let describe = |(name, stalled): (&&str, &Stalled)| {
            json!({
                "task": name,
                "count": stalled.count,
                "total_us": micros(stalled.total),
                "longest_us": micros(stalled.longest),
                "seconds_ago": stalled.last.map(|last| last.elapsed().as_secs()),
            })
        };
        costliest.into_iter().map(describe).collect()
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl<F: Future> Future for Watched<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let begun = Instant::now();
        let done = self.task.as_mut().poll(context);
        self.stalls.note(self.name, begun.elapsed());
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_long_is_told_and_the_costliest_comes_first() {
        let stalls = Rc::new(Stalls::default());
        stalls.note("short", Duration::from_micros(999));
        stalls.note("a", Duration::from_millis(5));
        stalls.note("b", Duration::from_millis(3));
        stalls.note("b", Duration::from_millis(4));
        stalls.late(Duration::from_millis(1));
        let told = stalls.describe();
        let named: Vec<_> =
            told.iter().map(|stall| (stall["task"].as_str().unwrap(), stall["count"].as_u64())).collect();
        assert_eq!(named, [("b", Some(2)), ("a", Some(1))]);
        assert_eq!((told[0]["longest_us"].as_u64(), told[0]["total_us"].as_u64()), (Some(4000), Some(7000)));
        assert_eq!(stalls.sum(), (3, Duration::from_millis(12)));
    }

    #[test]
    fn a_step_of_a_task_is_watched() {
        let stalls = Rc::new(Stalls::default());
        let slow = async {
            let begun = Instant::now();
            while begun.elapsed() < 2 * STALL {}
            7
        };
        let mut task = Box::pin(stalls.watched("slow", slow));
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert_eq!(task.as_mut().poll(&mut context), Poll::Ready(7));
        assert_eq!(stalls.describe()[0]["task"], "slow");
    }
}
