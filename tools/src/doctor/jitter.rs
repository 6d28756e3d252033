//! How late a thread wakes on each CPU: what the machine adds to every latency, whatever runs on it.
//!
//! The rule: it sleeps nearly all the time, so what it sees is the machine's doing and not its own.

use std::{
    io,
    num::NonZero,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{CpuSet, sched_setaffinity, set_current_timer_slack};

/// A thread sleeps for so long, again and again.
const NAP: Duration = Duration::from_micros(500);

/// How much longer than asked a thread slept, in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Jitter {
    pub(super) p50: u64,
    pub(super) p999: u64,
    pub(super) max: u64,
}

/// Measures all of these CPUs at the same time.
pub(super) fn measure(cpus: &[usize], span: Duration, stop: &AtomicBool) -> Vec<io::Result<Jitter>> {
    thread::scope(|scope| {
        let threads: Vec<_> = cpus.iter().map(|&cpu| scope.spawn(move || on(cpu, span, stop))).collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
    })
}

fn on(cpu: usize, span: Duration, stop: &AtomicBool) -> io::Result<Jitter> {
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only)?;
    // The kernel may wake a thread late by its slack, to wake several at once: not what is asked for here.
    set_current_timer_slack(NonZero::new(1))?;
    let begun = Instant::now();
    let mut late = Vec::new();
    while late.is_empty() || (begun.elapsed() < span && !stop.load(Ordering::Relaxed)) {
        let before = Instant::now();
        thread::sleep(NAP);
        late.push(before.elapsed().saturating_sub(NAP).as_micros() as u64);
    }
    Ok(Jitter::of(late))
}

impl Jitter {
    fn of(mut late: Vec<u64>) -> Self {
        late.sort_unstable();
        let at = |thousandths: usize| late[(late.len() * thousandths / 1000).min(late.len() - 1)];
        Self { p50: at(500), p999: at(999), max: late[late.len() - 1] }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{super::facts::cpus_of, *};

    #[test]
    fn percentiles_are_of_what_was_seen() {
        assert_eq!(Jitter::of(vec![7]), Jitter { p50: 7, p999: 7, max: 7 });
        assert_eq!(Jitter::of((0..2000).rev().collect()), Jitter { p50: 1000, p999: 1998, max: 1999 });
    }

    #[test]
    fn each_cpu_is_measured_and_one_that_is_not_there_is_an_error() {
        let mut cpus = cpus_of(Path::new("/"));
        assert!(!cpus.is_empty());
        cpus.push(CpuSet::MAX_CPU - 1);
        let mut jitters = measure(&cpus, Duration::from_millis(20), &AtomicBool::new(false));
        assert!(jitters.pop().unwrap().is_err());
        for jitter in jitters {
            let Jitter { p50, p999, max } = jitter.unwrap();
            assert!(p50 > 0 && p50 <= p999 && p999 <= max);
        }
    }
}
