//! Rot, failing writes, a full disk, files that are missing or foreign: found, said, and survived.

mod support;

use quorate_engine::{
    AppendError, Commit, Config, DamageKind, OpenError, ReadError, Sequence, Watermark,
    disk::{
        Disk,
        simulated::{Kind, SilentFault},
    },
    record::Salt,
    recovery::survey,
};
use std::time::Duration;
use support::{World, config};

const BLOCK: usize = 4096;

/// Without checkpoints, so that recovery reads the log.
fn plain() -> Config {
    Config { checkpoint_log_bytes: u64::MAX, ..config() }
}

/// Some records in the first segment, all durable and said to be so.
fn small_log(records: u64) -> World {
    let mut world = World::new(1, plain());
    world.open();
    for key in 0..records {
        world.append(key, 40 + key as usize * 150, key % 5 == 4).unwrap();
        if key % 3 == 0 {
            world.make_durable();
        }
    }
    world.make_durable();
    world.run_for(Duration::from_millis(20));
    world
}

fn used_bytes(world: &World) -> usize {
    let bytes = world.disk.contents("segment-000000").unwrap();
    let salt = Salt::new(world.config.store, 1);
    let frames = survey(&bytes[BLOCK..], BLOCK as u32, 1, salt);
    let last = frames.last().unwrap().header;
    last.offset as usize + last.frame_length()
}

