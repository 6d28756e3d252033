//! Processes that end with this one, however it ends.
//!
//! The rule: the kernel ends them, not we, who may be killed. Only a process itself can ask for that, so each child is
//! this program first, which asks and then becomes what was wanted; its process id stays.
//!
//! Not here: which processes (`side`).

use std::{
    ffi::OsString,
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use rustix::process::{Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal};

use crate::run::Error;

/// How long a process may take that was told to end: longer than `quorate dev` gives its nodes.
const END_MAX: Duration = Duration::from_secs(25);
const TICK: Duration = Duration::from_millis(10);

/// What becomes another program, and ends with its parent.
#[derive(Parser, Clone, Debug)]
pub struct BoundArgs {
    /// The parent's process id.
    parent: i32,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// Becomes the program. Returns only when that fails.
pub(crate) fn become_bound(args: &BoundArgs) -> Error {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return Error::Machine(format!("cannot watch process {}: {error}", args.parent));
    }
    // It may have gone before the kernel was asked to watch it.
    if getppid() != Pid::from_raw(args.parent) {
        return Error::Machine(format!("process {}, which started this one, is gone", args.parent));
    }
    let (program, arguments) = args.command.split_first().expect("clap wants at least one");
    let error = Command::new(program).args(arguments).exec();
    Error::Machine(format!("cannot run {}: {error}", program.display()))
}

/// A process that was started here.
pub(super) struct Child {
    name: String,
    process: process::Child,
    log: PathBuf,
}

impl Child {
    /// Starts `program`, which says what it says into `log`. Must be called by a thread that lives as long as it shall.
    pub(super) fn start(name: &str, program: &Path, arguments: &[OsString], log: &Path) -> Result<Self, Error> {
        let cannot = |error: std::io::Error| Error::Machine(format!("cannot start {name}: {error}"));
        let output = File::create(log).map_err(cannot)?;
        let process = Command::new(std::env::current_exe().map_err(cannot)?)
            .args(["bench", "bound", &getpid().as_raw_nonzero().to_string(), "--"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(cannot)?)
            .stderr(output)
            // Ctrl-C in the terminal reaches this process alone, which then ends them.
            .process_group(0)
            .spawn()
            .map_err(cannot)?;
        Ok(Self { name: name.to_owned(), process, log: log.to_owned() })
    }

    pub(super) fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// An error with the end of its log if it has ended.
    pub(super) fn check_running(&mut self) -> Result<(), Error> {
        match self.process.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                let text = fs::read_to_string(&self.log).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let end = lines[lines.len().saturating_sub(10)..].join("\n  ");
                Err(Error::Servers(format!("{} ended ({status}). It said at last:\n  {end}", self.name)))
            }
            Err(error) => Err(Error::Machine(format!("cannot wait for {}: {error}", self.name))),
        }
    }

    /// Tells it to end, and kills it if it does not.
    pub(super) fn end(&mut self) {
        // What ended before needs no signal, and its id may be another's.
        if self.process.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = kill_process(self.pid(), Signal::TERM);
            let deadline = Instant::now() + END_MAX;
            while Instant::now() < deadline && self.process.try_wait().is_ok_and(|status| status.is_none()) {
                thread::sleep(TICK);
            }
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
