//! The peers: what each promises, where its program is, and how it is started.
//!
//! The rule: each runs as its makers would have it for this work, and is spared what it would do besides: snapshots, and
//! rewriting its files.
//!
//! Not here: processes (`side`).

use std::{
    ffi::{OsStr, OsString},
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use clap::ValueEnum;
use rustix::process::geteuid;

use super::report::Skipped;
use crate::args::TargetKind;

/// A peer that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Choice {
    /// Every peer that is installed.
    All,
    /// One redis-server that syncs its file before each answer.
    RedisAlways,
    /// One redis-server that syncs its file every second.
    RedisEverysec,
    /// One memcached.
    Memcached,
    /// Three nodes of etcd.
    Etcd,
    /// Garage, by its K2V interface.
    Garage,
}

/// A peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Peer {
    RedisAlways,
    RedisEverysec,
    Memcached,
    Etcd,
    Garage,
}

const ALL: [Peer; 5] = [Peer::RedisAlways, Peer::RedisEverysec, Peer::Memcached, Peer::Etcd, Peer::Garage];

/// A peer that can be started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Installed {
    pub(super) peer: Peer,
    pub(super) program: PathBuf,
    pub(super) version: String,
}

/// A peer that cannot, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Missing {
    pub(super) peer: Peer,
    pub(super) why: String,
}

impl Missing {
    pub(super) fn into_skipped(self) -> Skipped {
        Skipped { peer: self.peer.name().to_owned(), why: self.why, failed: false }
    }
}

/// Where a process listens: for clients, and for others of its kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    address: Ipv4Addr,
    port: u16,
    peer_port: u16,
}

impl Place {
    /// With ports that nobody uses right now.
    pub(super) fn free(address: Ipv4Addr) -> std::io::Result<Self> {
        // Both at once, or they could be the same.
        let (first, second) = (TcpListener::bind((address, 0))?, TcpListener::bind((address, 0))?);
        Ok(Self { address, port: first.local_addr()?.port(), peer_port: second.local_addr()?.port() })
    }

    /// For clients.
    pub(super) fn clients(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }
}

/// The peers that were asked for, each once, in the order of this page.
pub(super) fn chosen(choices: &[Choice]) -> Vec<Peer> {
    let wanted =
        |peer: &Peer| choices.contains(&Choice::All) || choices.iter().any(|choice| choice.peer() == Some(*peer));
    ALL.into_iter().filter(wanted).collect()
}

impl Choice {
    fn peer(self) -> Option<Peer> {
        match self {
            Self::All => None,
            Self::RedisAlways => Some(Peer::RedisAlways),
            Self::RedisEverysec => Some(Peer::RedisEverysec),
            Self::Memcached => Some(Peer::Memcached),
            Self::Etcd => Some(Peer::Etcd),
            Self::Garage => Some(Peer::Garage),
        }
    }
}

