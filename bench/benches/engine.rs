//! One core's store on a real disk: appending, committing a group, getting from the cache and from the disk.
//!
//! The store lies in a directory of its own under the target directory. What depends on the disk is only comparable on one
//! machine, in one sitting: see the example `engine_load` for the disk's own figures beside the store's.

use criterion::{Criterion, criterion_group, criterion_main};
use glommio::{LocalExecutorBuilder, Placement};
use quorate_engine::{
    Append, AppendError, Config, Sequence, Store, Watermark,
    disk::dma::DmaDisk,
    versions::{Summary, Versions},
};
use std::{
    hint::black_box,
    rc::Rc,
    time::{Duration, Instant},
};

const KEYS: u64 = 100_000;

struct Plain;

impl Versions for Plain {
    fn summarise(&self, body: &[u8]) -> Option<Summary> {
        Some(Summary(u64::from_le_bytes(body.get(..8)?.try_into().ok()?) >> 2))
    }
    fn stable_hash(&self, summary: Summary) -> u64 {
        summary.0
    }
    fn is_tombstone(&self, _summary: Summary) -> bool {
        false
    }
    fn save(&self) -> Vec<u8> {
        Vec::new()
    }
    fn restore(&self, _saved: &[u8]) -> bool {
        true
    }
}

struct Key {
    name: [u8; 16],
    partition: u16,
}

impl Key {
    fn new(key: u64) -> Self {
        let mut name = *b"key-000000000000";
        name[4..12].copy_from_slice(&key.to_le_bytes());
        Self { name, partition: (key % 64) as u16 }
    }
}

fn append(store: &Store<DmaDisk>, key: u64, body: &mut [u8]) -> Result<Sequence, AppendError> {
    body[..8].copy_from_slice(&(key << 2).to_le_bytes());
    let Key { name, partition } = Key::new(key);
    store.append(Append { partition, key: &name, body: &[body], summary: Summary(key) })
}

async fn durable(store: &Store<DmaDisk>, sequence: Sequence) {
    let mut seen = Sequence(0);
    while seen < sequence {
        match store.advanced(seen).await {
            Watermark::Durable(upto) => seen = upto,
            Watermark::Failed => panic!("{:?}", store.failure()),
        }
    }
}

/// Runs `work` on an executor with a store of its own, and gives what it measured.
fn with_store(cache_bytes: usize, work: impl AsyncFnOnce(&Store<DmaDisk>) -> Duration) -> Duration {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(256 << 10)
        .preempt_timer(Duration::from_millis(10))
        .make()
        .expect("an executor");
    executor.run(async {
        let disk = DmaDisk::open(directory.path()).await.expect("the directory");
        let config = Config { cache_bytes, ..Config::new(1, 64, 1) };
        let opened = Store::open(disk, config, Rc::new(Plain)).await.expect("the store");
        let tasks: Vec<_> = opened.tasks.into_iter().map(|task| glommio::spawn_local(task).detach()).collect();
        let elapsed = work(&opened.store).await;
        opened.store.close().await;
        for task in tasks {
            task.await;
        }
        elapsed
    })
}

async fn fill(store: &Store<DmaDisk>) {
    let mut body = [7; 100];
    for key in 0..KEYS {
        while append(store, key, &mut body).is_err() {
            glommio::timer::sleep(Duration::from_micros(200)).await;
        }
        if key % 256 == 255 {
            glommio::yield_if_needed().await;
        }
    }
    durable(store, Sequence(KEYS)).await;
}

fn puts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("engine");
    group.sample_size(10);
    group.bench_function("append 100 B, in RAM", |bench| {
        bench.iter_custom(|iterations| {
            with_store(0, async |store| {
                let mut body = [7; 100];
                let mut elapsed = Duration::ZERO;
                let mut done = 0;
                // Only the calls are timed, not the waits for the disk between them.
                while done < iterations {
                    let batch = (iterations - done).min(256);
                    let start = Instant::now();
                    let mut last = Sequence(0);
                    for key in 0..batch {
                        last = append(store, (done + key) % KEYS, &mut body).expect("room");
                    }
                    elapsed += start.elapsed();
                    done += batch;
                    durable(store, last).await;
                }
                elapsed
            })
        });
    });
    group.bench_function("group commit of 32 puts of 100 B", |bench| {
        bench.iter_custom(|iterations| {
            with_store(0, async |store| {
                let mut body = [7; 100];
                let start = Instant::now();
                for group in 0..iterations {
                    let mut last = Sequence(0);
                    for key in 0..32 {
                        last = append(store, (group * 32 + key) % KEYS, &mut body).expect("room");
                    }
                    durable(store, last).await;
                }
                start.elapsed()
            })
        });
    });
    group.finish();
}

fn gets(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("engine");
    group.sample_size(10);
    let mut get = |name: &str, cache_bytes: usize, span: u64| {
        group.bench_function(name, |bench| {
            bench.iter_custom(|iterations| {
                with_store(cache_bytes, async |store| {
                    fill(store).await;
                    for key in 0..span.min(1000) {
                        let Key { name, partition } = Key::new(key);
                        store.read(partition, &name).await.expect("sound").expect("there");
                    }
                    let start = Instant::now();
                    for i in 0..iterations {
                        let Key { name, partition } = Key::new(i.wrapping_mul(0x9e37_79b9_7f4a_7c15) % span);
                        black_box(store.read(partition, &name).await.expect("sound").expect("there"));
                    }
                    start.elapsed()
                })
            });
        });
    };
    get("get from the cache", 64 << 20, 1000);
    get("get from the disk", 0, KEYS);
    group.finish();
}

criterion_group!(benches, puts, gets);
criterion_main!(benches);
