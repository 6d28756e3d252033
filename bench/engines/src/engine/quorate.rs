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
use quorate_bare::{Bare, on_executor};
use quorate_engine::{Append, Config, Sequence, versions::Summary};
use std::{future::Future, time::Duration};

/// A node's default.
const PARTITIONS: u16 = 1024;

pub(crate) struct Quorate {
    bare: Bare,
    durable: bool,
}

/// Keys are spread evenly by their first bytes.
fn partition(key: &[u8]) -> u16 {
    u16::from_be_bytes([key[0], key[1]]) % PARTITIONS
}

impl Engine for Quorate {
    fn block_on<T>(work: impl Future<Output = T>) -> T {
        on_executor(work)
    }

    async fn open(setup: &Setup) -> Result<Self, Error> {
        let mut config = Config::new(1, PARTITIONS, 1);
        config.cache_bytes = setup.cache_bytes;
        Ok(Self { bare: Bare::open(&setup.dir, config).await?, durable: setup.durable })
    }

    async fn put(&mut self, group: &Group) -> Result<(), Error> {
        let mut last = Sequence(0);
        for (key, value) in group.puts() {
            let summary = Summary(version_of(value).expect("values begin with their version"));
            let append = Append { partition: partition(key), key, body: &[value], summary };
            last = self.bare.append(append).await?;
        }
        if !self.durable {
            // The log's task has its turn when the executor says so.
            glommio::yield_if_needed().await;
            return Ok(());
        }
        Ok(self.bare.durable(last).await?)
    }

    async fn get<T>(&mut self, key: &[u8], look: impl FnOnce(&[u8]) -> T) -> Result<Option<T>, Error> {
        let partition = partition(key);
        if let Some(body) = self.bare.store.recent(partition, key) {
            // Cached gets alone would never let anybody else run.
            glommio::yield_if_needed().await;
            return Ok(Some(look(&body)));
        }
        Ok(self.bare.store.read(partition, key).await?.map(|body| look(&body)))
    }

    async fn sleep(duration: Duration) {
        glommio::timer::sleep(duration).await;
    }

    async fn close(self) -> Result<(), Error> {
        self.bare.close().await;
        Ok(())
    }
}
