//! A part of another disk's directory: files whose names begin with a name and a dot. So one core keeps two stores in one
//! directory, under one lock.
//!
//! The rule: neither sees the other's files. No file of a store and no blob has a dot where a prefix has its own, so a name
//! with a prefix is never taken for one without, nor for one with another prefix.
//!
//! Not here: files; who shares what with whom.

use super::Disk;
use std::{future::Future, io, rc::Rc, time::Duration};

/// The files of `disk` whose names begin with a prefix, without it.
#[derive(Clone)]
pub struct Prefixed<D> {
    disk: D,
    /// With its dot.
    prefix: Rc<str>,
}

impl<D: Disk> Prefixed<D> {
    /// The part of `disk` that is called `name`.
    ///
    /// # Panics
    /// When `name` is not made of lower-case letters, digits and dashes.
    #[must_use]
    pub fn new(disk: D, name: &str) -> Self {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        assert!(!name.is_empty() && name.bytes().all(plain), "'{name}' is no name for a part of a directory");
        Self { disk, prefix: format!("{name}.").into() }
    }

    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

impl<D: Disk> Disk for Prefixed<D> {
    type File = D::File;
    type Buffer = D::Buffer;

    fn buffer(&self, length: usize) -> D::Buffer {
        self.disk.buffer(length)
    }

    async fn open(&self, name: &str, durable_writes: bool) -> io::Result<D::File> {
        self.disk.open(&self.name(name), durable_writes).await
    }

    async fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let names = self.disk.list().await?;
        let own = |(name, length): (String, u64)| Some((name.strip_prefix(&*self.prefix)?.to_owned(), length));
        Ok(names.into_iter().filter_map(own).collect())
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(&self.name(from), &self.name(to)).await
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(&self.name(name)).await
    }

    fn sync_directory(&self) -> impl Future<Output = io::Result<()>> {
        self.disk.sync_directory()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> {
        self.disk.sleep(duration)
    }

    fn now(&self) -> Duration {
        self.disk.now()
    }
}
