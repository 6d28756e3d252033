//! fjall 3, an LSM tree in Rust.
//!
//! Set: `expect_point_read_hits`, which its documentation asks for where keys are known to be there (no filters on the last
//! level); a hash index in blocks of 0.75 for cached point reads; blocks of 4 KiB, which is its default and its advice for
//! point reads; memtables of 64 MiB, its default; values stay in the tree, since only large ones gain from being kept
//! apart. The rest is default: it has worker threads for flushes and compactions beside the caller's.
//!
//! Durable: the batch commits with `PersistMode::SyncData` (fdatasync). Not durable: its default, `Buffer`: the batch is
//! given to the operating system.
//! Uncached gets: it reads through the page cache and has no O_DIRECT; the memtable is flushed first, since after a restart
//! up to 64 MiB of the data would be in it.

use super::{Engine, Error, Setup};
use crate::{files, workload::Group};
use ::fjall::{
    Database, Keyspace, KeyspaceCreateOptions, PersistMode,
    config::{BlockSizePolicy, HashRatioPolicy},
};

pub(crate) struct Fjall {
    database: Database,
    keyspace: Keyspace,
    mode: PersistMode,
}

impl Engine for Fjall {
    async fn open(setup: &Setup) -> Result<Self, Error> {
        let database = Database::builder(&setup.dir).cache_size(setup.cache_bytes as u64).open()?;
        let options = || {
            KeyspaceCreateOptions::default()
                .expect_point_read_hits(true)
                .data_block_hash_ratio_policy(HashRatioPolicy::all(0.75))
                .data_block_size_policy(BlockSizePolicy::all(4096))
        };
        let keyspace = database.keyspace("pairs", options)?;
        let mode = if setup.durable { PersistMode::SyncData } else { PersistMode::Buffer };
        Ok(Self { database, keyspace, mode })
    }

    async fn put(&mut self, group: &Group) -> Result<(), Error> {
        let mut batch = self.database.batch().durability(Some(self.mode));
        for (key, value) in group.puts() {
            batch.insert(&self.keyspace, key, value);
        }
        Ok(batch.commit()?)
    }

    async fn get<T>(&mut self, key: &[u8], look: impl FnOnce(&[u8]) -> T) -> Result<Option<T>, Error> {
        Ok(self.keyspace.get(key)?.map(|value| look(&value)))
    }

    async fn drop_page_cache(self, setup: &Setup) -> Result<Self, Error> {
        self.keyspace.rotate_memtable_and_wait()?;
        files::drop_page_cache(&setup.dir)?;
        Ok(self)
    }

    async fn close(self) -> Result<(), Error> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }
}
