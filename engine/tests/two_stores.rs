//! Two stores in one directory: one disk's crashes hit both, and neither sees the other's files.

mod support;

use quorate_engine::{
    Config,
    disk::{Disk, prefixed::Prefixed, simulated::SimulatedDisk},
};
use std::time::Duration;
use support::{World, config, seeds};

const KEYS: u64 = 30;
type Beside = World<Prefixed<SimulatedDisk>>;

fn steps(world: &mut World, beside: &mut Beside, steps: usize) {
    for _ in 0..steps {
        if world.disk.is_halted() {
            return;
        }
        if world.random.one_in(3) {
            beside.step(KEYS);
        } else {
            world.step(KEYS);
        }
    }
}

/// Both crash, or are killed, at the same moment, with their recoveries cut short.
fn end_and_open(world: &mut World, beside: &mut Beside) {
    for cut in [Some(3), Some(9), None] {
        if world.random.one_in(4) {
            world.disk.kill();
        } else {
            world.disk.crash();
        }
        world.forget();
        beside.forget();
        if let Some(cut) = cut {
            world.disk.halt_after(cut);
        }
        // Either may be opened first.
        if world.random.one_in(2) {
            let _ = world.try_open();
            let _ = beside.try_open();
        } else {
            let _ = beside.try_open();
            let _ = world.try_open();
        }
    }
    for report in [world.report, beside.report] {
        assert_eq!(report.damaged, 0, "seed {}", world.seed);
    }
    world.check_recovered(0..KEYS);
    beside.check_recovered(0..KEYS);
}

#[test]
fn two_stores_share_a_disk_and_its_crashes() {
    for seed in seeds(40) {
        let mut world = World::new(seed, config());
        let mut beside = world.beside(Config { store: 4711, ..config() });
        world.open();
        beside.open();
        for _ in 0..4 {
            let operations = world.random.range(1..2000);
            world.disk.halt_after(operations);
            steps(&mut world, &mut beside, 400);
            end_and_open(&mut world, &mut beside);
        }
        assert_ne!(world.report.store, beside.report.store);
        let names = world.disk.names();
        let theirs = names.iter().filter(|(name, _)| name.starts_with("hints.")).count();
        assert!(theirs > 2 && names.len() - theirs > 2, "seed {seed}: {names:?}");
    }
}

#[test]
fn a_part_of_a_directory_lists_its_own_files() {
    let world = World::new(1, config());
    let (plain, part) = (world.disk.clone(), Prefixed::new(world.disk.clone(), "hints"));
    let names = world.disk.run(&world.executor, async move {
        plain.open("a", false).await.unwrap();
        part.open("b", false).await.unwrap();
        part.open("c", false).await.unwrap();
        part.rename("b", "d").await.unwrap();
        part.remove("c").await.unwrap();
        assert!(part.remove("a").await.is_err());
        part.list().await.unwrap()
    });
    assert_eq!(names, Some(vec![("d".to_owned(), 0)]));
    assert_eq!(world.disk.names(), [("a".to_owned(), 0), ("hints.d".to_owned(), 0)]);
}

/// What a second store costs that nobody uses: two files, and nothing once it has come to rest.
#[test]
fn an_empty_store_costs_next_to_nothing() {
    for partitions in [1024, 16384] {
        let world = World::new(2, config());
        let mut empty = world.beside(Config { segments_ready: 1, cache_bytes: 0, partitions, ..config() });
        for _ in 0..3 {
            empty.open();
            empty.run_for(Duration::from_secs(5));
            let before = (empty.disk.trace_hash(), empty.disk.statistics());
            empty.run_for(Duration::from_secs(3600));
            assert_eq!((empty.disk.trace_hash(), empty.disk.statistics()), before, "it does not rest");
            let statistics = empty.store().statistics();
            assert!(statistics.index_bytes <= 64 * u64::from(partitions) + 64, "{}", statistics.index_bytes);
            empty.close().unwrap();
            let segments = empty.disk.names().iter().filter(|(name, _)| name.contains("segment")).count();
            assert!(segments <= 3, "{:?}", empty.disk.names());
        }
    }
}
