//! What Redis clients see: their commands, in RESP2 and RESP3, as gets and puts of the bucket `default`.
//!
//! The rule: replies leave in the order of the commands, whatever order the answers come in. Texts that clients look at
//! are those of Redis 7. A command that cannot be done as Redis would do it is refused before anything is written, and
//! the refusal says what to do instead.
//!
//! Pure: a [`Session`] is told what a client sent and what came of its requests, and says what to send and what to ask.
//! Not here: sockets, the coordinators that the requests go to, how siblings come about.

mod admin;
mod client;
mod cluster;
mod command;
mod data;
mod help;
mod kv;
mod reply;
mod server;
mod session;

use std::{net::SocketAddr, rc::Rc, time::Duration};

use quorate_net::{
    id::{CoreId, Endpoint, NodeId},
    message::{ClusterMap, Operation},
    resp::CommandLimits,
};
use serde_json::Value;

use crate::membership::state::Change;

pub use admin::{Order, order};
pub(crate) use kv::durability;
pub(crate) use reply::code;
pub use session::{After, Session};

/// The version of Redis whose protocol is spoken: clients choose their commands by it.
pub const REDIS_VERSION: &str = "7.2.5";

/// So many requests a client's connection may begin before others get their turn.
pub const TURN: usize = 16;

/// The bounds on one session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GatewayLimits {
    /// The most bytes in a value.
    pub value_bytes_max: usize,
    /// Requests of one session that are worked on at a time, unless the core allows fewer; the others wait in line.
    /// Typical: 64. With values of their largest size, this many may be held for a client at once.
    pub requests_max: usize,
    /// Commands that are read before other clients have their turn. Typical: [`TURN`].
    pub turn: usize,
    /// Commands of one session without their reply; no more are read then. Typical: 1024.
    pub commands_max: usize,
    /// Bytes of replies that wait for an earlier one; no more commands are read then. Typical: 1 MiB.
    pub held_bytes_max: usize,
}

impl GatewayLimits {
    /// The typical limits, for values of at most so many bytes.
    #[must_use]
    pub fn for_values(value_bytes_max: usize) -> Self {
        Self { value_bytes_max, requests_max: 64, turn: TURN, commands_max: 1024, held_bytes_max: 1 << 20 }
    }

    pub(crate) fn command_limits(&self) -> CommandLimits {
        CommandLimits::for_values(self.value_bytes_max)
    }
}

/// Which request of a session is meant. Opaque to the shell, which hands it back with the outcome.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket {
    command: u64,
    part: u32,
}

/// What the shell shall have done for a session, in this order.
#[derive(Clone, PartialEq, Debug)]
pub struct Ask {
    /// To be handed back with what came of it.
    pub ticket: Ticket,
    /// What to do.
    pub task: Task,
}

/// Something that a session waits for.
#[derive(Clone, PartialEq, Debug)]
pub enum Task {
    /// To be asked of a coordinator, then [`Session::answered`].
    Request(Operation),
    /// To be made by this core, then [`Session::changed`] as soon as it is on disk, or was refused.
    Change(Change),
}

/// What commands about the node itself need to know, asked only when they come.
pub trait NodeView {
    /// This core.
    fn endpoint(&self) -> (NodeId, CoreId);
    /// A number for the cluster, the same on all its nodes.
    fn cluster_id(&self) -> u64;
    /// Who owns what.
    fn map(&self) -> Rc<ClusterMap>;
    /// Whether another core cannot be reached, as far as this one knows. One that is only late can be.
    fn is_away(&self, peer: Endpoint) -> bool;
    /// Time since 1970.
    fn now_unix(&self) -> Duration;
    /// An estimate of the keys in the whole cluster.
    fn keys(&self) -> u64;
    /// What was counted.
    fn counters(&self) -> Counters;
    /// This core's own figures, by name: the machine's and its store's.
    fn figures(&self) -> Vec<(&'static str, u64)>;
    /// What an operator asks, answered by a JSON object.
    ///
    /// # Errors
    /// Why there is no answer.
    fn inquire(&self, inquiry: Inquiry) -> Result<Value, String>;
    /// The lines of this core's other sessions, see [`Session::describe`].
    fn other_clients(&self) -> Vec<String>;
}

/// What an operator asks of a core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inquiry {
    /// The Merkle roots of the partitions that it is a primary of.
    Roots,
    /// The hints that it keeps.
    Hints,
    /// Its exchanges with other primaries.
    Exchanges,
    /// Who belongs, and who answers.
    Members,
    /// How far a change of the ring is, and what is staged for the next.
    Cluster,
    /// What a commit would do.
    Plan,
    /// How long its requests took, and what the slowest waited for.
    Tail,
    /// How long its requests took in each of the last five minutes' seconds.
    Latencies,
    /// The keys that are asked for most.
    Keys,
    /// Which cores keep which partitions.
    Ring,
    /// All its figures by name, as `INFO` has them.
    Figures,
    /// What background work is at, and how much of the core it gets.
    Tasks,
    /// The figures of the whole node, as Prometheus reads them.
    Metrics,
    /// To compare its partitions, or one of them, with the other primaries now. Answers how many it is a primary of.
    Repair(Option<u16>),
}

/// What `INFO` tells of a node (of the core that is asked, where it says so).
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counters {
    /// The process.
    pub process_id: u32,
    /// Time since the node's start.
    pub uptime: Duration,
    /// Client connections of this core that are open.
    pub connections: u64,
    /// Client connections of this core that are allowed.
    pub connections_max: u64,
    /// Client connections that this core has accepted.
    pub connections_accepted: u64,
    /// Client connections that this core has refused.
    pub connections_refused: u64,
    /// Commands that this core has handled.
    pub commands: u64,
    /// Bytes that this core has read from clients and peers.
    pub bytes_read: u64,
    /// Bytes that this core has written to clients and peers.
    pub bytes_written: u64,
    /// The process's resident memory, in bytes.
    pub memory_bytes: u64,
    /// The process's CPU time in user mode.
    pub cpu_user: Duration,
    /// The process's CPU time in the kernel.
    pub cpu_system: Duration,
}

/// Who a session belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// Unique on the node.
    pub id: u64,
    /// The client.
    pub peer: SocketAddr,
    /// The port that it connected to.
    pub local: SocketAddr,
    /// When, since 1970.
    pub since: Duration,
}

#[cfg(test)]
mod tests;
