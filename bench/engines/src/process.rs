//! What this process has used, and how busy the machine is.
//!
//! Not here: the load generator's own, which watches other processes (`bench/src/process`).

use rustix::time::{ClockId, clock_gettime};
use std::{fs, io, time::Duration};

fn number_after(file: &str, label: &str) -> io::Result<u64> {
    let text = fs::read_to_string(file)?;
    let number = text.lines().find_map(|line| line.strip_prefix(label)?.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("{file} has no number after {label}")))
}

/// Bytes that this process caused to be written to disks.
pub(crate) fn written_bytes() -> io::Result<u64> {
    number_after("/proc/self/io", "write_bytes:")
}

/// The most memory that this process ever had resident.
pub(crate) fn memory_bytes_max() -> io::Result<u64> {
    Ok(number_after("/proc/self/status", "VmHWM:")? * 1024)
}

/// CPU time of all threads of this process.
pub(crate) fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The machine's load average of the last minute; 0 where it is not told.
pub(crate) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0.0)
}
