//! What is seen of the machine, as plain values.
//!
//! The rule: /proc and /sys are read below a root directory, so that they can be another machine's; what a kernel does
//! not tell is absent and no error.
//!
//! Not here: the data directories (`place`), and what any of it means (`checks`).

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use quorate_node::config::Config;
use rustix::process::{Pid, Resource};

use super::{
    kernel::{Mount, chosen, cpus_in, mounts, read},
    place::Place,
};
use crate::{
    ports::{self, Refused},
    probe::{self, Problem},
};

pub(super) struct Facts {
    /// The kernel's version, as it calls itself.
    pub(super) kernel: String,
    /// `kernel.io_uring_disabled`, where there is such a setting.
    pub(super) io_uring_disabled: Option<u64>,
    /// System calls of this process are filtered.
    pub(super) filtered: bool,
    pub(super) ring: Result<(), Problem>,
    /// Bytes that may be locked.
    pub(super) locked_memory: u64,
    /// Files that may be open.
    pub(super) open_files: u64,
    /// The CPUs that this process may run on.
    pub(super) cpus: Vec<usize>,
    /// For each CPU those that share its execution units, itself among them.
    pub(super) siblings: BTreeMap<usize, Vec<usize>>,
    /// The frequency governor of each CPU that has one.
    pub(super) governors: BTreeMap<usize, String>,
    /// The tightest limit on CPU time.
    pub(super) quota: Option<Quota>,
    pub(super) clock_source: String,
    pub(super) clock_sources: String,
    /// When the kernel makes huge pages by itself: always, madvise or never.
    pub(super) huge_pages: Option<String>,
    /// Devices and files.
    pub(super) swaps: Vec<String>,
    pub(super) swappiness: u64,
    pub(super) time: io::Result<Time>,
    pub(super) ports: Ports,
    pub(super) places: Vec<Place>,
}

/// A control group's limit on CPU time.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Quota {
    pub(super) cpus: f64,
    /// Where it is set.
    pub(super) file: PathBuf,
}

/// How the kernel's clock is kept.
pub(super) struct Time {
    pub(super) synchronised: bool,
    /// It is wrong by so many microseconds at most.
    pub(super) error_us: i64,
}

pub(super) enum Ports {
    Free,
    /// The node of this configuration runs.
    Own(Pid),
    Refused(Refused),
}

impl Facts {
    /// Looks at the machine for a node of this configuration, which `runs`, or may do so.
    pub(super) fn gather(root: &Path, config: &Config, runs: Option<Pid>) -> Self {
        let text = |path: &str| read(root, path);
        let cpus = cpus_of(root);
        let of_each = |file: &str| -> BTreeMap<usize, String> {
            let of = |&cpu| Some((cpu, text(&format!("sys/devices/system/cpu/cpu{cpu}/{file}"))?));
            cpus.iter().filter_map(of).collect()
        };
        let mounts = mounts(&text("proc/self/mountinfo").unwrap_or_default());
        let clock = |file: &str| text(&format!("sys/devices/system/clocksource/clocksource0/{file}"));
        Self {
            kernel: text("proc/sys/kernel/osrelease").unwrap_or_default(),
            io_uring_disabled: text("proc/sys/kernel/io_uring_disabled").and_then(|text| text.parse().ok()),
            filtered: status_of(root, "Seccomp:").is_some_and(|mode| mode == "2"),
            ring: probe::check_ring(),
            locked_memory: probe::hard_limit(Resource::Memlock),
            open_files: probe::hard_limit(Resource::Nofile),
            siblings: of_each("topology/thread_siblings_list")
                .into_iter()
                .map(|(cpu, list)| (cpu, cpus_in(&list)))
                .collect(),
            governors: of_each("cpufreq/scaling_governor"),
            quota: quota(root, &mounts),
            clock_source: clock("current_clocksource").unwrap_or_default(),
            clock_sources: clock("available_clocksource").unwrap_or_default(),
            huge_pages: text("sys/kernel/mm/transparent_hugepage/enabled").map(|text| chosen(&text).to_owned()),
            swaps: swaps(&text("proc/swaps").unwrap_or_default()),
            swappiness: text("proc/sys/vm/swappiness").and_then(|text| text.parse().ok()).unwrap_or(0),
            time: time(),
            ports: match (runs, ports::check(config.member())) {
                (_, Ok(())) => Ports::Free,
                (Some(pid), Err(_)) => Ports::Own(pid),
                (None, Err(refused)) => Ports::Refused(refused),
            },
            places: Place::all(root, config, &mounts),
            cpus,
        }
    }
}

/// A field of this process's status.
fn status_of(root: &Path, field: &str) -> Option<String> {
    let status = read(root, "proc/self/status")?;
    Some(status.lines().find_map(|line| line.strip_prefix(field))?.trim().to_owned())
}

/// The CPUs that this process may run on.
pub(super) fn cpus_of(root: &Path) -> Vec<usize> {
    cpus_in(&status_of(root, "Cpus_allowed_list:").unwrap_or_default())
}

/// The first line is a heading.
fn swaps(text: &str) -> Vec<String> {
    text.lines().skip(1).filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// The tightest of the limits on this process's group and on those around it.
fn quota(root: &Path, mounts: &[Mount]) -> Option<Quota> {
    let groups = read(root, "proc/self/cgroup")?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mount = mounts.iter().find(|mount| mount.kind == "cgroup2")?;
    let limits = Path::new(own).ancestors().filter_map(|group| {
        let file = mount.point.join(group).join("cpu.max");
        let text = read(root, file.strip_prefix("/").ok()?)?;
        let (quota, period) = text.split_once(' ')?;
        Some(Quota { cpus: quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?, file })
    });
    limits.min_by(|a, b| a.cpus.total_cmp(&b.cpus))
}

fn time() -> io::Result<Time> {
    #[expect(unsafe_code, reason = "there is no safe call for it")]
    // SAFETY: all zeros are a value of this plain struct, which asks to change nothing; the kernel fills it in.
    let (state, timex) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut timex), timex)
    };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Time { synchronised: state != libc::TIME_ERROR, error_us: timex.maxerror })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn swaps_are_listed() {
        assert_eq!(swaps("Filename Type Size\n/dev/sda2 partition 5\n/swap file 4\n"), ["/dev/sda2", "/swap"]);
        assert!(swaps("Filename Type Size\n").is_empty());
    }

    #[test]
    fn the_tightest_quota_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let mounts = mounts("1 1 0:5 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw");
        write("proc/self/cgroup", "3:cpuset:/other\n0::/a/b\n");
        assert_eq!(quota(root.path(), &mounts), None);
        write("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
        assert_eq!(quota(root.path(), &mounts), None);
        write("sys/fs/cgroup/a/cpu.max", "150000 100000\n");
        let file = PathBuf::from("/sys/fs/cgroup/a/cpu.max");
        assert_eq!(quota(root.path(), &mounts), Some(Quota { cpus: 1.5, file }));
        write("sys/fs/cgroup/a/b/cpu.max", "50000 100000\n");
        assert_eq!(quota(root.path(), &mounts).map(|quota| quota.cpus), Some(0.5));
    }

    #[test]
    fn the_clock_is_asked_and_not_set() {
        let before = std::time::SystemTime::now();
        // Some sandboxes forbid it.
        if let Ok(time) = time() {
            assert!(time.error_us >= 0);
        }
        assert!(before.elapsed().unwrap() < std::time::Duration::from_secs(60));
    }
}
