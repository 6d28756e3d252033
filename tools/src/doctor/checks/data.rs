//! The checks of the data directories, and of what was measured.

use std::io;

use quorate_bench::Latency;
use quorate_node::config::{Commit, Config};

use super::super::{
    finding::Finding,
    jitter::Jitter,
    place::{Alignment, BLOCK_BYTES, Disk, Place},
};
use crate::table::{micros, size};

/// What the store was made for and is tested on.
const FILE_SYSTEMS: [&str; 2] = ["ext4", "xfs"];

/// What is gone when the machine stops.
const IN_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];

/// Of the time that one request in a thousand may take longer than: as much may the disk take for a commit, and as much may a
/// CPU be late.
const DISK_SHARE: u128 = 2;
const JITTER_SHARE: u128 = 10;

/// All that need no measurement.
pub(super) fn all(place: &Place) -> [Finding; 5] {
    [file_system(place), direct(place), scheduler(place), write_cache(place), free(place)]
}

fn file_system(place: &Place) -> Finding {
    let kind = place.mount.as_ref().map_or("unknown", |mount| &mount.kind);
    let fix = "set `data` in [node] to a directory on one of these: `findmnt -t ext4,xfs`";
    Finding::new(
        "file system",
        format!("{kind} at {}", place.path.display()),
        "ext4 or xfs",
        "it must keep what was written and synced, and write over a block in place, without a copy of it",
    )
    .warn_if(!FILE_SYSTEMS.contains(&kind), fix)
    .fail_if(IN_MEMORY.contains(&kind), fix)
}

fn direct(place: &Place) -> Finding {
    let path = place.path.display();
    let (measured, fix) = match &place.direct {
        Ok(Alignment { offset: Some(offset), memory: Some(memory) }) => (
            format!("in blocks of {offset} B, from memory at {memory} B"),
            "take a disk or a file system with smaller blocks: `lsblk -o NAME,LOG-SEC,PHY-SEC`".to_owned(),
        ),
        Ok(_) => ("works".to_owned(), String::new()),
        Err(error) => (format!("{path}: {error}"), direct_fix(place, error)),
    };
    let coarse = |bytes: Option<u32>| bytes.is_some_and(|bytes| bytes as usize > BLOCK_BYTES);
    let works = place.direct.as_ref().is_ok_and(|told| !coarse(told.offset) && !coarse(told.memory));
    Finding::new(
        "O_DIRECT",
        measured,
        format!("in blocks of {BLOCK_BYTES} B or less"),
        "the store reads and writes past the page cache",
    )
    .fail_if(!works, fix)
}

fn direct_fix(place: &Place, error: &io::Error) -> String {
    let path = place.path.display();
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("let the user that runs the node write there: `sudo chown USER {path}`")
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "`sudo mount -o remount,rw` the file system, or set another `data`".to_owned()
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => room(place),
        _ => "set `data` in [node] to a directory on one of these: `findmnt -t ext4,xfs`".to_owned(),
    }
}

fn scheduler(place: &Place) -> Finding {
    let told = told(&place.disks, |disk| disk.scheduler.as_deref());
    let slow = place.disks.iter().find(|disk| {
        let of_groups = |scheduler: &str| scheduler.starts_with("bfq") || scheduler == "cfq";
        disk.scheduler.as_deref().is_some_and(of_groups)
    });
    let fix = slow
        .map_or_else(String::new, |disk| format!("`echo none | sudo tee /sys/block/{}/queue/scheduler`", disk.name));
    Finding::new(
        "disk scheduler",
        told,
        "none, mq-deadline or kyber",
        "one that shares the disk out between processes lets it idle between two commits",
    )
    .warn_if(slow.is_some(), fix)
}

fn write_cache(place: &Place) -> Finding {
    let unflushed = |option: &String| option == "nobarrier" || option == "barrier=0";
    let mount = place.mount.as_ref().filter(|mount| mount.options.iter().any(unflushed));
    let volatile = place.disks.iter().any(|disk| disk.write_cache.as_deref() == Some("write back"));
    let told = told(&place.disks, |disk| disk.write_cache.as_deref());
    let fix = mount.map_or_else(String::new, |mount| {
        format!("`sudo mount -o remount,barrier=1 {}`, and take the option out of /etc/fstab", mount.point.display())
    });
    Finding::new(
        "disk cache",
        if mount.is_some() { format!("{told}; mounted so that it is not flushed") } else { told },
        "write through, or flushed by a sync",
        "what a disk has in its cache when the power fails is lost, though it was acknowledged",
    )
    .fail_if(mount.is_some() && volatile, fix)
}

