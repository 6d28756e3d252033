//! The simulated disk keeps its promises, and breaks everything that is not promised.

use super::*;
use std::collections::BTreeSet;

const SECTORS: usize = BLOCK / files::SECTOR;

struct Bench {
    disk: SimulatedDisk,
    executor: Executor,
}

impl Bench {
    fn new(seed: u64) -> Self {
        Self { disk: SimulatedDisk::new(seed, Timing::default()), executor: Executor::new() }
    }

    fn run<T: 'static, F: Future<Output = T> + 'static>(&self, future: impl FnOnce(SimulatedDisk) -> F) -> T {
        self.try_run(future).expect("the future ends")
    }

    fn try_run<T: 'static, F: Future<Output = T> + 'static>(
        &self,
        future: impl FnOnce(SimulatedDisk) -> F,
    ) -> Option<T> {
        self.disk.run(&self.executor, future(self.disk.clone()))
    }

    fn crash(&mut self) {
        self.disk.crash();
        self.disk = self.disk.reopen();
    }

    /// The first byte of each sector of a file.
    fn sectors(&self, name: &str) -> Vec<u8> {
        self.disk.contents(name).unwrap().iter().step_by(files::SECTOR).copied().collect()
    }
}

fn filled(disk: &SimulatedDisk, blocks: usize, byte: u8) -> Rc<SimulatedBuffer> {
    let mut buffer = disk.buffer(blocks * BLOCK);
    buffer.fill(byte);
    Rc::new(buffer)
}

