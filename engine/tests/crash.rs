//! Crashes at every operation of the disk, in every phase of the store's life, and random histories of them.

mod support;

use quorate_engine::AppendError;
use std::time::Duration;
use support::{World, config, seeds};

const KEYS: u64 = 40;

/// A life that rolls segments, writes checkpoints, compacts and is closed in order.
fn live(world: &mut World, steps: usize) {
    for _ in 0..steps {
        if world.disk.is_halted() {
            return;
        }
        world.step(KEYS);
    }
}

#[test]
fn a_long_life_without_faults_uses_every_part() {
    let mut world = World::new(1, config());
    world.open();
    live(&mut world, 3000);
    world.make_durable();
    let statistics = world.store().statistics();
    assert!(statistics.checkpoints > 1 && statistics.compacted_segments > 1, "{statistics:?}");
    assert!(statistics.cache_hits > 0 && statistics.pending_hits > 0 && statistics.disk_reads > 0, "{statistics:?}");
    assert_eq!(statistics.damaged, 0);
    world.check_accounting();
    world.close().unwrap();
    world.open();
    assert!(world.report.clean && world.report.checkpoint.is_some(), "{:?}", world.report);
    assert_eq!(world.report.records_replayed, 0);
    world.check_recovered(0..KEYS);
    world.crash();
    world.open();
    assert!(!world.report.clean, "{:?}", world.report);
    world.check_recovered(0..KEYS);
}

/// While it is written to, a store keeps what died for the sake of fewer bytes written; at rest it tidies up.
#[test]
fn a_store_at_rest_is_tidied() {
    let mut config = config();
    config.segments_max = 64;
    let mut world = World::new(2, config);
    world.open();
    // Of each segment three quarters die: 12 of 28 segments' worth.
    for key in (0..200).chain((0..200).filter(|key| key % 4 != 0)) {
        while world.append(key, 20_000, false).is_err() {
            world.run_for(Duration::from_millis(1));
        }
    }
    world.make_durable();
    world.run_for(Duration::from_millis(500));
    assert_eq!(world.store().statistics().compacted_segments, 0);
    world.run_for(Duration::from_secs(5));
    assert!(world.store().statistics().compacted_segments > 0);
    for key in 0..200 {
        world.check_read(key);
    }
    world.check_accounting();
}

/// Power cut in the middle of the n-th operation that changes the disk, for every n of a life; then in the middle of
/// the recovery, too.
fn crash_everywhere(seed: u64, warm_up: usize, steps: usize, from_every: u64) {
    let mut at = 1 + seed % from_every;
    loop {
        let mut world = World::new(seed, config());
        world.open();
        live(&mut world, warm_up);
        world.disk.halt_after(at);
        live(&mut world, steps);
        let reached = world.disk.is_halted();
        let mut recoveries = 0;
        loop {
            world.crash();
            // The next recovery is cut short as well, later each time, until one gets through.
            if recoveries < 3 {
                world.disk.halt_after(1 + recoveries * 2 + at % 3);
            }
            match world.try_open() {
                Some(Ok(())) if recoveries >= 3 => break,
                Some(Ok(())) | None => recoveries += 1,
                Some(Err(error)) => panic!("seed {seed}, operation {at}: {error}"),
            }
        }
        assert_eq!(world.report.damaged, 0, "seed {seed}, operation {at}: a crash alone damages nothing");
        world.check_recovered(0..KEYS);
        live(&mut world, 20);
        world.make_durable();
        if !reached {
            return;
        }
        at += from_every;
    }
}

#[test]
fn nothing_acknowledged_is_lost_wherever_the_power_fails_at_the_start() {
    crash_everywhere(3, 0, 150, 1);
}

#[test]
fn nothing_acknowledged_is_lost_wherever_the_power_fails_later() {
    // With checkpoints and compaction running.
    crash_everywhere(4, 1200, 250, 3);
}

#[test]
fn nothing_acknowledged_is_lost_over_many_crashes() {
    for seed in seeds(60) {
        let mut world = World::new(seed, config());
        world.open();
        for _ in 0..6 {
            let steps = world.random.index(700);
            live(&mut world, steps);
            match world.random.index(4) {
                0 => {
                    world.close().unwrap();
                    world.open();
                    assert!(world.report.clean, "seed {seed}");
                }
                1 => {
                    world.kill();
                    world.open();
                }
                _ => {
                    world.crash();
                    world.open();
                }
            }
            assert_eq!(world.report.damaged, 0, "seed {seed}: {:?} {:?}", world.store().damage(), world.report);
            world.check_recovered(0..KEYS);
        }
    }
}

