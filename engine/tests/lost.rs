//! A record that rots is lost once: found, said, never served, and healed by writing the key anew.

mod support;

use quorate_engine::{
    Append, AppendError, Config, ReadError, ScrubPosition,
    versions::{Summary, Versions},
};
use std::{collections::BTreeSet, time::Duration};
use support::{Numbered, PARTITIONS, World, config, seeds};

const KEYS: u64 = 40;

fn append(world: &mut World, key: u64, length: usize) {
    while let Err(error) = world.append(key, length, false) {
        assert!(matches!(error, AppendError::Busy | AppendError::Full), "seed {}: {error}", world.seed);
        world.run_for(Duration::from_millis(2));
    }
}

fn scrub(world: &World) {
    let store = world.store().clone();
    let pass = async move {
        let mut at = Some(ScrubPosition::default());
        while let Some(from) = at {
            at = store.scrub_step(from, u64::MAX).await;
        }
    };
    world.disk.run(&world.executor, pass).expect("the disk runs");
}

fn lost(world: &World) -> BTreeSet<u64> {
    let is_lost = |key: &u64| {
        let (partition, name) = World::key(*key);
        world.store().lookup(partition, &name).is_some_and(|found| found.summary == Summary::LOST)
    };
    (0..KEYS).filter(is_lost).collect()
}

/// Each key reads as it was last written, or is an error, or is gone and somebody was told.
fn read_all(world: &World, told: bool) -> BTreeSet<u64> {
    let mut wrong = BTreeSet::new();
    for key in 0..KEYS {
        let Some(history) = world.keys.get(&key) else { continue };
        let wanted = history.versions.last().filter(|version| !version.forgotten).map(|version| version.body(key));
        match world.read(key).expect("the disk runs") {
            Ok(found) if found == wanted => {}
            // A frame with the newest version rotted: that was reported, for no partition in particular.
            Ok(_) if told => drop(wrong.insert(key)),
            Ok(found) => panic!("seed {}: key {key} reads as {:?}", world.seed, found.map(|body| body.len())),
            Err(ReadError::Corrupt { .. }) => drop(wrong.insert(key)),
            Err(error) => panic!("seed {}: {error}", world.seed),
        }
    }
    wrong
}

fn heal(world: &mut World, keys: &BTreeSet<u64>) {
    for key in keys {
        append(world, *key, 200);
    }
    world.make_durable();
    assert_eq!(lost(world), BTreeSet::new(), "seed {}", world.seed);
    assert_eq!(world.store().statistics().lost, 0, "seed {}", world.seed);
    assert_eq!(read_all(world, false), BTreeSet::new());
    world.check_accounting();
}

fn fill(world: &mut World) {
    for round in 0..6 {
        for key in 0..KEYS {
            let length = [200, 3000, 9000][((key + round) % 3) as usize];
            append(world, key, length);
            if world.random.one_in(3) {
                world.run_for(Duration::from_micros(400));
            }
        }
    }
    world.make_durable();
    world.run_for(Duration::from_millis(50));
}

fn place_of(world: &World, key: u64) -> (u16, quorate_engine::index::Place) {
    let (partition, name) = World::key(key);
    (partition, world.store().lookup(partition, &name).unwrap().place)
}

fn rot(world: &mut World, key: u64) {
    let (_, place) = place_of(world, key);
    let at = world.random.range(0..u64::from(place.length()) - 15);
    assert!(world.disk.corrupt(&format!("segment-{:06}", place.segment()), u64::from(place.offset()) + at, 1));
    world.keys.get_mut(&key).unwrap().rotten = true;
}

fn quiet() -> Config {
    Config { background_pause: Duration::from_micros(20), cache_bytes: 0, ..config() }
}

/// What a replica sees: the sum differs; what the store says: once. It survives crashes with and without a checkpoint.
#[test]
fn what_is_lost_stays_so_until_it_is_written_anew() {
    for seed in seeds(60) {
        let mut world = World::new(seed, quiet());
        world.open();
        fill(&mut world);
        let key = world.random.range(0..KEYS);
        let (partition, name) = World::key(key);
        let (_, place) = place_of(&world, key);
        let root = world.store().index(|index| index.root(partition));
        rot(&mut world, key);
        if seed % 2 == 0 {
            scrub(&world);
        } else {
            assert!(world.read(key).unwrap().is_err());
        }
        let found = world.store().lookup(partition, &name).unwrap();
        assert_eq!(found.summary, Summary::LOST, "seed {seed}");
        assert_ne!(found.place, place);
        assert_ne!(world.store().index(|index| index.root(partition)), root);
        let damage = world.store().damage();
        assert_eq!(damage.iter().map(|damage| damage.partition).collect::<Vec<_>>(), [Some(partition)]);
        assert_eq!(world.store().statistics().lost, 1);
        scrub(&world);
        assert!(world.store().damage().is_empty(), "seed {seed}: it is said again");
        assert_eq!(world.store().recent(partition, &name), None);
        world.check_sums();
        // The segment of the lost record may come into use again: nothing old comes back.
        world.run_for(Duration::from_millis(20));
        for other in (0..KEYS).filter(|other| *other != key).chain(0..KEYS).filter(|other| *other != key) {
            append(&mut world, other, 3000);
        }
        world.make_durable();
        for _ in 0..2 {
            match world.random.index(3) {
                0 => drop(world.close().unwrap()),
                1 => world.kill(),
                _ => world.crash(),
            }
            world.open();
            assert_eq!(lost(&world), BTreeSet::from([key]), "seed {seed}");
            assert_eq!(world.store().statistics().lost, 1);
            assert!(matches!(world.read(key), Some(Err(ReadError::Corrupt { .. }))));
            world.check_sums();
        }
        if seed % 3 == 0 {
            let sequence = world.store().forget(partition, &name, Summary::LOST).unwrap();
            assert!(sequence.is_some() && world.store().lookup(partition, &name).is_none());
            assert_eq!(world.store().statistics().lost, 0);
        } else {
            heal(&mut world, &BTreeSet::from([key]));
        }
    }
}

