//! The engine without a node around it, for whatever measures it alone.
//!
//! The rule: everything is set as a node's core sets it, so that figures taken here are the engine's share of a node's.
//!
//! Not here: what is measured, and how (`examples/`, `benches/`, `engines/`).

mod tail;

use std::{io, path::Path, rc::Rc, time::Duration};

use glommio::{LocalExecutorBuilder, Placement, task::JoinHandle};
use quorate_engine::{
    Append, AppendError, Config, OpenError, Opened, RecoveryReport, Sequence, Store, Watermark,
    disk::dma::DmaDisk,
    versions::{Summary, Versions},
};

pub use tail::Tail;

/// The first 8 bytes of a body are the number of its version, as a single-entry clock is in a node.
#[derive(Clone, Copy, Debug)]
pub struct FirstBytes;

impl FirstBytes {
    /// Makes `body` this version, which must be below 2⁶².
    pub fn stamp(version: u64, body: &mut [u8]) -> Summary {
        assert!(version < 1 << 62, "a summary has 62 bits");
        body[..8].copy_from_slice(&version.to_le_bytes());
        Summary(version)
    }
}

impl Versions for FirstBytes {
    fn summarise(&self, body: &[u8]) -> Option<Summary> {
        let version = u64::from_le_bytes(body.get(..8)?.try_into().ok()?);
        (version < 1 << 62).then_some(Summary(version))
    }
    fn stable_hash(&self, summary: Summary) -> u64 {
        summary.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
    fn is_tombstone(&self, _summary: Summary) -> bool {
        false
    }
    fn save(&self) -> Vec<u8> {
        Vec::new()
    }
    fn restore(&self, _saved: &[u8]) -> bool {
        true
    }
}

/// A key of 16 bytes with this number in it.
#[must_use]
pub fn key(number: u64) -> [u8; 16] {
    let mut name = *b"key-000000000000";
    name[4..12].copy_from_slice(&number.to_le_bytes());
    name
}

/// Runs `work` on an executor of this thread.
///
/// # Panics
/// When io_uring is missing.
pub fn on_executor<T>(work: impl Future<Output = T>) -> T {
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(256 << 10)
        .preempt_timer(Duration::from_millis(10))
        .make()
        .expect("an executor");
    executor.run(async {
        // Executors stop for good without a timer that ticks.
        let ticking = glommio::spawn_local(async {
            loop {
                glommio::timer::sleep(Duration::from_millis(10)).await;
            }
        });
        let result = work.await;
        ticking.cancel().await;
        result
    })
}

/// Opens or makes the store in `directory`. Nothing of it runs: to drop what this gives is a crash.
///
/// # Errors
/// As [`Store::open`], or that there can be no store.
pub async fn recover(directory: &Path, config: Config) -> Result<Opened<DmaDisk>, OpenError> {
    let cannot = |error| OpenError::Io { what: format!("opening {}", directory.display()), error };
    let disk = DmaDisk::open(directory).await.map_err(cannot)?;
    Store::open(disk, config, Rc::new(FirstBytes)).await
}

/// A store on a real disk, with its tasks.
pub struct Bare {
    /// The store.
    pub store: Store<DmaDisk>,
    /// What was found.
    pub report: RecoveryReport,
    tasks: Vec<JoinHandle<()>>,
}

impl Bare {
    /// Opens or makes the store in `directory`, and starts its tasks.
    ///
    /// # Errors
    /// As [`recover`].
    pub async fn open(directory: &Path, config: Config) -> Result<Self, OpenError> {
        let opened = recover(directory, config).await?;
        let tasks = opened.tasks.into_iter().map(|task| glommio::spawn_local(task).detach()).collect();
        Ok(Self { store: opened.store, report: opened.report, tasks })
    }

    /// Appends, as soon as there is room.
    ///
    /// # Errors
    /// As [`Store::append`], but never [`AppendError::Busy`].
    pub async fn append(&self, append: Append<'_>) -> Result<Sequence, AppendError> {
        loop {
            match self.store.append(append) {
                // The queue is full, or the next segment is not ready yet.
                Err(AppendError::Busy) => glommio::timer::sleep(Duration::from_micros(200)).await,
                done => return done,
            }
        }
    }

    /// Waits until this and all before it is on the disk.
    ///
    /// # Errors
    /// When the log has failed.
    pub async fn durable(&self, sequence: Sequence) -> io::Result<()> {
        match self.store.advanced(Sequence(sequence.0 - 1)).await {
            Watermark::Durable(_) => Ok(()),
            Watermark::Failed => Err(io::Error::other(self.store.failure().as_deref().unwrap_or("the log failed"))),
        }
    }

    /// Ends it in order.
    pub async fn close(self) {
        self.store.close().await;
        for task in self.tasks {
            task.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_durable_is_there_again() {
        // Not in /tmp, which may be memory: O_DIRECT is wanted.
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let config = || Config::new(1, 64, 1);
        on_executor(async {
            let bare = Bare::open(directory.path(), config()).await.unwrap();
            assert!(bare.report.new);
            let mut body = [7; 100];
            let summary = FirstBytes::stamp(5, &mut body);
            let append = Append { partition: 3, key: &key(9), body: &[&body], summary };
            let sequence = bare.append(append).await.unwrap();
            bare.durable(sequence).await.unwrap();
            bare.close().await;
            let bare = Bare::open(directory.path(), config()).await.unwrap();
            assert!(bare.report.clean && bare.report.keys == 1, "{:?}", bare.report);
            assert_eq!(bare.store.read(3, &key(9)).await.unwrap().unwrap()[..], body);
            assert!(bare.store.read(3, &key(8)).await.unwrap().is_none());
            bare.close().await;
        });
    }
}
