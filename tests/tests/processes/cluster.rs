//! A cluster of a test: its addresses, its directory in the shape that `quorate dev` keeps, and its nodes.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{
    apart::skip,
    harness::{Process, is_alive, quorate, wait_for, wait_long_for},
    hosts::Hosts,
    talk,
};

/// The port of all clients, of core 0's clients and of core 0's peers.
pub(crate) const PORT: u16 = 7400;
pub(crate) const CORE_PORT: u16 = 7401;
pub(crate) const PEER_PORT: u16 = 7500;
pub(crate) const HTTP_PORT: u16 = 7600;

/// Bytes of a value in the clusters of the tests at most.
pub(crate) const VALUE_MAX: usize = 256 << 10;

/// Nodes that write nothing for so long are done with what they had to tell each other.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// Replicas may be compared with each other only once a minute.
pub(crate) const SETTLING_MAX: Duration = Duration::from_secs(180);

/// Nodes of one cluster at most: each has that many addresses.
const NODES_MAX: u32 = 5;

pub(crate) struct Cluster {
    directory: PathBuf,
    /// Removed at the end, if it is not a file system's.
    _temporary: Option<TempDir>,
    first: Ipv4Addr,
    nodes: u16,
    hosts: Option<Hosts>,
}

/// A test that fails tells what its nodes said last: that is gone with the directory.
impl Drop for Cluster {
    fn drop(&mut self) {
        const LINES: usize = 40;
        if !std::thread::panicking() {
            return;
        }
        for node in 1..=self.nodes {
            let log = fs::read_to_string(self.log(node)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(LINES)..];
            eprintln!("the log of node {node} ends with:\n{}", last.join("\n"));
        }
    }
}

/// What a server may be too old for. It is told by a field of its `INFO`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Feature {
    /// A write for a node that is away reaches it when it is back.
    HintedHandoff,
    /// Replicas become equal without being read.
    AntiEntropy,
}

impl Feature {
    fn field(self) -> &'static str {
        match self {
            Self::HintedHandoff => "hints_held",
            Self::AntiEntropy => "exchanges",
        }
    }
}

impl Cluster {
    /// Three nodes of one core with small stores; nothing runs yet.
    pub(crate) fn new() -> Self {
        Self::with_nodes(3)
    }

    pub(crate) fn with_nodes(nodes: u16) -> Self {
        Self::empty(nodes).configured()
    }

    /// On a file system that its owner fills up or cuts the power of.
    pub(crate) fn in_directory(directory: &Path, nodes: u16) -> Self {
        let mut cluster = Self::empty(nodes);
        (cluster.directory, cluster._temporary) = (directory.to_owned(), None);
        cluster.configured()
    }

    /// Each node on a host of its own.
    pub(crate) fn on_hosts(nodes: u16) -> Self {
        let hosts = Hosts::new(nodes);
        let mut cluster = Self::empty(nodes);
        (cluster.first, cluster.hosts) = (hosts.first_address(), Some(hosts));
        cluster.configured()
    }

    fn configured(self) -> Self {
        for node in 1..=self.nodes {
            let path = self.config(node);
            fs::create_dir_all(path.parent().expect("it lies in its node's directory")).expect("it can be made");
            fs::write(path, self.config_text(node)).expect("it can be written");
        }
        self
    }

    /// Writes the configuration of one more node, which is to join those that the cluster began with.
    pub(crate) fn add(&self, node: u16) {
        assert!(node > self.nodes && u32::from(node) <= NODES_MAX, "a node of its own, with an address of its own");
        let path = self.config(node);
        fs::create_dir_all(path.parent().expect("it lies in its node's directory")).expect("it can be made");
        let own = format!("[[cluster.node]]\nid = {node}\naddress = \"{}\"\ncores = 1\n", self.clients(node).ip());
        fs::write(path, self.config_text(node) + &own).expect("it can be written");
        self.edit(node, &format!("id = {node}\n[cluster]"), &format!("id = {node}\njoin = true\n[cluster]"));
    }

