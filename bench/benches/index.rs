//! What one core keeps in RAM: the index (hash, find, insert, overwrite, relocate) and the record cache.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use quorate_bare::FirstBytes;
use quorate_engine::{
    cache::Cache,
    disk::simulated::Random,
    index::{Index, KeyHash, Place},
    versions::Summary,
};
use std::hint::black_box;

const PARTITIONS: u16 = 1024;
const KEYS: u64 = 2_000_000;

fn partition(key: u64) -> u16 {
    (key % u64::from(PARTITIONS)) as u16
}

fn insert(index: &mut Index, key: u64, version: u64) {
    let hash = index.hash(&key.to_le_bytes());
    index.insert(partition(key), &hash, Place::from_bits(version), Summary(version), &FirstBytes);
}

fn index(c: &mut Criterion) {
    let mut index = Index::new(PARTITIONS, 1);
    (0..KEYS).for_each(|key| insert(&mut index, key, key));
    let mut random = Random::new(1);
    let mut group = c.benchmark_group("index");
    let key = [7; 24];
    group.bench_function("hash_24", |b| b.iter(|| index.hash(black_box(&key))));
    for (name, first) in [("find_hit_2m", 0), ("find_miss_2m", KEYS)] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let key = random.range(first..first + KEYS);
                let hash = index.hash(&key.to_le_bytes());
                black_box(index.find(partition(key), &hash))
            });
        });
    }
    group.bench_function("overwrite_2m", |b| {
        b.iter(|| {
            let key = random.range(0..KEYS);
            insert(&mut index, key, key ^ 1);
        });
    });
    group.bench_function("relocate_2m", |b| {
        b.iter(|| {
            let key = random.range(0..KEYS);
            let hash = index.hash(&key.to_le_bytes());
            let place = index.find(partition(key), &hash).expect("it was loaded").place;
            black_box(index.relocate(partition(key), &hash, place, Place::from_bits(place.bits() ^ 2)))
        });
    });
    group.bench_function("load_100k", |b| {
        b.iter_batched(
            || Index::new(PARTITIONS, 1),
            |mut index| {
                (0..100_000).for_each(|key| insert(&mut index, key, key));
                index
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn cache(c: &mut Criterion) {
    const RECORDS: u64 = 100_000;
    let hash = |key: u64| KeyHash::new(&key.to_le_bytes(), 1);
    let mut cache = Cache::new(256 << 20);
    let mut insert = |key: u64| cache.insert(0, &hash(key), &key.to_le_bytes(), &[1; 1024], Summary(key));
    (0..RECORDS).for_each(&mut insert);
    let mut random = Random::new(1);
    let mut group = c.benchmark_group("cache");
    group.bench_function("insert_1k_over_full", |b| {
        let mut cache = Cache::new(32 << 20);
        b.iter(|| {
            let key = random.range(0..RECORDS);
            cache.insert(0, &hash(key), &key.to_le_bytes(), &[1; 1024], Summary(key));
        });
    });
    group.bench_function("find_hit_1k", |b| {
        b.iter(|| {
            let key = random.range(0..RECORDS);
            black_box(cache.find(0, &hash(key), &key.to_le_bytes(), Summary(key))).is_some()
        });
    });
    group.bench_function("find_miss", |b| {
        b.iter(|| {
            let key = random.range(RECORDS..2 * RECORDS);
            black_box(cache.find(0, &hash(key), &key.to_le_bytes(), Summary(key))).is_some()
        });
    });
    group.finish();
}

criterion_group!(benches, index, cache);
criterion_main!(benches);
