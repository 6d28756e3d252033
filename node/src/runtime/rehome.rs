//! Moving a node's data to another number of cores, while the node is down.
//!
//! The rule: the new stores are written whole, closed and marked complete before the old ones are touched; from then on
//! each step is a rename that a second run finds done or does. A node does not serve while a move is unfinished.
//!
//! Not here: moving partitions between nodes.

use std::{
    cell::RefCell,
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use glommio::{LocalExecutorBuilder, Placement, spawn_local};
use quorate_engine::{
    Append, AppendError, Config as StoreConfig, Opened, ReadError, Store, Watermark, disk::dma::DmaDisk, index::Listed,
    versions::Versions,
};
use quorate_net::id::{CoreId, Endpoint};

use super::{executor::heartbeat, server::ServeError};
use crate::{
    config::Config,
    ring::core_of,
    start::{Layout, StartError, store_layout, stored_layout},
    summary::ActorTable,
};

/// Where the new stores are made, in the node's directory.
const WORK: &str = "rehome";

/// Stands in [`WORK`] when the new stores are whole.
const COMPLETE: &str = "COMPLETE";

/// Records that are read at a time.
const READERS: usize = 16;

/// What a move did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Cores that the data was laid out for before; `None` when there was nothing to move.
    pub cores_before: Option<u16>,
    /// Records moved.
    pub records: u64,
    /// Records that were damaged and could not be moved: other replicas have to give them back.
    pub damaged: u64,
}

/// How far a move is: partitions of the old cores.
#[derive(Debug, Default)]
pub struct Progress {
    /// Those that were moved.
    pub done: AtomicU64,
    /// Those that are to be moved; 0 until that is known.
    pub all: AtomicU64,
}

/// True when a move was begun and not finished: [`rehome`] must be called before the node may serve.
#[must_use]
pub fn is_unfinished(config: &Config) -> bool {
    config.data.join(WORK).join(COMPLETE).exists()
}

/// Lays the node's data out for the number of cores that the config names. The node must be down. Others may look at
/// `progress` meanwhile.
///
/// # Errors
/// The data is as it was, or the move can be finished by calling again.
pub fn rehome(config: &Config, progress: &Arc<Progress>) -> Result<Report, ServeError> {
    if config.cores.iter().any(|core| core.data.parent() != Some(config.data.as_path())) {
        let message = "cores with a `data` directory of their own cannot be moved: let all lie in the node's `data`";
        return Err(failed(&config.data, io::Error::new(ErrorKind::Unsupported, message)));
    }
    let mut report = Report::default();
    if !is_unfinished(config) {
        let copied = LocalExecutorBuilder::new(Placement::Unbound)
            .name("rehome")
            .io_memory(256 << 10)
            .spawn({
                let (config, progress) = (config.clone(), Arc::clone(progress));
                move || async move {
                    let _heartbeat = heartbeat();
                    copy(&config, &progress).await
                }
            })
            .map_err(|error| ServeError::Executor(error.to_string()))?;
        report = copied.join().map_err(|error| ServeError::Executor(error.to_string()))??;
        if report.cores_before.is_none() {
            return Ok(report);
        }
    }
    swap(&config.data).map_err(|error| failed(&config.data, error))?;
    Ok(report)
}

fn failed(data: &Path, error: io::Error) -> ServeError {
    ServeError::Start { data: data.to_owned(), error: StartError::Io(error) }
}

/// An open store that only this move uses.
struct Side {
    store: Store<DmaDisk>,
    actors: Rc<ActorTable>,
}

async fn copy(config: &Config, progress: &Arc<Progress>) -> Result<Report, ServeError> {
    let io = |error| failed(&config.data, error);
    let work = config.data.join(WORK);
    remove_directory(&work).map_err(io)?;
    let cores = config.member().cores;
    let mut old = Vec::new();
    let mut before = None;
    for path in core_directories(&config.data).map_err(io)? {
        let side = open(config, &path).await?;
        let layout = stored_layout(&side.store).await.map_err(io)?;
        let layout = layout.ok_or_else(|| io(io::Error::other("a core's directory holds no finished store")))?;
        if layout.cluster != config.cluster_hash() || layout.me.node != config.node {
            return Err(ServeError::Start { data: path, error: StartError::OtherOwner(layout.me) });
        }
        // Core 0 is there for any number of cores, so its store knows how many there are.
        if layout.me.core.0 < *before.get_or_insert(layout.cores) {
            old.push(side);
            continue;
        }
        // A start with more cores made it before core 0 refused; nothing can have been written since.
        if side.store.keys() > 0 {
            let message = format!("{} holds data beyond the {before:?} cores of core 0", path.display());
            return Err(io(io::Error::other(message)));
        }
        side.store.close().await;
    }
    if before.is_none() || before == Some(cores) {
        close(&old).await;
        return Ok(Report::default());
    }
    if old.len() != usize::from(before.unwrap_or_default()) {
        let message = format!("the data was laid out for {before:?} cores, but {} directories are there", old.len());
        return Err(io(io::Error::other(message)));
    }
    let mut new = Vec::new();
    for core in 0..cores {
        let side = open(config, &work.join(format!("core-{core}"))).await?;
        let me = Endpoint::new(config.node, CoreId(core));
        store_layout(&side.store, Layout { cluster: config.cluster_hash(), me, cores }).await.map_err(io)?;
        new.push(side);
    }
    let report = Rc::new(RefCell::new(Report { cores_before: before, ..Report::default() }));
    let (old, new) = (Rc::new(old), Rc::new(new));
    move_all(&old, &new, config.cluster.partitions, &report, progress).await.map_err(io)?;
    close(&old).await;
    for side in new.iter() {
        if side.store.close().await == Watermark::Failed {
            return Err(io(io::Error::other("writing the new stores failed")));
        }
    }
    let complete = fs::File::create(work.join(COMPLETE)).and_then(|file| file.sync_all());
    complete.and_then(|()| sync_directory(&work)).and_then(|()| sync_directory(&config.data)).map_err(io)?;
    Ok(report.take())
}

