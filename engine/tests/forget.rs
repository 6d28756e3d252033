//! What is forgotten stays forgotten, whichever checkpoint recovery begins with; and room comes back.

mod support;

use quorate_engine::{AppendError, Config};
use std::time::Duration;
use support::{PARTITIONS, World, config, seeds};

const KEYS: u64 = 40;

/// Appends, waiting as long as it takes.
fn append(world: &mut World, key: u64, length: usize) {
    let mut tries = 0;
    while let Err(error) = world.append(key, length, false) {
        assert!(matches!(error, AppendError::Busy | AppendError::Full), "seed {}: {error}", world.seed);
        world.run_for(Duration::from_millis(2));
        tries += 1;
        assert!(tries < 2000, "seed {}: no room: {:?}", world.seed, world.store().statistics());
    }
}

fn forget(world: &mut World, key: u64) {
    let mut tries = 0;
    while let Err(error) = world.forget_key(key) {
        assert!(matches!(error, AppendError::Busy | AppendError::Full), "seed {}: {error}", world.seed);
        world.run_for(Duration::from_millis(2));
        tries += 1;
        assert!(tries < 2000, "seed {}: no room: {:?}", world.seed, world.store().statistics());
    }
}

/// The newest checkpoint rots, if there is an older one.
fn spoil_newest_checkpoint(world: &mut World) -> bool {
    let names = world.disk.names();
    let checkpoints: Vec<_> =
        names.iter().map(|(name, _)| name).filter(|name| name.starts_with("checkpoint-0")).collect();
    let [.., _, newest] = &checkpoints[..] else { return false };
    assert!(world.disk.corrupt(newest, 100, 1));
    true
}

/// Segments come into use again soon after, checkpoints are many, compaction moves what is cold. The last recovery begins
/// with the newest checkpoint, or with the one before, which knows the forgotten keys.
#[test]
fn what_is_forgotten_stays_forgotten() {
    let (mut spoiled, mut compacted, mut forgotten, mut recycled) = (0, 0, 0, 0);
    for seed in seeds(120) {
        let mut config = config();
        config.segments_max = 16;
        (config.dead_percent_max, config.dead_percent_idle) = (10, 10);
        config.background_pause = Duration::from_micros(20);
        // A freed segment is written again after some 1.3 MB of log: sooner than the next checkpoint, or later.
        config.checkpoint_log_bytes = [200 << 10, 800 << 10, 3 << 20][(seed % 3) as usize];
        let mut world = World::new(seed, config);
        world.open();
        for life in 0..3 {
            for _ in 0..1000 {
                let key = if world.random.one_in(5) { world.random.range(0..KEYS) } else { world.random.range(0..6) };
                match world.random.index(30) {
                    0..20 => {
                        let length = world.random.index(9000);
                        append(&mut world, key, length);
                    }
                    20..29 => forget(&mut world, key),
                    _ => {
                        let partition = world.random.index(PARTITIONS.into()) as u16;
                        let _ = world.drop_partition(partition);
                    }
                }
                if world.random.one_in(3) {
                    let pause = world.random.range(1..3000);
                    world.run_for(Duration::from_micros(pause));
                }
            }
            world.check_accounting();
            let statistics = world.store().statistics();
            compacted += statistics.compacted_segments;
            forgotten += statistics.forgotten;
            recycled += statistics.prepared_bytes / 4096 % 64;
            world.crash();
            if life == 2 && seed % 4 != 0 {
                spoiled += u64::from(spoil_newest_checkpoint(&mut world));
            }
            world.open();
            assert_eq!(world.report.damaged, 0, "seed {seed}, life {life}: {:?}", world.store().damage());
            world.check_recovered(0..KEYS);
        }
    }
    if std::env::var("SEED").is_err() {
        assert!(
            spoiled > 40 && compacted > 500 && forgotten > 10_000 && recycled > 100,
            "{spoiled} {compacted} {forgotten}"
        );
    }
}

/// A drop is cut short at every operation of the disk: a part of the partition may be there, and the next drop takes it.
#[test]
fn a_drop_that_is_cut_short_is_done_again() {
    for at in 1..40 {
        let mut world = World::new(at, Config { background_pause: Duration::from_micros(300), ..config() });
        world.open();
        // All in one partition, and some in another.
        let keys = 600 * u64::from(PARTITIONS);
        let (dropped, kept) = ((0..keys).step_by(PARTITIONS.into()), (3..keys).step_by(40 * usize::from(PARTITIONS)));
        for key in dropped.chain(kept) {
            append(&mut world, key, 30);
        }
        world.make_durable();
        world.disk.halt_after(at);
        let _ = world.drop_partition(0);
        let cut = world.disk.is_halted();
        world.crash();
        world.open();
        world.check_recovered(0..keys);
        world.drop_partition(0).unwrap();
        world.make_durable();
        append(&mut world, 8, 100);
        world.make_durable();
        world.crash();
        world.open();
        assert_eq!(world.store().index(|index| index.partition_len(0)), 1);
        world.check_recovered(0..keys);
        world.check_read(8);
        if !cut {
            assert!(at > 5, "the drop was one step only");
            return;
        }
    }
}