impl Peer {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RedisAlways => "redis-always",
            Self::RedisEverysec => "redis-everysec",
            Self::Memcached => "memcached",
            Self::Etcd => "etcd",
            Self::Garage => "garage",
        }
    }

    /// What a put is worth once it is answered.
    pub(super) fn promise(self) -> &'static str {
        match self {
            Self::RedisAlways => "one process, appendfsync always: one copy, on disk before the answer",
            Self::RedisEverysec => "one process, appendfsync everysec: one copy, on disk a second later",
            Self::Memcached => "one process: one copy, in memory",
            Self::Etcd => "three nodes: on the disks of two before the answer; gets are linearizable",
            Self::Garage => "three nodes",
        }
    }

    pub(super) fn speaks(self) -> TargetKind {
        match self {
            Self::RedisAlways | Self::RedisEverysec => TargetKind::Resp,
            Self::Memcached => TargetKind::Memcached,
            Self::Etcd => TargetKind::Etcd,
            Self::Garage => unreachable!("it is never found to be installed"),
        }
    }

    /// How many processes.
    pub(super) fn processes(self) -> usize {
        if matches!(self, Self::Etcd | Self::Garage) { 3 } else { 1 }
    }

    /// Its program, how it tells its version, and how to install it.
    fn program(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::RedisAlways | Self::RedisEverysec => ("redis-server", "--version", "apt-get install redis-server"),
            Self::Memcached => ("memcached", "--version", "apt-get install memcached"),
            Self::Etcd => ("etcd", "--version", "apt-get install etcd-server"),
            Self::Garage => ("garage", "--version", "see garagehq.deuxfleurs.fr"),
        }
    }

    /// Looks for it in the directories of `path`, which is `PATH`'s form.
    pub(super) fn find(self, path: &OsStr) -> Result<Installed, Missing> {
        let (name, tells_version, install) = self.program();
        let missing = |why: String| Err(Missing { peer: self, why });
        let Some(program) = find_program(name, path) else {
            return missing(format!("there is no `{name}` in PATH ({install})"));
        };
        if self == Self::Garage {
            let why = "this load generator does not speak K2V (HTTP with signed requests)";
            return missing(format!("{} is there, but {why}", program.display()));
        }
        match Command::new(&program).arg(tells_version).output() {
            Ok(said) if said.status.success() => {
                let text = String::from_utf8_lossy(&said.stdout);
                let version = version(&text).unwrap_or("of an unknown version").to_owned();
                Ok(Installed { peer: self, program, version })
            }
            Ok(said) => missing(format!("`{name} {tells_version}` fails: {}", said.status)),
            Err(error) => missing(format!("`{name}` cannot be run: {error}")),
        }
    }

    /// The arguments of its process number `own`, which keeps its files in `directory`. `memory_mib`: room for all values.
    pub(super) fn arguments(self, places: &[Place], own: usize, directory: &Path, memory_mib: u64) -> Vec<OsString> {
        let Place { address, port, peer_port } = places[own];
        let (line, directory_option) = match self {
            Self::RedisAlways => (redis(address, port, "always"), "--dir"),
            Self::RedisEverysec => (redis(address, port, "everysec"), "--dir"),
            Self::Memcached => {
                // It refuses to be root unless it is told to.
                let user = if geteuid().is_root() { " -u root" } else { "" };
                return words(&format!("-l {address} -p {port} -U 0 -c 20000 -m {memory_mib} -I 2m{user}"));
            }
            Self::Etcd => {
                let all = places.iter().enumerate();
                let all = all.map(|(node, place)| format!("node-{node}=http://{}:{}", place.address, place.peer_port));
                let (all, clients) = (all.collect::<Vec<_>>().join(","), places[own].clients());
                // Keeping all versions (8 GiB of room, no compaction) is what costs it least.
                let line = format!(
                    "--name node-{own} --initial-cluster {all} --initial-cluster-state new --quota-backend-bytes {} \
                     --listen-client-urls http://{clients} --advertise-client-urls http://{clients} \
                     --listen-peer-urls http://{address}:{peer_port} \
                     --initial-advertise-peer-urls http://{address}:{peer_port}",
                    8_u64 << 30
                );
                (words(&line), "--data-dir")
            }
            Self::Garage => unreachable!("it is never found to be installed"),
        };
        line.into_iter().chain([directory_option.into(), directory.as_os_str().to_owned()]).collect()
    }
}

/// Its own file is not rewritten while it is measured: that would cost it alone.
fn redis(address: Ipv4Addr, port: u16, sync: &str) -> Vec<OsString> {
    let mut line = words(&format!(
        "--bind {address} --port {port} --appendonly yes --appendfsync {sync} --auto-aof-rewrite-percentage 0 \
         --maxclients 20000 --save"
    ));
    // Never.
    line.push(OsString::new());
    line
}

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

/// The first word that looks like a version; redis-server puts "v=" before it.
fn version(text: &str) -> Option<&str> {
    let mut words = text.split_whitespace().map(|word| word.trim_start_matches("v="));
    words.find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'))
}