    /// A directory and addresses, for `quorate dev` to fill.
    pub(crate) fn empty(nodes: u16) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(number < 512 / NODES_MAX, "more clusters than addresses");
        // Apart from other test processes: 127.64.0.0 to 127.127.255.255, by the process id.
        let first = Ipv4Addr::from(0x7f40_0000 | (std::process::id() & 0x1fff) << 9 | (number * NODES_MAX + 1));
        // On a real disk: the usual place of temporary files may be in memory.
        let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory can be made");
        Self { directory: directory.path().to_owned(), _temporary: Some(directory), first, nodes, hosts: None }
    }

    pub(crate) fn directory(&self) -> &str {
        self.directory.to_str().expect("it is text")
    }

    pub(crate) fn first_address(&self) -> Ipv4Addr {
        self.first
    }

    pub(crate) fn address(&self, node: u16, port: u16) -> SocketAddr {
        SocketAddr::new(Ipv4Addr::from(u32::from(self.first) + u32::from(node) - 1).into(), port)
    }

    pub(crate) fn clients(&self, node: u16) -> SocketAddr {
        self.address(node, PORT)
    }

    /// All nodes, as `--servers` wants them.
    pub(crate) fn servers(&self) -> String {
        self.servers_of(1..=self.nodes)
    }

    pub(crate) fn servers_of(&self, nodes: impl IntoIterator<Item = u16>) -> String {
        nodes.into_iter().map(|node| self.clients(node).to_string()).collect::<Vec<_>>().join(",")
    }

    /// The network between the hosts of [`Cluster::on_hosts`].
    pub(crate) fn hosts(&self) -> &Hosts {
        self.hosts.as_ref().expect("the nodes have hosts of their own")
    }

    pub(crate) fn node_directory(&self, node: u16) -> PathBuf {
        self.directory.join(format!("node-{node}"))
    }

    pub(crate) fn config(&self, node: u16) -> PathBuf {
        self.node_directory(node).join("config.toml")
    }

    /// Changes a node's configuration by replacing text in it.
    pub(crate) fn edit(&self, node: u16, from: &str, to: &str) {
        let text = fs::read_to_string(self.config(node)).expect("it is there");
        assert!(text.contains(from), "{from} is not in {text}");
        fs::write(self.config(node), text.replace(from, to)).expect("it can be written");
    }

    /// The process that a node's file names.
    pub(crate) fn pid(&self, node: u16) -> Option<Pid> {
        let text = fs::read_to_string(self.node_directory(node).join("pid")).ok()?;
        Pid::from_raw(text.trim().parse().expect("a pid file holds a number"))
    }

    /// Starts all nodes by `quorate dev` and waits until it says that they are up.
    pub(crate) fn start_dev(&self) -> Process {
        let address = self.first.to_string();
        let nodes = self.nodes.to_string();
        let arguments = ["dev", "--nodes", &nodes, "--dir", self.directory(), "--address", &address];
        let mut dev = Process::start(&mut quorate(&arguments));
        dev.read_until("Stop it:");
        dev
    }

    /// Starts one node as a person would, and waits until it answers.
    pub(crate) fn serve(&self, node: u16) -> Process {
        let mut process = self.begin_serve(node);
        self.wait_for_start(node, &mut process);
        process
    }

    pub(crate) fn begin_serve(&self, node: u16) -> Process {
        let log = OpenOptions::new().create(true).append(true).open(self.log(node)).expect("it can be written");
        let config = self.config(node);
        let mut command = quorate(&["serve", "--config", config.to_str().expect("it is text")]);
        if let Some(hosts) = &self.hosts {
            hosts.network(node).enter(&mut command);
        }
        Process::start(command.stderr(log))
    }

    /// Starts all nodes and waits until they answer and have found each other.
    pub(crate) fn serve_all(&self) -> Vec<Process> {
        let mut nodes: Vec<Process> = (1..=self.nodes).map(|node| self.begin_serve(node)).collect();
        (1..).zip(&mut nodes).for_each(|(node, process)| self.wait_for_start(node, process));
        self.wait_until_joined();
        nodes
    }

    /// Waits until all nodes have found each other, and none has to ask the others first what it may have lost.
    pub(crate) fn wait_until_joined(&self) {
        wait_for("the nodes to find each other", || {
            (self.total("peers_down") + self.total("copies_unhealed") == 0).then_some(())
        });
    }

    fn wait_for_start(&self, node: u16, process: &mut Process) {
        wait_for("a node to answer", || {
            assert!(process.is_running(), "node {node}: {}", fs::read_to_string(self.log(node)).unwrap_or_default());
            talk::is_up(self.clients(node)).then_some(())
        });
    }

    /// Where a node says what went wrong.
    pub(crate) fn log(&self, node: u16) -> PathBuf {
        self.node_directory(node).join("log")
    }

    pub(crate) fn wait_until_up(&self, node: u16) {
        wait_for("a node to answer", || talk::is_up(self.clients(node)).then_some(()));
    }

    /// The numbers in a node's `INFO`.
    pub(crate) fn info(&self, node: u16) -> BTreeMap<String, u64> {
        let text = talk::Resp::connect(self.clients(node)).text(&[b"INFO", b"quorate"]);
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        fields.filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?))).collect()
    }

    /// One of these numbers over all nodes; 0 for those that do not tell it.
    pub(crate) fn total(&self, field: &str) -> u64 {
        (1..=self.nodes).map(|node| self.info(node).get(field).copied().unwrap_or(0)).sum()
    }

    /// Whether the nodes can do this. If not, says which part of the test is left out for it.
    pub(crate) fn can(&self, feature: Feature, part: &str) -> bool {
        let can = self.info(1).contains_key(feature.field());
        if !can {
            skip(&format!("{part}: the server tells no `{}` in INFO, so it has no {feature:?}", feature.field()));
        }
        can
    }

    /// Waits until the nodes have brought each other up to date by themselves: nothing is held for another node, all
    /// have as many keys, and nothing has been written for a while. Needs [`Feature::AntiEntropy`].
    pub(crate) fn wait_until_settled(&self) {
        let mut last = (0, Instant::now());
        wait_long_for("the nodes to settle", SETTLING_MAX, || {
            let written = self.total("store_log_bytes");
            if written != last.0 {
                last = (written, Instant::now());
            }
            let quiet = last.1.elapsed() > SETTLED_AFTER;
            (quiet && self.total("hints_held") == 0 && self.has_equal_keys()).then_some(())
        });
    }

    /// Whether all nodes have as many keys, which must be so where each node is a primary of each key.
    fn has_equal_keys(&self) -> bool {
        let keys = |node| self.info(node).get("store_keys").copied();
        self.nodes > 3 || (2..=self.nodes).all(|node| keys(node) == keys(1))
    }

    /// Fails unless all primaries of these keys have the same version of it, and its value is the expected one. Reading
    /// repairs: what was different before can be seen only once.
    pub(crate) fn assert_equal(&self, expected: &BTreeMap<String, String>) {
        let before = self.total("divergent_gets");
        let names: Vec<&str> = expected.keys().map(String::as_str).collect();
        let values = talk::get_all(self.clients(1), &names, self.nodes.min(3) as u8);
        for ((name, value), read) in expected.iter().zip(values) {
            assert_eq!(read.as_deref(), Ok(&[value.clone()][..]), "{name}");
        }
        assert_eq!(self.total("divergent_gets"), before, "of {} keys so many had different replicas", names.len());
    }

    /// `kill -9` of a node that this test did not start itself.
    pub(crate) fn kill(&self, node: u16) {
        let pid = self.pid(node).expect("a running node has a pid file");
        kill_process(pid, Signal::KILL).expect("it runs");
        wait_for("a killed node's end", || (!is_alive(pid)).then_some(()));
    }

    fn config_text(&self, node: u16) -> String {
        let quorum = self.nodes.min(3) / 2 + 1;
        let mut text = format!(
            "[node]\nid = {node}\n{}[cluster]\nname = \"test\"\nsecret = \"a secret of this test\"\npartitions = 64\n\
             replicas = {}\nread_quorum = {quorum}\nwrite_quorum = {quorum}\n\
             [limits]\nvalue = \"{}KiB\"\nobject = \"1MiB\"\n\
             [store]\nsegment = \"4MiB\"\ncache = \"4MiB\"\n",
            if self.first.is_loopback() { "" } else { "insecure = true\n" },
            self.nodes.min(3),
            VALUE_MAX >> 10
        );
        for node in 1..=self.nodes {
            let address = self.clients(node).ip();
            text += &format!("[[cluster.node]]\nid = {node}\naddress = \"{address}\"\ncores = 1\n");
        }
        text
    }
}
