//! What an operator may set: one node's configuration, read from TOML.
//!
//! The rule: a configuration is accepted whole or refused with the line and the way out. A key that is not known is an
//! error, a size or a duration carries its unit, and every number has a range, so nothing behind this module checks again.
//!
//! Pure: the file itself is read by the one who starts the node (`tools`). Not here: what the settings lead to.

mod cpus;
mod error;
pub mod keys;
mod limits;
mod members;
mod nearest;
mod secret;
mod section;
mod setting;
mod unit;
mod value;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

pub use cpus::cpus;
pub use error::ConfigError;
pub use limits::{Commit, Limits, SEGMENTS_MIN, ServiceLevel, Store};
pub use members::Member;
pub use nearest::nearest;
use quorate_net::id::NodeId;
pub use secret::Secret;
use section::{Document, Section};
pub use setting::{Difference, Setting, Source, differences};
pub use value::Value;

/// The most cores of one node.
pub const CORES_MAX: u16 = 256;

/// All that a node is told at its start.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// This node; it is among [`Cluster::members`].
    pub node: NodeId,
    /// The node is none of the founders: it asks the nodes that are listed to join.
    pub join: bool,
    /// The node's directory. The stores of the cores lie in it unless [`Core::data`] says otherwise.
    pub data: PathBuf,
    /// What all nodes of the cluster have in common.
    pub cluster: Cluster,
    /// The bounds on what clients may ask for.
    pub limits: Limits,
    /// What requests are promised.
    pub service_level: ServiceLevel,
    /// This node's cores, by number.
    pub cores: Vec<Core>,
}

/// What all nodes of a cluster have in common. It must be the same on each of them.
#[derive(Clone, PartialEq, Debug)]
pub struct Cluster {
    /// Keeps nodes of different clusters apart.
    pub name: String,
    /// Seals the contexts that clients carry.
    pub secret: Secret,
    /// Q: a power of two, fixed for the cluster's life.
    pub partitions: u16,
    /// N: the copies of each key.
    pub replicas: u8,
    /// R where a request names none, 1 to N.
    pub read_quorum: u8,
    /// W where a request names none, 1 to N.
    pub write_quorum: u8,
    /// Every node, in the order of their ids.
    pub members: Vec<Member>,
}

/// One core of this node.
#[derive(Clone, PartialEq, Debug)]
pub struct Core {
    /// The CPU that it is pinned to, if any.
    pub cpu: Option<usize>,
    /// How long it polls before it sleeps. Zero unless it has a CPU of its own.
    pub spin_before_park: Duration,
    /// The bytes that its executor registers with the kernel for reads and writes of files.
    pub memory: usize,
    /// So many requests of clients are under way together on it; connections share them evenly.
    pub shares: usize,
    /// The directory of its store.
    pub data: PathBuf,
    /// Its store.
    pub store: Store,
}

