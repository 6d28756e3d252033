//! The file `pid` beside a node's configuration, which says which process serves it. For a configuration in `/etc`, where nodes
//! do not write, it is at the same place in `/run`.
//!
//! The rule: a number in a file proves nothing, since numbers are given out again. A node runs only if the process of
//! that number is a `quorate serve` of this very configuration.

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, getpid};

use crate::failure::{Failure, failed};

/// Held while a node runs; the file goes when it is dropped.
pub(crate) struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Says that this process serves `config`.
    pub(crate) fn claim(config: &Path) -> Result<Self, Failure> {
        check_not_running(config)?;
        let path = path_of(config);
        // Renamed into place, so that nobody reads half a number.
        let temporary = path.with_file_name(format!("pid.{}", getpid().as_raw_nonzero()));
        let written = fs::write(&temporary, format!("{}\n", getpid().as_raw_nonzero()));
        let placed = written.and_then(|()| fs::rename(&temporary, &path));
        placed.map_err(|error| {
            failed(format!("cannot write {}: {error}; the node's user must be able to", path.display()))
        })?;
        Ok(Self { path })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Another process may have taken over a configuration that was copied here; its claim stays.
        if read(&self.path) == Some(getpid()) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The process that serves `config`, if one does: never this process.
pub(crate) fn running(config: &Path) -> Option<Pid> {
    let pid = read(&path_of(config))?;
    (pid != getpid() && serves(pid, config)).then_some(pid)
}

/// An error that names the process that serves `config`, if one does.
pub(crate) fn check_not_running(config: &Path) -> Result<(), Failure> {
    let Some(pid) = running(config) else { return Ok(()) };
    let (shown, pid) = (config.display(), pid.as_raw_nonzero());
    Err(failed(format!("{shown} is served already, by process {pid}; stop it first: kill {pid}")))
}

fn path_of(config: &Path) -> PathBuf {
    let beside = config.with_file_name("pid");
    let absolute = std::path::absolute(&beside).unwrap_or_else(|_| beside.clone());
    absolute.strip_prefix("/etc").map_or(beside, |path| Path::new("/run").join(path))
}

fn read(path: &Path) -> Option<Pid> {
    let number: i32 = fs::read_to_string(path).ok()?.trim().parse().ok()?;
    // A negative number would name a whole group of processes.
    if number > 0 { Pid::from_raw(number) } else { None }
}

/// Whether the process is a `quorate serve` of `config`. A dead one that nobody waited for has no command line.
fn serves(pid: Pid, config: &Path) -> bool {
    let directory = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    let Ok(command_line) = fs::read(directory.join("cmdline")) else { return false };
    let arguments: Vec<OsString> =
        command_line.split(|byte| *byte == 0).map(|part| OsString::from_vec(part.to_vec())).collect();
    if !arguments.iter().any(|argument| argument == "serve") {
        return false;
    }
    let Ok(wanted) = fs::canonicalize(config) else { return false };
    let named = arguments.iter().flat_map(|argument| {
        let bytes = argument.as_encoded_bytes();
        let joined = bytes.strip_prefix(b"--config=").map(|path| PathBuf::from(OsString::from_vec(path.to_vec())));
        [Some(PathBuf::from(argument)), joined].into_iter().flatten()
    });
    // A relative path is meant from where that process was started.
    named.into_iter().any(|path| fs::canonicalize(directory.join("cwd").join(path)).is_ok_and(|path| path == wanted))
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    /// A process whose command line is `arguments`, until it is dropped.
    struct Process(Child);

    impl Process {
        fn start(arguments: &[&str], directory: &Path) -> Self {
            let mut command = Command::new("sh");
            command.args(["-c", "read line; exit", "quorate"]).args(arguments).current_dir(directory);
            let process = Self(command.stdin(std::process::Stdio::piped()).spawn().unwrap());
            // The kernel lets the parent go on a moment before the new command line is in place.
            process.wait_until(|command_line| command_line.starts_with(b"sh\0"));
            process
        }

        fn wait_until(&self, reached: impl Fn(&[u8]) -> bool) {
            let path = format!("/proc/{}/cmdline", self.0.id());
            while !reached(&fs::read(&path).unwrap()) {
                std::thread::yield_now();
            }
        }
    }

    impl Drop for Process {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn running_with(content: impl Into<String>, directory: &Path) -> bool {
        let config = directory.join("config.toml");
        fs::write(&config, "").unwrap();
        fs::write(directory.join("pid"), content.into()).unwrap();
        running(&config).is_some()
    }

    #[test]
    fn what_is_configured_in_etc_runs_in_run() {
        for (config, pid) in [
            ("/etc/quorate/quorate.toml", "/run/quorate/pid"),
            ("/etc/quorate/../quorate/a.toml", "/run/quorate/../quorate/pid"),
            ("/home/etc/quorate.toml", "/home/etc/pid"),
            ("dir/config.toml", "dir/pid"),
            ("config.toml", "pid"),
        ] {
            assert_eq!(path_of(Path::new(config)), Path::new(pid));
        }
    }

    #[test]
    fn only_a_serve_of_this_configuration_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::write(path.join("config.toml"), "").unwrap();
        fs::write(path.join("other.toml"), "").unwrap();
        for (arguments, wanted) in [
            (&["serve", "--config", "config.toml"][..], true),
            (&["serve", "--config=config.toml"], true),
            (&["serve", "--config", "other.toml"], false),
            (&["status", "config.toml"], false),
        ] {
            let process = Process::start(arguments, path);
            assert_eq!(running_with(format!("{}\n", process.0.id()), path), wanted, "{arguments:?}");
        }
    }

    #[test]
    fn a_stale_or_broken_file_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let mut process = Process::start(&["serve", "--config", "config.toml"], directory.path());
        let pid = process.0.id();
        process.0.kill().unwrap();
        process.wait_until(<[u8]>::is_empty);
        // Dead, but not waited for: still there, and yet not running.
        assert!(!running_with(pid.to_string(), directory.path()));
        for content in ["", "x", "0", "-1", "99999999999999999999"] {
            assert!(!running_with(content, directory.path()), "{content}");
        }
    }

    #[test]
    fn a_claim_is_taken_over_from_the_dead_and_goes_with_its_holder() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config.toml");
        assert!(!running_with("999999999", directory.path()));
        let claim = PidFile::claim(&config).unwrap();
        assert_eq!(read(&directory.path().join("pid")), Some(getpid()));
        drop(claim);
        assert!(!directory.path().join("pid").exists());

        let process = Process::start(&["serve", "--config", "config.toml"], directory.path());
        fs::write(directory.path().join("pid"), process.0.id().to_string()).unwrap();
        let error = PidFile::claim(&config).err().expect("it is served").to_string();
        assert!(error.contains(&format!("kill {}", process.0.id())), "{error}");
    }
}
