//! `--node`: where a command finds the cluster; and how it asks all cores of it.
//!
//! The rule: any node will do, since each knows the others. All cores are asked at once, so that a few silent ones do not
//! add up; one that does not answer says why, and is no failure of the others.

use std::{
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    thread,
    time::Duration,
};

use quorate_net::{
    client::{Client, ClientError, ClientOptions},
    message::{ClusterMap, MappedNode},
};
use serde_json::Value;

use crate::{
    failure::{Failure, failed},
    resp,
};

/// A core that takes longer to answer an operator is told as silent.
const ANSWER_MAX: Duration = Duration::from_secs(2);

const PORT: u16 = 7400;

/// What each command takes that asks a cluster: which nodes to ask first, and how to tell the answer.
#[derive(clap::Args)]
pub(crate) struct Common {
    /// A node's ADDRESS or ADDRESS:PORT; several, separated by commas, are tried in turn
    #[arg(
        long = "node",
        global = true,
        value_name = "ADDRESS",
        value_delimiter = ',',
        default_value = "127.0.0.1:7400"
    )]
    nodes: Vec<String>,
    /// How long to wait for an answer: seconds, or with a unit, such as 500ms
    #[arg(long, global = true, value_name = "TIME", default_value = "5s", value_parser = quorate_bench::patience)]
    pub(crate) timeout: Duration,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl Common {
    /// Prints one of the two.
    pub(crate) fn print(&self, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) {
        if self.json {
            println!("{}", json());
        } else {
            print!("{}", text());
        }
    }

    /// A client of the cluster that these nodes belong to.
    pub(crate) fn connect(&self) -> Result<Client, Failure> {
        let mut addresses = Vec::new();
        for node in &self.nodes {
            addresses.extend(resolve(node)?);
        }
        let options = ClientOptions { timeout: self.timeout, ..ClientOptions::default() };
        Client::connect(&addresses, options).map_err(|error| match error {
            ClientError::Unreachable { last } => failed(format!(
                "no node can be reached ({last}); nothing was changed. Start a cluster with `quorate dev`, or name a \
                 running node by --node ADDRESS:PORT"
            )),
            ClientError::Unanswered { node, error, .. } => {
                failed(format!("{node}: {error}; name another node by --node ADDRESS:PORT"))
            }
            other => failed(other.to_string()),
        })
    }
}

/// A node, and what each of its cores answered, or why it did not.
#[derive(Clone, Debug)]
pub(crate) struct Answered<T> {
    pub(crate) node: MappedNode,
    pub(crate) cores: Vec<Result<T, String>>,
}

impl<T> Answered<T> {
    /// What was answered.
    pub(crate) fn answers(&self) -> impl Iterator<Item = &T> {
        self.cores.iter().flatten()
    }

    /// The cores that did not answer, and why.
    pub(crate) fn silent(&self) -> impl Iterator<Item = (usize, &str)> {
        self.cores.iter().enumerate().filter_map(|(core, answer)| Some((core, answer.as_ref().err()?.as_str())))
    }
}

/// Asks every core of these nodes, all at once.
pub(crate) fn ask_cores<T: Send>(
    nodes: &[MappedNode],
    ask: impl Fn(&MappedNode, u16) -> Result<T, String> + Sync,
) -> Vec<Answered<T>> {
    thread::scope(|scope| {
        let ask = &ask;
        let begin = |node| move |core| scope.spawn(move || ask(node, core));
        let asked: Vec<Vec<_>> = nodes.iter().map(|node| (0..node.cores).map(begin(node)).collect()).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().expect("asking does not panic");
        let answered = |(node, cores): (&MappedNode, Vec<_>)| Answered {
            node: node.clone(),
            cores: cores.into_iter().map(join).collect(),
        };
        nodes.iter().zip(asked).map(answered).collect()
    })
}

/// The text that one core answers to a command.
pub(crate) fn ask_core(node: &MappedNode, core: u16, command: &[&[u8]]) -> Result<String, String> {
    let address: IpAddr = node.address.parse().map_err(|_| format!("`{}` is no address", node.address))?;
    let port = node.core_port.checked_add(core).ok_or("there is no such port")?;
    let answer = resp::ask(SocketAddr::new(address, port), command, ANSWER_MAX);
    let text = answer.map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// What one core answers to `QUORATE …`.
pub(crate) fn inquire(node: &MappedNode, core: u16, words: &[&[u8]]) -> Result<Value, String> {
    let command: Vec<&[u8]> = [b"QUORATE".as_slice()].iter().chain(words).copied().collect();
    let text = ask_core(node, core, &command)?;
    serde_json::from_str(&text).map_err(|error| format!("answered no JSON: {error}"))
}

/// What all cores that answer say to `QUORATE word`, of `what`.
///
/// # Errors
/// When none does.
pub(crate) fn inquire_all(map: &ClusterMap, word: &str, what: &str) -> Result<Vec<Value>, Failure> {
    let nodes = ask_cores(&map.nodes, |node, core| inquire(node, core, &[word.as_bytes()]));
    let cores: Vec<Value> = nodes.iter().flat_map(Answered::answers).cloned().collect();
    if cores.is_empty() {
        return Err(failed(format!("no core tells of {what}; `quorate status` shows which nodes answer")));
    }
    Ok(cores)
}

/// A number of an answer; 0 when it is not there, as in one of another version.
pub(crate) fn number(answer: &Value, name: &str) -> u64 {
    answer[name].as_u64().unwrap_or(0)
}

/// The addresses that are meant by an ADDRESS or ADDRESS:PORT.
pub(crate) fn resolve(node: &str) -> Result<Vec<SocketAddr>, Failure> {
    let with_port = node.to_socket_addrs();
    let found = with_port.or_else(|_| (node.trim_matches(['[', ']']), PORT).to_socket_addrs());
    match found.map(Iterator::collect::<Vec<_>>) {
        Ok(addresses) if !addresses.is_empty() => Ok(addresses),
        _ => Err(Failure::Usage(format!(
            "--node {node}: not an ADDRESS or ADDRESS:PORT that can be found, such as 127.0.0.2 or [::1]:7400"
        ))),
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
