//! What every engine has to do here, and no more: [`Engine`], one file for each.
//!
//! The rule: all of them get the same keys, values, groups and bytes of cache, from one thread; each is set as its own
//! documentation recommends for this use, and its file's header says how. Compression is off everywhere.
//!
//! Not here: what they are given (`workload`), measuring (`drive`).

mod fjall;
mod lmdb;
mod quorate;
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;

use crate::{files, workload::Group};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::{future::Future, path::PathBuf, thread, time::Duration};

#[cfg(feature = "rocksdb")]
pub(crate) use self::rocksdb::RocksDb;
pub(crate) use self::{fjall::Fjall, lmdb::Lmdb, quorate::Quorate, redb::Redb};

/// The engines' errors have nothing in common, and all of them end the run.
pub(crate) type Error = Box<dyn std::error::Error>;

/// Which engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Quorate,
    Fjall,
    Redb,
    #[cfg(feature = "rocksdb")]
    #[value(name = "rocksdb")]
    RocksDb,
    Lmdb,
}

impl Kind {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().expect("no engine is hidden").get_name().to_owned()
    }
}

/// What an engine is opened with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// Its own.
    pub dir: PathBuf,
    /// Bytes of its cache.
    pub cache_bytes: usize,
    /// A group is on the disk when [`Engine::put`] returns.
    pub durable: bool,
    /// Gets are meant to reach the disk.
    pub uncached: bool,
    /// Bytes of keys and values that the run puts there at first.
    pub data_bytes: u64,
}

/// A key-value store in this process.
pub(crate) trait Engine: Sized {
    /// Runs a future on the executor that the engine needs. Those that block need none.
    fn block_on<T>(work: impl Future<Output = T>) -> T {
        futures_lite::future::block_on(work)
    }

    /// Opens the store in `setup.dir`, or makes one there.
    async fn open(setup: &Setup) -> Result<Self, Error>;

    /// Puts a group of pairs with distinct keys, as one batch.
    async fn put(&mut self, group: &Group) -> Result<(), Error>;

    /// Lets `look` see the value of a key where it lies; `None` when there is no such key.
    async fn get<T>(&mut self, key: &[u8], look: impl FnOnce(&[u8]) -> T) -> Result<Option<T>, Error>;

    /// Waits while its background work goes on.
    async fn sleep(duration: Duration) {
        thread::sleep(duration);
    }

    /// Takes its files out of the page cache; its own cache stays.
    async fn drop_page_cache(self, setup: &Setup) -> Result<Self, Error> {
        files::drop_page_cache(&setup.dir)?;
        Ok(self)
    }

    /// Closes it in order.
    async fn close(self) -> Result<(), Error>;
}
