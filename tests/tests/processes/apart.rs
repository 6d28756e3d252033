//! A test in namespaces of its own, so that it may change networks and mount file systems.
//!
//! The rule: nothing of it has a name outside, so the kernel takes all away with its last process, however the test ends.
//! Where the kernel or the machine does not permit it, the test says why and is skipped.
//!
//! Not here: hosts and what is done to their network (`hosts`), file systems (`filesystem`).

use std::{
    fs::File,
    io::{self, Write},
    os::{fd::AsFd, unix::process::CommandExt},
    panic::resume_unwind,
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// Runs `test` on a thread with a network and with mounts of its own, if these programs are there.
pub(crate) fn apart(programs: &[&str], test: impl FnOnce() + Send) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |program: &&&str| std::env::split_paths(&path).any(|place| place.join(program).is_file());
    if let Some(missing) = programs.iter().find(|program| !found(program)) {
        return skip(&format!("there is no `{missing}`"));
    }
    // A thread of its own, since a test may run on the main thread, which others need as it is.
    let result = thread::scope(|scope| {
        let run = || {
            if let Err(error) = unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS) {
                return skip(&format!("namespaces are not permitted: {error}"));
            }
            command("mount", "--make-rprivate /");
            command("ip", "link set lo up");
            test();
        };
        // Under the test's name, for what it says.
        let name = thread::current().name().unwrap_or("a test").to_owned();
        thread::Builder::new().name(name).spawn_scoped(scope, run).expect("a thread can be started").join()
    });
    if let Err(panic) = result {
        resume_unwind(panic);
    }
}

/// Past the capture of what tests print: who reads a green run shall see what did not run.
pub(crate) fn skip(reason: &str) {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(io::stderr(), "{test}: skipped: {reason}");
}

/// A network that lasts as long as this, or as a process in it.
#[derive(Clone)]
pub(crate) struct Network(Arc<File>);

impl Network {
    pub(crate) fn new() -> Self {
        let make = || {
            unshare(UnshareFlags::NEWNET).expect("it was permitted a moment ago");
            File::open("/proc/thread-self/ns/net").expect("every thread is in a network")
        };
        let network = Self(Arc::new(thread::spawn(make).join().expect("it does not panic")));
        network.command("ip", "link set lo up");
        network
    }

    /// What `ip` takes for a network's name.
    pub(crate) fn path(&self) -> String {
        use std::os::fd::AsRawFd;
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// The process will live in this network.
    pub(crate) fn enter(&self, command: &mut Command) {
        let network = self.0.clone();
        #[expect(unsafe_code, reason = "a child must change its network before it starts its program")]
        // SAFETY: between fork and exec this makes one system call, and allocates nothing.
        unsafe {
            command.pre_exec(move || Ok(move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?));
        }
    }

    pub(crate) fn command(&self, program: &str, arguments: &str) {
        let mut command = Command::new(program);
        self.enter(&mut command);
        succeed(command.args(arguments.split_whitespace()));
    }
}

/// Runs a program of the system, which must succeed. What it printed.
pub(crate) fn command(program: &str, arguments: &str) -> String {
    succeed(Command::new(program).args(arguments.split_whitespace()))
}

fn succeed(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn unshare(what: UnshareFlags) -> rustix::io::Result<()> {
    #[expect(unsafe_code, reason = "it would be unsafe for tables of files, which are not asked for")]
    // SAFETY: the table of files stays shared.
    unsafe {
        unshare_unsafe(what)
    }
}
