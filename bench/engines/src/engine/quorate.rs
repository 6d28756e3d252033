//! Ours, as a node runs it on one core: glommio, one commit in flight, `O_DIRECT | O_DSYNC`.
//!
//! Set: the settings that a node has by default; the cache of the run's size. All work, background included, is on the one
//! thread; the others have threads of their own beside it.
//!
//! A group is 32 writers that have one put under way each: with one commit in flight all of them are answered by the same
//! commit and write again together. Not durable: the log is written all the same, as fast as the disk takes it, but nobody
//! waits for it unless 32 MiB wait for the disk; a kill takes those with it.
//! Uncached gets are `O_DIRECT` reads, as all its reads.

use super::{Engine, Error, Setup};
use crate::workload::{Group, version_of};
use glommio::{LocalExecutorBuilder, Placement, task::JoinHandle};
use quorate_engine::{
    Append, AppendError, Config, Sequence, Store, Watermark,
    disk::dma::DmaDisk,
    versions::{Summary, Versions},
};
use std::{future::Future, rc::Rc, time::Duration};

/// A node's default.
const PARTITIONS: u16 = 1024;

/// The first bytes of a value tell which it is, as a single-entry clock does in a node.
struct FirstBytes;

impl Versions for FirstBytes {
    fn summarise(&self, body: &[u8]) -> Option<Summary> {
        Some(Summary(version_of(body)?))
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

pub(crate) struct Quorate {
    store: Store<DmaDisk>,
    tasks: Vec<JoinHandle<()>>,
    durable: bool,
}

/// Keys are spread evenly by their first bytes.
fn partition(key: &[u8]) -> u16 {
    u16::from_be_bytes([key[0], key[1]]) % PARTITIONS
}

impl Engine for Quorate {
    fn block_on<T>(work: impl Future<Output = T>) -> T {
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

    async fn open(setup: &Setup) -> Result<Self, Error> {
        let mut config = Config::new(1, PARTITIONS, 1);
        config.cache_bytes = setup.cache_bytes;
        let disk = DmaDisk::open(&setup.dir).await?;
        let opened = Store::open(disk, config, Rc::new(FirstBytes)).await?;
        let tasks = opened.tasks.into_iter().map(|task| glommio::spawn_local(task).detach()).collect();
        Ok(Self { store: opened.store, tasks, durable: setup.durable })
    }

    async fn put(&mut self, group: &Group) -> Result<(), Error> {
        let mut last = Sequence(0);
        for (key, value) in group.puts() {
            let summary = Summary(version_of(value).expect("values begin with their version"));
            let append = Append { partition: partition(key), key, body: &[value], summary };
            last = loop {
                match self.store.append(append) {
                    Ok(sequence) => break sequence,
                    // The queue is full, or the next segment is not ready yet.
                    Err(AppendError::Busy) => glommio::timer::sleep(Duration::from_micros(200)).await,
                    Err(error) => return Err(error.into()),
                }
            };
        }
        if !self.durable {
            // The log's task has its turn when the executor says so.
            glommio::yield_if_needed().await;
            return Ok(());
        }
        match self.store.advanced(Sequence(last.0 - 1)).await {
            Watermark::Durable(_) => Ok(()),
            Watermark::Failed => {
                Err(self.store.failure().map_or("the log failed".into(), |what| what.to_string().into()))
            }
        }
    }

    async fn get<T>(&mut self, key: &[u8], look: impl FnOnce(&[u8]) -> T) -> Result<Option<T>, Error> {
        let partition = partition(key);
        if let Some(body) = self.store.recent(partition, key) {
            // Cached gets alone would never let anybody else run.
            glommio::yield_if_needed().await;
            return Ok(Some(look(&body)));
        }
        Ok(self.store.read(partition, key).await?.map(|body| look(&body)))
    }

    async fn sleep(duration: Duration) {
        glommio::timer::sleep(duration).await;
    }

    async fn close(self) -> Result<(), Error> {
        self.store.close().await;
        for task in self.tasks {
            task.await;
        }
        Ok(())
    }
}
