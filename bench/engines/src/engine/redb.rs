//! redb 4, a copy-on-write B-tree in Rust.
//!
//! Set: the cache's size; the rest is default. `set_quick_repair` is off as by default: it would make every commit slower
//! and the start after a crash faster.
//!
//! Durable: one transaction a group with `Durability::Immediate` (one phase). Not durable: `Durability::None`, and every
//! 1,024th is durable, since pages of what is durable are not used again before the next durable commit: without it the
//! file would only grow.
//! Gets keep one read transaction until the next write. Uncached gets: it reads through the page cache and has no O_DIRECT.

use super::{Engine, Error, Setup};
use crate::workload::Group;
use ::redb::{Builder, Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition};

const TABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("pairs");
const DURABLE_EVERY: u64 = 1024;

pub(crate) struct Redb {
    database: Database,
    reading: Option<ReadOnlyTable<&'static [u8], &'static [u8]>>,
    durable: bool,
    groups: u64,
}

impl Engine for Redb {
    async fn open(setup: &Setup) -> Result<Self, Error> {
        let mut builder = Builder::new();
        builder.set_cache_size(setup.cache_bytes);
        let database = builder.create(setup.dir.join("pairs.redb"))?;
        Ok(Self { database, reading: None, durable: setup.durable, groups: 0 })
    }

    async fn put(&mut self, group: &Group) -> Result<(), Error> {
        self.reading = None;
        self.groups += 1;
        let mut transaction = self.database.begin_write()?;
        if !self.durable && !self.groups.is_multiple_of(DURABLE_EVERY) {
            transaction.set_durability(Durability::None)?;
        }
        {
            let mut table = transaction.open_table(TABLE)?;
            for (key, value) in group.puts() {
                table.insert(key, value)?;
            }
        }
        Ok(transaction.commit()?)
    }

    async fn get<T>(&mut self, key: &[u8], look: impl FnOnce(&[u8]) -> T) -> Result<Option<T>, Error> {
        let table = match &mut self.reading {
            Some(table) => table,
            reading => reading.insert(self.database.begin_read()?.open_table(TABLE)?),
        };
        Ok(table.get(key)?.map(|value| look(value.value())))
    }

    async fn close(self) -> Result<(), Error> {
        drop(self.reading);
        Ok(self.database.close()?)
    }
}