/// Something of each disk, or that none is seen.
fn told<'a>(disks: &'a [Disk], of: impl Fn(&'a Disk) -> Option<&'a str>) -> String {
    let each = disks.iter().map(|disk| format!("{}: {}", disk.name, of(disk).unwrap_or("none"))).collect::<Vec<_>>();
    if each.is_empty() { "no disk is seen".to_owned() } else { each.join(", ") }
}

fn free(place: &Place) -> Finding {
    let free = *place.free.as_ref().unwrap_or(&0);
    let more = |bytes: u64| bytes.saturating_sub(place.stored);
    let measured = match &place.free {
        Ok(free) => format!("{}, {} stored", size(*free), size(place.stored)),
        Err(error) => error.to_string(),
    };
    let wanted = match place.capacity {
        Some(capacity) => format!("{} more, for `capacity`", size(more(capacity))),
        None => format!("{} more at the least", size(more(place.least))),
    };
    Finding::new("free space", measured, wanted, "a store that finds no room takes no writes")
        .warn_if(place.capacity.is_some_and(|capacity| free < more(capacity)), room(place))
        .fail_if(free < more(place.least), room(place))
}

/// How to come to have room.
fn room(place: &Place) -> String {
    let path = place.path.display();
    let find = format!("`sudo du -xh -d1 {path} | sort -h` shows what takes it");
    // A tenth is left for checkpoints, and for whoever else writes there.
    let fits = (place.stored + place.free.as_ref().unwrap_or(&0)) / 10 * 9 / place.cores.max(1);
    if place.capacity.is_some() && fits * place.cores >= place.least {
        format!("{find}; or set `capacity = \"{}MiB\"` in [store]", fits >> 20)
    } else {
        format!("{find}; make room, or set `data` in [node] to a directory with more")
    }
}

/// Of the disk under `place`, as it was measured: writes with O_DSYNC, and writes with an fdatasync after each.
pub(in super::super) fn latency(place: &Place, ways: &Result<Vec<Latency>, String>, config: &Config) -> Finding {
    let level = config.service_level.p999.as_micros();
    let wanted = level / DISK_SHARE;
    let commit = config.cores.first().map_or(Commit::Dsync, |core| core.store.commit);
    let path = place.path.display();
    let tail = |way: &Latency| way.p999_us as u128;
    let (measured, slow, fix) = match ways {
        Ok(ways) => {
            let [dsync, fdatasync, ..] = &ways[..] else { unreachable!("both are measured") };
            let shown =
                |way: &Latency| format!("p50 {}, p99.9 {}", micros(way.p50_us as u64), micros(way.p999_us as u64));
            let (used, other, name) = match commit {
                Commit::Dsync => (dsync, fdatasync, "fdatasync"),
                Commit::Fdatasync => (fdatasync, dsync, "dsync"),
            };
            let fix = match tail(other) <= wanted {
                true => {
                    format!("set `commit = \"{name}\"` in [store], and measure longer: `quorate bench disk {path}`")
                }
                false => format!(
                    "see who else writes: `iostat -x 1`; measure longer: `quorate bench disk {path}`; take another disk, \
                     or promise less: `p999` in [slo]"
                ),
            };
            (format!("O_DSYNC {}; fdatasync {}", shown(dsync), shown(fdatasync)), tail(used) > wanted, fix)
        }
        Err(error) => (format!("not measured: {error}"), true, format!("`quorate bench disk {path}` tells more")),
    };
    Finding::new(
        "disk latency",
        measured,
        format!("p99.9 {} at most, of the {} in [slo]", micros(wanted as u64), micros(level as u64)),
        "a durable put waits for a commit on W nodes",
    )
    .warn_if(slow, fix)
}

