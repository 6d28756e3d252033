//! What a local cluster has on disk: `DIR/node-I/` with `config.toml`, `pid`, `log` and `data`.
//!
//! The rule: nothing is removed but what `dev` made, and a configuration that is there is never written over: people
//! edit them. A missing one is made again with the others' secret.

use std::{
    fs,
    io::{Read, Seek, SeekFrom},
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use quorate_net::id::NodeId;
use quorate_node::config::{Cluster, Config, Member};
use rustix::process::Pid;

use crate::{
    config_file,
    failure::{Failure, failed},
    pid_file,
};

/// The first line of every configuration that is made here.
const MARK: &str = "# Made by `quorate dev`. Edit as you like: it is kept.";

/// What was asked for; what was not is as the directory holds it, or the default.
pub(super) struct Wanted {
    pub(super) nodes: Option<u16>,
    pub(super) cores: Option<u16>,
    pub(super) address: Option<Ipv4Addr>,
    pub(super) port_base: Option<u16>,
    /// TOML that every configuration gets besides.
    pub(super) tune: Option<String>,
}

/// A prepared directory: every node has its configuration.
pub(super) struct Layout {
    directory: PathBuf,
    cluster: Cluster,
}

impl Layout {
    /// Makes what is missing in `directory`.
    pub(super) fn prepare(directory: &Path, wanted: &Wanted) -> Result<Self, Failure> {
        make_directory(directory)?;
        let directory = fs::canonicalize(directory).map_err(|error| cannot("open", directory, &error))?;
        let held = held(&directory)?;
        let cluster = match held {
            Some(config) => {
                check_same(&directory, wanted, &config.cluster)?;
                config.cluster
            }
            None => first_cluster(wanted)?,
        };
        let layout = Self { directory, cluster };
        for member in layout.members() {
            let path = layout.config(member.id);
            if path.exists() {
                continue;
            }
            make_directory(path.parent().expect("it lies in its node's directory"))?;
            let mut text = render(member.id, &layout.cluster);
            if let Some(tune) = &wanted.tune {
                text = format!("{text}\n{tune}");
                let bad = |error| Failure::Usage(format!("with what --tune gives, {error}; nothing was started"));
                Config::parse(&text).map_err(bad)?;
            }
            fs::write(&path, text).map_err(|error| cannot("write", &path, &error))?;
        }
        layout.check_configs()?;
        Ok(layout)
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub(super) fn members(&self) -> &[Member] {
        &self.cluster.members
    }

    pub(super) fn config(&self, node: NodeId) -> PathBuf {
        self.node(node).join("config.toml")
    }

    pub(super) fn log(&self, node: NodeId) -> PathBuf {
        self.node(node).join("log")
    }

    /// The process that serves the node, whoever started it.
    pub(super) fn running(&self, node: NodeId) -> Option<Pid> {
        pid_file::running(&self.config(node))
    }

    fn node(&self, node: NodeId) -> PathBuf {
        self.directory.join(format!("node-{node}"))
    }

    /// Each configuration must be of its node and of the one cluster, as edits may have changed them.
    fn check_configs(&self) -> Result<(), Failure> {
        for member in self.members() {
            let path = self.config(member.id);
            let config = config_file::load(&path)?;
            if config.node != member.id || config.cluster != self.cluster {
                return Err(failed(format!(
                    "{}: [cluster] differs from the other nodes', or [node] `id` is not {}; make them equal, or start \
                     anew with --fresh",
                    path.display(),
                    member.id
                )));
            }
        }
        Ok(())
    }
}

/// Removes what `dev` made in `directory`, and nothing else.
pub(super) fn remove(directory: &Path) -> Result<(), Failure> {
    let nodes = node_directories(directory)?;
    // First all checks, so that an error leaves everything as it was.
    for node in &nodes {
        pid_file::check_not_running(&node.join("config.toml"))?;
    }
    for node in nodes {
        let config = node.join("config.toml");
        if !fs::read_to_string(&config).is_ok_and(|text| text.starts_with(MARK)) {
            continue;
        }
        let data = node.join("data");
        if data.is_dir() && !data.is_symlink() {
            fs::remove_dir_all(&data).map_err(|error| cannot("remove", &data, &error))?;
        }
        // The configuration last: without it the rest would not be known as ours.
        for name in ["pid", "log", "config.toml"] {
            let path = node.join(name);
            if path.exists() {
                fs::remove_file(&path).map_err(|error| cannot("remove", &path, &error))?;
            }
        }
        // Stays if somebody put something into it.
        let _ = fs::remove_dir(&node);
    }
    Ok(())
}

/// The last lines of a log, for an error's text.
pub(super) fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(2 << 10)))?;
        let mut bytes = Vec::new();
        file.take(2 << 10).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_else(|error| format!("({error})"));
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// The configuration of any node that `directory` holds; they agree, or [`Layout::check_configs`] says so.
fn held(directory: &Path) -> Result<Option<Config>, Failure> {
    let nodes = node_directories(directory)?;
    let config = nodes.iter().map(|node| node.join("config.toml")).find(|path| path.exists());
    config.map(|path| config_file::load(&path)).transpose()
}