/// The first file of this name in `path` that may be executed.
fn find_program(name: &str, path: &OsStr) -> Option<PathBuf> {
    let runs = |file: &PathBuf| {
        fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(path).map(|place| place.join(name)).find(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(last: u8) -> Place {
        Place { address: Ipv4Addr::new(127, 1, 2, last), port: 10 + u16::from(last), peer_port: 20 + u16::from(last) }
    }

    /// A directory with a program that says and does this.
    fn directory_with(name: &str, script: &str, mode: u32) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(name);
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        directory
    }

    #[test]
    fn each_is_chosen_once() {
        assert_eq!(chosen(&[Choice::All, Choice::Etcd]), ALL);
        let some = [Choice::Memcached, Choice::RedisAlways, Choice::Memcached];
        assert_eq!(chosen(&some), [Peer::RedisAlways, Peer::Memcached]);
        let names: Vec<_> = ALL.iter().map(|peer| peer.name().to_owned()).collect();
        let choices = Choice::value_variants()[1..].iter().map(|choice| choice.to_possible_value().unwrap());
        assert_eq!(names, choices.map(|choice| choice.get_name().to_owned()).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_installed_is_found_with_its_version() {
        let says = "echo 'Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0'";
        let (nothing, there) = (tempfile::tempdir().unwrap(), directory_with("redis-server", says, 0o755));
        let path = std::env::join_paths([nothing.path(), there.path()]).unwrap();
        let program = there.path().join("redis-server");
        let installed = Installed { peer: Peer::RedisAlways, program, version: "7.0.15".to_owned() };
        assert_eq!(Peer::RedisAlways.find(&path), Ok(installed));
        assert_eq!(version("etcd Version: 3.4.23\nGit SHA: 1a2b"), Some("3.4.23"));
        assert_eq!(version("nothing of the kind"), None);
    }

    #[test]
    fn what_is_not_is_told_with_what_to_do() {
        let why = |peer: Peer, directory: &Path| peer.find(directory.as_os_str()).unwrap_err().why;
        let nothing = tempfile::tempdir().unwrap();
        assert_eq!(why(Peer::Etcd, nothing.path()), "there is no `etcd` in PATH (apt-get install etcd-server)");
        let no_program = directory_with("memcached", "", 0o644);
        assert!(why(Peer::Memcached, no_program.path()).contains("there is no `memcached`"));
        let broken = directory_with("memcached", "exit 7", 0o755);
        assert!(why(Peer::Memcached, broken.path()).contains("exit status: 7"));
        let garage = directory_with("garage", "echo garage v1.0.1", 0o755);
        assert!(why(Peer::Garage, garage.path()).contains("K2V"));
    }

    #[test]
    fn each_is_started_with_its_own_place_and_directory() {
        let directory = Path::new("/data/with blanks");
        let arguments = |peer: Peer, own| {
            let all = peer.arguments(&[place(1), place(2), place(3)], own, directory, 300);
            all.into_iter().map(|word| word.into_string().unwrap()).collect::<Vec<_>>()
        };
        let redis = arguments(Peer::RedisAlways, 0);
        assert!(redis.join(" ").contains("--bind 127.1.2.1 --port 11 --appendonly yes --appendfsync always"));
        assert_eq!(redis[redis.len() - 4..], ["--save", "", "--dir", "/data/with blanks"]);
        assert!(arguments(Peer::RedisEverysec, 0).join(" ").contains("--appendfsync everysec"));
        assert!(arguments(Peer::Memcached, 0).join(" ").contains("-l 127.1.2.1 -p 11 -U 0 -c 20000 -m 300"));
        let etcd = arguments(Peer::Etcd, 1).join(" ");
        for words in [
            "--name node-1 ",
            "node-0=http://127.1.2.1:21,node-1=http://127.1.2.2:22,node-2=http://127.1.2.3:23 ",
            "--listen-client-urls http://127.1.2.2:12 ",
            "--data-dir /data/with blanks",
        ] {
            assert!(etcd.contains(words), "{words} is not in {etcd}");
        }
    }

    #[test]
    fn places_have_two_ports_that_are_free() {
        let Place { address, port, peer_port } = Place::free(Ipv4Addr::LOCALHOST).unwrap();
        assert_ne!(port, peer_port);
        assert!(TcpListener::bind((address, port)).is_ok());
    }
}
