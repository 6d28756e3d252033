//! Signals as flags that a command looks at: to end, and to read its configuration again.
//!
//! The rule: the first signal to end asks, and what was begun is put in order; the second ends the process at once, for whoever
//! does not want to wait.
//!
//! Not here: what a command does about it.

use std::{
    fs, io,
    sync::{Arc, atomic::AtomicBool},
};

pub(crate) use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{consts::SIGXFSZ, flag};

use crate::failure::{Failure, failed};

/// Becomes true at the first of these signals.
pub(crate) fn stop_flag(signals: &[i32]) -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    // That is what `nohup` is for. SIGINT is ignored by all that a script starts in the background, and asks all the same.
    let unheard = |signal: i32| signal == SIGHUP && ignored() >> (signal - 1) & 1 == 1;
    for &signal in signals.iter().filter(|&&signal| !unheard(signal)) {
        // In this order: the conditional exit sees the flag as the signals before left it.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))
            .and_then(|_| flag::register(signal, Arc::clone(&stop)))
            .map_err(|error| cannot(&error))?;
    }
    Ok(stop)
}

/// Becomes true each time at this signal, for whoever looks to set back.
pub(crate) fn flag(signal: i32) -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    flag::register(signal, Arc::clone(&flag)).map_err(|error| cannot(&error))?;
    Ok(flag)
}

/// A limit on file sizes shall be an error of the write, which is a full disk, and not the end of the process.
pub(crate) fn survive_file_size_limit() -> Result<(), Failure> {
    flag::register(SIGXFSZ, Arc::default()).map(drop).map_err(|error| cannot(&error))
}

/// A bit for each signal, the first for signal 1.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn cannot(error: &io::Error) -> Failure {
    failed(format!("cannot handle signals: {error}"))
}
