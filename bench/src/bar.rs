//! The progress bar of every command that takes its time: what is done, how far it is, and how long it will still take.
//!
//! The rule: it is drawn on the standard error, only if that is a terminal, and only once something has taken a second. What
//! is over leaves nothing behind.
//!
//! Not here: what is measured second by second while a load runs (`progress`).

use std::{
    fmt::Display,
    sync::{
        OnceLock,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

/// What is over sooner shows no bar.
const QUIET: Duration = Duration::from_secs(1);

/// Between two looks at what does not tell by itself how far it is.
const LOOK_PERIOD: Duration = Duration::from_millis(100);

/// A bar, gone when it is dropped.
pub struct Bar {
    bar: ProgressBar,
    /// Whether somebody sees it.
    seen: bool,
    begun: Instant,
    /// When it was first told how far it is, and how far it was then.
    first: OnceLock<(Instant, u64)>,
}

impl Bar {
    /// For what `doing` names. Not `wanted` is one with `--quiet` or `--json`.
    #[must_use]
    pub fn new(doing: &str, wanted: bool) -> Self {
        let style = ProgressStyle::with_template("{prefix} {bar:24} {msg}").expect("a sound template");
        let bar = ProgressBar::new(1).with_style(style).with_prefix(doing.to_owned());
        let seen = wanted && !bar.is_hidden();
        Self { bar, seen, begun: Instant::now(), first: OnceLock::new() }
    }

    /// So much is done of all that there is, and some news of it.
    pub fn show(&self, done: u64, all: u64, news: &dyn Display) {
        let (since, before) = *self.first.get_or_init(|| (Instant::now(), done));
        if self.is_drawn() {
            let left = left(done.saturating_sub(before), all.saturating_sub(done), since.elapsed());
            self.bar.set_length(all.max(1));
            self.bar.set_position(done);
            self.bar.set_message(message(self.begun.elapsed(), left, &news.to_string()));
        }
    }

    /// Prints something that the bar must not run into.
    pub fn beside(&self, print: impl FnOnce()) {
        if self.is_drawn() { self.bar.suspend(print) } else { print() }
    }

    /// Does `work`, and looks meanwhile how far it is: what is done, all, and news.
    pub fn during<T>(
        doing: &str,
        wanted: bool,
        look: impl Fn() -> (u64, u64, String) + Send,
        work: impl FnOnce(&Self) -> T,
    ) -> T {
        Self::new(doing, wanted).looking(look, work)
    }

    fn looking<T>(&self, look: impl Fn() -> (u64, u64, String) + Send, work: impl FnOnce(&Self) -> T) -> T {
        thread::scope(|scope| {
            // Also ends the looking when the work panics.
            let (_working, ended) = mpsc::channel::<()>();
            if self.seen {
                scope.spawn(move || {
                    while ended.recv_timeout(LOOK_PERIOD) == Err(RecvTimeoutError::Timeout) {
                        let (done, all, news) = look();
                        self.show(done, all, &news);
                    }
                });
            }
            work(self)
        })
    }

    /// Does what is known to take so long.
    pub fn during_time<T>(doing: &str, wanted: bool, all: Duration, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let millis = |duration: Duration| duration.as_millis() as u64;
        Self::during(doing, wanted, || (millis(begun.elapsed().min(all)), millis(all), String::new()), |_| work())
    }

    fn is_drawn(&self) -> bool {
        self.seen && self.begun.elapsed() >= QUIET
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.is_drawn() {
            self.bar.finish_and_clear();
        }
    }
}

/// How long the rest takes if it goes on as it did: `done` took `took`.
fn left(done: u64, rest: u64, took: Duration) -> Option<Duration> {
    (done > 0).then(|| took.mul_f64(rest as f64 / done as f64))
}

fn message(took: Duration, left: Option<Duration>, news: &str) -> String {
    let left = left.map_or("time left unknown".to_owned(), |left| format!("about {:#} left", HumanDuration(left)));
    let separator = if news.is_empty() { "" } else { " · " };
    format!("{:#} · {left}{separator}{news}", HumanDuration(took))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_long_as_what_was_done() {
        let seconds = Duration::from_secs;
        assert_eq!(left(1, 3, seconds(10)), Some(seconds(30)));
        assert_eq!(left(0, 3, seconds(10)), None);
        assert_eq!(left(3, 0, seconds(10)), Some(Duration::ZERO));
        assert_eq!(message(seconds(61), Some(seconds(7)), ""), "61s · about 7s left");
        assert_eq!(message(seconds(7200), None, "3 of 4"), "2h · time left unknown · 3 of 4");
    }

    #[test]
    fn work_that_is_looked_at_ends_when_it_is_done() {
        let (looked, seen) = mpsc::channel();
        let look = move || {
            looked.send(()).expect("it is waited for");
            (1, 2, String::new())
        };
        let mut bar = Bar::new("testing", false);
        bar.seen = true;
        assert_eq!(bar.looking(look, |_| seen.recv().map(|()| 7)), Ok(7));
        assert_eq!(Bar::during_time("testing", false, Duration::from_secs(3600), || 8), 8);
    }
}
