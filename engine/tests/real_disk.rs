//! The store on a real file system, through glommio.

use glommio::{LocalExecutor, LocalExecutorBuilder};
use quorate_engine::{
    Append, AppendError, Commit, Config, Opened, Sequence, Store, Watermark,
    disk::{Disk, dma::DmaDisk},
    versions::{Summary, Versions},
};
use std::{path::Path, rc::Rc, time::Duration};

/// A body is its version: the first eight bytes. An odd one is a tombstone.
struct FirstBytes;

impl Versions for FirstBytes {
    fn summarise(&self, body: &[u8]) -> Option<Summary> {
        Some(Summary(u64::from_le_bytes(body.get(..8)?.try_into().ok()?) >> 2))
    }

    fn stable_hash(&self, summary: Summary) -> u64 {
        summary.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn is_tombstone(&self, summary: Summary) -> bool {
        summary.0 & 1 == 1
    }

    fn save(&self) -> Vec<u8> {
        vec![1, 2, 3]
    }

    fn restore(&self, saved: &[u8]) -> bool {
        saved == [1, 2, 3]
    }
}

fn executor() -> LocalExecutor {
    LocalExecutorBuilder::default().io_memory(64 << 10).preempt_timer(Duration::from_millis(10)).make().unwrap()
}

/// On the file system of the sources: the temporary directory may be in RAM, where `O_DIRECT` means nothing.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn config() -> Config {
    let mut config = Config::new(77, 16, 5);
    config.segment_bytes = 1 << 20;
    config.frame_bytes_max = 128 << 10;
    config.body_bytes_max = 256 << 10;
    config
}

async fn open(path: &Path, config: Config) -> Opened<DmaDisk> {
    let disk = DmaDisk::open(path).await.unwrap();
    Store::open(disk, config, Rc::new(FirstBytes)).await.unwrap()
}

fn spawn(opened: &mut Opened<DmaDisk>) -> Vec<glommio::task::JoinHandle<()>> {
    opened.tasks.drain(..).map(|task| glommio::spawn_local(task).detach()).collect()
}

async fn finish(store: Store<DmaDisk>, tasks: Vec<glommio::task::JoinHandle<()>>) -> Watermark {
    let watermark = store.close().await;
    for task in tasks {
        task.await;
    }
    watermark
}

fn body(i: u64, length: usize) -> Vec<u8> {
    let mut body = vec![i as u8; length];
    body[..8].copy_from_slice(&(i << 3).to_le_bytes());
    body
}

fn put<D: Disk>(store: &Store<D>, i: u64, length: usize) -> Result<Sequence, AppendError> {
    let body = body(i, length);
    let summary = FirstBytes.summarise(&body).unwrap();
    let key = format!("key-{i}");
    store.append(Append { partition: (i % 16) as u16, key: key.as_bytes(), body: &[&body], summary })
}

async fn durable<D: Disk>(store: &Store<D>, sequence: Sequence) {
    let mut seen = Sequence(sequence.0 - 1);
    loop {
        match store.advanced(seen).await {
            Watermark::Durable(upto) if upto >= sequence => return,
            Watermark::Durable(upto) => seen = upto,
            _ => panic!("the log failed: {:?}", store.failure()),
        }
    }
}

fn survives_a_restart(commit: Commit, clean: bool) {
    let directory = directory();
    executor().run(async {
        let config = Config { commit, ..config() };
        let mut opened = open(directory.path(), config.clone()).await;
        assert!(opened.report.new);
        let tasks = spawn(&mut opened);
        let store = opened.store;
        let mut last = Sequence(0);
        for i in 0..20_000 {
            loop {
                match put(&store, i, 100) {
                    Ok(sequence) => break last = sequence,
                    Err(AppendError::Busy) => glommio::timer::sleep(Duration::from_millis(1)).await,
                    Err(error) => panic!("{error}"),
                }
            }
            assert!(store.lookup((i % 16) as u16, format!("key-{i}").as_bytes()).unwrap().pending.is_some());
        }
        durable(&store, last).await;
        let found = store.lookup(3, b"key-3").unwrap();
        assert_eq!(found.pending, None);
        assert_eq!(store.read(3, b"key-3").await.unwrap().unwrap(), body(3, 100));
        assert!(store.read(3, b"nobody").await.unwrap().is_none());
        if clean {
            assert_eq!(finish(store, tasks).await, Watermark::Durable(last));
        } else {
            for task in tasks {
                task.cancel();
                task.await;
            }
            drop(store);
        }

        let mut opened = open(directory.path(), config).await;
        assert!(!opened.report.new);
        assert_eq!(opened.report.keys, 20_000);
        assert_eq!(opened.report.damaged, 0);
        let tasks = spawn(&mut opened);
        let store = opened.store;
        for i in (0..20_000).step_by(97) {
            let read = store.read((i % 16) as u16, format!("key-{i}").as_bytes()).await.unwrap().unwrap();
            assert_eq!(read, body(i, 100), "key {i}");
        }
        let next = put(&store, 1, 100).unwrap();
        assert!(next > last, "a sequence was given out twice");
        finish(store, tasks).await;
    });
}

#[test]
fn what_is_durable_survives_a_clean_restart() {
    survives_a_restart(Commit::Dsync, true);
    survives_a_restart(Commit::Fdatasync, true);
}

#[test]
fn what_is_durable_survives_an_unclean_restart() {
    survives_a_restart(Commit::Dsync, false);
}

#[test]
fn a_large_record_is_one_frame() {
    let directory = directory();
    executor().run(async {
        let mut opened = open(directory.path(), config()).await;
        let tasks = spawn(&mut opened);
        let store = opened.store;
        let sequence = put(&store, 5, 256 << 10).unwrap();
        assert_eq!(put(&store, 6, (256 << 10) + 1), Err(AppendError::TooLarge));
        durable(&store, sequence).await;
        assert_eq!(store.read(5, b"key-5").await.unwrap().unwrap(), body(5, 256 << 10));
        finish(store, tasks).await;
    });
}

#[test]
fn a_directory_in_use_is_refused() {
    let directory = directory();
    executor().run(async {
        let first = DmaDisk::open(directory.path()).await.unwrap();
        let second = DmaDisk::open(directory.path()).await.err().expect("two stores share a directory");
        assert!(second.to_string().contains("in use by another process"), "{second}");
        drop(first);
        DmaDisk::open(directory.path()).await.unwrap();
    });
}

#[test]
fn a_blob_is_replaced_whole() {
    let directory = directory();
    executor().run(async {
        let mut opened = open(directory.path(), config()).await;
        let tasks = spawn(&mut opened);
        let store = opened.store;
        assert_eq!(store.load_blob("incarnation").await.unwrap(), None);
        for length in [5000, 3, 0] {
            store.store_blob("incarnation", &vec![7; length]).await.unwrap();
            assert_eq!(store.load_blob("incarnation").await.unwrap().unwrap(), vec![7; length]);
        }
        assert!(store.store_blob("../escape", b"").await.is_err());
        finish(store, tasks).await;
    });
}
