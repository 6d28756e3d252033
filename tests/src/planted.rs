//! Planted bugs, and how the simulator finds them: by which seed, by which property, in how many seconds.
//!
//! The rule: a bug counts as found when a seed that is whole without it breaks a property with it, or trips an assertion.
//!
//! Not here: the bugs (`quorate_engine::planted`, and where each is asked for).

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use quorate_engine::planted::{Bug, plant};

use crate::simulation::{Options, run_seed};

/// How a bug was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The seed.
    pub seed: u64,
    /// The property that it broke, or the assertion.
    pub property: String,
    /// What was seen.
    pub detail: String,
}

/// What came of looking for a bug.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// Which.
    pub bug: Bug,
    /// By what; `None` when the time was over first.
    pub found: Option<Found>,
    /// Seeds that were run.
    pub seeds: u64,
    /// How long it took.
    pub elapsed: Duration,
}

/// Whether this program survives an assertion, as it must to look for bugs.
pub const SURVIVES: bool = cfg!(panic = "unwind");

/// The bug of this name.
#[must_use]
pub fn bug(word: &str) -> Option<Bug> {
    Bug::ALL.iter().copied().find(|bug| bug.word() == word)
}

/// Runs seeds from `first` on with the bug until one finds it, on `threads` threads, or until `limit` is over.
#[must_use]
pub fn hunt(bug: Bug, first: u64, threads: usize, limit: Duration) -> Hunt {
    let begin = Instant::now();
    let (next, over) = (AtomicU64::new(first), AtomicBool::new(false));
    let found: Mutex<Option<Found>> = Mutex::new(None);
    let work = || {
        while !over.load(Ordering::Relaxed) && begin.elapsed() < limit {
            if let Some(one) = run(bug, next.fetch_add(1, Ordering::Relaxed)) {
                over.store(true, Ordering::Relaxed);
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                // Of those that find it at a time the least.
                if found.as_ref().is_none_or(|other| one.seed < other.seed) {
                    *found = Some(one);
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    Hunt { bug, found, seeds: next.into_inner() - first, elapsed: begin.elapsed() }
}

/// Runs one seed with the bug, and again without it when it found something.
#[must_use]
pub fn run(bug: Bug, seed: u64) -> Option<Found> {
    let found = run_with(Some(bug), seed)?;
    // What breaks without the bug, too, says nothing about it.
    run_with(None, seed).is_none().then_some(found)
}

fn run_with(bug: Option<Bug>, seed: u64) -> Option<Found> {
    plant(bug);
    let outcome = catch_unwind(AssertUnwindSafe(|| run_seed(seed, &Options::default())));
    plant(None);
    match outcome {
        Ok(outcome) => outcome.violation.map(|violation| Found {
            seed,
            property: violation.property.to_owned(),
            detail: violation.to_string(),
        }),
        Err(panic) => Some(Found { seed, property: "an assertion".to_owned(), detail: message(&*panic) }),
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}