/// A file `name` of `blocks` blocks of 1s, all durable.
async fn durable_file(disk: &SimulatedDisk, name: &str, blocks: usize) -> SimulatedFile {
    let file = disk.open(name, false).await.unwrap();
    file.write(filled(disk, blocks, 1), 0).await.unwrap();
    file.sync().await.unwrap();
    disk.sync_directory().await.unwrap();
    file
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn a_seed_repeats_exactly() {
    let run = |seed| {
        let mut bench = Bench::new(seed);
        for round in 0..5_u8 {
            bench.run(|disk| async move {
                let file = disk.open(&format!("f{}", round % 2), round % 2 == 0).await.unwrap();
                for block in 0..20 {
                    file.write(filled(&disk, 1, round + 1), block * BLOCK as u64).await.unwrap();
                    disk.sleep(Duration::from_micros(block)).await;
                }
                if round == 2 {
                    file.sync().await.unwrap();
                    disk.sync_directory().await.unwrap();
                }
            });
            bench.crash();
        }
        let contents = bench.disk.names().iter().map(|(name, _)| bench.disk.contents(name)).collect::<Vec<_>>();
        (bench.disk.trace_hash(), bench.disk.now(), contents)
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn synced_bytes_survive_every_crash() {
    for seed in 0..50 {
        let mut bench = Bench::new(seed);
        bench.run(|disk| async move { durable_file(&disk, "a", 3).await });
        bench.crash();
        assert_eq!(bench.sectors("a"), [1; 3 * SECTORS], "seed {seed}");
    }
}

#[test]
fn durable_writes_survive_without_a_sync() {
    for seed in 0..50 {
        let mut bench = Bench::new(seed);
        bench.run(|disk| async move {
            durable_file(&disk, "a", 3).await;
            let file = disk.open("a", true).await.unwrap();
            file.write(filled(&disk, 2, 2), BLOCK as u64 * 2).await.unwrap();
        });
        bench.crash();
        let expected = [[1; 2 * SECTORS], [2; 2 * SECTORS]].concat();
        assert_eq!(bench.sectors("a"), expected, "seed {seed}");
    }
}

#[test]
fn each_unsynced_sector_is_lost_or_kept_or_zeroed() {
    let mut seen = BTreeSet::new();
    for seed in 0..50 {
        let mut bench = Bench::new(seed);
        bench.run(|disk| async move {
            let file = durable_file(&disk, "a", 1).await;
            file.write(filled(&disk, 1, 2), 0).await.unwrap();
        });
        assert_eq!(bench.sectors("a"), [2; SECTORS]);
        bench.crash();
        let sectors = bench.sectors("a");
        assert!(sectors.iter().all(|byte| *byte <= 2), "seed {seed}: {sectors:?}");
        seen.extend(sectors.windows(2).map(|pair| (pair[0], pair[1])));
        // What a crash has decided stays decided.
        bench.crash();
        assert_eq!(bench.sectors("a"), sectors);
    }
    // Any two neighbours in any two of the three states.
    assert_eq!(seen.len(), 9, "{seen:?}");
}

#[test]
fn a_sync_does_not_cover_a_write_that_ends_after_its_start() {
    // The write ends while the sync is under way, or after it.
    for (write_slowness, sync_slowness) in [(1, 1000), (1000, 1)] {
        let mut torn = 0;
        for seed in 0..100 {
            let mut bench = Bench::new(seed);
            bench.run(|disk| async move {
                let file = durable_file(&disk, "a", 1).await;
                disk.set_slowness(write_slowness);
                let mut write = Box::pin(file.write(filled(&disk, 1, 2), 0));
                assert!(futures_lite::future::poll_once(&mut write).await.is_none());
                disk.set_slowness(sync_slowness);
                file.sync().await.unwrap();
                write.await.unwrap();
            });
            bench.crash();
            torn += u32::from(bench.sectors("a") != [2; SECTORS]);
        }
        assert!(torn > 50, "{torn} of 100");
    }
}

#[test]
fn operations_under_way_never_return_after_a_crash() {
    let mut bench = Bench::new(1);
    bench.run(|disk| async move { durable_file(&disk, "a", 1).await });
    let old = bench.disk.clone();
    let ended = bench.executor.spawn_for_result(0, {
        let disk = old.clone();
        async move {
            let file = disk.open("a", false).await.unwrap();
            file.write(filled(&disk, 1, 2), 0).await.unwrap();
        }
    });
    bench.executor.run_until_stalled();
    bench.crash();
    assert_eq!(bench.disk.next_due(), None);
    // The old handle is dead, too.
    let late = bench.executor.spawn_for_result(0, async move { old.sleep(Duration::ZERO).await });
    bench.run(|disk| async move { disk.sleep(Duration::from_secs(1)).await });
    assert_eq!((ended.take(), late.take()), (None, None));
    assert_eq!(bench.sectors("a"), [1; SECTORS]);
}

#[test]
fn names_are_durable_only_after_a_sync_of_the_directory() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..100 {
        let mut bench = Bench::new(seed);
        bench.run(|disk| async move {
            durable_file(&disk, "old", 1).await;
            durable_file(&disk, "doomed", 1).await;
            let file = disk.open("new", false).await.unwrap();
            file.write(filled(&disk, 1, 2), 0).await.unwrap();
            file.sync().await.unwrap();
            disk.rename("new", "old").await.unwrap();
            disk.remove("doomed").await.unwrap();
        });
        bench.crash();
        // The old name is there in any case, with the old bytes or the new ones: a rename is atomic.
        let old = bench.sectors("old");
        assert!(old == [1; SECTORS] || old == [2; SECTORS], "{old:?}");
        outcomes.insert((old[0], bench.disk.names().len()));
    }
    // Old and new bytes, with and without each other name.
    assert_eq!(outcomes, BTreeSet::from([(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)]));
}

#[test]
fn a_directory_sync_covers_the_changes_before_it_alone() {
    for seed in 0..50 {
        let mut bench = Bench::new(seed);
        bench.run(|disk| async move {
            durable_file(&disk, "a", 1).await;
            disk.rename("a", "b").await.unwrap();
            disk.sync_directory().await.unwrap();
            disk.open("c", false).await.unwrap();
        });
        bench.crash();
        assert_eq!(bench.sectors("b"), [1; SECTORS]);
        assert!(bench.disk.contents("a").is_none());
    }
}

#[test]
fn a_directory_sync_does_not_cover_a_change_after_its_start() {
    let mut undone = 0;
    for seed in 0..50 {
        let mut bench = Bench::new(seed);
        bench.run(|disk| async move {
            durable_file(&disk, "a", 1).await;
            disk.rename("a", "b").await.unwrap();
            disk.set_slowness(1000);
            let mut sync = Box::pin(disk.sync_directory());
            assert!(futures_lite::future::poll_once(&mut sync).await.is_none());
            disk.set_slowness(1);
            disk.rename("b", "c").await.unwrap();
            sync.await.unwrap();
        });
        bench.crash();
        undone += u32::from(bench.disk.contents("b").is_some());
        assert!(bench.disk.contents("a").is_none());
    }
    assert!((10..40).contains(&undone), "{undone} of 50");
}

#[test]
fn a_durable_write_makes_the_length_that_it_needs_durable() {
    for seed in 0..50 {
        let mut bench = Bench::new(seed);
        bench.run(|disk| async move {
            durable_file(&disk, "a", 4).await;
            let file = disk.open("a", true).await.unwrap();
            file.truncate(BLOCK as u64).await.unwrap();
            file.allocate(6 * BLOCK as u64).await.unwrap();
            file.write(filled(&disk, 1, 2), 3 * BLOCK as u64).await.unwrap();
        });
        bench.crash();
        assert_eq!(bench.sectors("a")[3 * SECTORS..4 * SECTORS], [2; SECTORS], "seed {seed}");
    }
}

#[test]
fn lengths_are_durable_only_after_a_sync() {
    let mut lengths = BTreeSet::new();
    for seed in 0..50 {
        let mut bench = Bench::new(seed);
        bench.run(|disk| async move {
            let file = durable_file(&disk, "a", 2).await;
            file.allocate(4 * BLOCK as u64).await.unwrap();
            assert_eq!(file.length().await.unwrap(), 4 * BLOCK as u64);
            file.truncate(BLOCK as u64).await.unwrap();
        });
        bench.crash();
        lengths.insert(bench.disk.names()[0].1 / BLOCK as u64);
    }
    assert_eq!(lengths, BTreeSet::from([1, 2, 4]));
}

#[test]
fn what_was_cut_off_reads_as_zeros_when_the_file_grows_again() {
    let mut bench = Bench::new(1);
    bench.run(|disk| async move {
        let file = durable_file(&disk, "a", 3).await;
        file.truncate(BLOCK as u64).await.unwrap();
        file.allocate(3 * BLOCK as u64).await.unwrap();
        file.sync().await.unwrap();
    });
    let expected = [vec![1; SECTORS], vec![0; 2 * SECTORS]].concat();
    assert_eq!(bench.sectors("a"), expected);
    bench.crash();
    assert_eq!(bench.sectors("a"), expected);
}

#[test]
fn a_failed_sync_is_not_made_good_by_the_next_one() {
    let mut lost = 0;
    for seed in 0..50 {
        let mut bench = Bench::new(seed);
        bench.run(|disk| async move {
            let file = durable_file(&disk, "a", 1).await;
            file.write(filled(&disk, 1, 2), 0).await.unwrap();
            disk.fail_next(Kind::Sync, libc::EIO);
            assert_eq!(errno(file.sync().await), Some(libc::EIO));
            file.sync().await.unwrap();
        });
        bench.crash();
        lost += u32::from(bench.sectors("a") != [2; SECTORS]);
    }
    assert!(lost > 25, "{lost} of 50");
}

#[test]
fn operations_fail_once_or_until_mended() {
    let bench = Bench::new(1);
    bench.run(|disk| async move {
        let file = durable_file(&disk, "a", 1).await;
        disk.fail_next(Kind::Read, libc::EIO);
        assert_eq!(errno(file.read(0, BLOCK).await), Some(libc::EIO));
        assert_eq!(file.read(0, BLOCK).await.unwrap(), [1; BLOCK]);
        disk.fail_always(Kind::Write, libc::EROFS);
        for _ in 0..3 {
            assert_eq!(errno(file.write(filled(&disk, 1, 2), 0).await), Some(libc::EROFS));
        }
        disk.mend();
        file.write(filled(&disk, 1, 3), 0).await.unwrap();
        assert_eq!(file.read(0, BLOCK).await.unwrap(), [3; BLOCK]);
    });
    assert_eq!(bench.disk.statistics().failed, 4);
}

#[test]
fn a_full_disk_refuses_growth_alone() {
    let bench = Bench::new(1);
    bench.run(|disk| async move {
        let file = durable_file(&disk, "a", 2).await;
        disk.fill();
        assert_eq!(errno(file.allocate(3 * BLOCK as u64).await), Some(libc::ENOSPC));
        assert_eq!(errno(file.write(filled(&disk, 2, 2), BLOCK as u64).await), Some(libc::ENOSPC));
        assert_eq!(file.read(0, 4 * BLOCK).await.unwrap(), [1; 2 * BLOCK]);
        file.write(filled(&disk, 2, 2), 0).await.unwrap();
        file.truncate(BLOCK as u64).await.unwrap();
        file.allocate(2 * BLOCK as u64).await.unwrap();
        disk.set_capacity(None);
        file.allocate(9 * BLOCK as u64).await.unwrap();
    });
}

#[test]
fn unaligned_io_is_refused() {
    let bench = Bench::new(1);
    bench.run(|disk| async move {
        let file = durable_file(&disk, "a", 1).await;
        assert_eq!(errno(file.read(512, BLOCK).await), Some(libc::EINVAL));
        assert_eq!(errno(file.read(0, 100).await), Some(libc::EINVAL));
        assert_eq!(errno(file.write(filled(&disk, 1, 2), 1).await), Some(libc::EINVAL));
    });
}

#[test]
fn spoiled_writes_are_reported_as_done() {
    let bench = Bench::new(1);
    bench.run(|disk| async move {
        let file = durable_file(&disk, "a", 4).await;
        disk.spoil_next_write(SilentFault::Lost);
        file.write(filled(&disk, 1, 2), 0).await.unwrap();
        assert_eq!(file.read(0, 4 * BLOCK).await.unwrap(), [1; 4 * BLOCK]);
        disk.spoil_next_write(SilentFault::Misdirected);
        file.write(filled(&disk, 1, 2), 0).await.unwrap();
        let read = file.read(0, 4 * BLOCK).await.unwrap();
        assert_eq!(read[0], 1);
        assert_eq!(read.iter().filter(|byte| **byte == 2).count(), BLOCK);
    });
}

#[test]
fn corruption_changes_each_byte_and_no_other() {
    let mut bench = Bench::new(1);
    bench.run(|disk| async move { durable_file(&disk, "a", 2).await });
    assert!(bench.disk.corrupt("a", 4090, 10));
    assert!(!bench.disk.corrupt("a", 8190, 3) && !bench.disk.corrupt("b", 0, 1));
    bench.crash();
    for (at, byte) in bench.disk.contents("a").unwrap().into_iter().enumerate() {
        assert_eq!(byte != 1, (4090..4100).contains(&at), "byte {at}");
    }
    assert!(bench.disk.overwrite("a", 0, &[7, 8]));
    assert_eq!(bench.disk.contents("a").unwrap()[..3], [7, 8, 1]);
}

#[test]
fn an_older_copy_can_be_put_in_place_and_everything_lost() {
    let mut bench = Bench::new(1);
    bench.run(|disk| async move { durable_file(&disk, "a", 1).await });
    let copy = bench.disk.snapshot();
    bench.run(|disk| async move {
        let file = disk.open("a", true).await.unwrap();
        file.write(filled(&disk, 1, 2), 0).await.unwrap();
        disk.open("b", true).await.unwrap();
    });
    bench.disk.restore(&copy);
    bench.disk = bench.disk.reopen();
    assert_eq!((bench.sectors("a"), bench.disk.names().len()), (vec![1; SECTORS], 1));
    bench.disk.lose_all();
    bench.disk = bench.disk.reopen();
    assert_eq!(bench.disk.names(), []);
    bench.run(|disk| async move { durable_file(&disk, "c", 1).await });
}

#[test]
fn a_killed_process_loses_nothing_that_was_written() {
    for seed in 0..50 {
        let mut bench = Bench::new(seed);
        bench.run(|disk| async move {
            let file = disk.open("a", false).await.unwrap();
            file.write(filled(&disk, 2, 1), 0).await.unwrap();
        });
        // One more write is under way: its blocks arrive or not, whole and from the first on.
        let _late = bench.executor.spawn_for_result(0, {
            let disk = bench.disk.clone();
            async move {
                let file = disk.open("a", false).await.unwrap();
                disk.set_slowness(1000);
                file.write(filled(&disk, 2, 2), 0).await.unwrap();
            }
        });
        bench.disk.run_until(&bench.executor, bench.disk.now() + Duration::from_millis(1));
        bench.disk.kill();
        bench.disk = bench.disk.reopen();
        let sectors = bench.sectors("a");
        assert!(sectors.is_sorted_by(|a, b| a >= b) && [1, 2].contains(&sectors[0]), "{sectors:?}");
        assert_eq!(sectors[..SECTORS], [sectors[0]; SECTORS]);
        // The next process may rely on what it reads once it has synced it.
        bench.disk.set_slowness(1);
        bench.run(|disk| async move {
            disk.open("a", false).await.unwrap().sync().await.unwrap();
            disk.sync_directory().await.unwrap();
        });
        bench.crash();
        assert_eq!(bench.sectors("a"), sectors);
    }
}

#[test]
fn a_halted_disk_stands_still_in_the_middle_of_the_nth_change() {
    for count in 1..=4 {
        let mut bench = Bench::new(count);
        bench.disk.halt_after(count);
        // Open, write, sync, sync of the directory; then a read, which changes nothing.
        let ended = bench.try_run(|disk| async move {
            let file = durable_file(&disk, "a", 1).await;
            file.read(0, BLOCK).await.unwrap();
        });
        assert!(ended.is_none() && bench.disk.is_halted());
        assert_eq!(bench.disk.statistics().writes, u64::from(count > 2));
        bench.crash();
        assert!(!bench.disk.is_halted());
        bench.run(|disk| async move { durable_file(&disk, "a", 1).await });
    }
    let bench = Bench::new(5);
    bench.disk.halt_after(5);
    bench.run(|disk| async move { durable_file(&disk, "a", 1).await.read(0, BLOCK).await.unwrap() });
}

#[test]
fn time_passes_only_as_it_is_advanced() {
    let bench = Bench::new(1);
    bench.run(|disk| async move {
        assert_eq!(disk.now(), Duration::ZERO);
        disk.sleep(Duration::from_secs(5)).await;
        assert_eq!(disk.now(), Duration::from_secs(5));
        let before = disk.now();
        let file = durable_file(&disk, "a", 1).await;
        let usual = disk.now() - before;
        assert!(usual > Duration::from_micros(100) && usual < Duration::from_millis(10), "{usual:?}");
        disk.set_slowness(1_000);
        let before = disk.now();
        file.read(0, BLOCK).await.unwrap();
        assert!(disk.now() - before > Duration::from_millis(30));
    });
}

#[test]
fn a_dropped_sleep_is_forgotten_and_a_dropped_write_is_not() {
    let bench = Bench::new(1);
    bench.run(|disk| async move {
        let file = durable_file(&disk, "a", 1).await;
        assert!(futures_lite::future::poll_once(disk.sleep(Duration::from_secs(9))).await.is_none());
        assert!(futures_lite::future::poll_once(file.write(filled(&disk, 1, 2), 0)).await.is_none());
    });
    bench.disk.run_until(&bench.executor, Duration::from_secs(1));
    assert_eq!(bench.disk.next_due(), None);
    assert_eq!(bench.sectors("a"), [2; SECTORS]);
}

#[test]
fn removed_files_are_readable_while_open_and_free_their_room() {
    let bench = Bench::new(1);
    bench.run(|disk| async move {
        let file = durable_file(&disk, "a", 1).await;
        disk.fill();
        disk.remove("a").await.unwrap();
        disk.sync_directory().await.unwrap();
        assert_eq!(file.read(0, BLOCK).await.unwrap(), [1; BLOCK]);
        durable_file(&disk, "b", 1).await;
        assert_eq!(errno(disk.remove("a").await), Some(libc::ENOENT));
    });
}
