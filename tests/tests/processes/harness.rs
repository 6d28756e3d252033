//! The program under test, its processes, and waiting for them.

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

/// For what takes a moment. A machine that is busy with other tests may need a long one.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The `quorate` binary beside this test's, built first if it is missing or out of date.
pub(crate) fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let test = std::env::current_exe().expect("a test has a path");
        // target/PROFILE/deps/TEST
        let profile = test.parent().and_then(Path::parent).expect("tests lie in target/PROFILE/deps").to_owned();
        let name = match profile.file_name().and_then(|name| name.to_str()) {
            Some("debug") => "dev",
            Some(name) => name,
            None => panic!("{} is no profile", profile.display()),
        };
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", "quorate", "--profile", name, "--target-dir"])
            .arg(profile.parent().expect("the profile lies in the target directory"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(built.is_ok_and(|status| status.success()), "cannot build the quorate binary");
        profile.join("quorate")
    })
}

/// `quorate` with these arguments, not yet started.
pub(crate) fn quorate(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).stdin(Stdio::null());
    command
}

/// What a command said and how it ended.
pub(crate) struct Said {
    pub(crate) status: ExitStatus,
    pub(crate) out: String,
    pub(crate) error: String,
}

impl Said {
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Fails unless the command failed with exit code 1 and words like these.
    pub(crate) fn assert_failed(&self, words: &[&str]) {
        assert_eq!(self.code(), Some(1), "out: {}\nerror: {}", self.out, self.error);
        for word in words {
            assert!(self.error.contains(word), "wanted: {word}\ngot: {}", self.error);
        }
    }

    pub(crate) fn assert_ok(&self) -> &Self {
        assert_eq!(self.code(), Some(0), "out: {}\nerror: {}", self.out, self.error);
        self
    }
}

/// Runs a command to its end, which it must reach by itself.
pub(crate) fn run(command: &mut Command) -> Said {
    let process = Process::start(command.stderr(Stdio::piped()));
    let (child, _out) = process.into_parts();
    let output = child.wait_with_output().expect("its output can be read");
    Said {
        status: output.status,
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        error: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A process that does not outlive its test.
pub(crate) struct Process {
    child: Option<Child>,
    lines: Option<BufReader<ChildStdout>>,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdout(Stdio::piped());
        #[expect(unsafe_code, reason = "only here can a child ask to die with its parent")]
        // SAFETY: between fork and exec this makes one system call, and allocates nothing.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self { child: Some(child), lines: None }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("it was not waited for"))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a child that was not waited for can be signalled");
    }

    /// Whether each of its threads was stopped.
    pub(crate) fn stands_still(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid().as_raw_nonzero())).expect("it runs");
        let stat = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        // The state stands behind the name, which may hold anything.
        tasks.flatten().map(stat).all(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
    }

    /// The next lines that it prints, up to one with these words.
    pub(crate) fn read_until(&mut self, words: &str) -> String {
        let child = self.child.as_mut().expect("it was not waited for");
        let lines = self.lines.get_or_insert_with(|| BufReader::new(child.stdout.take().expect("it is piped")));
        let mut text = String::new();
        loop {
            let start = text.len();
            let bytes = lines.read_line(&mut text).expect("it prints text");
            assert!(bytes > 0, "it ended without saying {words:?}, but: {text}");
            if text[start..].contains(words) {
                return text;
            }
        }
    }

    /// All that it prints until its end.
    pub(crate) fn read_to_end(&mut self) -> String {
        let child = self.child.as_mut().expect("it was not waited for");
        let lines = self.lines.get_or_insert_with(|| BufReader::new(child.stdout.take().expect("it is piped")));
        let mut text = String::new();
        lines.read_to_string(&mut text).expect("it prints text");
        text
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("a child can be waited for").is_none())
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("it was not waited for");
        let status = wait_for("the end of a process", || child.try_wait().expect("a child can be waited for"));
        self.child = None;
        status
    }

    /// As `kill -9` does it.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn into_parts(mut self) -> (Child, Option<BufReader<ChildStdout>>) {
        (self.child.take().expect("it was not waited for"), self.lines.take())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How often a test does what it repeats: a few times, or as the environment variable `name` says.
pub(crate) fn times(name: &str, few: usize) -> usize {
    let text = std::env::var(name).ok();
    text.map_or(few, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// Looks again and again until there is something.
pub(crate) fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_long_for(what, PATIENCE, look)
}

/// The same, for what may take a while by its nature.
pub(crate) fn wait_long_for<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether the process is there and not dead.
pub(crate) fn is_alive(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    // The state stands behind the name, which may hold anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The most memory that the process ever had, in bytes.
pub(crate) fn peak_memory(pid: Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("every process has a peak");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("it is a number") << 10
}
