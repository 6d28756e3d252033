//! A part of a directory: the files whose names begin with a prefix, as a disk of its own.
//!
//! The rule: what lives in a part sees no file outside it; what lives in the whole directory must know its own files by their
//! names, as the store does.
//!
//! Not here: the files themselves (`dma`, `simulated`).

use std::{future::Future, io, rc::Rc, time::Duration};

use super::Disk;

/// The files of another disk that carry a prefix.
#[derive(Clone)]
pub struct Part<D> {
    whole: D,
    prefix: Rc<str>,
}

impl<D: Disk> Part<D> {
    /// The files in `whole` whose names begin with `prefix`.
    #[must_use]
    pub fn new(whole: D, prefix: &str) -> Self {
        Self { whole, prefix: prefix.into() }
    }

    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

impl<D: Disk> Disk for Part<D> {
    type File = D::File;
    type Buffer = D::Buffer;

    fn buffer(&self, length: usize) -> Self::Buffer {
        self.whole.buffer(length)
    }

    async fn open(&self, name: &str, durable_writes: bool) -> io::Result<Self::File> {
        self.whole.open(&self.name(name), durable_writes).await
    }

    async fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let all = self.whole.list().await?;
        let own = |(name, length): (String, u64)| Some((name.strip_prefix(&*self.prefix)?.to_owned(), length));
        Ok(all.into_iter().filter_map(own).collect())
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.whole.rename(&self.name(from), &self.name(to)).await
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        self.whole.remove(&self.name(name)).await
    }

    fn sync_directory(&self) -> impl Future<Output = io::Result<()>> {
        self.whole.sync_directory()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> {
        self.whole.sleep(duration)
    }

    fn now(&self) -> Duration {
        self.whole.now()
    }
}
