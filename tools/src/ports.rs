//! Whether a node's addresses are free, asked before anything is opened.
//!
//! The rule: this is for clear words early; whoever listens later may still be refused, and says so himself.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    thread,
    time::{Duration, Instant},
};

use quorate_node::config::Member;

use crate::failure::{Failure, failed};

/// The kernel closes the listeners of a process with io_uring a moment after the process has ended. A node that was killed
/// must not keep its successor from starting.
const LINGER_MAX: Duration = Duration::from_secs(2);

/// An address that cannot be listened on, and what to do about it.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) what: String,
    pub(crate) cure: String,
}

/// An error that names the first address of `member` that cannot be listened on.
pub(crate) fn check(member: &Member) -> Result<(), Refused> {
    let deadline = Instant::now() + LINGER_MAX;
    for (setting, address) in member.listeners() {
        let Err(error) = bind(address, deadline) else { continue };
        let of = format!("{address} (`{setting}` of node {})", member.id);
        let port = address.port();
        let (what, cure) = match error.kind() {
            io::ErrorKind::AddrInUse => (
                format!("{of} is in use by another process"),
                format!("`ss -ltnp 'sport = :{port}'` shows which. Stop it, or choose another port"),
            ),
            io::ErrorKind::AddrNotAvailable => (
                format!("{of}: this machine does not have the address {}", address.ip()),
                "`ip addr` shows which it has".to_owned(),
            ),
            io::ErrorKind::PermissionDenied => {
                (format!("{of}: only root may listen on port {port}"), "choose one above 1023".to_owned())
            }
            _ => (format!("cannot listen on {of}: {error}"), "choose another address or port".to_owned()),
        };
        return Err(Refused { what, cure });
    }
    Ok(())
}

impl From<Refused> for Failure {
    fn from(Refused { what, cure }: Refused) -> Self {
        failed(format!("{what}; {cure}"))
    }
}

/// Whether `address` can be listened on; waits until `deadline` for one that is in use.
fn bind(address: SocketAddr, deadline: Instant) -> io::Result<()> {
    loop {
        match TcpListener::bind(address) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_node::config::Config;

    use super::*;

    fn member(address: &str, ports: &str) -> Member {
        let text = format!(
            "[node]\nid = 1\n[cluster]\nname = \"a\"\nsecret = \"0123456789abcdef\"\nread_quorum = 1\nwrite_quorum = 1\n\
             [[cluster.node]]\nid = 1\naddress = \"{address}\"\n{ports}\n"
        );
        Config::parse(&text.replace("[node]\n", "[node]\ninsecure = true\n")).unwrap().member().clone()
    }

    #[test]
    fn a_taken_address_is_named() {
        // An address of its own: somebody may run a cluster on the usual one.
        let [.., high, low] = std::process::id().to_be_bytes();
        let address = format!("127.251.{high}.{low}");
        let taken = TcpListener::bind((address.as_str(), 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = check(&member(&address, &format!("peer_port = {port}"))).unwrap_err().what;
        assert!(error.contains(&format!("{address}:{port} (`peer_port` of node 1) is in use")), "{error}");
    }

    #[test]
    fn an_address_that_is_given_up_is_waited_for() {
        let [.., high, low] = std::process::id().to_be_bytes();
        let address: SocketAddr = format!("127.252.{high}.{low}:7400").parse().unwrap();
        let taken = TcpListener::bind(address).unwrap();
        let giving_up = thread::spawn(move || {
            thread::sleep(Duration::from_millis(30));
            drop(taken);
        });
        assert!(bind(address, Instant::now() + Duration::from_secs(60)).is_ok());
        giving_up.join().unwrap();
    }

    #[test]
    fn a_foreign_address_is_named() {
        // Reserved for documentation: no machine has it.
        let error = check(&member("192.0.2.1", "")).unwrap_err().what;
        assert!(error.contains("does not have the address 192.0.2.1"), "{error}");
    }
}