/// Of one CPU, as it was measured.
pub(in super::super) fn jitter(cpu: usize, jitter: &io::Result<Jitter>, config: &Config) -> Finding {
    let level = config.service_level.p999.as_micros();
    let wanted = (level / JITTER_SHARE) as u64;
    let measured = match jitter {
        Ok(Jitter { p50, p999, max }) => {
            format!("CPU {cpu}: p50 {}, p99.9 {}, max {}", micros(*p50), micros(*p999), micros(*max))
        }
        Err(error) => format!("CPU {cpu}: {error}"),
    };
    Finding::new(
        "jitter",
        measured,
        format!("p99.9 {} at most, of the {} in [slo]", micros(wanted), micros(level as u64)),
        "as late as a sleeping thread wakes here, a core sees each request",
    )
    .warn_if(
        !jitter.as_ref().is_ok_and(|jitter| jitter.p999 <= wanted),
        format!(
            "see who else runs there: `ps -eLo psr,pcpu,comm --sort=-pcpu | awk '$1 == {cpu}' | head`; keep others off: \
             `isolcpus={cpu}` for the kernel; on a virtual machine ask for CPUs of its own"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::{assumed, finding::Verdict},
        *,
    };

    fn place(direct: io::Result<Alignment>) -> Place {
        let (disks, path) = (Vec::new(), "/data".into());
        Place { path, mount: None, disks, direct, free: Ok(1 << 30), stored: 0, capacity: None, least: 0, cores: 1 }
    }

    fn way(p999_us: f64) -> Latency {
        let (name, p50_us) = (String::new(), 100.0);
        let rest = (1000, 100.0, 100.0, p999_us, p999_us, p999_us);
        let (count, mean_us, p90_us, p99_us, p9999_us, max_us) = rest;
        Latency { name, count, mean_us, p50_us, p90_us, p99_us, p999_us, p9999_us, max_us }
    }

    #[test]
    fn a_slow_disk_is_told_with_the_way_that_is_quicker() {
        let (place, mut config) = (place(Ok(Alignment { memory: None, offset: None })), assumed(1).unwrap());
        let judge = |ways: [f64; 2], config: &Config| {
            let found = latency(&place, &Ok(ways.map(way).to_vec()), config);
            (found.verdict, found.fix.unwrap_or_default())
        };
        assert_eq!(judge([5000.0, 9000.0], &config).0, Verdict::Ok);
        let (verdict, fix) = judge([5001.0, 4000.0], &config);
        assert!(verdict == Verdict::Warn && fix.contains("`commit = \"fdatasync\"`"), "{fix}");
        let (verdict, fix) = judge([5001.0, 9000.0], &config);
        assert!(verdict == Verdict::Warn && fix.contains("another disk"), "{fix}");
        config.cores[0].store.commit = Commit::Fdatasync;
        let (verdict, fix) = judge([4000.0, 9000.0], &config);
        assert!(verdict == Verdict::Warn && fix.contains("`commit = \"dsync\"`"), "{fix}");
        config.service_level.p999 *= 2;
        assert_eq!(judge([4000.0, 9000.0], &config).0, Verdict::Ok);
        let found = latency(&place, &Err("no room".into()), &config);
        assert!(found.verdict == Verdict::Warn && found.measured.contains("no room"));
    }

    #[test]
    fn a_cpu_that_wakes_late_is_told() {
        let config = assumed(1).unwrap();
        let judge = |p999| jitter(3, &Ok(Jitter { p50: 50, p999, max: 9000 }), &config);
        assert_eq!(judge(1000).verdict, Verdict::Ok);
        assert_eq!(judge(1000).measured, "CPU 3: p50 50 µs, p99.9 1.0 ms, max 9.0 ms");
        let found = judge(1001);
        assert!(found.verdict == Verdict::Warn && found.fix.is_some_and(|fix| fix.contains("$1 == 3")));
        assert_eq!(jitter(3, &Err(io::Error::other("no such CPU")), &config).verdict, Verdict::Warn);
    }

    #[test]
    fn direct_io_must_work_in_small_blocks() {
        let judge = |tried| direct(&place(tried)).verdict;
        assert_eq!(judge(Ok(Alignment { memory: Some(4), offset: Some(4096) })), Verdict::Ok);
        assert_eq!(judge(Ok(Alignment { memory: Some(4), offset: Some(16_384) })), Verdict::Fail);
        assert_eq!(judge(Ok(Alignment { memory: Some(8192), offset: Some(512) })), Verdict::Fail);
        assert_eq!(judge(Err(io::Error::from_raw_os_error(libc::EINVAL))), Verdict::Fail);
        let found = direct(&place(Err(io::Error::from_raw_os_error(libc::EACCES))));
        assert!(found.fix.is_some_and(|fix| fix.contains("sudo chown USER /data")));
    }
}
