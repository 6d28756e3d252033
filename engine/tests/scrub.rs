//! The scrub reads every live record from the disk, finds what rots there, and nothing else.

mod support;

use quorate_engine::{AppendError, Config, Damage, DamageKind, ScrubPosition, disk::Disk};
use std::{collections::BTreeSet, time::Duration};
use support::{World, config, seeds};

const KEYS: u64 = 60;

fn plain() -> Config {
    Config { background_pause: Duration::from_micros(20), ..config() }
}

fn fill(world: &mut World, keys: u64) {
    for key in 0..keys {
        let length = [100, 3000, 70_000][(key % 7 / 3) as usize];
        while let Err(error) = world.append(key, length, false) {
            assert_eq!(error, AppendError::Busy);
            world.run_for(Duration::from_millis(1));
        }
    }
    world.make_durable();
}

fn step(world: &World, from: ScrubPosition, budget: u64) -> Option<ScrubPosition> {
    let store = world.store().clone();
    world.disk.run(&world.executor, async move { store.scrub_step(from, budget).await }).expect("the disk runs")
}

/// A whole pass, in steps of `budget` bytes; says how many.
fn pass(world: &World, budget: u64) -> u64 {
    let (mut at, mut steps) = (ScrubPosition::default(), 1);
    while let Some(next) = step(world, at, budget) {
        assert!(next > at, "seed {}: the scrub does not advance from {at:?}", world.seed);
        (at, steps) = (next, steps + 1);
    }
    steps
}

/// The record of a key rots at one of its bytes, not its padding.
fn rot(world: &mut World, key: u64) -> (u16, u32, u32) {
    let (partition, name) = World::key(key);
    let place = world.store().lookup(partition, &name).unwrap().place;
    let at = world.random.range(0..u64::from(place.length()) - 15);
    assert!(world.disk.corrupt(&format!("segment-{:06}", place.segment()), u64::from(place.offset()) + at, 1));
    world.keys.get_mut(&key).unwrap().rotten = true;
    (partition, place.segment(), place.offset())
}

fn told(damage: &[Damage]) -> BTreeSet<(u16, u32, u32)> {
    damage.iter().map(|damage| (damage.partition.unwrap(), damage.segment, damage.offset)).collect()
}

/// A store that scrubs by itself finds all that rots, pass after pass, at the rate that it is told.
#[test]
fn a_store_scrubs_itself_at_a_rate() {
    let rate = 1 << 20;
    let mut world = World::new(3, Config { scrub_bytes_per_second: rate, ..plain() });
    world.open();
    fill(&mut world, KEYS);
    let live = world.store().statistics().live_bytes;
    let passes = |world: &mut World, more| {
        let goal = world.store().statistics().scrub_passes + more;
        while world.store().statistics().scrub_passes < goal {
            world.run_for(Duration::from_millis(1));
        }
        world.store().statistics().scrub_read_bytes
    };
    // The first had begun when there was less.
    let before = passes(&mut world, 1);
    let begun = world.disk.now();
    let read = passes(&mut world, 1) - before;
    let took = (world.disk.now() - begun).as_secs_f64();
    assert!(read >= live, "{read} bytes of {live}");
    assert!(took > read as f64 / rate as f64 * 0.9, "{read} bytes in {took} s");
    assert_eq!(world.store().statistics().scrub_damaged, 0);
    for key in [0, 3, 17] {
        rot(&mut world, key);
    }
    // The pass that is under way may have been where they are.
    passes(&mut world, 2);
    assert_eq!(world.store().statistics().scrub_damaged, 3);
    world.close();
}

/// A rate that is told later holds at once, however long the rest is that has begun.
#[test]
fn the_rate_of_the_scrub_may_change_at_any_time() {
    let mut world = World::new(4, plain());
    world.open();
    fill(&mut world, KEYS);
    let read_after = |world: &mut World, rate| {
        world.store().set_scrub_rate(rate);
        world.run_for(Duration::from_secs(3));
        world.store().statistics().scrub_read_bytes
    };
    assert_eq!(read_after(&mut world, 0), 0);
    // A chunk at a time, and a rest of more than a day after each.
    let little = read_after(&mut world, 1);
    assert!(little > 0);
    assert_eq!(read_after(&mut world, 1), little);
    let much = read_after(&mut world, 1 << 20);
    assert!(much > little + (1 << 20), "{much} after {little}");
    let none = read_after(&mut world, 0);
    assert_eq!(read_after(&mut world, 0), none);
    world.close();
}