/// Nothing is left of forgotten keys: neither in the counts, nor on the disk in the end.
#[test]
fn forgetting_brings_room_back() {
    for (segments_max, length) in [(10, 4000), (10, 900)] {
        let mut world = World::new(3, Config { segments_max, ..config() });
        world.open();
        let mut forgotten = 0;
        // Three times as much as there is room for.
        let fits = u64::from(segments_max) * 256 * 1024 / (length as u64 + 64);
        for key in 0..3 * fits {
            append(&mut world, key, length);
            if key % 7 != 0 {
                forget(&mut world, key);
                forgotten += 1;
            }
            if key >= fits / 3 && (key - fits / 3).is_multiple_of(7) {
                forget(&mut world, key - fits / 3);
                forgotten += 1;
            }
        }
        let statistics = world.store().statistics();
        assert_eq!(statistics.forgotten, forgotten);
        assert!(statistics.checkpoints > 2);
        world.check_accounting();
        for key in 0..3 * fits {
            let (partition, name) = World::key(key);
            if world.store().lookup(partition, &name).is_some() {
                forget(&mut world, key);
            }
        }
        world.make_durable();
        world.run_for(Duration::from_secs(5));
        let statistics = world.store().statistics();
        assert_eq!((statistics.keys, statistics.live_bytes), (0, 0));
        assert!(statistics.full == 0 && statistics.segments_free >= 5, "{statistics:?}");
        assert!((0..PARTITIONS).all(|partition| world.store().index(|index| index.root(partition)) == 0));
        world.crash();
        world.open();
        assert_eq!(world.store().keys(), 0);
    }
}

/// A full store takes forgetting, and what is forgotten makes room.
#[test]
fn a_full_store_forgets() {
    let mut world = World::new(5, Config { segments_max: 10, ..config() });
    world.open();
    let mut keys = 0;
    let mut refused = 0;
    while refused < 200 {
        match world.append(keys, 4000, false) {
            Ok(_) => (keys, refused) = (keys + 1, 0),
            Err(_) => {
                refused += 1;
                world.run_for(Duration::from_millis(20));
            }
        }
    }
    assert_eq!(world.append(keys, 4000, false), Err(AppendError::Full));
    for key in (0..keys).filter(|key| key % 2 == 0) {
        forget(&mut world, key);
    }
    for key in (0..keys / 2).filter(|key| key % 2 == 0) {
        append(&mut world, key, 4000);
    }
    world.make_durable();
    world.check_accounting();
    world.crash();
    world.open();
    world.check_recovered(0..keys);
}

/// A store that rests gives what was forgotten no second life when it is closed and opened.
#[test]
fn a_clean_end_remembers_what_may_not_be_given_back() {
    for seed in seeds(30) {
        let mut world = World::new(seed, Config { checkpoint_log_bytes: 150 << 10, ..config() });
        world.open();
        for life in 0..6 {
            for _ in 0..120 {
                let key = world.random.range(0..KEYS);
                if world.random.one_in(2) {
                    let length = world.random.index(6000);
                    append(&mut world, key, length);
                } else {
                    forget(&mut world, key);
                }
            }
            let pause = world.random.range(1..30);
            world.run_for(Duration::from_millis(pause));
            world.close().unwrap();
            // The checkpoint of the end rots: the one before it serves, with the log.
            let spoiled = life == 5 && spoil_newest_checkpoint(&mut world);
            world.open();
            assert_eq!(world.report.damaged, 0, "seed {seed}");
            assert_ne!(world.report.clean, spoiled, "seed {seed}");
            world.check_recovered(0..KEYS);
        }
    }
}

/// The log comes round to every free segment before the next checkpoint: the one that says what was forgotten is not free,
/// although nothing else is in it, and although the store was opened since.
#[test]
fn what_says_so_is_kept_across_an_opening() {
    for clean in [false, true] {
        let mut world = World::new(2, Config { checkpoint_log_bytes: u64::MAX, segments_max: 10, ..config() });
        world.open();
        append(&mut world, 1, 300);
        world.close().unwrap();
        world.open();
        forget(&mut world, 1);
        world.make_durable();
        if clean {
            world.close().unwrap();
        } else {
            world.crash();
        }
        world.open();
        for _ in 0..300 {
            append(&mut world, 2, 20_000);
            world.run_for(Duration::from_millis(1));
        }
        world.make_durable();
        world.crash();
        assert!(!clean || spoil_newest_checkpoint(&mut world));
        world.open();
        assert_eq!(world.report.damaged, 0);
        world.check_recovered(0..3);
        assert_eq!(world.store().keys(), 1);
    }
}
