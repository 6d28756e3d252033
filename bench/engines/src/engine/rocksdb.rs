//! RocksDB 7.8 as Debian builds it, linked dynamically.
//!
//! Set, after the project's tuning guide: a Bloom filter of 10 bits a key, left out on the last level where keys are known
//! to be there (`optimize_filters_for_hits`); format 5; a hash index in data blocks; blocks of 4 KiB, its default, for
//! point reads of small values; dynamic level bytes; two background jobs; `bytes_per_sync` of 1 MiB, so that the page cache
//! is written evenly; memtables of 64 MiB, its default; logs that are used again (`recycle_log_file_num`), which spares
//! each fdatasync the inode. An LRU cache of the run's size.
//!
//! Durable: one `WriteBatch` a group with `sync` (fdatasync of the log). Not durable: the same without `sync`.
//! Uncached gets: `use_direct_reads` (O_DIRECT), with index and filters in memory as by default.

use super::{Engine, Error, Setup};
use crate::workload::Group;
use ::rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DataBlockIndexType, Options, WriteBatch, WriteOptions,
};

pub(crate) struct RocksDb {
    database: DB,
    writing: WriteOptions,
}

impl Engine for RocksDb {
    async fn open(setup: &Setup) -> Result<Self, Error> {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&Cache::new_lru_cache(setup.cache_bytes)?);
        table.set_bloom_filter(10.0, false);
        table.set_format_version(5);
        table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&table);
        options.set_compression_type(DBCompressionType::None);
        options.set_optimize_filters_for_hits(true);
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_max_background_jobs(2);
        options.set_bytes_per_sync(1 << 20);
        options.set_recycle_log_file_num(4);
        options.set_use_direct_reads(setup.uncached);
        let database = DB::open(&options, &setup.dir)?;
        let mut writing = WriteOptions::default();
        writing.set_sync(setup.durable);
        Ok(Self { database, writing })
    }

    async fn put(&mut self, group: &Group) -> Result<(), Error> {
        let mut batch = WriteBatch::default();
        for (key, value) in group.puts() {
            batch.put(key, value);
        }
        Ok(self.database.write_opt(batch, &self.writing)?)
    }

    async fn get<T>(&mut self, key: &[u8], look: impl FnOnce(&[u8]) -> T) -> Result<Option<T>, Error> {
        Ok(self.database.get_pinned(key)?.map(|value| look(&value)))
    }

    async fn close(self) -> Result<(), Error> {
        Ok(self.database.flush_wal(true)?)
    }
}
