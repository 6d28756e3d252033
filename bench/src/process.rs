//! What processes on this machine have used: CPU time, bytes written, memory; and how busy the machine is.
//!
//! The rule: figures are differences between two samples of the same process; one that was started again in between has
//! none.
//!
//! Not here: what the figures are set against (`report`).

use std::{fs, io, path::Path, time::Duration};

use rustix::{
    param::clock_ticks_per_second,
    time::{ClockId, clock_gettime},
};
use serde::Serialize;

/// One process at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Sample {
    pub pid: u32,
    /// Tells a process from a later one with the same pid.
    started: u64,
    pub user: Duration,
    pub system: Duration,
    pub written_bytes: u64,
    pub memory_bytes_max: u64,
}

/// What a process used between two samples.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Used {
    /// Its node's directory, or its pid.
    pub name: String,
    /// CPU time in user mode, seconds.
    pub user_seconds: f64,
    /// CPU time in the kernel, seconds.
    pub system_seconds: f64,
    /// Bytes that it caused to be written to disks.
    pub written_bytes: u64,
    /// The most memory that it ever had resident.
    pub memory_bytes_max: u64,
}

impl Sample {
    /// The process now.
    pub(crate) fn take(pid: u32) -> io::Result<Self> {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
        let bad = |file: &str| io::Error::other(format!("/proc/{pid}/{file} has an unknown form"));
        let stat = read("stat")?;
        // The command's name may hold blanks and brackets: fields count from the last bracket.
        let (_, fields) = stat.rsplit_once(')').ok_or_else(|| bad("stat"))?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let field = |number: usize| {
            let text = fields.get(number - 3).ok_or_else(|| bad("stat"))?;
            text.parse::<u64>().map_err(|_| bad("stat"))
        };
        let ticks = |count: u64| Duration::from_secs_f64(count as f64 / clock_ticks_per_second() as f64);
        let number_after = |text: &str, label: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(label))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        Ok(Self {
            pid,
            started: field(22)?,
            user: ticks(field(14)?),
            system: ticks(field(15)?),
            written_bytes: number_after(&read("io")?, "write_bytes:").ok_or_else(|| bad("io"))?,
            memory_bytes_max: number_after(&read("status")?, "VmHWM:").ok_or_else(|| bad("status"))? * 1024,
        })
    }

    /// What was used since `earlier`; `None` when it is another process.
    pub(crate) fn since(&self, earlier: &Self, name: &str) -> Option<Used> {
        (self.pid == earlier.pid && self.started == earlier.started).then(|| Used {
            name: name.to_owned(),
            user_seconds: (self.user - earlier.user).as_secs_f64(),
            system_seconds: (self.system - earlier.system).as_secs_f64(),
            written_bytes: self.written_bytes - earlier.written_bytes,
            memory_bytes_max: self.memory_bytes_max,
        })
    }
}

/// The servers to watch: a name and where the pid is found.
pub(crate) struct Servers(Vec<(String, Found)>);

enum Found {
    Pid(u32),
    File(std::path::PathBuf),
}

impl Servers {
    pub(crate) fn by_pids(pids: &[u32]) -> Self {
        Self(pids.iter().map(|&pid| (format!("pid {pid}"), Found::Pid(pid))).collect())
    }

    /// The nodes of a local cluster: `dir/node-*/pid`.
    pub(crate) fn in_dir(dir: &Path) -> Result<Self, String> {
        let cannot = |error: io::Error| format!("cannot read {}: {error}", dir.display());
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).map_err(cannot)? {
            let path = entry.map_err(cannot)?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if name.starts_with("node-") && path.join("pid").is_file() {
                found.push((name, Found::File(path.join("pid"))));
            }
        }
        if found.is_empty() {
            return Err(format!("{} has no node-*/pid: is a cluster running there?", dir.display()));
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Self(found))
    }

    /// All servers now; `None` for one that is not running.
    pub(crate) fn sample(&self) -> Vec<Option<Sample>> {
        let pid = |found: &Found| match found {
            Found::Pid(pid) => Some(*pid),
            Found::File(path) => fs::read_to_string(path).ok()?.trim().parse().ok(),
        };
        self.0.iter().map(|(_, found)| Sample::take(pid(found)?).ok()).collect()
    }

    /// What each server used between two samples; `None` for one that was not the same all the time.
    pub(crate) fn used(&self, before: &[Option<Sample>], after: &[Option<Sample>]) -> Vec<(String, Option<Used>)> {
        let pairs = before.iter().zip(after);
        let used = |name: &str, (before, after): (&Option<Sample>, &Option<Sample>)| {
            after.as_ref()?.since(before.as_ref()?, name)
        };
        self.0.iter().zip(pairs).map(|((name, _), pair)| (name.clone(), used(name, pair))).collect()
    }
}

/// The CPU time of this process.
pub(crate) fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The machine's load average over the last minute.
pub(crate) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_measured() {
        let before = Sample::take(std::process::id()).unwrap();
        let cpu = own_cpu();
        // Burns CPU until a tick must have passed.
        let mut x = 1_u64;
        while own_cpu() - cpu < Duration::from_millis(60) {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        let used = Sample::take(std::process::id()).unwrap().since(&before, "this").unwrap();
        assert!(used.user_seconds + used.system_seconds >= 0.04, "{used:?}");
        assert!(used.memory_bytes_max > 1 << 20);
        let other = Sample { started: before.started + 1, ..before.clone() };
        assert_eq!(other.since(&before, "restarted"), None);
    }

    #[test]
    fn a_cluster_is_found_by_its_pid_files() {
        let dir = std::env::temp_dir().join(format!("quorate-bench-{}", std::process::id()));
        let node = dir.join("node-1");
        fs::create_dir_all(&node).unwrap();
        assert!(Servers::in_dir(&dir).is_err());
        fs::write(node.join("pid"), format!("{}\n", std::process::id())).unwrap();
        let servers = Servers::in_dir(&dir).unwrap();
        let (before, after) = (servers.sample(), servers.sample());
        let used = servers.used(&before, &after);
        assert_eq!((used.len(), used[0].0.as_str()), (1, "node-1"));
        assert!(used[0].1.is_some());
        fs::remove_dir_all(&dir).unwrap();
    }
}
