//! Connections between cores of different nodes: one for each pair of cores, made by the lesser of the two.
//!
//! The rule: a peer is believed to be up only after it said who it is, and that it is of this cluster with the same ring. A
//! connection that the greater of the two made, since the other did not, counts as long as there is no other.
//! Whom a core hangs up on is told who this core is, or who belongs: so both sides know why, and can say it.

use std::{fmt, net::SocketAddr, rc::Rc, time::Duration};

use quorate_net::{
    bounds::HANDSHAKE_BYTES_MAX,
    frame::{self, FrameError},
    id::{CoreId, Endpoint},
    message::{ArchivedHello, ArchivedMessage, Hello, Message, PROTOCOL, gossip::NodeIdentity},
    transport::{Closed, Connection, Handler, Limits, Link, LinkOptions, Next, Taken, Transport, WhenFull},
};

use super::shell::Shell;
use crate::{
    clock::Instant,
    membership::state::{Refusal, Standing},
};

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

/// What is on the way to a machine that is gone is given up after this, and so is a new connection that says nothing: requests
/// have long been answered in other ways by then.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// The limits of a connection between peers.
pub(super) fn limits() -> Limits {
    Limits {
        when_full: WhenFull::Refuse,
        first_request_timeout: Some(SILENCE_MAX),
        silence_max: Some(SILENCE_MAX),
        ..Limits::default()
    }
}

/// Connects to `peer` and stays connected. `asks`: only in case the peer, who should connect to this node, does not know that
/// it should, or where; so not often.
pub(super) fn connect(
    shell: &Rc<Shell>,
    transport: &Transport,
    identity: Identity,
    peer: Endpoint,
    at: SocketAddr,
    asks: bool,
) -> Link {
    let options = LinkOptions {
        limits: limits(),
        connect_timeout: Duration::from_secs(1),
        backoff_min: Duration::from_millis(20),
        backoff_max: if asks { Duration::from_secs(5) } else { Duration::from_millis(250) },
        seed: super::shell::random_u64(),
    };
    let shell = shell.clone();
    Link::open(transport, at, options, move |connection| {
        greet(connection, identity, peer);
        Box::new(PeerHandler { shell: shell.clone(), identity, expected: Some(peer), said: None, peer: None })
    })
}

/// What a connection from a peer leads to.
pub(super) fn accepted(shell: &Rc<Shell>, identity: Identity) -> Box<dyn Handler> {
    Box::new(PeerHandler { shell: shell.clone(), identity, expected: None, said: None, peer: None })
}

fn greet(connection: &Connection, identity: Identity, to: Endpoint) {
    let Identity { cluster, me: from, partitions, replicas, machine: identity } = identity;
    let hello = Message::Hello(Hello { protocol: PROTOCOL, cluster, from, to, partitions, replicas, identity });
    // A connection that is already broken reports that by itself.
    let _ = connection.send(|out| frame::encode(&hello, out).expect("a greeting is short"));
}

/// Why a core hangs up.
enum Fault {
    /// What came was not what it should be.
    Frame(FrameError),
    /// It is of another cluster, version or ring, or not who was looked for.
    Other(String),
    /// It belongs, and is connected to from here: two connections would take turns in ending each other.
    Known,
    /// It does not belong.
    Refused(Refusal),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(error @ FrameError::Version(_)) => write!(f, "{error}: upgrade the older one"),
            Self::Frame(error) => write!(f, "{error}"),
            Self::Other(reason) => f.write_str(reason),
            Self::Known => f.write_str("it belongs, and is connected to from here"),
            Self::Refused(refusal) => write!(f, "{refusal}"),
        }
    }
}

struct PeerHandler {
    shell: Rc<Shell>,
    identity: Identity,
    /// Whom this side meant to reach; `None` on the side that was connected to.
    expected: Option<Endpoint>,
    /// Who it says that it is.
    said: Option<Endpoint>,
    /// Who it is, once that was found right.
    peer: Option<Endpoint>,
}

