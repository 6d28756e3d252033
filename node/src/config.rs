//! What an operator may set: one node's configuration, read from TOML.
//!
//! The rule: a configuration is accepted whole or refused with the line and the way out. A key that is not known is an
//! error, a size or a duration carries its unit, and every number has a range, so nothing behind this module checks again.
//!
//! Pure: the file itself is read by the one who starts the node (`tools`). Not here: what the settings lead to.

mod error;
mod limits;
mod members;
mod section;
mod unit;

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

pub use error::ConfigError;
pub use limits::{Commit, Limits, ServiceLevel, Store};
pub use members::Member;
use quorate_net::{bounds, id::NodeId};
use section::{Document, Section};

/// The most cores of one node.
pub const CORES_MAX: u16 = 256;

/// The fewest characters in a cluster's secret.
pub const SECRET_CHARACTERS_MIN: usize = 16;

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
    /// The directory of its store.
    pub data: PathBuf,
    /// Its store.
    pub store: Store,
}

/// What only the cluster's nodes know. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Config {
    /// The configuration that `text` holds. Paths in it stay as they are written: see [`Config::relative_to`].
    ///
    /// # Errors
    ///
    /// The first thing in it that is wrong, with its line.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut document = Document::parse(text)?;
        let mut root = document.root(&["node", "cluster", "limits", "slo", "store", "core"])?;
        let mut node = root.table("node", &["id", "data", "insecure", "join"])?;
        let mut cluster = root
            .table("cluster", &["name", "secret", "partitions", "replicas", "read_quorum", "write_quorum", "node"])?;
        let insecure = node.boolean("insecure")?.unwrap_or(false);
        let join = node.boolean("join")?.unwrap_or(false);
        let members = members::read(&mut cluster, insecure)?;
        let (id, own) = own_member(&mut node, &members)?;
        let data = PathBuf::from(node.text("data")?.unwrap_or_else(|| "data".into()));
        let limits = limits::read_limits(&mut root)?;
        let service_level = limits::read_service_level(&mut root)?;
        let store = limits::read_store(&mut root, &limits)?;
        let cores = read_cores(&mut root, own.cores, &data, &store)?;
        let cluster = read_cluster(&mut cluster, members)?;
        Ok(Self { node: id, join, data, cluster, limits, service_level, cores })
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

impl Secret {
    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret(redacted)")
    }
}

fn own_member<'m>(node: &mut Section<'_>, members: &'m [Member]) -> Result<(NodeId, &'m Member), ConfigError> {
    let id = NodeId(node.integer("id", 1..=u64::from(u16::MAX))?.ok_or_else(|| node.missing("id"))? as u16);
    let own = members.iter().find(|member| member.id == id);
    let own = own.ok_or_else(|| {
        node.bad("id", format!("no [[cluster.node]] has the id {id}; list this node there, as on every other node"))
    })?;
    Ok((id, own))
}

fn read_cluster(section: &mut Section<'_>, members: Vec<Member>) -> Result<Cluster, ConfigError> {
    let name = section.text("name")?.ok_or_else(|| section.missing("name"))?;
    if !(1..=64).contains(&name.len()) || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return Err(section.bad("name", "must be 1 to 64 letters, digits, `-`, `_` or `.`"));
    }
    let secret = section.text("secret")?.ok_or_else(|| section.missing("secret"))?;
    if !(SECRET_CHARACTERS_MIN..=1024).contains(&secret.chars().count()) {
        // The text itself stays out of the message: it may land in a log.
        return Err(section.bad("secret", format!("must have {SECRET_CHARACTERS_MIN} to 1024 characters")));
    }
    let partitions = section.integer("partitions", 64..=bounds::PARTITIONS_MAX as u64)?.unwrap_or(1024);
    if !partitions.is_power_of_two() {
        let (below, above) = (1 << partitions.ilog2(), partitions.next_power_of_two());
        return Err(section.bad("partitions", format!("must be a power of two, such as {below} or {above}")));
    }
    let replicas = section.integer("replicas", 1..=7)?.unwrap_or(3);
    let nodes = members.len() as u64;
    let mut quorum = |key| {
        let majority = replicas / 2 + 1;
        let quorum = section.integer(key, 1..=replicas)?.unwrap_or(majority);
        if quorum > nodes {
            let problem = format!(
                "is {quorum}, but [[cluster.node]] lists {nodes}: no request could ever succeed; set it to {nodes} at most"
            );
            return Err(section.bad(key, problem));
        }
        Ok(quorum as u8)
    };
    let (read_quorum, write_quorum) = (quorum("read_quorum")?, quorum("write_quorum")?);
    Ok(Cluster {
        name,
        secret: Secret(secret),
        partitions: partitions as u16,
        replicas: replicas as u8,
        read_quorum,
        write_quorum,
        members,
    })
}

/// All cores of this node: the common settings, and over them what a `[[core]]` says.
fn read_cores(root: &mut Section<'_>, count: u16, data: &Path, store: &Store) -> Result<Vec<Core>, ConfigError> {
    let mut cores: Vec<Core> = (0..count)
        .map(|id| Core {
            cpu: None,
            spin_before_park: Duration::ZERO,
            data: data.join(format!("core-{id}")),
            store: store.clone(),
        })
        .collect();
    let mut seen = vec![false; usize::from(count)];
    for mut section in root.tables("core", &["id", "cpu", "spin_before_park", "cache", "capacity", "data"])? {
        let id = section.integer("id", 0..=u64::from(count - 1))?.ok_or_else(|| section.missing("id"))? as usize;
        if std::mem::replace(&mut seen[id], true) {
            return Err(section.bad("id", format!("core {id} is configured twice")));
        }
        if let Some(cpu) = section.integer("cpu", 0..=4095)? {
            if cores.iter().any(|core| core.cpu == Some(cpu as usize)) {
                return Err(section.bad("cpu", format!("two cores are pinned to CPU {cpu}; give each its own")));
            }
            cores[id].cpu = Some(cpu as usize);
        }
        let core = &mut cores[id];
        if let Some(spin) = section.duration("spin_before_park", Duration::ZERO..=Duration::from_millis(10))? {
            core.spin_before_park = spin;
        }
        limits::override_store(&mut section, &mut core.store)?;
        if let Some(path) = section.text("data")? {
            core.data = PathBuf::from(path);
        }
    }
    for (id, core) in cores.iter().enumerate() {
        if cores[..id].iter().any(|other| other.data == core.data) {
            return Err(root.bad("core", format!("core {id} shares its `data` directory with another core")));
        }
    }
    Ok(cores)
}

#[cfg(test)]
mod tests;
