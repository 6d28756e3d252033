//! One of the two that are compared: its processes, and how load finds them.
//!
//! The rule: only one side runs at a time. The other is frozen, so that it does not even wake up, and what it has left for
//! the disk is written before it is the other's turn.
//!
//! Not here: what a peer is (`peer`), load.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use quorate_net::resp::Reply;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    child::Child,
    peer::{Installed, Place},
};
use crate::{args::TargetKind, route, run::Error};

/// A node that takes longer is asked again.
const INFO_MAX: Duration = Duration::from_secs(1);

pub(crate) struct Side {
    pub(super) name: String,
    pub(crate) speaks: TargetKind,
    /// For clients.
    pub(crate) addresses: Vec<String>,
    children: Vec<Child>,
    /// Where a local cluster keeps its nodes' files, among them their process ids.
    cluster: Option<PathBuf>,
    /// Removed when all its processes have ended.
    directory: TempDir,
}

impl Side {
    /// A local cluster of this very program on loopback addresses from `first` on. `tune`: TOML for its configuration.
    pub(crate) fn quorate(
        parent: &Path,
        first: Ipv4Addr,
        (nodes, cores): (u16, u16),
        speaks: TargetKind,
        tune: Option<&str>,
    ) -> Result<Self, Error> {
        let directory = directory(parent, "quorate")?;
        let cluster = directory.path().join("cluster");
        let line = format!("dev --nodes {nodes} --cores {cores} --address {first} --dir");
        let mut arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        arguments.push(cluster.clone().into_os_string());
        if let Some(tune) = tune {
            let file = directory.path().join("tune.toml");
            let cannot = |error| Error::Machine(format!("cannot write {}: {error}", file.display()));
            fs::write(&file, tune).map_err(cannot)?;
            arguments.extend(["--tune".into(), file.into_os_string()]);
        }
        let child = Child::start("quorate dev", &own_program()?, &arguments, &directory.path().join("log"))?;
        let address = |node: u16| format!("{}:7400", Ipv4Addr::from(u32::from(first) + u32::from(node)));
        Ok(Self {
            name: "Quorate".to_owned(),
            speaks,
            addresses: (0..nodes).map(address).collect(),
            children: vec![child],
            cluster: Some(cluster),
            directory,
        })
    }

    /// A peer on loopback addresses from `first` on. `memory_mib`: room for all values.
    pub(super) fn peer(installed: &Installed, parent: &Path, first: Ipv4Addr, memory_mib: u64) -> Result<Self, Error> {
        let Installed { peer, program, .. } = installed;
        let directory = directory(parent, peer.name())?;
        let place = |number: usize| Place::free(Ipv4Addr::from(u32::from(first) + number as u32));
        let places: std::io::Result<Vec<Place>> = (0..peer.processes()).map(place).collect();
        let places = places.map_err(|error| Error::Machine(format!("no free port at {first}: {error}")))?;
        let mut side = Self {
            name: peer.name().to_owned(),
            speaks: peer.speaks(),
            addresses: places.iter().map(Place::clients).collect(),
            children: Vec::new(),
            cluster: None,
            directory,
        };
        for own in 0..places.len() {
            let files = side.directory.path().join(format!("{own}"));
            fs::create_dir(&files).map_err(|error| Error::Machine(format!("no {}: {error}", files.display())))?;
            let arguments = peer.arguments(&places, own, &files, memory_mib);
            let log = side.directory.path().join(format!("{own}.log"));
            side.children.push(Child::start(peer.name(), program, &arguments, &log)?);
        }
        Ok(side)
    }

    pub(super) fn is_ours(&self) -> bool {
        self.cluster.is_some()
    }

    /// An error if one of its processes has ended.
    pub(crate) fn check_running(&mut self) -> Result<(), Error> {
        self.children.iter_mut().try_for_each(Child::check_running)
    }

    /// Whether it sees itself as whole. Of a peer nothing is known but whether it answers.
    pub(super) fn is_whole(&self) -> bool {
        let whole = |address: &String| {
            let address: SocketAddr = address.parse().expect("it was made of numbers");
            let answer = route::ask(address, &[b"INFO", b"quorate"], INFO_MAX).unwrap_or_default();
            let text = if answer.is_empty() { None } else { Reply::parse(&answer).as_bytes() };
            text.is_some_and(|text| String::from_utf8_lossy(text).lines().any(|line| line == "peers_down:0"))
        };
        self.cluster.is_none() || self.addresses.iter().all(whole)
    }

