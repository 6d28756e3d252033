//! A cluster of a test: its addresses, its directory in the shape that `quorate dev` keeps, and its nodes.

use std::{
    fs::{self, OpenOptions},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{
    harness::{Process, is_alive, quorate, wait_for},
    talk,
};

/// The port of all clients, of core 0's clients and of core 0's peers.
pub(crate) const PORT: u16 = 7400;
pub(crate) const CORE_PORT: u16 = 7401;
pub(crate) const PEER_PORT: u16 = 7500;

/// Bytes of a value in the clusters of the tests at most.
pub(crate) const VALUE_MAX: usize = 256 << 10;

/// Nodes of one cluster at most: each has that many addresses.
const NODES_MAX: u32 = 8;

pub(crate) struct Cluster {
    directory: TempDir,
    first: Ipv4Addr,
    nodes: u16,
}

impl Cluster {
    /// Three nodes of one core with small stores; nothing runs yet.
    pub(crate) fn new() -> Self {
        Self::with_nodes(3)
    }

    pub(crate) fn with_nodes(nodes: u16) -> Self {
        let cluster = Self::empty(nodes);
        for node in 1..=nodes {
            let path = cluster.config(node);
            fs::create_dir_all(path.parent().expect("it lies in its node's directory")).expect("it can be made");
            fs::write(path, cluster.config_text(node)).expect("it can be written");
        }
        cluster
    }

    /// A directory and addresses, for `quorate dev` to fill.
    pub(crate) fn empty(nodes: u16) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(number < 256 / NODES_MAX, "more clusters than addresses");
        // Apart from other test processes: 127.64.0.0 to 127.127.255.255, by the process id.
        let first = Ipv4Addr::from(0x7f40_0000 | (std::process::id() & 0x3fff) << 8 | (number * NODES_MAX + 1));
        // On a real disk: the usual place of temporary files may be in memory.
        let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory can be made");
        Self { directory, first, nodes }
    }

    pub(crate) fn directory(&self) -> &str {
        self.directory.path().to_str().expect("it is text")
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
        (1..=self.nodes).map(|node| self.clients(node).to_string()).collect::<Vec<_>>().join(",")
    }

    pub(crate) fn node_directory(&self, node: u16) -> PathBuf {
        self.directory.path().join(format!("node-{node}"))
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
        wait_for("a node to answer", || {
            assert!(process.is_running(), "node {node}: {}", fs::read_to_string(self.log(node)).unwrap_or_default());
            talk::is_up(self.clients(node)).then_some(())
        });
        process
    }

    pub(crate) fn begin_serve(&self, node: u16) -> Process {
        let log = OpenOptions::new().create(true).append(true).open(self.log(node)).expect("it can be written");
        let config = self.config(node);
        Process::start(quorate(&["serve", "--config", config.to_str().expect("it is text")]).stderr(log))
    }

    /// Where a node says what went wrong.
    pub(crate) fn log(&self, node: u16) -> PathBuf {
        self.node_directory(node).join("log")
    }

    pub(crate) fn wait_until_up(&self, node: u16) {
        wait_for("a node to answer", || talk::is_up(self.clients(node)).then_some(()));
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
            "[node]\nid = {node}\n[cluster]\nname = \"test\"\nsecret = \"a secret of this test\"\npartitions = 64\n\
             replicas = {}\nread_quorum = {quorum}\nwrite_quorum = {quorum}\n\
             [limits]\nvalue = \"{}KiB\"\nobject = \"1MiB\"\n\
             [store]\nsegment = \"4MiB\"\ncache = \"4MiB\"\n",
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
