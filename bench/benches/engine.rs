//! One core's store on a real disk: appending, committing a group, getting from the cache and from the disk.
//!
//! The store lies in a directory of its own under the target directory. What depends on the disk is only comparable on one
//! machine, in one sitting: see the example `engine_load` for the disk's own figures beside the store's.

use criterion::{Criterion, criterion_group, criterion_main};
use quorate_bare::{Bare, FirstBytes, Tail, key, on_executor};
use quorate_engine::{Append, Config, Sequence};
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

const KEYS: u64 = 100_000;

fn partition(number: u64) -> u16 {
    (number % 64) as u16
}

/// Puts a key; there must be room.
fn put(bare: &Bare, number: u64, body: &mut [u8]) -> Sequence {
    let summary = FirstBytes::stamp(number, body);
    let append = Append { partition: partition(number), key: &key(number), body: &[body], summary };
    bare.store.append(append).expect("room")
}

/// Runs `work` on an executor with a store of its own, and gives what it measured.
fn with_store(cache_bytes: usize, work: impl AsyncFnOnce(&Bare) -> Duration) -> Duration {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    on_executor(async {
        let config = Config { cache_bytes, ..Config::new(1, 64, 1) };
        let bare = Bare::open(directory.path(), config).await.expect("the store");
        let elapsed = work(&bare).await;
        bare.close().await;
        elapsed
    })
}

async fn fill(bare: &Bare) {
    let mut body = [7; 100];
    for number in 0..KEYS {
        let summary = FirstBytes::stamp(number, &mut body);
        let append = Append { partition: partition(number), key: &key(number), body: &[&body], summary };
        bare.append(append).await.expect("room");
        if number % 256 == 255 {
            glommio::yield_if_needed().await;
        }
    }
    bare.durable(Sequence(KEYS)).await.expect("the log");
}

fn puts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("engine");
    group.sample_size(10);
    group.bench_function("append 100 B, in RAM", |bench| {
        bench.iter_custom(|iterations| {
            with_store(0, async |bare| {
                let mut body = [7; 100];
                let mut elapsed = Duration::ZERO;
                let mut done = 0;
                // Only the calls are timed, not the waits for the disk between them.
                while done < iterations {
                    let batch = (iterations - done).min(256);
                    let start = Instant::now();
                    let mut last = Sequence(0);
                    for key in 0..batch {
                        last = put(bare, (done + key) % KEYS, &mut body);
                    }
                    elapsed += start.elapsed();
                    done += batch;
                    bare.durable(last).await.expect("the log");
                }
                elapsed
            })
        });
    });
    let mut tail = Tail::new("group commit of 32 puts of 100 B");
    group.bench_function("group commit of 32 puts of 100 B", |bench| {
        bench.iter_custom(|iterations| {
            with_store(0, async |bare| {
                let mut body = [7; 100];
                let mut elapsed = Duration::ZERO;
                for group in 0..iterations {
                    let start = Instant::now();
                    let mut last = Sequence(0);
                    for key in 0..32 {
                        last = put(bare, (group * 32 + key) % KEYS, &mut body);
                    }
                    bare.durable(last).await.expect("the log");
                    elapsed += tail.took(start);
                }
                elapsed
            })
        });
    });
    group.finish();
}

fn gets(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("engine");
    group.sample_size(10);
    let mut get = |name: &'static str, cache_bytes: usize, span: u64| {
        let mut tail = Tail::new(name);
        group.bench_function(name, |bench| {
            bench.iter_custom(|iterations| {
                with_store(cache_bytes, async |bare| {
                    fill(bare).await;
                    for number in 0..span.min(1000) {
                        bare.store.read(partition(number), &key(number)).await.expect("sound").expect("there");
                    }
                    let mut elapsed = Duration::ZERO;
                    for i in 0..iterations {
                        let number = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) % span;
                        let start = Instant::now();
                        let found = bare.store.read(partition(number), &key(number)).await;
                        black_box(found.expect("sound").expect("there"));
                        elapsed += tail.took(start);
                    }
                    elapsed
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
