//! Which endpoint a key's request goes to: the core that owns it where the cluster says so, else the client's own
//! server; then the others, in an order that spreads them.
//!
//! The rule: an order of preference names every endpoint exactly once, so that a request finds any server that is up.
//!
//! Not here: which endpoints are up (`worker`).

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs},
    time::Duration,
};

use quorate_net::{
    client::{Client, ClientOptions},
    message::ClusterMap,
    resp::{Reply, ReplyLimits, ReplyScanner, write_command},
    slot::{self, slot},
};

const SLOTS: usize = slot::SLOTS as usize;

/// What to do when nobody is there.
const WHAT_ELSE: &str = "`quorate dev` starts a cluster on this machine, --servers names another";

/// All endpoints, and who owns what.
#[derive(Debug)]
pub(crate) struct Routes {
    pub(crate) endpoints: Vec<SocketAddr>,
    /// Per slot, which of `owners` it has. Empty: the server routes.
    slots: Vec<u16>,
    /// Distinct lists of owners, the first the one to ask, as indexes into `endpoints`.
    owners: Vec<Vec<u16>>,
}

impl Routes {
    /// Clients go to any of these servers.
    pub(crate) fn direct(endpoints: Vec<SocketAddr>) -> Self {
        assert!(!endpoints.is_empty(), "there is a server");
        Self { endpoints, slots: Vec::new(), owners: Vec::new() }
    }

    /// Clients go to the owners that `CLUSTER SLOTS` names, asked of the first server that answers.
    pub(crate) fn from_slots(servers: &[SocketAddr], timeout: Duration) -> Result<Self, String> {
        let mut last = String::new();
        for &server in servers {
            match ask(server, &[b"CLUSTER", b"SLOTS"], timeout) {
                Ok(bytes) => return parse_slots(&Reply::parse(&bytes), server),
                Err(error) => last = format!("{server}: {error}"),
            }
        }
        Err(format!("no server told its CLUSTER SLOTS ({last}); {WHAT_ELSE}"))
    }

    /// Clients go to the cores that own keys by the cluster's map, asked of the first server that answers.
    pub(crate) fn from_map(servers: &[SocketAddr], timeout: Duration) -> Result<Self, String> {
        let options = ClientOptions { timeout, ..ClientOptions::default() };
        let client =
            Client::connect(servers, options).map_err(|error| format!("no cluster map: {error}; {WHAT_ELSE}"))?;
        parse_map(client.map())
    }

    /// The endpoints for a key, best first.
    pub(crate) fn order(&self, client: u64, key: &[u8]) -> impl Iterator<Item = usize> + '_ {
        let owners: &[u16] = match self.slots.get(usize::from(slot(key))) {
            Some(&owners) if !self.slots.is_empty() => &self.owners[usize::from(owners)],
            _ => &[],
        };
        let count = self.endpoints.len();
        let home = (client % count as u64) as usize;
        let others = (0..count).map(move |i| (home + i) % count);
        let first = owners.iter().map(|&owner| usize::from(owner));
        first.chain(others.filter(|&other| !owners.iter().any(|&owner| usize::from(owner) == other)))
    }

    fn from_owners(endpoints: Vec<SocketAddr>, by_slot: impl Iterator<Item = Vec<u16>>) -> Self {
        let mut routes = Self::direct(endpoints);
        for owners in by_slot {
            let known = routes.owners.iter().rposition(|known| *known == owners);
            let at = known.unwrap_or_else(|| {
                routes.owners.push(owners);
                routes.owners.len() - 1
            });
            routes.slots.push(at as u16);
        }
        assert_eq!(routes.slots.len(), SLOTS, "every slot has owners");
        routes
    }
}

