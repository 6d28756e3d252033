//! Nodes on hosts of their own: a network each, joined by a bridge that drops what it is told to.
//!
//! The rule: every rule that drops counts, and who heals is told how much was dropped: a fault that hit nothing is none.
//!
//! Not here: how such networks go away (`apart`).

use std::net::Ipv4Addr;

use serde_json::Value;

use super::apart::{Network, command};

/// The host of node n is the n-th address after this one.
const NET: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 0);

/// Programs that [`Hosts`] needs.
pub(crate) const PROGRAMS: [&str; 2] = ["ip", "nft"];

/// Made on a thread of [`super::apart::apart`], whose network is the bridge: clients are there.
pub(crate) struct Hosts(Vec<Network>);

impl Hosts {
    pub(crate) fn new(nodes: u16) -> Self {
        command("ip", "link add bridge type bridge");
        command("ip", &format!("addr add {}/24 dev bridge", address(254)));
        command("ip", "link set bridge up");
        command("nft", "add table bridge faults");
        command("nft", "add chain bridge faults forward { type filter hook forward priority 0 ; policy accept ; }");
        let host = |node| {
            let network = Network::new();
            let path = network.path();
            command("ip", &format!("link add port-{node} type veth peer name host netns {path}"));
            command("ip", &format!("link set port-{node} master bridge up"));
            network.command("ip", &format!("addr add {}/24 dev host", address(node)));
            network.command("ip", "link set host up");
            network
        };
        Self((1..=nodes).map(host).collect())
    }

    pub(crate) fn first_address(&self) -> Ipv4Addr {
        address(1)
    }

    pub(crate) fn network(&self, node: u16) -> &Network {
        &self.0[usize::from(node) - 1]
    }

    /// Nothing gets from `from` to `to` any more; the other way it does.
    pub(crate) fn cut(&self, from: &[u16], to: &[u16]) {
        self.drop_of(from, to, "");
    }

    /// Neither side hears the other.
    pub(crate) fn split(&self, one: &[u16], other: &[u16]) {
        self.cut(one, other);
        self.cut(other, one);
    }

    /// Of a hundred packets between any two hosts, so many are lost.
    pub(crate) fn lose(&self, percent: u8) {
        let all: Vec<u16> = (1..=self.0.len() as u16).collect();
        self.drop_of(&all, &all, &format!("numgen random mod 100 < {percent}"));
    }

    /// Packets dropped so far by the faults of now.
    pub(crate) fn dropped(&self) -> u64 {
        let text = command("nft", "--json list chain bridge faults forward");
        let listed: Value = serde_json::from_str(&text).expect("nft prints JSON");
        let rules = listed["nftables"].as_array().expect("a list of objects");
        let packets = |rule: &Value| {
            let parts = rule["rule"]["expr"].as_array()?;
            parts.iter().find_map(|part| part["counter"]["packets"].as_u64())
        };
        rules.iter().filter_map(packets).sum()
    }

    /// All packets arrive again. How many were dropped.
    pub(crate) fn heal(&self) -> u64 {
        let dropped = self.dropped();
        command("nft", "flush chain bridge faults forward");
        dropped
    }

    fn drop_of(&self, from: &[u16], to: &[u16], which: &str) {
        for (from, to) in from.iter().flat_map(|from| to.iter().map(move |to| (*from, *to))) {
            if from != to {
                let (from, to) = (address(from), address(to));
                let rule = format!("add rule bridge faults forward ip saddr {from} ip daddr {to} {which} counter drop");
                command("nft", &rule);
            }
        }
    }
}

fn address(node: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(NET) + u32::from(node))
}