/// Whichever of the checkpoints rots is found while the other serves, and replaced.
#[test]
fn a_checkpoint_that_rots_is_found_and_replaced() {
    for newest in [false, true] {
        let mut world = World::new(5, Config { scrub_bytes_per_second: 16 << 20, ..plain() });
        for _ in 0..2 {
            world.open();
            fill(&mut world, KEYS);
            world.close().unwrap();
        }
        world.open();
        let checkpoints = |world: &World| {
            let mut names: Vec<_> = world.disk.names().into_iter().map(|(name, _)| name).collect();
            names.retain(|name| name.starts_with("checkpoint-"));
            names.sort();
            names
        };
        let before = checkpoints(&world);
        assert_eq!(before.len(), 2, "{before:?}");
        let rotten = &before[usize::from(newest)];
        assert!(world.disk.corrupt(rotten, 100, 1));
        for _ in 0..1000 {
            world.run_for(Duration::from_millis(10));
            if !checkpoints(&world).contains(rotten) {
                break;
            }
        }
        let statistics = world.store().statistics();
        assert!(statistics.checkpoints_bad > 0, "{statistics:?}");
        assert!(!checkpoints(&world).contains(rotten), "{before:?}, {:?}", checkpoints(&world));
        let found = statistics.checkpoints_bad;
        world.run_for(Duration::from_secs(1));
        assert_eq!(world.store().statistics().checkpoints_bad, found, "what is there now is sound");
        world.close();
    }
}

/// The disk ends the test when a file is removed that is just being opened, as glommio would end the process.
#[test]
fn checkpoints_go_while_the_scrub_reads_them() {
    for seed in seeds(10) {
        let endless = Config { scrub_bytes_per_second: 1 << 30, scrub_pass_min: Duration::ZERO, ..plain() };
        let busy = Config { checkpoint_log_bytes: 1 << 10, ..endless };
        let mut world = World::new(seed, busy);
        world.open();
        for _ in 0..600 {
            world.step(8);
            world.run_for(Duration::from_micros(200));
        }
        let statistics = world.store().statistics();
        assert!(statistics.checkpoints > 3 && statistics.scrub_passes > 20, "seed {seed}: {statistics:?}");
        assert_eq!(statistics.checkpoints_bad, 0, "seed {seed}");
    }
}

#[test]
fn a_pass_reads_every_record_once() {
    for budget in [1, 100 << 10, u64::MAX] {
        let mut world = World::new(1, plain());
        world.open();
        fill(&mut world, KEYS);
        let steps = pass(&world, budget);
        assert_eq!(steps > 1, budget < u64::MAX);
        let statistics = world.store().statistics();
        assert_eq!((statistics.scrubbed_records, statistics.scrub_damaged, statistics.damaged), (KEYS, 0, 0));
        // Chunks begin and end on blocks.
        assert!(statistics.scrub_read_bytes >= statistics.live_bytes);
        assert!(statistics.scrub_read_bytes < 3 * statistics.live_bytes, "{statistics:?}");
        assert_eq!(statistics.disk_reads, 0);
    }
}

