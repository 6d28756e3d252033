//! Load by `quorate bench` that checks what it reads, and what it reports.

use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;

use super::harness::{Process, quorate};

/// A load under way.
pub(crate) struct Load {
    process: Process,
    directory: TempDir,
}

/// What it found, and how it was answered.
pub(crate) struct Report(Value);

impl Load {
    /// Load on these servers; `--verify` and the files are added to the options. Any loss and any stale read fails it.
    pub(crate) fn start(servers: &str, options: &str) -> Self {
        // Not among the nodes' files, whose disk may be what fails.
        let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory can be made");
        let mut command = quorate(&["bench", "--servers", servers, "--verify", "--verify-wait", "60s", "--quiet"]);
        command
            .args(options.split_whitespace())
            .arg("--report")
            .arg(directory.path().join("report"))
            .stderr(Stdio::inherit());
        Self { process: Process::start(&mut command), directory }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Waits for its end; it must have found nothing wrong.
    pub(crate) fn end(mut self) -> Report {
        let said = self.process.read_to_end();
        assert_eq!(self.process.wait().code(), Some(0), "{said}");
        let text = std::fs::read(self.directory.path().join("report")).expect("a load that ended well has reported");
        Report(serde_json::from_slice(&text).expect("a report is JSON"))
    }
}

impl Report {
    pub(crate) fn count(&self, field: &str) -> u64 {
        self.0[field].as_u64().unwrap_or_else(|| panic!("no {field} in {}", self.0))
    }

    /// Requests that met an error; the operation may then have succeeded at another server.
    pub(crate) fn errors(&self) -> u64 {
        let errors = self.0["errors"].as_object().expect("a report has errors");
        errors.values().filter_map(|error| error["count"].as_u64()).sum()
    }

    /// Seconds that the slowest operation took, those that failed included.
    pub(crate) fn slowest(&self) -> f64 {
        self.longest(|name| name != "begun late")
    }

    fn longest(&self, counts: impl Fn(&str) -> bool) -> f64 {
        let rows = self.0["latencies"].as_array().expect("a report has latencies");
        let rows = rows.iter().filter(|row| row["name"].as_str().is_some_and(&counts));
        rows.filter_map(|row| row["max_us"].as_f64()).fold(0.0, f64::max) / 1e6
    }

    /// Fails if an operation failed.
    pub(crate) fn assert_none_failed(&self) {
        assert!(self.count("operations") > 100, "{}", self.0);
        assert_eq!(self.count("failed"), 0, "{}", self.0["errors"]);
    }

    /// Fails if an operation failed or took more than a second, beside what the machine let the load itself wait: each is timed
    /// from when it was to begin.
    pub(crate) fn assert_unharmed(&self) {
        self.assert_none_failed();
        let late = self.longest(|name| name == "begun late");
        let told = || format!("the slowest took {} s: {}", self.slowest(), self.0["latencies"]);
        assert!(self.slowest() <= 1.0 + late && late <= 4.0, "{}", told());
    }
}
