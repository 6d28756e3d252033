//! Loads an index with millions of keys and prints what each insert took, the memory, and what a find takes.
//!
//! `cargo run --release -p quorate-bench --example index_load [KEYS [PARTITIONS]]`, by default 8 million in 1024.
//!
//! The load is repeated, and what an insert took is the least of its repetitions: a stall that the index makes comes back
//! at the same key, one that the machine makes (another process, the hypervisor) does not. The worst of one load alone is
//! printed beside it.

use quorate_bare::FirstBytes;
use quorate_engine::{
    disk::simulated::Random,
    index::{Index, Place},
    versions::Summary,
};
use std::{env, fs, hint::black_box, time::Instant};

const LOADS: u32 = 3;

fn main() {
    let arguments = env::args().skip(1).map(|text| text.parse().expect("a number")).collect::<Vec<u64>>();
    let keys = arguments.first().copied().unwrap_or(8_000_000);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load average {}", load.trim());
    measure(keys, arguments.get(1).map_or(1024, |partitions| *partitions as u16));
}

fn measure(keys: u64, partitions: u16) {
    println!("{keys} keys in {partitions} partitions");
    let mut least = vec![u32::MAX; keys as usize];
    let before = resident_bytes();
    let mut index = Index::new(partitions, 1);
    let mut worst_of_one = load(&mut index, &mut least);
    let (resident, counted) = (resident_bytes().saturating_sub(before), index.memory_bytes());
    for _ in 1..LOADS {
        index = Index::new(partitions, 1);
        worst_of_one = worst_of_one.min(load(&mut index, &mut least));
    }
    report(least, worst_of_one);
    let each = |bytes: u64| bytes as f64 / keys as f64;
    println!("  memory: {:.2} bytes a key counted, {:.2} resident", each(counted), each(resident));
    finds(&index, keys);
    images(&index);
}

/// Inserts all keys, lowers `least` to what each took in nanoseconds, and returns the longest.
fn load(index: &mut Index, least: &mut [u32]) -> u32 {
    let partitions = u64::from(index.partitions());
    let mut worst = 0;
    for (key, least) in (0..).zip(least) {
        let begin = Instant::now();
        let hash = index.hash(&u64::to_le_bytes(key));
        index.insert((key % partitions) as u16, &hash, Place::from_bits(key), Summary(key), &FirstBytes);
        let took = begin.elapsed().as_nanos() as u32;
        *least = took.min(*least);
        worst = took.max(worst);
    }
    worst
}

fn report(mut least: Vec<u32>, worst_of_one: u32) {
    let worst = least.iter().enumerate().max_by_key(|(_, took)| **took).map(|(key, _)| key);
    least.sort_unstable();
    let quantile = |quantile: f64| least[((least.len() - 1) as f64 * quantile) as usize];
    println!(
        "  insert: {:.0} ns mean, p50 {} p99 {} p99.9 {} p99.99 {} max {} ns (key {}); the worst of one load {worst_of_one}",
        least.iter().map(|took| f64::from(*took)).sum::<f64>() / least.len() as f64,
        quantile(0.5),
        quantile(0.99),
        quantile(0.999),
        quantile(0.9999),
        quantile(1.0),
        worst.unwrap_or_default(),
    );
}

fn finds(index: &Index, keys: u64) {
    const FINDS: u64 = 4_000_000;
    let mut random = Random::new(2);
    for (what, first) in [("hit", 0), ("miss", keys)] {
        let asked = (0..FINDS).map(|_| random.range(first..first + keys)).collect::<Vec<_>>();
        let started = Instant::now();
        for key in asked {
            let hash = index.hash(&key.to_le_bytes());
            black_box(index.find((key % u64::from(index.partitions())) as u16, &hash));
        }
        println!("  find, {what}: {:.0} ns with the hash", started.elapsed().as_nanos() as f64 / FINDS as f64);
    }
}

fn images(index: &Index) {
    let mut images = vec![Vec::new(); usize::from(index.partitions())];
    let started = Instant::now();
    let mut longest = 0.0_f64;
    for (partition, image) in images.iter_mut().enumerate() {
        let started = Instant::now();
        index.image(partition as u16, image);
        longest = longest.max(started.elapsed().as_secs_f64());
    }
    let written = started.elapsed().as_secs_f64();
    let mut restored = Index::new(index.partitions(), 1);
    let started = Instant::now();
    for (partition, image) in images.iter().enumerate() {
        restored.restore(partition as u16, image).expect("it is an image");
    }
    let read = started.elapsed().as_secs_f64();
    let millions = index.len() as f64 / 1e6;
    println!(
        "  image: {:.1} ms a million keys to write (the longest partition {:.0} µs), {:.1} to read, {:.2} bytes a key",
        written * 1e3 / millions,
        longest * 1e6,
        read * 1e3 / millions,
        images.iter().map(Vec::len).sum::<usize>() as f64 / index.len() as f64,
    );
}

fn resident_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").expect("Linux has it");
    pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number") * 4096
}