/// Whether any of them is there: without one all that follows would only be errors.
pub(crate) fn check_reachable(servers: &[SocketAddr], timeout: Duration) -> Result<(), String> {
    let mut last = String::new();
    for server in servers {
        match TcpStream::connect_timeout(server, timeout) {
            Ok(_) => return Ok(()),
            Err(error) => last = format!("{server}: {error}"),
        }
    }
    Err(format!("no server can be connected to ({last}); {WHAT_ELSE}"))
}

/// The address that `text` names.
pub(crate) fn resolve(text: &str) -> Result<SocketAddr, String> {
    let mut found = text.to_socket_addrs().map_err(|error| format!("'{text}' is no HOST:PORT: {error}"))?;
    found.next().ok_or_else(|| format!("'{text}' has no address"))
}

fn parse_slots(reply: &Reply<'_>, server: SocketAddr) -> Result<Routes, String> {
    let malformed = || "CLUSTER SLOTS has another shape than Redis gives it".to_owned();
    if let Some(error) = reply.as_error() {
        return Err(format!("CLUSTER SLOTS: {}", String::from_utf8_lossy(error)));
    }
    let mut endpoints = Vec::new();
    let mut by_slot: Vec<Vec<u16>> = vec![Vec::new(); SLOTS];
    for range in reply.as_elements().ok_or_else(malformed)? {
        let [Reply::Integer(first), Reply::Integer(last), nodes @ ..] = range.as_elements().ok_or_else(malformed)?
        else {
            return Err(malformed());
        };
        let mut owners = Vec::new();
        for node in nodes {
            let [host, Reply::Integer(port), ..] = node.as_elements().ok_or_else(malformed)? else {
                return Err(malformed());
            };
            // An empty host means: the one that was asked.
            let host = host.as_bytes().filter(|host| !host.is_empty()).map(String::from_utf8_lossy);
            let address = match host {
                Some(host) => resolve(&format!("{host}:{port}"))?,
                None => SocketAddr::new(server.ip(), u16::try_from(*port).map_err(|_| malformed())?),
            };
            let known = endpoints.iter().position(|known| *known == address);
            let at = known.unwrap_or_else(|| {
                endpoints.push(address);
                endpoints.len() - 1
            });
            owners.push(at as u16);
        }
        let (first, last) = (usize::try_from(*first), usize::try_from(*last));
        let (Ok(first), Ok(last)) = (first, last) else { return Err(malformed()) };
        by_slot.get_mut(first..=last).ok_or_else(malformed)?.fill(owners);
    }
    match by_slot.iter().position(Vec::is_empty) {
        Some(slot) => Err(format!("slot {slot} has no owner: is the cluster whole?")),
        None => Ok(Routes::from_owners(endpoints, by_slot.into_iter())),
    }
}

fn parse_map(map: &ClusterMap) -> Result<Routes, String> {
    let mut endpoints = Vec::new();
    let mut first_core = Vec::new();
    for node in &map.nodes {
        first_core.push(endpoints.len() as u16);
        let address: IpAddr = node.address.parse().map_err(|_| format!("node {} has no IP address", node.id))?;
        for core in 0..node.cores {
            let port = node.core_port.checked_add(core).ok_or("a core's port is beyond 65535")?;
            endpoints.push(SocketAddr::new(address, port));
        }
    }
    let partitions = u16::try_from(map.preference.len()).unwrap_or(0);
    if endpoints.is_empty() || !partitions.is_power_of_two() || partitions > slot::SLOTS {
        return Err(format!("a cluster map of {} nodes and {partitions} partitions", map.nodes.len()));
    }
    let owners = |slot: u16| {
        let partition = usize::from(slot::partition(slot, partitions));
        let core = |&node: &u16| {
            let node = usize::from(node);
            Some(first_core.get(node)? + ClusterMap::core(*map.spread.get(partition)?, map.nodes[node].cores).0)
        };
        map.preference[partition].iter().map(core).collect::<Option<Vec<u16>>>()
    };
    let by_slot: Option<Vec<_>> = (0..slot::SLOTS).map(owners).collect();
    Ok(Routes::from_owners(endpoints, by_slot.ok_or("a cluster map that names a node it does not hold")?.into_iter()))
}

