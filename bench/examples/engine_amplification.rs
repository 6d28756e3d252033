//! What compaction costs: bytes written to the disk for each byte of records, by how full the store is and by how the
//! overwrites are spread. On the simulated disk, so that it repeats exactly and takes no disk.
//!
//! `cargo run --release -p quorate-bench --example engine_amplification`

use quorate_bare::FirstBytes;
use quorate_engine::{
    Append, AppendError, Config, Sequence, Store,
    disk::Disk,
    disk::simulated::{Executor, Random, SimulatedDisk, Timing},
};
use std::{rc::Rc, time::Duration};

const SEGMENTS: u64 = 256;
const SEGMENT: u64 = 256 << 10;
const BODY: usize = 1024;
const RECORD: u64 = 1072;
const GROUP: u64 = 32;

fn main() {
    println!("{:<10} {:>6} {:>14} {:>12} {:>10}", "spread", "full", "amplification", "of it moved", "refused");
    for (name, hot_share) in [("uniform", 100), ("80/20", 20), ("90/10", 10)] {
        for full in [50, 60, 70, 80] {
            measure(name, hot_share, full);
        }
    }
}

fn measure(name: &str, hot_share: u64, full: u64) {
    let disk = SimulatedDisk::new(1, Timing::default());
    let executor = Executor::new();
    let mut config = Config::new(1, 64, 1);
    config.segment_bytes = SEGMENT as u32;
    config.segments_max = SEGMENTS as u32;
    config.frame_bytes_max = 64 << 10;
    config.body_bytes_max = 64 << 10;
    config.checkpoint_log_bytes = u64::MAX;
    let opened = disk.run(&executor, Store::open(disk.clone(), config, Rc::new(FirstBytes))).unwrap().unwrap();
    for task in opened.tasks {
        executor.spawn(1, Box::pin(task));
    }
    let store = opened.store;
    let keys = SEGMENTS * SEGMENT * full / 100 / RECORD;
    let mut random = Random::new(7);
    let mut refused = 0;
    let mut put = |key: u64, number: u64| {
        let mut body = [7; BODY];
        let summary = FirstBytes::stamp(number, &mut body);
        let name = key.to_le_bytes();
        let append = Append { partition: (key % 64) as u16, key: &name, body: &[&body], summary };
        loop {
            match store.append(append) {
                Ok(sequence) => break settle(&disk, &executor, &store, sequence),
                Err(AppendError::Busy | AppendError::Full) => {
                    refused += 1;
                    disk.run_until(&executor, disk.now() + Duration::from_millis(1));
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    for key in 0..keys {
        put(key, key);
    }
    let warm_up = 3 * keys;
    let mut before = store.statistics();
    for number in 0..2 * warm_up {
        if number == warm_up {
            before = store.statistics();
        }
        // So many in a hundred writes go to so many in a hundred keys.
        let hot = hot_share == 100 || random.range(0..100) < 100 - hot_share;
        let border = keys * hot_share / 100;
        let key = if hot { random.range(0..border) } else { random.range(border..keys) };
        put(key, number);
    }
    let after = store.statistics();
    let bytes = (after.record_bytes - before.record_bytes) as f64;
    let moved = (after.compaction_bytes - before.compaction_bytes) as f64;
    let log = (after.log_bytes - before.log_bytes) as f64;
    println!("{name:<10} {full:>4} % {:>14.2} {:>12.2} {refused:>10}", (log + moved) / bytes, moved / bytes);
}

/// Every so many puts are one commit.
fn settle(disk: &SimulatedDisk, executor: &Executor, store: &Store<SimulatedDisk>, sequence: Sequence) {
    if sequence.0.is_multiple_of(GROUP) {
        let store = store.clone();
        disk.run(executor, async move { store.advanced(Sequence(sequence.0 - 1)).await }).expect("the disk runs");
    }
}