fn node_directories(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(cannot("read", directory, &error)),
    };
    let mut nodes = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| cannot("read", directory, &error))?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.strip_prefix("node-")?.parse::<u16>().ok());
        if let Some(number) = number
            && path.is_dir()
        {
            nodes.push((number, path));
        }
    }
    nodes.sort();
    Ok(nodes.into_iter().map(|(_, path)| path).collect())
}

fn check_same(directory: &Path, wanted: &Wanted, cluster: &Cluster) -> Result<(), Failure> {
    let (members, shown) = (&cluster.members, directory.display());
    let other = |what: &str, asked: String, holds: String| {
        failed(format!(
            "{what} {asked} was asked for, but {shown} holds a cluster with {holds}. Leave out {what} to start that one, \
             take another --dir, or add --fresh to remove it with its data"
        ))
    };
    if wanted.tune.is_some() {
        let text =
            format!("--tune is for a new cluster, and {shown} holds one: edit its node-*/config.toml, or add --fresh");
        return Err(failed(text));
    }
    if let Some(nodes) = wanted.nodes.filter(|nodes| usize::from(*nodes) != members.len()) {
        return Err(other("--nodes", nodes.to_string(), members.len().to_string()));
    }
    if let Some(cores) = wanted.cores
        && let Some(member) = members.iter().find(|member| member.cores != cores)
    {
        return Err(other("--cores", cores.to_string(), member.cores.to_string()));
    }
    if let Some(address) = wanted.address.filter(|address| members[0].address != IpAddr::V4(*address)) {
        return Err(other("--address", address.to_string(), members[0].address.to_string()));
    }
    if let Some(port) = wanted.port_base.filter(|port| members[0].port != *port) {
        return Err(other("--port-base", port.to_string(), members[0].port.to_string()));
    }
    Ok(())
}

/// A cluster as it is asked for, in the form that a configuration gives it.
fn first_cluster(wanted: &Wanted) -> Result<Cluster, Failure> {
    let (nodes, cores) = (wanted.nodes.unwrap_or(3), wanted.cores.unwrap_or(1));
    let address = u32::from(wanted.address.unwrap_or(Ipv4Addr::LOCALHOST));
    let port = wanted.port_base.unwrap_or(7400);
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| failed(format!("no random numbers: {error}")))?;
    let replicas = nodes.min(3);
    let quorum = replicas / 2 + 1;
    let mut text = format!(
        "[node]\nid = 1\n[cluster]\nname = \"dev\"\nsecret = \"{}\"\nreplicas = {replicas}\nread_quorum = {quorum}\n\
         write_quorum = {quorum}\n",
        URL_SAFE_NO_PAD.encode(secret)
    );
    for id in 1..=nodes {
        let address = Ipv4Addr::from(address.wrapping_add(u32::from(id - 1)));
        text += &format!(
            "[[cluster.node]]\nid = {id}\naddress = \"{address}\"\ncores = {cores}\nport = {port}\ncore_port = {}\n\
             peer_port = {}\nhttp_port = {}\n",
            port + 1,
            port + 100,
            port + 200
        );
    }
    let config = Config::parse(&text).map_err(|error| Failure::Usage(format!("such a cluster cannot be: {error}")))?;
    Ok(config.cluster)
}

/// The configuration of `node`, such that reading it gives `cluster` again.
fn render(node: NodeId, cluster: &Cluster) -> String {
    let mut text = format!(
        "{MARK}\n\n[node]\nid = {node}\ndata = \"data\"\n# Its nodes share this machine's CPUs.\noverprovisioned = true\n\n\
         # The same on all nodes.\n[cluster]\nname = \"{}\"\nsecret = {}\npartitions = {}\nreplicas = {}\n\
         read_quorum = {}\nwrite_quorum = {}\n",
        cluster.name,
        quoted(cluster.secret.expose()),
        cluster.partitions,
        cluster.replicas,
        cluster.read_quorum,
        cluster.write_quorum
    );
    for member in &cluster.members {
        text += &format!(
            "\n[[cluster.node]]\nid = {}\naddress = \"{}\"\ncores = {}\nrack = {}\nweight = {:?}\nport = {}\n\
             core_port = {}\npeer_port = {}\nhttp_port = {}\n",
            member.id,
            member.address,
            member.cores,
            quoted(&member.rack),
            member.weight,
            member.port,
            member.core_port,
            member.peer_port,
            member.http_port
        );
    }
    text
}

/// `text` as TOML wants it: its strings are written as JSON's are.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn make_directory(path: &Path) -> Result<(), Failure> {
    fs::create_dir_all(path).map_err(|error| cannot("make", path, &error))
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    failed(format!("cannot {what} {}: {error}; take another --dir", path.display()))
}

#[cfg(test)]
mod tests;