    /// The partitions that all our nodes have the same of, by their Merkle roots, and how many there are; none unless all tell.
    /// For nodes of one core, of which each keeps all.
    pub(crate) fn equal_partitions(&self) -> Option<(BTreeSet<u64>, usize)> {
        let roots = |address: &String| -> Option<BTreeSet<(u64, String)>> {
            let address: SocketAddr = address.parse().expect("it was made of numbers");
            let answer = route::ask(address, &[b"QUORATE", b"ROOTS"], INFO_MAX).ok()?;
            let told: Value = serde_json::from_slice(Reply::parse(&answer).as_bytes()?).ok()?;
            let root = |of: &Value| Some((of["partition"].as_u64()?, of["root"].as_str()?.to_owned()));
            told["partitions"].as_array()?.iter().map(root).collect()
        };
        let told: Vec<_> = self.addresses.iter().map(roots).collect::<Option<_>>()?;
        let all = told.first()?.len();
        let same = told.into_iter().reduce(|same, roots| &same & &roots)?;
        Some((same.into_iter().map(|(partition, _)| partition).collect(), all))
    }

    /// The processes that serve, as far as they run.
    pub(super) fn servers(&self) -> Vec<Pid> {
        let children: Vec<Pid> = self.children.iter().map(Child::pid).collect();
        if self.cluster.is_none() {
            return children;
        }
        (1..=self.addresses.len() as u16).filter_map(|node| self.pid_of(node)).collect()
    }

    /// The process of one of our nodes, if it runs.
    fn pid_of(&self, node: u16) -> Option<Pid> {
        let text = fs::read_to_string(self.cluster.as_ref()?.join(format!("node-{node}/pid"))).ok()?;
        let pid = Pid::from_raw(text.trim().parse().ok()?)?;
        // The file of one that has died may name another process by now. `dev` is the first child, and starts the nodes.
        let is_ours = self
            .children
            .iter()
            .zip(0..)
            .any(|(child, number)| child.pid() == pid || number == 0 && parent(pid) == Some(child.pid()));
        is_ours.then_some(pid)
    }

    /// Sends a signal to one of our nodes.
    pub(crate) fn signal_node(&self, node: u16, signal: Signal) -> Result<(), Error> {
        let sent = self.pid_of(node).is_some_and(|pid| kill_process(pid, signal).is_ok());
        if sent { Ok(()) } else { Err(Error::Servers(format!("node {node} does not run any more"))) }
    }

    /// Starts one of our nodes again, which was killed.
    pub(crate) fn serve(&mut self, node: u16) -> Result<(), Error> {
        let cluster = self.cluster.as_ref().expect("only ours are started again");
        let config = cluster.join(format!("node-{node}/config.toml"));
        let arguments = ["serve".into(), "--config".into(), config.into_os_string()];
        let log = self.directory.path().join(format!("{node}.log"));
        self.children.push(Child::start("quorate serve", &own_program()?, &arguments, &log)?);
        Ok(())
    }

    pub(super) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(super) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        for pid in self.servers() {
            // One that has ended is told of by `check_running`, or fails the load.
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Side {
    /// Nothing of it is kept, so it need not end in order; but nothing may be left that writes into its directory.
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        self.children.iter_mut().for_each(Child::end);
    }
}

fn own_program() -> Result<PathBuf, Error> {
    std::env::current_exe().map_err(|error| Error::Machine(format!("cannot find the running program: {error}")))
}

/// The process that started this one.
fn parent(pid: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // Behind the name, which may hold anything, and the state.
    let (_, fields) = stat.rsplit_once(") ")?;
    Pid::from_raw(fields.split(' ').nth(1)?.parse().ok()?)
}

fn directory(parent: &Path, name: &str) -> Result<TempDir, Error> {
    let made = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(parent);
    made.map_err(|error| Error::Machine(format!("cannot make a directory in {}: {error}", parent.display())))
}

#[cfg(test)]
mod tests {
    use rustix::process::{getpid, getppid};

    use super::*;

    #[test]
    fn a_process_has_its_parent() {
        assert_eq!(parent(getpid()), getppid());
    }
}