/// One command, one reply, on a connection of its own.
pub(crate) fn ask(server: SocketAddr, command: &[&[u8]], timeout: Duration) -> Result<Vec<u8>, String> {
    let mut stream = TcpStream::connect_timeout(&server, timeout).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(timeout)).map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    write_command(&mut out, command);
    stream.write_all(&out).map_err(|error| error.to_string())?;
    let mut scanner = ReplyScanner::new(ReplyLimits::default());
    let mut input = Vec::new();
    let mut chunk = [0; 16 << 10];
    loop {
        let count = stream.read(&mut chunk).map_err(|error| error.to_string())?;
        if count == 0 {
            return Err("the server closed the connection".to_owned());
        }
        input.extend_from_slice(&chunk[..count]);
        if scanner.scan(&input).map_err(|error| error.to_string())?.is_some() {
            return Ok(input);
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_net::{id::NodeId, message::MappedNode};

    use super::*;

    #[test]
    fn every_endpoint_is_in_the_order_once() {
        let endpoints: Vec<SocketAddr> = (1..=5).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        let direct = Routes::direct(endpoints.clone());
        assert_eq!(direct.order(3, b"any").collect::<Vec<_>>(), [3, 4, 0, 1, 2]);
        let owned = Routes::from_owners(endpoints, std::iter::repeat_n(vec![2, 0], SLOTS));
        assert_eq!(owned.order(4, b"any").collect::<Vec<_>>(), [2, 0, 4, 1, 3]);
    }

    #[test]
    fn a_map_leads_to_the_owning_cores() {
        let node = |id: u16| MappedNode {
            id: NodeId(id),
            address: format!("127.0.0.{id}"),
            cores: 2,
            port: 7400,
            core_port: 7401,
        };
        let mut map = ClusterMap {
            replicas: 2,
            nodes: vec![node(1), node(2)],
            preference: vec![vec![0, 1], vec![1, 0]],
            spread: vec![0, u32::MAX],
        };
        let routes = parse_map(&map).unwrap();
        let first =
            |slot: usize| routes.endpoints[usize::from(routes.owners[usize::from(routes.slots[slot])][0])].to_string();
        assert_eq!((first(0), first(SLOTS - 1)), ("127.0.0.1:7401".to_owned(), "127.0.0.2:7402".to_owned()));
        map.preference[1] = vec![2];
        assert!(parse_map(&map).is_err());
    }

    #[test]
    fn cluster_slots_are_read_and_gaps_refused() {
        let server = SocketAddr::from(([127, 0, 0, 9], 1));
        let whole = b"*2\r\n*4\r\n:0\r\n:99\r\n*2\r\n$9\r\n127.0.0.1\r\n:7401\r\n*2\r\n$9\r\n127.0.0.2\r\n:7401\r\n\
                      *3\r\n:100\r\n:16383\r\n*2\r\n$0\r\n\r\n:7402\r\n";
        let routes = parse_slots(&Reply::parse(whole), server).unwrap();
        assert_eq!(
            routes.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["127.0.0.1:7401", "127.0.0.2:7401", "127.0.0.9:7402"]
        );
        assert_eq!(routes.owners, [vec![0, 1], vec![2]]);
        let gap = b"*1\r\n*3\r\n:0\r\n:16382\r\n*2\r\n$0\r\n\r\n:7402\r\n";
        assert!(parse_slots(&Reply::parse(gap), server).unwrap_err().contains("slot 16383"));
        for bad in
            [&b"+OK\r\n"[..], b"*1\r\n:1\r\n", b"*1\r\n*3\r\n:0\r\n:99999\r\n*2\r\n$0\r\n\r\n:7402\r\n", b"-ERR no\r\n"]
        {
            assert!(parse_slots(&Reply::parse(bad), server).is_err());
        }
    }
}