async fn open(config: &Config, path: &Path) -> Result<Side, ServeError> {
    let error = |error| ServeError::Start { data: path.to_owned(), error };
    let disk = DmaDisk::open(path).await.map_err(|e| error(StartError::Io(e)))?;
    let actors = Rc::new(ActorTable::default());
    let store: StoreConfig = config.store(CoreId(0));
    let Opened { store, tasks, .. } =
        Store::open(disk, store, actors.clone()).await.map_err(|e| error(StartError::Store(e)))?;
    for task in tasks {
        spawn_local(task).detach();
    }
    Ok(Side { store, actors })
}

async fn close(sides: &[Side]) {
    for side in sides {
        side.store.close().await;
    }
}

/// Several readers take partition after partition, so that the disk has something to do.
async fn move_all(
    old: &Rc<Vec<Side>>,
    new: &Rc<Vec<Side>>,
    partitions: u16,
    report: &Rc<RefCell<Report>>,
    progress: &Arc<Progress>,
) -> io::Result<()> {
    let work: Vec<(usize, u16)> = (0..old.len()).flat_map(|from| (0..partitions).map(move |p| (from, p))).collect();
    progress.all.store(work.len() as u64, Ordering::Relaxed);
    let work = Rc::new(RefCell::new(work));
    let reader = || {
        let (old, new, work, report) = (old.clone(), new.clone(), work.clone(), report.clone());
        let progress = Arc::clone(progress);
        spawn_local(async move {
            loop {
                let next = work.borrow_mut().pop();
                let Some((from, partition)) = next else { return Ok(()) };
                let to = core_of(partition, new.len() as u16);
                move_partition(&old[from].store, &new[usize::from(to.0)], partition, &report).await?;
                progress.done.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let readers: Vec<_> = (0..READERS).map(|_| reader()).collect();
    let mut result = Ok(());
    for reader in readers {
        result = result.and(reader.await);
    }
    result
}

async fn move_partition(from: &Store<DmaDisk>, to: &Side, partition: u16, report: &RefCell<Report>) -> io::Result<()> {
    let listed: Vec<Listed> = from.index(|index| index.entries(partition, 0, 0).collect());
    for listed in listed {
        let record = match from.read_listed(partition, &listed).await {
            Ok(Some(record)) => record,
            Ok(None) => return Err(io::Error::other("a record changed while it was moved: is the node running?")),
            Err(ReadError::Corrupt { .. }) => {
                report.borrow_mut().damaged += 1;
                continue;
            }
            Err(error) => return Err(io::Error::other(error)),
        };
        let Some(summary) = to.actors.summarise(&record.body) else {
            report.borrow_mut().damaged += 1;
            continue;
        };
        let append = Append { partition, key: &record.key, body: &[&record.body], summary };
        loop {
            match to.store.append(append) {
                Ok(_) => break,
                Err(AppendError::Busy) => glommio::timer::sleep(Duration::from_millis(1)).await,
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        report.borrow_mut().records += 1;
    }
    Ok(())
}

/// Puts the new stores into the places of the old ones. Every step may have been done by an earlier run.
fn swap(data: &Path) -> io::Result<()> {
    let work = data.join(WORK);
    let retired = work.join("retired");
    if !retired.join(COMPLETE).exists() {
        fs::create_dir_all(&retired)?;
        for path in core_directories(data)? {
            fs::rename(&path, retired.join(path.file_name().expect("listed by name")))?;
        }
        fs::File::create(retired.join(COMPLETE))?.sync_all()?;
        sync_directory(&retired)?;
        sync_directory(data)?;
    }
    for path in core_directories(&work)? {
        fs::rename(&path, data.join(path.file_name().expect("listed by name")))?;
    }
    sync_directory(data)?;
    fs::remove_file(work.join(COMPLETE))?;
    sync_directory(&work)?;
    remove_directory(&work)
}

/// The directories `core-N` in `data`, by N.
fn core_directories(data: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(data) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("core-")).and_then(|n| n.parse::<u16>().ok());
        if let Some(number) = number {
            found.push((number, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

fn remove_directory(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}