impl Config {
    /// The configuration that `text` holds. Paths in it stay as they are written: see [`Config::relative_to`].
    ///
    /// # Errors
    ///
    /// The first thing in it that is wrong, with its line.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Self::read(text).map(|(config, _)| config)
    }

    /// The same, and what holds for each key, in the order of the table of keys.
    ///
    /// # Errors
    ///
    /// The first thing in it that is wrong, with its line.
    pub fn read(text: &str) -> Result<(Self, Vec<Setting>), ConfigError> {
        let mut document = Document::parse(text)?;
        let mut root = document.root()?;
        let mut node = root.table("node")?;
        let mut cluster = root.table("cluster")?;
        let (insecure, join) = (node.read("insecure")?, node.read("join")?);
        let members = members::read(&mut cluster, insecure)?;
        let (id, own) = own_member(&mut node, &members)?;
        let data = PathBuf::from(node.read::<String>("data")?);
        let limits = limits::read_limits(&mut root)?;
        let service_level = limits::read_service_level(&mut root)?;
        let store = limits::read_store(&mut root, &limits)?;
        let cores = read_cores(&mut root, &mut node, own.cores, &data, &store)?;
        let cluster = read_cluster(&mut cluster, members)?;
        Ok((Self { node: id, join, data, cluster, limits, service_level, cores }, document.settings()))
    }

    /// This configuration, with the keys that may change while a node runs as they are in `other`.
    ///
    /// # Errors
    ///
    /// When they do not fit what stays.
    pub fn with_live_keys_of(&self, other: &Self) -> Result<Self, ConfigError> {
        let mut config = self.clone();
        config.limits = Limits { connections: self.limits.connections, ..other.limits.clone() };
        config.service_level = other.service_level;
        let quorums = (other.cluster.read_quorum, other.cluster.write_quorum);
        (config.cluster.read_quorum, config.cluster.write_quorum) = quorums;
        for core in &mut config.cores {
            core.store.scrub = other.cores[0].store.scrub;
        }
        let misfit = |section, key, problem| ConfigError::Bad { line: 0, section, key, problem };
        for (key, quorum) in [("read_quorum", quorums.0), ("write_quorum", quorums.1)] {
            if quorum > config.cluster.replicas {
                return Err(misfit("[cluster]", key, format!("must be from 1 to {}", config.cluster.replicas)));
            }
        }
        let fits = limits::check_fits(&config.limits, &config.cores[0].store);
        fits.map_err(|(key, problem)| misfit("[store]", key, problem))?;
        Ok(config)
    }

    /// The same, where other processes share the CPUs: no core is pinned, and none polls.
    #[must_use]
    pub fn overprovisioned(mut self) -> Self {
        for core in &mut self.cores {
            (core.cpu, core.spin_before_park) = (None, Duration::ZERO);
        }
        self
    }

    /// The same, with relative paths taken from `directory` (the one that the file lies in).
    #[must_use]
    pub fn relative_to(mut self, directory: &Path) -> Self {
        self.data = directory.join(&self.data);
        for core in &mut self.cores {
            core.data = directory.join(&core.data);
        }
        self
    }

    /// This node, as the cluster knows it.
    #[must_use]
    pub fn member(&self) -> &Member {
        self.cluster.member(self.node).expect("the own id was checked to be among the members")
    }
}

impl Cluster {
    /// The member with this id.
    #[must_use]
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }
}

fn own_member<'m>(node: &mut Section<'_>, members: &'m [Member]) -> Result<(NodeId, &'m Member), ConfigError> {
    let id = NodeId(node.read("id")?);
    let own = members.iter().find(|member| member.id == id);
    let own = own.ok_or_else(|| {
        node.bad("id", format!("no [[cluster.node]] has the id {id}; list this node there, as on every other node"))
    })?;
    Ok((id, own))
}

fn read_cluster(section: &mut Section<'_>, members: Vec<Member>) -> Result<Cluster, ConfigError> {
    let name: String = section.read("name")?;
    if !(1..=64).contains(&name.len()) || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return Err(section.bad("name", "must be 1 to 64 letters, digits, `-`, `_` or `.`"));
    }
    let secret = section.read("secret")?;
    let partitions: u16 = section.read("partitions")?;
    if !partitions.is_power_of_two() {
        let (below, above) = (1_u16 << partitions.ilog2(), partitions.next_power_of_two());
        return Err(section.bad("partitions", format!("must be a power of two, such as {below} or {above}")));
    }
    let replicas: u8 = section.read("replicas")?;
    let majority = u64::from(replicas / 2 + 1);
    let nodes = members.len();
    let mut quorum = |key| {
        section.narrow(key, replicas.into());
        let quorum: u8 = section.read_or(key, majority)?;
        if usize::from(quorum) > nodes {
            let problem = format!(
                "is {quorum}, but [[cluster.node]] lists {nodes}: no request could ever succeed; set it to {nodes} at most"
            );
            return Err(section.bad(key, problem));
        }
        Ok(quorum)
    };
    let (read_quorum, write_quorum) = (quorum("read_quorum")?, quorum("write_quorum")?);
    Ok(Cluster { name, secret, partitions, replicas, read_quorum, write_quorum, members })
}