/// No flip of a byte is ever served, and none makes an acknowledged record vanish without a word.
#[test]
fn every_flipped_byte_of_the_log_is_found_at_the_start() {
    let mut world = small_log(16);
    let used = used_bytes(&world);
    let snapshot = world.disk.snapshot();
    let keys = world.keys.clone();
    let (mut found, mut harmless) = (0, 0);
    // All of the headers' blocks, and a sample of the rest.
    for position in (0..used).filter(|position| position % BLOCK < 96 || position % 13 == 0) {
        world.disk.restore(&snapshot);
        world.kill();
        assert!(world.disk.corrupt("segment-000000", position as u64, 1));
        world.keys = keys.clone();
        world.open();
        let mut missing = 0;
        for key in 0..16 {
            let wanted = keys[&key].versions[0].body(key);
            match world.read(key).unwrap() {
                Ok(Some(body)) => assert_eq!(body, wanted, "flip at {position}: key {key} is served wrong"),
                Ok(None) | Err(ReadError::Corrupt { .. }) => missing += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(missing == 0 || world.report.damaged > 0, "flip at {position}: {missing} keys vanished without a word");
        assert!(missing <= 3, "flip at {position}: {missing} keys are gone");
        found += u64::from(world.report.damaged > 0);
        harmless += u64::from(world.report.damaged == 0);
    }
    // Flips between records and frames are harmless.
    assert!(found > 1000 && harmless > 0, "{found} found, {harmless} harmless");
}

#[test]
fn a_record_that_rots_under_a_running_store_is_an_error_until_it_is_written_anew() {
    let mut world = small_log(16);
    let (partition, name) = World::key(9);
    let place = world.store().lookup(partition, &name).unwrap().place;
    let end = place.offset() + place.length();
    let whole = world.disk.snapshot();
    for at in (place.offset()..end - 16).step_by(7) {
        let snapshot = world.disk.contents("segment-000000").unwrap();
        assert!(world.disk.corrupt("segment-000000", at.into(), 1));
        assert!(matches!(world.read(9), Some(Err(ReadError::Corrupt { .. }))), "flip at {at}");
        let damage = world.store().damage();
        assert_eq!((damage.len(), damage[0].partition, damage[0].kind), (1, Some(partition), DamageKind::Record));
        // It stays so, and is said once, although the byte is right again.
        assert!(world.disk.overwrite("segment-000000", at.into(), &snapshot[at as usize..=at as usize]));
        let reads = world.store().statistics().disk_reads;
        assert!(matches!(world.read(9), Some(Err(ReadError::Corrupt { .. }))), "flip at {at}");
        assert_eq!((world.store().damage().len(), world.store().statistics().disk_reads), (0, reads));
        world.disk.restore(&whole);
        world.kill();
        world.open();
    }
    assert!(world.disk.corrupt("segment-000000", place.offset().into(), 32));
    assert!(matches!(world.read(9), Some(Err(ReadError::Corrupt { .. }))));
    world.append(9, 500, false).unwrap();
    world.make_durable();
    world.check_read(9);
}

/// H16: a bad frame before sound ones that prove it acknowledged is corruption, not the end of the log.
#[test]
fn a_tear_in_the_middle_is_not_the_tail() {
    let mut world = small_log(16);
    let middle = used_bytes(&world) / 2 / BLOCK * BLOCK;
    assert!(world.disk.overwrite("segment-000000", middle as u64, &[0; BLOCK]));
    world.crash();
    world.open();
    assert!(world.report.damaged > 0);
    assert!((12..16).contains(&world.store().keys()), "{} keys", world.store().keys());
    let damage = world.store().damage();
    assert_eq!((damage[0].kind, damage[0].segment), (DamageKind::Frame, 0));
}

/// The end of a segment is lost: only the next segment knows that there was more.
#[test]
fn a_lost_end_of_a_segment_is_proven_by_the_next() {
    let mut world = World::new(3, plain());
    world.open();
    for key in 0..240 {
        while world.append(key, 2000, false).is_err() {
            world.run_for(Duration::from_millis(1));
        }
    }
    world.make_durable();
    let bytes = world.disk.contents("segment-000000").unwrap();
    let frames = survey(&bytes[BLOCK..], BLOCK as u32, 1, Salt::new(world.config.store, 1));
    let [.., data, last] = &frames[..] else { panic!("{} frames", frames.len()) };
    assert!(last.header.last && data.header.records > 0);
    let snapshot = world.disk.snapshot();
    for lost in [&frames[frames.len() - 2..], &frames[frames.len() - 1..]] {
        world.disk.restore(&snapshot);
        world.kill();
        for frame in lost {
            assert!(world.disk.overwrite("segment-000000", frame.header.offset.into(), &[0; BLOCK]));
        }
        world.open();
        assert_eq!(world.report.damaged, 1, "{} frames lost: {:?}", lost.len(), world.report);
        assert!(!world.report.torn);
        // What lies in later segments is all there.
        for key in 150..240 {
            world.check_read(key);
        }
    }
}

/// H14: after a failed write or fsync nothing is acknowledged, nothing is tried again, and reads go on.
#[test]
fn a_failed_commit_is_the_last() {
    for (commit, kind) in
        [(Commit::Dsync, Kind::Write), (Commit::Fdatasync, Kind::Write), (Commit::Fdatasync, Kind::Sync)]
    {
        let mut world = World::new(2, Config { commit, ..plain() });
        world.open();
        let first = world.append(1, 300, false).unwrap();
        world.make_durable();
        world.run_for(Duration::from_secs(1));
        world.disk.fail_next(kind, libc::EIO);
        let lost = world.append(2, 300, false).unwrap();
        world.run_for(Duration::from_millis(50));
        world.disk.mend();
        assert_eq!(world.store().durable(), Watermark::Failed);
        assert!(world.store().failure().is_some());
        let syncs = world.disk.statistics();
        let store = world.store().clone();
        let waited = world.disk.run(&world.executor, async move { store.advanced(Sequence(lost.0 - 1)).await });
        assert_eq!(waited, Some(Watermark::Failed));
        assert_eq!(world.append(3, 300, false), Err(AppendError::Failed));
        world.check_read(1);
        world.check_read(2);
        world.run_for(Duration::from_secs(5));
        let after = world.disk.statistics();
        assert_eq!((after.writes, after.syncs), (syncs.writes, syncs.syncs), "something was written after the failure");
        assert_eq!(world.close(), Some(Watermark::Failed));
        world.crash();
        world.open();
        world.check_recovered(0..4);
        assert!(world.append(1, 10, false).unwrap() > first);
    }
}

/// Fills the store with live records until it refuses.
fn fill(world: &mut World, from: u64) -> u64 {
    let mut key = from;
    let mut refused = 0;
    while refused < 200 {
        match world.append(key, 4000, false) {
            Ok(_) => {
                key += 1;
                refused = 0;
            }
            Err(AppendError::Full) => {
                refused += 1;
                world.run_for(Duration::from_millis(20));
            }
            Err(AppendError::Busy) => world.run_for(Duration::from_millis(2)),
            Err(error) => panic!("{error}"),
        }
    }
    key
}

fn deletes_bring_room_back(world: &mut World, count: u64) {
    assert_eq!(world.append(count, 4000, false), Err(AppendError::Full));
    assert_eq!(world.store().statistics().full, 1);
    for key in 0..count {
        if key % 2 == 0 {
            let mut tries = 0;
            while world.append(key, 17, true).is_err() {
                world.run_for(Duration::from_millis(20));
                tries += 1;
                assert!(tries < 500, "a delete is refused on a full disk: {:?}", world.store().statistics());
            }
        }
    }
    world.make_durable();
    for key in 0..count {
        world.check_read(key);
    }
    // The room of half of what was deleted can be used again, which takes compaction.
    for i in 0..count / 4 {
        let mut tries = 0;
        while world.append(2 * i, 4000, false).is_err() {
            world.run_for(Duration::from_millis(50));
            tries += 1;
            assert!(tries < 200, "no room comes back for {i}: {:?}", world.store().statistics());
        }
    }
    world.make_durable();
    world.check_accounting();
}

#[test]
fn a_full_store_takes_deletes_and_comes_back_by_itself() {
    let mut world = World::new(5, Config { segments_max: 10, ..config() });
    world.open();
    let count = fill(&mut world, 0);
    // The log, one ready for deletes and the reserve are what may stay unused.
    assert!(count * 4000 > 5 * u64::from(world.config.segment_bytes), "only {count} records fit");
    deletes_bring_room_back(&mut world, count);
    world.crash();
    world.open();
    world.check_recovered(0..count);
    world.append(1, 4000, false).unwrap();
}

#[test]
fn a_full_disk_takes_deletes_and_comes_back_by_itself() {
    let mut world = World::new(6, Config { segments_max: 1000, ..config() });
    world.disk.set_capacity(Some(10 * 256 * 1024 + 100_000));
    world.open();
    let count = fill(&mut world, 0);
    deletes_bring_room_back(&mut world, count);
    let count = fill(&mut world, count + 1);
    // More disk appears.
    world.disk.set_capacity(None);
    world.run_for(Duration::from_secs(1));
    world.append(count + 1, 4000, false).unwrap();
    world.make_durable();
    world.close().unwrap();
    world.open();
    world.check_recovered(0..count + 2);
}

/// Three records fill a segment but for a quarter: to move them would gain nothing, however short segments are.
#[test]
fn compaction_comes_to_rest_when_nothing_is_to_be_gained() {
    for (length, overwritten) in [(66 << 10, 0), (66 << 10, 8), (1000, 300), (40 << 10, 10)] {
        let mut world = World::new(14, plain());
        world.open();
        let mut key = 0;
        while world.append(key, length, false) != Err(AppendError::Full) {
            key = world.keys.len() as u64;
            world.run_for(Duration::from_millis(5));
        }
        for key in 0..overwritten {
            let _ = world.append(key * 3 % world.keys.len() as u64, length, false);
            world.run_for(Duration::from_millis(1));
        }
        world.run_for(Duration::from_secs(60));
        let before = world.store().statistics();
        world.run_for(Duration::from_secs(60));
        let after = world.store().statistics();
        assert_eq!(after.compaction_bytes, before.compaction_bytes, "{length} B: {before:?}");
    }
}

/// Overwrites go on for ever on a store that is not too full, with frames of survivors half as long as a segment.
#[test]
fn compaction_keeps_up() {
    let mut world = World::new(15, Config { segments_max: 40, ..plain() });
    world.open();
    let keys = 40 * 256 * 1024 * 65 / 100 / 1100;
    for i in 0..keys * 5 {
        let key = if i < keys { i } else { world.random.range(0..keys) };
        let mut tries = 0;
        while let Err(error) = world.append(key, 1040, false) {
            assert!(matches!(error, AppendError::Busy | AppendError::Full));
            world.run_for(Duration::from_millis(5));
            tries += 1;
            assert!(tries < 400, "stuck at {i} of {}: {:?}", keys * 5, world.store().statistics());
        }
    }
    let statistics = world.store().statistics();
    let amplification = statistics.compaction_bytes as f64 / statistics.record_bytes as f64;
    assert!(amplification < 3.0, "{amplification} bytes moved for each byte written");
}

/// Every key of a store with several segments.
fn several_segments(world: &mut World, keys: u64) {
    for round in 0..4 {
        for key in 0..keys {
            while let Err(error) = world.append(key, 2000 + round * 100, false) {
                assert_eq!(error, AppendError::Busy);
                world.run_for(Duration::from_millis(1));
            }
        }
    }
    world.make_durable();
}

#[test]
fn compaction_reports_rot_and_never_copies_it() {
    let mut world = World::new(7, Config { dead_percent_max: 90, dead_percent_idle: 90, ..plain() });
    world.open();
    several_segments(&mut world, 100);
    let (partition, name) = World::key(50);
    let place = world.store().lookup(partition, &name).unwrap().place;
    let file = format!("segment-{:06}", place.segment());
    assert!(world.disk.corrupt(&file, u64::from(place.offset()) + 100, 3));
    world.keys.get_mut(&50).unwrap().rotten = true;
    // Others are overwritten until its segment is worth compacting.
    for round in 0..40 {
        for key in (0..100).filter(|key| *key != 50 && (key % 10 != 0 || round < 2)) {
            while world.append(key, 2000, false).is_err() {
                world.run_for(Duration::from_millis(5));
            }
        }
        world.run_for(Duration::from_millis(200));
    }
    let damage = world.store().damage();
    assert!(damage.iter().any(|damage| damage.partition == Some(partition) && damage.kind == DamageKind::Record));
    assert!(world.store().statistics().compacted_segments > 0);
    assert!(matches!(world.read(50), Some(Err(ReadError::Corrupt { .. }))));
    world.append(50, 2000, false).unwrap();
    world.make_durable();
    for key in 0..100 {
        world.check_read(key);
    }
    world.check_accounting();
}

#[test]
fn a_read_that_is_overtaken_gives_what_is_newest() {
    let mut world = World::new(13, plain());
    world.open();
    several_segments(&mut world, 60);
    for key in 0..60 {
        let store = world.store().clone();
        let (partition, name) = World::key(key);
        let read = world.executor.spawn_for_result(1, async move { store.read(partition, &name).await });
        // The disk read is under way when the key is written anew.
        world.executor.run_until_stalled();
        world.append(key, 100, false).unwrap();
        world.run_for(Duration::from_millis(100));
        let body = read.take().expect("it has ended").unwrap().map(|body| body.to_vec());
        let wanted = world.keys[&key].versions.last().map(|version| version.body(key));
        assert_eq!(body, wanted, "key {key}");
    }
}

fn remove(world: &World, file: &str) {
    let (disk, file) = (world.disk.clone(), file.to_owned());
    let removed = world.disk.run(&world.executor, async move { disk.remove(&file).await });
    removed.unwrap().unwrap();
}

#[test]
fn a_rotten_checkpoint_is_passed_over() {
    let mut world = World::new(8, config());
    world.open();
    several_segments(&mut world, 100);
    world.run_for(Duration::from_millis(500));
    several_segments(&mut world, 100);
    world.close().unwrap();
    let names: Vec<_> = world.disk.names().into_iter().filter(|(name, _)| name.starts_with("checkpoint-")).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let snapshot = world.disk.snapshot();
    for rotten in 0..=2_usize {
        for part in (0..100).step_by(if rotten == 1 { 1 } else { 20 }) {
            world.disk.restore(&snapshot);
            world.kill();
            for (name, _) in names.iter().rev().take(rotten) {
                // What lies behind the last section is padding.
                let bytes = world.disk.contents(name).unwrap();
                let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64;
                assert!(world.disk.corrupt(name, used * part / 100, 1));
            }
            if rotten == 2 {
                // What was forgotten could come back.
                let refused = world.try_open().unwrap();
                assert!(matches!(refused, Err(OpenError::Checkpoints)), "{refused:?}");
                // Whoever takes that on starts from the log alone.
                names.iter().for_each(|(name, _)| remove(&world, name));
            }
            world.open();
            let bad = if rotten == 2 { 0 } else { rotten as u64 };
            assert_eq!((world.report.checkpoints_bad, world.report.damaged), (bad, 0));
            assert_eq!(world.report.checkpoint.is_some(), rotten < 2);
            assert_eq!(world.report.clean, rotten == 0);
            world.check_recovered(0..100);
        }
    }
}

#[test]
fn a_rotten_segment_header_costs_nothing_but_is_reported() {
    let mut world = small_log(16);
    assert!(world.disk.corrupt("segment-000000", 9, 1));
    world.crash();
    world.open();
    assert_eq!(world.report.damaged, 1);
    world.check_recovered(0..16);
}

#[test]
fn a_missing_segment_is_reported_and_its_keys_read_as_corrupt() {
    let mut world = World::new(11, config());
    world.open();
    several_segments(&mut world, 100);
    world.close().unwrap();
    let segment = {
        world.open();
        let (partition, name) = World::key(3);
        let segment = world.store().lookup(partition, &name).unwrap().place.segment();
        world.close().unwrap();
        segment
    };
    remove(&world, &format!("segment-{segment:06}"));
    world.open();
    assert!(world.report.damaged > 0);
    assert!(matches!(world.read(3), Some(Err(ReadError::Corrupt { .. }))));
    world.append(3, 100, false).unwrap();
    world.check_read(3);
}

/// A disk that says done but wrote nothing, or elsewhere.
#[test]
fn a_lost_or_misdirected_write_is_found() {
    for fault in [SilentFault::Lost, SilentFault::Misdirected] {
        let mut world = World::new(12, plain());
        world.open();
        for key in 0..5 {
            world.append(key, 300, false).unwrap();
            world.make_durable();
        }
        world.disk.spoil_next_write(fault);
        world.append(2, 300, false).unwrap();
        world.make_durable();
        for key in 5..9 {
            world.append(key, 300, false).unwrap();
            world.make_durable();
        }
        assert!(!matches!(world.read(2), Some(Ok(None))));
        world.kill();
        world.open();
        assert!(world.report.damaged > 0, "{fault:?} went unnoticed");
        for key in [0, 1, 3, 4, 5, 6, 7, 8] {
            let read = world.read(key).unwrap();
            assert!(read.is_ok() || fault == SilentFault::Misdirected, "{fault:?}: key {key}: {read:?}");
        }
    }
}

#[test]
fn what_cannot_be_opened_says_why_and_changes_nothing() {
    let mut world = small_log(3);
    world.close().unwrap();
    let snapshot = world.disk.names();
    let refused = |world: &mut World, config: Config| {
        let kept = std::mem::replace(&mut world.config, config);
        let error = world.try_open().unwrap().expect_err("it opened");
        world.config = kept;
        error
    };
    let other = Config { partitions: 9, ..plain() };
    assert!(matches!(refused(&mut world, other), OpenError::Mismatch { what: "partitions", stored: 8, wanted: 9 }));
    let other = Config { seed: 8, ..plain() };
    assert!(matches!(refused(&mut world, other), OpenError::Mismatch { what: "hash seed", .. }));
    let other = Config { segment_bytes: 2 * plain().segment_bytes, ..plain() };
    assert!(matches!(refused(&mut world, other), OpenError::Mismatch { what: "a segment size in bytes of", .. }));
    let other = Config { segment_bytes: 5, ..plain() };
    assert!(matches!(refused(&mut world, other), OpenError::Config(_)));
    assert_eq!(world.disk.names(), snapshot);

    // A segment of another store.
    let mut stranger = World::new(77, Config { store: 4711, ..plain() });
    stranger.open();
    let bytes = stranger.disk.contents("segment-000000").unwrap();
    let original = world.disk.contents("segment-000000").unwrap();
    assert!(world.disk.overwrite("segment-000000", 0, &bytes[..BLOCK]));
    assert!(matches!(refused(&mut world, plain()), OpenError::Foreign { .. }));
    // A newer format: its checksum is right.
    let mut newer = original[..BLOCK].to_vec();
    newer[4] = 3;
    let checksum = crc32fast::hash(&newer[..28]);
    newer[28..32].copy_from_slice(&checksum.to_le_bytes());
    assert!(world.disk.overwrite("segment-000000", 0, &newer));
    let error = refused(&mut world, plain());
    assert!(matches!(error, OpenError::Version { version: 3, .. }), "{error}");
    assert!(world.disk.overwrite("segment-000000", 0, &original[..BLOCK]));
    // The file that says whose the segments are.
    assert!(world.disk.corrupt("store.blob", 20, 1));
    assert!(matches!(refused(&mut world, plain()), OpenError::Io { .. }));
    world.disk.run(&world.executor, {
        let disk = world.disk.clone();
        async move {
            use quorate_engine::disk::Disk;
            disk.remove("store.blob").await.unwrap();
        }
    });
    assert!(matches!(refused(&mut world, plain()), OpenError::Unidentified));
}
