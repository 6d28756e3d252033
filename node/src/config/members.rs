//! The members of the cluster, as every node lists them.
//!
//! The rule: ids are unique, no two listeners anywhere share an address and a port, and an address that other machines
//! can reach is refused unless that was asked for, since nothing is encrypted or authenticated.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use quorate_net::{bounds, id::NodeId};

use super::{error::ConfigError, section::Section};

/// One node of the cluster.
#[derive(Clone, PartialEq, Debug)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Where it listens.
    pub address: IpAddr,
    /// How many cores it runs.
    pub cores: u16,
    /// Replicas go to distinct racks first. All in one, the empty one, unless said.
    pub rack: String,
    /// Its share of the data beside the other nodes'.
    pub weight: f64,
    /// RESP and native clients, on whichever core accepts.
    pub port: u16,
    /// RESP and native clients of core i: this + i.
    pub core_port: u16,
    /// Other nodes, to core i: this + i.
    pub peer_port: u16,
    /// HTTP.
    pub http_port: u16,
}

impl Member {
    /// All addresses that this node listens on, each with the setting that it comes from.
    #[must_use]
    pub fn listeners(&self) -> Vec<(&'static str, SocketAddr)> {
        let at = |port: u16| SocketAddr::new(self.address, port);
        let mut listeners = vec![("port", at(self.port)), ("http_port", at(self.http_port))];
        listeners.extend((0..self.cores).map(|core| ("core_port", at(self.core_port + core))));
        listeners.extend((0..self.cores).map(|core| ("peer_port", at(self.peer_port + core))));
        listeners
    }
}

/// All `[[cluster.node]]`, in the order of their ids.
pub(super) fn read(cluster: &mut Section<'_>, insecure: bool) -> Result<Vec<Member>, ConfigError> {
    let sections = cluster.tables("node")?;
    if sections.is_empty() {
        return Err(cluster.missing("node"));
    }
    if sections.len() > bounds::NODES_MAX {
        return Err(cluster.bad("node", format!("lists more than {} nodes", bounds::NODES_MAX)));
    }
    let mut members: Vec<Member> = Vec::with_capacity(sections.len());
    let mut taken = BTreeMap::new();
    for mut section in sections {
        let member = read_member(&mut section, insecure)?;
        if members.iter().any(|other| other.id == member.id) {
            return Err(section.bad("id", format!("is {} like another node's; each node needs its own", member.id)));
        }
        for (setting, listener) in member.listeners() {
            if let Some((other, other_setting)) = taken.insert(listener, (member.id, setting)) {
                let whose = if other == member.id { "this node".into() } else { format!("node {other}") };
                let problem = format!("takes {listener}, which `{other_setting}` of {whose} has already");
                return Err(section.bad(setting, problem));
            }
        }
        members.push(member);
    }
    members.sort_by_key(|member| member.id);
    Ok(members)
}

fn read_member(section: &mut Section<'_>, insecure: bool) -> Result<Member, ConfigError> {
    let id = section.read("id")?;
    let address = read_address(section, insecure)?;
    let cores = section.read("cores")?;
    let rack: String = section.read("rack")?;
    if rack.len() > 64 {
        return Err(section.bad("rack", "is longer than 64 bytes"));
    }
    for port in ["core_port", "peer_port"] {
        section.narrow(port, u64::from(u16::MAX - (cores - 1)));
    }
    Ok(Member {
        id: NodeId(id),
        address,
        cores,
        rack,
        weight: section.read("weight")?,
        port: section.read("port")?,
        core_port: section.read("core_port")?,
        peer_port: section.read("peer_port")?,
        http_port: section.read("http_port")?,
    })
}

fn read_address(section: &mut Section<'_>, insecure: bool) -> Result<IpAddr, ConfigError> {
    let text: String = section.read("address")?;
    let Ok(address) = text.parse::<IpAddr>() else {
        return Err(section.bad("address", format!("must be an IP address such as \"127.0.0.1\", not \"{text}\"")));
    };
    if address.is_unspecified() || address.is_multicast() {
        return Err(section.bad("address", format!("is {address}, which other nodes cannot connect to")));
    }
    if !address.is_loopback() && !insecure {
        let problem = format!(
            "is {address}, which other machines can reach, but connections are neither encrypted nor authenticated; \
             use a loopback address, or set `insecure = true` in [node] if the network itself is trusted"
        );
        return Err(section.bad("address", problem));
    }
    Ok(address)
}