/// Cold keys among hot ones on a store that is nearly full: every segment that comes into use again had survivors, which
/// checkpoints know in their old places only.
#[test]
fn survivors_are_found_again_wherever_the_power_fails() {
    let mut compacted = 0;
    for seed in seeds(60) {
        let mut config = config();
        config.segments_max = 9;
        (config.dead_percent_max, config.dead_percent_idle) = (10, 10);
        config.checkpoint_log_bytes = 1 << 20;
        config.background_pause = Duration::from_micros(20);
        let mut world = World::new(seed, config);
        world.open();
        for life in 0..3 {
            for _ in 0..1500 {
                let cold = world.random.one_in(25);
                let key = if cold { world.random.range(0..KEYS) } else { world.random.range(0..4) };
                let length = world.random.index(9000);
                while let Err(error) = world.append(key, length, false) {
                    assert!(matches!(error, AppendError::Busy | AppendError::Full), "seed {seed}: {error}");
                    world.run_for(Duration::from_millis(1));
                }
                if world.random.one_in(4) {
                    world.run_for(Duration::from_micros(200));
                }
            }
            compacted += world.store().statistics().compacted_segments;
            world.crash();
            world.open();
            assert_eq!(world.report.damaged, 0, "seed {seed}, life {life}");
            world.check_recovered(0..KEYS);
        }
    }
    assert!(compacted > 60 * 3 * 5, "{compacted}");
}

/// Ranges of keys are overwritten as a whole while others rest: segments of survivors die whole, too, even the one that
/// is being filled.
#[test]
fn survivors_may_die_while_their_segment_fills() {
    for seed in seeds(100) {
        let mut config = config();
        config.segments_max = 16;
        (config.dead_percent_max, config.dead_percent_idle) = (10, 10);
        config.background_pause = Duration::from_micros(20);
        let mut world = World::new(seed, config);
        world.open();
        for _ in 0..120 {
            let (first, count) = (world.random.range(0..KEYS), world.random.range(1..12));
            let length = [300, 4000, 20_000, 60_000][world.random.index(4)];
            for key in first..(first + count).min(KEYS) {
                while let Err(error) = world.append(key, length, false) {
                    assert!(matches!(error, AppendError::Busy | AppendError::Full), "seed {seed}: {error}");
                    world.run_for(Duration::from_millis(1));
                }
            }
            let pause = world.random.range(1..6000);
            world.run_for(Duration::from_micros(pause));
        }
        world.check_accounting();
        world.crash();
        world.open();
        assert_eq!(world.report.damaged, 0, "seed {seed}");
        world.check_recovered(0..KEYS);
    }
}

/// A long queue: much is in RAM, in the index and in images of it, that is not on the disk yet. Neither a checkpoint nor
/// the recycling of a segment may count on it.
#[test]
fn nothing_counts_on_what_is_still_queued() {
    let mut checkpoints = 0;
    for seed in seeds(150) {
        let mut config = config();
        config.commits_in_flight = 1;
        config.queue_bytes_max = 2 << 20;
        // In one half of the runs there are just enough segments: those whose records were replaced come into use again at
        // once.
        let tight = seed % 2 == 0;
        config.segments_ready = if tight { 4 } else { 8 };
        config.segments_max = if tight { 10 } else { 24 };
        config.checkpoint_log_bytes = 200 << 10;
        let mut world = World::new(seed, config);
        world.open();
        world.run_for(Duration::from_millis(200));
        for round in 0..6 {
            for key in 0..KEYS {
                let length = 2000 + world.random.index(10_000);
                if world.append(key, length, false).is_err() {
                    break;
                }
            }
            if round < 3 {
                world.make_durable();
                world.run_for(Duration::from_millis(20));
            }
        }
        let pause = world.random.range(1..4000);
        world.run_for(Duration::from_micros(pause));
        checkpoints += world.store().statistics().checkpoints;
        world.crash();
        world.open();
        assert_eq!(world.report.damaged, 0, "seed {seed}");
        world.check_recovered(0..KEYS);
    }
    assert!(checkpoints > 100, "{checkpoints}");
}

#[test]
fn an_idle_store_comes_to_rest() {
    let mut world = World::new(9, config());
    world.open();
    world.append(1, 100, false).unwrap();
    world.run_for(Duration::from_secs(2));
    let commits = world.store().statistics().commits;
    assert_eq!(commits, 2, "the record and the frame that says so");
    world.run_for(Duration::from_secs(10));
    assert_eq!(world.store().statistics().commits, commits);
}
