//! LMDB by heed, a copy-on-write B-tree in a memory map.
//!
//! Set: a map of far more than the data. Nothing else: it has no cache of its own, the page cache is its cache, so the
//! run's size of cache does not bound it, and its pages count as its memory.
//!
//! Durable: one transaction a group, flushed as by default. Not durable: `MDB_NOSYNC`, which is the only way to commit
//! without waiting for the disk; unlike the others it may then be broken by a power cut (not by a kill).
//! Gets keep one read transaction until the next write. Uncached gets: `MDB_NORDAHEAD`, as its documentation asks for where
//! the data is larger than the memory; the map is opened anew each time that the page cache is dropped, since pages that
//! are mapped stay.

use super::{Engine, Error, Setup};
use crate::{files, workload::Group};
use ::heed::{Database, Env, EnvFlags, EnvOpenOptions, RoTxn, WithTls, types::Bytes};

pub(crate) struct Lmdb {
    /// Before the environment, which it refers to.
    reading: Option<RoTxn<'static, WithTls>>,
    env: Env,
    pairs: Database<Bytes, Bytes>,
}

/// Address space only.
const MAP_BYTES_MIN: usize = 16 << 30;

impl Engine for Lmdb {
    async fn open(setup: &Setup) -> Result<Self, Error> {
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES_MIN + 8 * setup.data_bytes as usize / 4096 * 4096);
        let mut flags = EnvFlags::empty();
        flags.set(EnvFlags::NO_SYNC, !setup.durable);
        flags.set(EnvFlags::NO_READ_AHEAD, setup.uncached);
        #[expect(unsafe_code, reason = "a map of a file that others could change; NO_SYNC")]
        // SAFETY: the directory belongs to this process alone; what a power cut would do to it is of no interest.
        let env = unsafe {
            options.flags(flags);
            options.open(&setup.dir)?
        };
        let mut transaction = env.write_txn()?;
        let pairs = env.create_database(&mut transaction, None)?;
        transaction.commit()?;
        Ok(Self { reading: None, env, pairs })
    }

    async fn put(&mut self, group: &Group) -> Result<(), Error> {
        self.reading = None;
        let mut transaction = self.env.write_txn()?;
        for (key, value) in group.puts() {
            self.pairs.put(&mut transaction, key, value)?;
        }
        Ok(transaction.commit()?)
    }

    async fn get<T>(&mut self, key: &[u8], look: impl FnOnce(&[u8]) -> T) -> Result<Option<T>, Error> {
        let transaction = match &mut self.reading {
            Some(transaction) => transaction,
            reading => reading.insert(self.env.clone().static_read_txn()?),
        };
        Ok(self.pairs.get(transaction, key)?.map(look))
    }

    async fn drop_page_cache(self, setup: &Setup) -> Result<Self, Error> {
        self.close().await?;
        files::drop_page_cache(&setup.dir)?;
        Self::open(setup).await
    }

    async fn close(self) -> Result<(), Error> {
        drop(self.reading);
        self.env.prepare_for_closing().wait();
        Ok(())
    }
}