/// The compaction neither loops nor stops at what is lost, and gives its segment back.
#[test]
fn a_victim_with_lost_records_is_given_back() {
    let mut all = 0;
    for seed in seeds(20) {
        let config = Config { dead_percent_max: 10, dead_percent_idle: 10, segments_max: 12, ..quiet() };
        let mut world = World::new(seed, config);
        world.open();
        fill(&mut world);
        let rotten: BTreeSet<u64> = (0..6).map(|_| world.random.range(0..KEYS)).collect();
        let sound: Vec<u64> = (0..KEYS).filter(|key| !rotten.contains(key)).collect();
        // Each in a segment of its own, in which all else dies.
        for key in &rotten {
            append(&mut world, *key, 3000);
            for other in &sound {
                append(&mut world, *other, 6000);
            }
        }
        world.make_durable();
        for key in &rotten {
            rot(&mut world, *key);
        }
        for _ in 0..20 {
            for key in &sound {
                append(&mut world, *key, 6000);
            }
            world.run_for(Duration::from_millis(100));
        }
        world.make_durable();
        world.run_for(Duration::from_secs(20));
        let before = world.store().statistics();
        world.run_for(Duration::from_secs(20));
        assert_eq!(world.store().statistics().compaction_bytes, before.compaction_bytes, "seed {seed}: no rest");
        all += lost(&world).len();
        let found = read_all(&world, false);
        // What was being moved when it rotted lies elsewhere, and is sound.
        assert!(found.is_subset(&rotten) && found == lost(&world), "seed {seed}: {found:?} of {rotten:?}");
        assert_eq!(world.store().damage().len(), found.len(), "seed {seed}");
        heal(&mut world, &found);
    }
    assert!(std::env::var("SEED").is_ok() || all > 0, "{all}");
}

/// Flips of single bits anywhere in the files: without effect on what is read, or found and said.
#[test]
fn every_flipped_byte_is_harmless_or_found_and_healed() {
    let (mut harmless, mut found, mut refused) = (0, 0, 0);
    for seed in seeds(15) {
        let config = Config { dead_percent_max: 10, dead_percent_idle: 10, ..quiet() };
        let mut world = World::new(seed, config);
        world.open();
        fill(&mut world);
        let snapshot = world.disk.snapshot();
        let keys = world.keys.clone();
        for flip in 0..80 {
            world.disk.restore(&snapshot);
            world.kill();
            world.keys = keys.clone();
            let files = world.disk.names();
            let open_first = flip % 3 != 1;
            if open_first {
                world.open();
            }
            let (name, length) = &files[world.random.index(files.len())];
            // Where there is something: padding and free room are most of a disk.
            let bytes = world.disk.contents(name).unwrap();
            let used: Vec<usize> = (0..*length as usize).filter(|at| bytes[*at] != 0 || at % 4096 < 64).collect();
            let at = used[world.random.index(used.len())];
            assert!(world.disk.corrupt(name, at as u64, 1));
            let mut told = false;
            match flip % 3 {
                0 => scrub(&world),
                1 => match world.try_open().unwrap() {
                    Ok(()) => told = world.report.damaged > 0 || world.report.checkpoints_bad > 0,
                    Err(error) => {
                        assert_eq!(name, "store.blob", "seed {seed}: {error}");
                        refused += 1;
                        continue;
                    }
                },
                _ => {
                    for key in (0..KEYS).filter(|key| key % 4 != 0) {
                        append(&mut world, key, 5000);
                    }
                    world.make_durable();
                    world.run_for(Duration::from_millis(1500));
                    scrub(&world);
                }
            }
            let damaged = world.report.damaged > 0 || world.store().statistics().damaged > 0;
            let wrong = read_all(&world, told && world.report.damaged > 0);
            assert!(wrong.is_empty() || damaged, "seed {seed}, {name} at {at}: {wrong:?} without a word");
            if wrong.is_empty() {
                harmless += 1;
            } else {
                found += 1;
            }
            heal(&mut world, &wrong);
        }
    }
    assert!(
        std::env::var("SEED").is_ok() || (harmless > 100 && found > 100 && refused > 5),
        "{harmless} {found} {refused}"
    );
}

/// A key that is lost is no tombstone and no version: what the replicas compare is the key with hash 0.
#[test]
fn equal_losses_look_equal() {
    let mut roots = BTreeSet::new();
    for length in [500, 700] {
        let mut world = World::new(length, quiet());
        world.open();
        let (partition, name) = World::key(3);
        let body = support::Version {
            number: length,
            sequence: quorate_engine::Sequence(0),
            length: length as usize,
            tombstone: false,
            forgotten: false,
        }
        .body(3);
        let summary = Numbered.summarise(&body).unwrap();
        world.store().append(Append { partition, key: &name, body: &[&body], summary }).unwrap();
        world.run_for(Duration::from_millis(50));
        let place = world.store().lookup(partition, &name).unwrap().place;
        assert!(world.disk.corrupt("segment-000000", u64::from(place.offset()) + 40, 1));
        assert!(world.read(3).unwrap().is_err());
        roots.insert(
            (0..PARTITIONS).map(|partition| world.store().index(|index| index.root(partition))).collect::<Vec<_>>(),
        );
        assert_eq!(world.store().live_keys(), 1);
    }
    assert_eq!(roots.len(), 1);
}