/// All cores of this node: the common settings, and over them what a `[[core]]` says.
fn read_cores(
    root: &mut Section<'_>,
    node: &mut Section<'_>,
    count: u16,
    data: &Path,
    store: &Store,
) -> Result<Vec<Core>, ConfigError> {
    let overprovisioned = node.read("overprovisioned")?;
    let mut sections: Vec<Option<Section<'_>>> = (0..count).map(|_| None).collect();
    for mut section in root.tables("core")? {
        section.narrow("id", u64::from(count - 1));
        let id: usize = section.given("id")?.ok_or_else(|| section.missing("id"))?;
        if sections[id].is_some() {
            return Err(section.bad("id", format!("core {id} is configured twice")));
        }
        sections[id] = Some(section);
    }
    let mut own: Vec<usize> = Vec::new();
    for section in sections.iter().flatten() {
        let Some(cpu) = section.given("cpu")? else { continue };
        if own.contains(&cpu) {
            return Err(section.bad("cpu", format!("two cores are pinned to CPU {cpu}; give each its own")));
        }
        own.push(cpu);
    }
    let mut others = read_cpus(node, usize::from(count) - own.len(), &own)?.into_iter();
    let mut cores: Vec<Core> = Vec::with_capacity(count.into());
    for (id, section) in sections.into_iter().enumerate() {
        let mut section = section.unwrap_or_else(|| root.absent("core"));
        section.read_or::<u64>("id", id as u64)?;
        let next = if section.given::<u64>("cpu")?.is_some() { None } else { others.next() };
        let mut core = Core {
            cpu: section.read_option("cpu", next.map(|cpu| Value::Integer(cpu as u64)))?,
            spin_before_park: section.read("spin_before_park")?,
            memory: section.read("memory")?,
            shares: section.read("shares")?,
            data: PathBuf::new(),
            store: store.clone(),
        };
        if overprovisioned {
            const WHY: &str = "[node] `overprovisioned`";
            core.cpu = None;
            core.spin_before_park = Duration::ZERO;
            section.overrule("cpu", None, WHY);
            section.overrule("spin_before_park", Some(Value::Time(Duration::ZERO)), WHY);
        }
        if core.cpu.is_none() && !core.spin_before_park.is_zero() {
            let problem = "does nothing for a core that is not pinned: give it a `cpu`, or list `cpus` in [node]";
            return Err(section.bad("spin_before_park", problem));
        }
        limits::override_store(&mut section, &mut core.store)?;
        let usual = data.join(format!("core-{id}")).to_string_lossy().into_owned();
        core.data = PathBuf::from(section.read_or::<String>("data", usual)?);
        if cores.iter().any(|other| other.data == core.data) {
            return Err(root.bad("core", format!("core {id} shares its `data` directory with another core")));
        }
        cores.push(core);
    }
    Ok(cores)
}

/// The CPUs that the node lists for cores that name none: for so many.
fn read_cpus(node: &mut Section<'_>, needed: usize, named: &[usize]) -> Result<Vec<usize>, ConfigError> {
    let Some(text) = node.read_option::<String>("cpus", None)? else { return Ok(Vec::new()) };
    let mut listed = cpus(&text).map_err(|problem| node.bad("cpus", problem))?;
    listed.retain(|cpu| !named.contains(cpu));
    if listed.len() < needed {
        let problem = format!(
            "has a CPU for {} of the {needed} cores that name none in [[core]]: list more, or give this node fewer `cores`",
            listed.len()
        );
        return Err(node.bad("cpus", problem));
    }
    Ok(listed)
}

#[cfg(test)]
mod tests;
