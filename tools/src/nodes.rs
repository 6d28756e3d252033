//! `--node`: where a command finds the cluster.
//!
//! The rule: any node will do, since each knows the others.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    time::Duration,
};

use quorate_net::client::{Client, ClientError, ClientOptions};

use crate::failure::{Failure, failed};

const PORT: u16 = 7400;

/// Which nodes to ask first.
#[derive(clap::Args)]
pub(crate) struct Seeds {
    /// A node's ADDRESS or ADDRESS:PORT; several, separated by commas, are tried in turn
    #[arg(long = "node", value_name = "ADDRESS", value_delimiter = ',', default_value = "127.0.0.1:7400")]
    nodes: Vec<String>,
    /// How long to wait for an answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

impl Seeds {
    /// A client of the cluster that these nodes belong to.
    pub(crate) fn connect(&self) -> Result<Client, Failure> {
        let mut addresses = Vec::new();
        for node in &self.nodes {
            addresses.extend(resolve(node)?);
        }
        let options = ClientOptions { timeout: Duration::from_secs(self.timeout), ..ClientOptions::default() };
        Client::connect(&addresses, options).map_err(|error| match error {
            ClientError::Unreachable { last } => failed(format!(
                "no node can be reached ({last}); nothing was changed. Start a cluster with `quorate dev`, or name a \
                 running node by --node ADDRESS:PORT"
            )),
            other => failed(other.to_string()),
        })
    }
}

fn resolve(node: &str) -> Result<Vec<SocketAddr>, Failure> {
    let with_port = node.to_socket_addrs();
    let found = with_port.or_else(|_| (node.trim_matches(['[', ']']), PORT).to_socket_addrs());
    match found.map(Iterator::collect::<Vec<_>>) {
        Ok(addresses) if !addresses.is_empty() => Ok(addresses),
        _ => Err(Failure::Usage(format!("--node {node}: not an ADDRESS or ADDRESS:PORT that can be found"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_may_be_left_out() {
        for (node, wanted) in [
            ("127.0.0.1", "127.0.0.1:7400"),
            ("127.0.0.2:99", "127.0.0.2:99"),
            ("::1", "[::1]:7400"),
            ("[::1]", "[::1]:7400"),
            ("[::1]:99", "[::1]:99"),
        ] {
            assert_eq!(resolve(node).unwrap(), [wanted.parse::<SocketAddr>().unwrap()], "{node}");
        }
        for node in ["", "127.0.0.1:", "127.0.0.1:99999", "999.0.0.1"] {
            assert!(matches!(resolve(node), Err(Failure::Usage(_))), "{node}");
        }
    }
}
