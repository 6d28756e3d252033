//! Connections between cores of different nodes: one for each pair of cores, made by the lesser of the two.
//!
//! The rule: a peer is believed to be up only after it said who it is, and that it is of this cluster with the same ring.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use quorate_net::{
    bounds::HANDSHAKE_BYTES_MAX,
    frame,
    id::{CoreId, Endpoint},
    message::{ArchivedHello, ArchivedMessage, Hello, Message, PROTOCOL, gossip::NodeIdentity},
    transport::{Closed, Connection, Handler, Limits, Link, LinkOptions, Next, Taken, Transport, WhenFull},
};

use super::shell::Shell;
use crate::membership::state::Standing;

/// What a core says of itself, and expects of others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    pub cluster: u64,
    pub me: Endpoint,
    pub partitions: u16,
    pub replicas: u8,
    /// Which machine this is.
    pub machine: NodeIdentity,
}

/// The limits of a connection between peers.
pub(super) fn limits() -> Limits {
    Limits { when_full: WhenFull::Refuse, first_request_timeout: Some(Duration::from_secs(5)), ..Limits::default() }
}

/// Connects to `peer` and stays connected.
pub(super) fn connect(
    shell: &Rc<Shell>,
    transport: &Transport,
    identity: Identity,
    peer: Endpoint,
    at: SocketAddr,
) -> Link {
    let options = LinkOptions {
        limits: limits(),
        connect_timeout: Duration::from_secs(1),
        backoff_min: Duration::from_millis(20),
        backoff_max: Duration::from_millis(250),
        seed: super::shell::random_u64(),
    };
    let shell = shell.clone();
    Link::open(transport, at, options, move |connection| {
        greet(connection, identity, peer);
        Box::new(PeerHandler { shell: shell.clone(), identity, expected: Some(peer), peer: None })
    })
}

/// What a connection from a peer leads to.
pub(super) fn accepted(shell: &Rc<Shell>, identity: Identity) -> Box<dyn Handler> {
    Box::new(PeerHandler { shell: shell.clone(), identity, expected: None, peer: None })
}

fn greet(connection: &Connection, identity: Identity, to: Endpoint) {
    let Identity { cluster, me: from, partitions, replicas, machine: identity } = identity;
    let hello = Message::Hello(Hello { protocol: PROTOCOL, cluster, from, to, partitions, replicas, identity });
    // A connection that is already broken reports that by itself.
    let _ = connection.send(|out| frame::encode(&hello, out).expect("a greeting is short"));
}

struct PeerHandler {
    shell: Rc<Shell>,
    identity: Identity,
    /// Whom this side meant to reach; `None` on the side that was connected to.
    expected: Option<Endpoint>,
    /// Who it is, once it said so.
    peer: Option<Endpoint>,
}

impl Handler for PeerHandler {
    fn received(&mut self, connection: &Connection, input: &[u8]) -> Taken {
        let mut consumed = 0;
        loop {
            let rest = &input[consumed..];
            let payload_max = if self.peer.is_some() { usize::MAX } else { HANDSHAKE_BYTES_MAX };
            let taken = match frame::decode(rest, payload_max) {
                Ok(Some(frame)) => frame.access().map(|message| (frame.consumed(), message)),
                Ok(None) => return Taken::read_more(consumed, frame::bytes_wanted(rest)),
                Err(error) => Err(error),
            };
            let outcome = match taken {
                Ok((bytes, message)) => {
                    consumed += bytes;
                    self.take(connection, message)
                }
                Err(error) => Err(error.to_string()),
            };
            if let Err(reason) = outcome {
                eprintln!("core {}: closed a peer connection from {}: {reason}", self.identity.me, connection.peer());
                return Taken { consumed, next: Next::Close };
            }
        }
    }

    fn closed(&mut self, connection: &Connection, _reason: Closed) {
        if let Some(peer) = self.peer {
            self.shell.peer_disconnected(peer, connection);
        }
    }
}

impl PeerHandler {
    fn take(&mut self, connection: &Connection, message: &ArchivedMessage) -> Result<(), String> {
        match (self.peer, message) {
            (Some(_), ArchivedMessage::Hello(_)) => Err("it introduced itself twice".to_owned()),
            (Some(peer), message) => {
                self.shell.message(peer, message);
                Ok(())
            }
            (None, ArchivedMessage::Hello(hello)) => {
                let peer = self.check(hello)?;
                if self.expected.is_none() {
                    greet(connection, self.identity, peer);
                }
                self.peer = Some(peer);
                self.shell.peer_connected(peer, connection);
                Ok(())
            }
            (None, _) => Err("it did not introduce itself".to_owned()),
        }
    }

    fn check(&self, hello: &ArchivedHello) -> Result<Endpoint, String> {
        let ours = self.identity;
        let endpoint = |node: u16, core: u16| Endpoint::new(quorate_net::id::NodeId(node), CoreId(core));
        let from = endpoint(hello.from.node.0.to_native(), hello.from.core.0.to_native());
        let to = endpoint(hello.to.node.0.to_native(), hello.to.core.0.to_native());
        let machine = NodeIdentity(hello.identity.0.to_native());
        // Who is not known may gossip: so it asks to join. It is not listened to in anything else.
        let standing = self.shell.look(|core| core.membership().state().standing(machine, from.node));
        if hello.protocol != PROTOCOL {
            Err(format!("it speaks protocol {}, this node {PROTOCOL}: upgrade the older one", hello.protocol))
        } else if hello.cluster != ours.cluster {
            Err("it belongs to another cluster: `name` and `secret` of [cluster] must be the same".to_owned())
        } else if (hello.partitions.to_native(), hello.replicas) != (ours.partitions, ours.replicas) {
            Err(format!(
                "its ring has {} partitions and {} replicas, this one {} and {}",
                hello.partitions, hello.replicas, ours.partitions, ours.replicas
            ))
        } else if to != ours.me {
            Err(format!("it looks for core {to}, this is {}: compare the addresses in the configs", ours.me))
        } else if let Standing::Refused(refusal) = standing {
            Err(format!("{from} is refused: {refusal}"))
        } else if from.node == ours.me.node || self.expected.is_some_and(|expected| expected != from) {
            Err(format!("it says that it is core {from}, who is not expected here"))
        } else {
            Ok(from)
        }
    }
}
