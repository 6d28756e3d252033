//! The start-up probe: can this machine run a node at all?
//!
//! The rule: what is missing is told with its cure before anything is opened. Soft limits are raised to what is needed,
//! hard ones, which somebody set on purpose, are not.

use std::{fmt, fs, io};

use io_uring::{IoUring, Probe, opcode};
use quorate_node::config::{Core, cpus};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A core has so many rings, and registers its buffers with each of them.
const RINGS_PER_CORE: u64 = 3;

/// What a core's rings lock into memory beside that.
const RING_BYTES_PER_CORE: u64 = 256 << 10;

/// The CPUs that the kernel runs.
const ONLINE: &str = "/sys/devices/system/cpu/online";

/// Files and listeners of a core, without its clients and peers.
const FILES_PER_CORE: u64 = 64;

/// Clients and peers that a node must be able to serve at the least.
pub(crate) const CONNECTIONS_MIN: u64 = 256;

/// Why a node cannot run here. Nothing was started.
#[derive(Debug)]
pub(crate) enum Problem {
    /// The kernel gave no ring.
    NoRing(io::Error),
    /// The kernel is too old for some operations.
    MissingOperations(Vec<&'static str>),
    /// Too little memory may be locked.
    LockedMemory { limit: u64, needed: u64, cores: usize },
    /// Too few files may be open.
    OpenFiles { limit: u64, needed: u64 },
    /// A core is pinned to a CPU that is not there.
    NoCpu { cpu: usize, online: String },
}

/// Whether a node of these cores can run here; raises what limits can be raised.
pub(crate) fn check(cores: &[Core]) -> Result<(), Problem> {
    check_cpus(cores)?;
    check_locked_memory(raise(Resource::Memlock), cores)?;
    check_open_files(raise(Resource::Nofile), cores.len(), CONNECTIONS_MIN)?;
    check_ring()
}

/// Whether the CPUs that cores are pinned to are there.
fn check_cpus(cores: &[Core]) -> Result<(), Problem> {
    // Where it cannot be read the executors themselves will say what they miss.
    let online = fs::read_to_string(ONLINE).unwrap_or_default().trim().to_owned();
    let Ok(cpus) = cpus(&online) else { return Ok(()) };
    match cores.iter().filter_map(|core| core.cpu).find(|cpu| !cpus.contains(cpu)) {
        Some(cpu) => Err(Problem::NoCpu { cpu, online }),
        None => Ok(()),
    }
}

/// How many bytes the executors lock.
pub(crate) fn locked_memory_needed(cores: &[Core]) -> u64 {
    cores.iter().map(|core| RINGS_PER_CORE * core.memory as u64 + RING_BYTES_PER_CORE).sum()
}

/// Whether the executors may lock what they want.
pub(crate) fn check_locked_memory(limit: u64, cores: &[Core]) -> Result<(), Problem> {
    let needed = locked_memory_needed(cores);
    if limit < needed { Err(Problem::LockedMemory { limit, needed, cores: cores.len() }) } else { Ok(()) }
}

/// Whether the cores can have their files open, and so many connections beside them.
pub(crate) fn check_open_files(limit: u64, cores: usize, connections: u64) -> Result<(), Problem> {
    let needed = FILES_PER_CORE * cores as u64 + connections;
    if limit < needed { Err(Problem::OpenFiles { limit, needed }) } else { Ok(()) }
}

/// Whether the kernel gives a ring, and one that can do all that is asked of it.
pub(crate) fn check_ring() -> Result<(), Problem> {
    let mut probe = Probe::new();
    let ring = IoUring::new(8).map_err(Problem::NoRing)?;
    ring.submitter().register_probe(&mut probe).map_err(Problem::NoRing)?;
    let missing: Vec<_> =
        operations().into_iter().filter(|(code, _)| !probe.is_supported(*code)).map(|(_, name)| name).collect();
    if missing.is_empty() { Ok(()) } else { Err(Problem::MissingOperations(missing)) }
}

/// All that the executors ask of the kernel.
fn operations() -> [(u8, &'static str); 22] {
    [
        (opcode::Nop::CODE, "nop"),
        (opcode::Readv::CODE, "readv"),
        (opcode::Writev::CODE, "writev"),
        (opcode::Fsync::CODE, "fsync"),
        (opcode::ReadFixed::CODE, "read fixed"),
        (opcode::WriteFixed::CODE, "write fixed"),
        (opcode::PollAdd::CODE, "poll add"),
        (opcode::PollRemove::CODE, "poll remove"),
        (opcode::SendMsg::CODE, "sendmsg"),
        (opcode::RecvMsg::CODE, "recvmsg"),
        (opcode::Timeout::CODE, "timeout"),
        (opcode::TimeoutRemove::CODE, "timeout remove"),
        (opcode::Accept::CODE, "accept"),
        (opcode::LinkTimeout::CODE, "link timeout"),
        (opcode::Connect::CODE, "connect"),
        (opcode::Fallocate::CODE, "fallocate"),
        (opcode::OpenAt::CODE, "openat"),
        (opcode::Close::CODE, "close"),
        (opcode::Statx::CODE, "statx"),
        (opcode::Read::CODE, "read"),
        (opcode::Write::CODE, "write"),
        (opcode::Send::CODE, "send"),
    ]
}

/// What a limit can be raised to.
pub(crate) fn hard_limit(resource: Resource) -> u64 {
    getrlimit(resource).maximum.unwrap_or(u64::MAX)
}

/// Raises the soft limit to the hard one; what then holds.
fn raise(resource: Resource) -> u64 {
    let Rlimit { maximum, .. } = getrlimit(resource);
    // Refused at worst: then the old limit holds, and is what is checked.
    let _ = setrlimit(resource, Rlimit { current: maximum, maximum });
    getrlimit(resource).current.unwrap_or(u64::MAX)
}

impl Problem {
    /// What to do about it.
    pub(crate) fn cure(&self) -> String {
        match self {
            Self::NoRing(error) => match error.raw_os_error() {
                Some(libc::ENOSYS) => "Linux 5.8 or newer with io_uring allowed is needed".to_owned(),
                Some(libc::EPERM | libc::EACCES) => {
                    "Set `sysctl kernel.io_uring_disabled=0`, and in a container allow \
                                                     the io_uring system calls in its seccomp profile"
                        .to_owned()
                }
                _ => "`dmesg | tail` may tell more".to_owned(),
            },
            Self::MissingOperations(_) => "Take Linux 5.8 or newer".to_owned(),
            Self::LockedMemory { needed, .. } => format!(
                "Raise the limit: `ulimit -l {}` in the shell, `LimitMEMLOCK={needed}` in a systemd unit, or `memlock` in \
                 /etc/security/limits.conf",
                needed >> 10
            ),
            Self::NoCpu { .. } => {
                "Correct `cpus` in [node] or `cpu` in [[core]], or start with --overprovisioned".to_owned()
            }
            Self::OpenFiles { needed, .. } => format!(
                "Raise the limit: `ulimit -n {needed}` in the shell, or `LimitNOFILE={needed}` in a systemd unit"
            ),
        }
    }

    /// What is the matter.
    pub(crate) fn what(&self) -> String {
        match self {
            Self::NoRing(error) => match error.raw_os_error() {
                Some(libc::ENOSYS) => {
                    "no io_uring: this kernel (or the container's seccomp profile) does not offer it".to_owned()
                }
                Some(libc::EPERM | libc::EACCES) => "no io_uring: it is forbidden here".to_owned(),
                _ => format!("no io_uring: the kernel gave no ring: {error}"),
            },
            Self::MissingOperations(names) => {
                format!("this kernel's io_uring is too old, it lacks: {}", names.join(", "))
            }
            Self::LockedMemory { limit, needed, cores } => format!(
                "too little memory may be locked: {} KiB, but {cores} cores need {} KiB",
                limit >> 10,
                needed >> 10
            ),
            Self::OpenFiles { limit, needed } => {
                format!("too few files may be open: {limit}, but at least {needed} are needed")
            }
            Self::NoCpu { cpu, online } => {
                format!("a core is pinned to CPU {cpu}, but this machine runs the CPUs {online}")
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}. {}", self.what(), self.cure())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_problem_is_told_with_its_cure() {
        for (problem, wanted) in [
            (Problem::NoRing(io::Error::from_raw_os_error(libc::ENOSYS)), "Linux 5.8"),
            (Problem::NoRing(io::Error::from_raw_os_error(libc::EPERM)), "sysctl kernel.io_uring_disabled=0"),
            (Problem::NoRing(io::Error::from_raw_os_error(libc::ENOMEM)), "no io_uring"),
            (Problem::MissingOperations(vec!["statx", "openat"]), "lacks: statx, openat"),
            (Problem::LockedMemory { limit: 65_536, needed: 4 << 20, cores: 4 }, "64 KiB, but 4 cores need 4096 KiB"),
            (Problem::LockedMemory { limit: 65_536, needed: 4 << 20, cores: 4 }, "`ulimit -l 4096`"),
            (Problem::LockedMemory { limit: 65_536, needed: 4 << 20, cores: 4 }, "LimitMEMLOCK=4194304"),
            (Problem::OpenFiles { limit: 100, needed: 320 }, "`ulimit -n 320`"),
            (
                Problem::NoCpu { cpu: 8, online: "0-3".into() },
                "CPU 8, but this machine runs the CPUs 0-3. Correct `cpus`",
            ),
        ] {
            assert!(problem.to_string().contains(wanted), "{problem}");
        }
    }
}