/// Rot is found under a cache that holds the record and a tree that has not changed.
#[test]
fn rot_is_found_wherever_it_is_and_nothing_else() {
    for seed in seeds(60) {
        let mut world = World::new(seed, Config { cache_bytes: 16 << 20, ..plain() });
        world.open();
        fill(&mut world, KEYS);
        (0..KEYS).for_each(|key| world.check_read(key));
        let rotten: BTreeSet<u64> = (0..5).map(|_| world.random.range(0..KEYS)).collect();
        let places: BTreeSet<_> = rotten.iter().map(|key| rot(&mut world, *key)).collect();
        (0..KEYS).for_each(|key| world.check_read(key));
        let budget = world.random.range(1..300_000);
        pass(&world, budget);
        let damage = world.store().damage();
        assert_eq!(told(&damage), places, "seed {seed}");
        assert!(damage.iter().all(|damage| damage.kind == DamageKind::Record));
        assert_eq!(world.store().statistics().scrub_damaged, rotten.len() as u64, "seed {seed}");
        // Written anew they are sound.
        for key in rotten {
            world.append(key, 50, false).unwrap();
        }
        world.make_durable();
        pass(&world, budget);
        assert!(world.store().damage().is_empty());
    }
}

/// Appends, compaction and forgetting go on between and during the steps: no false alarm, and what rots is found.
#[test]
fn a_pass_goes_on_beside_everything_else() {
    let mut compacted = 0;
    for seed in seeds(40) {
        let mut world = World::new(seed, Config { dead_percent_max: 10, dead_percent_idle: 10, ..plain() });
        world.open();
        (0..300).for_each(|_| world.step(KEYS));
        let mut at = ScrubPosition::default();
        let mut passes = 0;
        while passes < 2 {
            (0..10).for_each(|_| world.step(KEYS));
            if world.random.one_in(10) {
                // A position serves after a crash, too.
                world.crash();
                world.open();
                world.check_recovered(0..KEYS);
            }
            let (store, budget) = (world.store().clone(), world.random.range(1..200_000));
            let stepping = world.executor.spawn_for_result(1, async move { store.scrub_step(at, budget).await });
            let mut next = stepping.take();
            while next.is_none() {
                world.step(KEYS);
                world.run_for(Duration::from_micros(100));
                next = stepping.take();
            }
            passes += u64::from(next == Some(None));
            at = next.flatten().unwrap_or_default();
            let damage = world.store().damage();
            assert!(damage.is_empty(), "seed {seed}: {damage:?}");
        }
        compacted += world.store().statistics().compacted_segments;
        world.make_durable();
        let there: Vec<u64> = (0..KEYS)
            .filter(|key| {
                let (partition, name) = World::key(*key);
                world.store().lookup(partition, &name).is_some()
            })
            .collect();
        let Some(key) = there.first() else { continue };
        let place = rot(&mut world, *key);
        pass(&world, 100_000);
        assert_eq!(told(&world.store().damage()), BTreeSet::from([place]), "seed {seed}");
    }
    assert!(std::env::var("SEED").is_ok() || compacted > 0);
}

#[test]
fn a_disk_that_cannot_read_is_damage() {
    let mut world = World::new(4, plain());
    world.open();
    fill(&mut world, KEYS);
    world.close().unwrap();
    let disk = world.disk.clone();
    let removed = world.disk.run(&world.executor, async move {
        use quorate_engine::disk::Disk;
        disk.remove("segment-000001").await
    });
    removed.unwrap().unwrap();
    world.open();
    let gone = |world: &World| {
        world.store().index(|index| {
            let all = (0..index.partitions()).flat_map(|partition| index.entries(partition, 0, 0));
            all.filter(|listed| listed.entry.place.segment() == 1).count() as u64
        })
    };
    let lost = gone(&world);
    assert!(lost > 3);
    // The checkpoint knows whose records lay there; but some may have been newer.
    let damage = world.store().damage();
    assert!(damage.iter().any(|damage| damage.partition.is_none()));
    let partitions: BTreeSet<_> = damage.iter().filter_map(|damage| damage.partition).collect();
    assert!(partitions.len() > 3 && damage.len() == partitions.len() + 1, "{damage:?}");
    assert_eq!(world.store().statistics().lost, lost);
    // The scrub writes down what is lost.
    pass(&world, 50_000);
    assert_eq!((world.store().damage().len(), gone(&world), world.store().statistics().lost), (0, 0, lost));
    world.make_durable();
    world.crash();
    world.open();
    assert_eq!(world.store().statistics().lost, lost);
}