impl Handler for PeerHandler {
    fn received(&mut self, connection: &Connection, input: &[u8]) -> Taken {
        let arrived = self.shell.arrived_at_the_earliest();
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
                    self.take(connection, arrived, message)
                }
                Err(error) => Err(Fault::Frame(error)),
            };
            if let Err(fault) = outcome {
                self.explain(connection, &fault);
                if !matches!(fault, Fault::Known) {
                    self.shell.refused(self.expected.or(self.said), connection.peer(), &fault.to_string());
                }
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
    /// Says to whom is hung up on what it needs to know why.
    fn explain(&self, connection: &Connection, fault: &Fault) {
        let greeted = self.expected.is_some() || self.peer.is_some();
        let versions = matches!(fault, Fault::Frame(FrameError::Version(_)));
        if !greeted && (versions || !matches!(fault, Fault::Frame(_))) {
            // Of another version not even the name is known, and it reads no further than to the version.
            greet(connection, self.identity, self.said.unwrap_or(self.identity.me));
        }
        if let Fault::Refused(_) = fault {
            let all = Message::Gossip(self.shell.look(|core| core.membership().explanation()));
            // One that is gone already needs none.
            let _ = connection.send(|out| frame::encode(&all, out).expect("a state is within its limit"));
        }
    }

    fn take(&mut self, connection: &Connection, arrived: Instant, message: &ArchivedMessage) -> Result<(), Fault> {
        match (self.peer, message) {
            (Some(_), ArchivedMessage::Hello(_)) => Err(Fault::Other("it introduced itself twice".to_owned())),
            (Some(peer), message) => {
                self.shell.message(arrived, peer, message);
                Ok(())
            }
            (None, ArchivedMessage::Hello(hello)) => {
                let peer = self.check(hello)?;
                if self.expected.is_none() {
                    greet(connection, self.identity, peer);
                }
                self.peer = Some(peer);
                // One that the peer makes counts for more: each would end the other.
                let yields = self.expected.is_some() && peer < self.identity.me;
                if !yields || !self.shell.is_connected(peer) {
                    self.shell.peer_connected(peer, connection);
                }
                Ok(())
            }
            (None, _) => Err(Fault::Other("it did not introduce itself".to_owned())),
        }
    }

    fn check(&mut self, hello: &ArchivedHello) -> Result<Endpoint, Fault> {
        let ours = self.identity;
        let endpoint = |node: u16, core: u16| Endpoint::new(quorate_net::id::NodeId(node), CoreId(core));
        let from = endpoint(hello.from.node.0.to_native(), hello.from.core.0.to_native());
        let to = endpoint(hello.to.node.0.to_native(), hello.to.core.0.to_native());
        self.said = Some(from);
        let machine = NodeIdentity(hello.identity.0.to_native());
        // Who is not known may gossip: so it asks to join. It is not listened to in anything else.
        let standing = self.shell.look(|core| core.membership().state().standing(machine, from.node));
        let other = |reason: String| Err(Fault::Other(reason));
        if hello.protocol != PROTOCOL {
            other(format!("it speaks protocol {}, this node {PROTOCOL}: upgrade the older one", hello.protocol))
        } else if hello.cluster != ours.cluster {
            other("it belongs to another cluster: `name` and `secret` of [cluster] must be the same".to_owned())
        } else if (hello.partitions.to_native(), hello.replicas) != (ours.partitions, ours.replicas) {
            other(format!(
                "its ring has {} partitions and {} replicas, this one {} and {}: `partitions` and `replicas` of [cluster] \
                 must be the same",
                hello.partitions, hello.replicas, ours.partitions, ours.replicas
            ))
        } else if let Standing::Refused(refusal) = standing {
            Err(Fault::Refused(refusal))
        } else if to != ours.me {
            other(format!("it looks for core {to}, this is {}: compare the addresses in the configs", ours.me))
        } else if from.node == ours.me.node || self.expected.is_some_and(|expected| expected != from) {
            other(format!("it says that it is core {from}, who is not expected here"))
        } else if self.expected.is_none()
            && from > ours.me
            && standing == Standing::Belongs
            && self.shell.is_connected(from)
        {
            Err(Fault::Known)
        } else {
            Ok(from)
        }
    }
}
