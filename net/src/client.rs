//! The native client: blocking, knows which core owns a key, and hands out contexts.
//!
//! The rule: a request goes to the owning core of the key's first reachable primary, and to the next on the preference
//! list when that one does not answer. A put carries the same token in each attempt, so it is applied once however
//! often it is sent. An error says whether the write may have been done.
//!
//! Not here: what a context holds (it is opaque), reconciling siblings (the application's: section 4.4).

mod connection;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::Bytes;

pub use connection::{ConnectionError, PipelinedConnection};

use crate::{
    frame::FrameError,
    key::Key,
    message::{ClusterMap, Consistency, Durability, Failure, Get, Operation, Outcome, Put, Request},
    slot,
};

/// A node that did not answer is asked last for so long.
const AVOID: Duration = Duration::from_secs(1);

/// The map is asked for again no sooner than this, when nodes do not answer.
const REFRESH_PERIOD: Duration = Duration::from_secs(1);

/// How a client behaves.
#[derive(Clone, Copy, Debug)]
pub struct ClientOptions {
    /// How long a request may take in all. Typical: 5 s.
    pub timeout: Duration,
    /// Nodes that are asked at most for one request. The time is shared among them, so that a node that hangs leaves
    /// time for the next.
    pub attempts_max: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(5), attempts_max: 3 }
    }
}

/// How a get is done; the default is the cluster's.
#[derive(Clone, Copy, Default, Debug)]
pub struct GetOptions {
    /// R; 0 is the cluster's default.
    pub quorum: u8,
    /// Whether fallbacks count.
    pub consistency: Consistency,
}

/// How a put is done; the default is the cluster's, and replaces what is there.
#[derive(Clone, Default, Debug)]
pub struct PutOptions {
    /// What the writer has seen: the context of its get. `None` replaces what the coordinator holds; an empty context
    /// has seen nothing, and makes a sibling of what is there.
    pub context: Option<Bytes>,
    /// W; 0 is the cluster's default.
    pub quorum: u8,
    /// What must be on disk before the answer.
    pub durability: Durability,
    /// Whether fallbacks count.
    pub consistency: Consistency,
    /// The same for every attempt at one logical write. `None`: the client makes one.
    pub token: Option<u128>,
}

/// What a get found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// To be given with the put that follows on this.
    pub context: Bytes,
    /// All siblings, the winner first; none: the key is absent.
    pub values: Vec<Bytes>,
    /// Whether the answer rests on a fallback.
    pub sloppy: bool,
}

/// What a put or a delete did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    /// Covers what was written and all that it replaced.
    pub context: Bytes,
    /// Whether a live value was replaced.
    pub replaced: bool,
    /// Whether the answer rests on a fallback.
    pub sloppy: bool,
}

/// Why there is no answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// No node could be connected to. Nothing was sent, nothing was changed: a retry is safe.
    Unreachable {
        /// The last node that was tried, and why it failed.
        last: String,
    },
    /// A request was sent and no answer came. A put may have been done: a retry with the same token is safe, and
    /// applies it once.
    Unanswered {
        /// The last node that was asked.
        node: SocketAddr,
        /// Why there is no answer.
        error: ConnectionError,
        /// The put's token; none of what changes nothing.
        token: Option<u128>,
    },
    /// The cluster refused. What this means for the data stands with each [`Failure`]; a put that timed out may be
    /// tried again with the same token.
    Refused {
        /// Why.
        failure: Failure,
        /// The put's token.
        token: Option<u128>,
    },
    /// The request is too large to be sent. Nothing was changed.
    TooLarge(FrameError),
    /// A node answered something else than was asked for. A put may have been done.
    UnexpectedAnswer,
}

impl ClientError {
    /// Whether a put may have changed something although it failed.
    #[must_use]
    pub fn may_have_changed(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TooLarge(_) => false,
            Self::Unanswered { token, .. } => token.is_some(),
            Self::UnexpectedAnswer => true,
            Self::Refused { failure, .. } => failure_may_have_changed(failure),
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { last } => write!(f, "no node can be reached ({last}); nothing was changed"),
            Self::Unanswered { node, error, token: Some(_) } => {
                write!(f, "{node}: {error}; the write may have been done, a retry with its token is safe")
            }
            Self::Unanswered { node, error, token: None } => write!(f, "{node}: {error}; nothing was changed"),
            Self::Refused { failure, .. } => write!(f, "{failure}"),
            Self::TooLarge(error) => write!(f, "{error}; nothing was changed"),
            Self::UnexpectedAnswer => f.write_str("a node answered something else than was asked for"),
        }
    }
}

impl std::error::Error for ClientError {}

/// A client of one cluster. One request at a time; threads have one each.
pub struct Client {
    options: ClientOptions,
    seeds: Vec<SocketAddr>,
    map: ClusterMap,
    refreshed: Instant,
    connections: BTreeMap<SocketAddr, PipelinedConnection>,
    /// Nodes' ports that did not answer, and when.
    avoided: BTreeMap<SocketAddr, Instant>,
    next_id: u64,
    next_token: u128,
}

impl Client {
    /// Asks one of `seeds` (addresses of any nodes' client ports) for the map of the cluster.
    ///
    /// # Errors
    ///
    /// None of them answers.
    pub fn connect(seeds: &[SocketAddr], options: ClientOptions) -> Result<Self, ClientError> {
        let mut client = Self {
            options,
            seeds: seeds.to_vec(),
            map: ClusterMap { replicas: 0, nodes: Vec::new(), preference: Vec::new(), spread: Vec::new() },
            refreshed: Instant::now(),
            connections: BTreeMap::new(),
            avoided: BTreeMap::new(),
            next_id: 1,
            next_token: random(),
        };
        client.refresh()?;
        Ok(client)
    }

    /// The map of the cluster as it was last heard.
    #[must_use]
    pub fn map(&self) -> &ClusterMap {
        &self.map
    }

    /// All values of a key, and the context for a put that follows on them.
    ///
    /// # Errors
    ///
    /// No quorum answered.
    pub fn get(&mut self, key: &Key, options: GetOptions) -> Result<Found, ClientError> {
        let get =
            Get { key: key.clone(), quorum: options.quorum, consistency: options.consistency, wants_context: true };
        match self.ask_owners(key, &Operation::Get(get), None)? {
            Outcome::Values { context, values, sloppy } => Ok(Found { context, values: values.into_vec(), sloppy }),
            _ => Err(ClientError::UnexpectedAnswer),
        }
    }

    /// Writes a value.
    ///
    /// # Errors
    ///
    /// [`ClientError::may_have_changed`] says whether it may have been written all the same.
    pub fn put(&mut self, key: &Key, value: Bytes, options: &PutOptions) -> Result<Written, ClientError> {
        self.write(key, Some(value), options)
    }

    /// Deletes a key.
    ///
    /// # Errors
    ///
    /// [`ClientError::may_have_changed`] says whether it may have been deleted all the same.
    pub fn delete(&mut self, key: &Key, options: &PutOptions) -> Result<Written, ClientError> {
        self.write(key, None, options)
    }

    fn write(&mut self, key: &Key, value: Option<Bytes>, options: &PutOptions) -> Result<Written, ClientError> {
        let token = options.token.unwrap_or_else(|| {
            self.next_token = self.next_token.wrapping_add(1);
            self.next_token
        });
        let put = Put {
            key: key.clone(),
            value,
            context: options.context.clone(),
            quorum: options.quorum,
            durability: options.durability,
            consistency: options.consistency,
            token: Some(token),
            wants_context: true,
        };
        match self.ask_owners(key, &Operation::Put(put), Some(token))? {
            Outcome::Written { context, replaced, sloppy } => Ok(Written { context, replaced, sloppy }),
            _ => Err(ClientError::UnexpectedAnswer),
        }
    }

    /// Asks for the map of the cluster again.
    ///
    /// # Errors
    ///
    /// No node answers; the old map stays.
    pub fn refresh(&mut self) -> Result<(), ClientError> {
        let known =
            self.map.nodes.iter().filter_map(|node| Some(SocketAddr::new(node.address.parse().ok()?, node.port)));
        let mut ports: Vec<SocketAddr> = known.collect();
        ports.extend(&self.seeds);
        ports.dedup();
        self.refreshed = Instant::now();
        match self.ask(&ports, &Operation::ClusterMap, None)? {
            Outcome::ClusterMap(map) => {
                self.map = map;
                Ok(())
            }
            _ => Err(ClientError::UnexpectedAnswer),
        }
    }

    /// The ports of the cores that own `key`, in the order of its preference list: the primaries, then the fallbacks.
    #[must_use]
    pub fn owners(&self, key: &Key) -> Vec<SocketAddr> {
        let partitions = u16::try_from(self.map.preference.len()).expect("a map's bounds are checked");
        let partition = usize::from(slot::partition(slot::slot(key.name()), partitions));
        let nodes = self.map.preference[partition].iter().map(|&index| &self.map.nodes[usize::from(index)]);
        nodes
            .filter_map(|node| {
                let address: IpAddr = node.address.parse().ok()?;
                let core = ClusterMap::core(self.map.spread[partition], node.cores);
                Some(SocketAddr::new(address, node.core_port.checked_add(core.0)?))
            })
            .collect()
    }

    fn ask_owners(&mut self, key: &Key, operation: &Operation, token: Option<u128>) -> Result<Outcome, ClientError> {
        let owners = self.owners(key);
        let outcome = self.ask(&owners, operation, token);
        // Something is wrong with a node: perhaps the cluster has changed. What was answered stands.
        if !self.avoided.is_empty() && self.refreshed.elapsed() >= REFRESH_PERIOD {
            let _ = self.refresh();
        }
        outcome
    }

    /// Asks one port after the other, those that failed lately last.
    fn ask(
        &mut self,
        ports: &[SocketAddr],
        operation: &Operation,
        token: Option<u128>,
    ) -> Result<Outcome, ClientError> {
        let started = Instant::now();
        let deadline = started + self.options.timeout;
        self.avoided.retain(|_, since| started.duration_since(*since) < AVOID);
        let (avoided, good): (Vec<_>, Vec<_>) = ports.iter().partition(|port| self.avoided.contains_key(port));
        let mut failed = ClientError::Unreachable { last: "no address".to_owned() };
        let mut attempts = 0;
        for port in good.into_iter().chain(avoided) {
            let left = deadline.saturating_duration_since(Instant::now());
            if attempts == self.options.attempts_max || left.is_zero() {
                break;
            }
            let share = left / u32::try_from(self.options.attempts_max - attempts).unwrap_or(u32::MAX);
            match self.ask_one(port, operation, token, share) {
                Ok(Outcome::Failed(failure)) => {
                    attempts += 1;
                    let elsewhere = may_succeed_elsewhere(&failure);
                    failed = worse(failed, ClientError::Refused { failure, token });
                    if !elsewhere {
                        break;
                    }
                }
                Ok(outcome) => return Ok(outcome),
                Err(error @ ClientError::TooLarge(_)) => return Err(error),
                Err(error) => {
                    // A port that refuses connections costs no time, so it is not counted as an attempt.
                    attempts += usize::from(!matches!(error, ClientError::Unreachable { .. }));
                    self.connections.remove(&port);
                    self.avoided.insert(port, Instant::now());
                    failed = worse(failed, error);
                }
            }
        }
        Err(failed)
    }

    fn ask_one(
        &mut self,
        port: SocketAddr,
        operation: &Operation,
        token: Option<u128>,
        timeout: Duration,
    ) -> Result<Outcome, ClientError> {
        let deadline = Instant::now() + timeout;
        let connection = match self.connections.remove(&port) {
            Some(connection) => connection,
            None => PipelinedConnection::connect(port, timeout)
                .map_err(|error| ClientError::Unreachable { last: format!("{port}: {error}") })?,
        };
        let connection = self.connections.entry(port).or_insert(connection);
        let id = self.next_id;
        self.next_id += 1;
        let timeout_us = u32::try_from(timeout.as_micros()).unwrap_or(u32::MAX);
        let request = Request { id, timeout_us, hops: 0, operation: operation.clone() };
        connection.queue(request).map_err(ClientError::TooLarge)?;
        let unanswered = |error| ClientError::Unanswered { node: port, error, token };
        connection.flush().map_err(unanswered)?;
        loop {
            let reply = connection.receive(deadline).map_err(unanswered)?;
            if reply.id == id {
                return Ok(reply.outcome);
            }
        }
    }
}

/// Whether another coordinator may do what this one could not.
fn may_succeed_elsewhere(failure: &Failure) -> bool {
    match failure {
        Failure::Timeout { .. }
        | Failure::Unavailable { .. }
        | Failure::Overloaded { .. }
        | Failure::DiskFull
        | Failure::StoreFailed
        | Failure::Corrupt => true,
        Failure::BadContext | Failure::TooLarge { .. } | Failure::TooManySiblings { .. } | Failure::BadRequest(_) => {
            false
        }
    }
}

fn failure_may_have_changed(failure: &Failure) -> bool {
    matches!(failure, Failure::Timeout { .. } | Failure::Unavailable { .. })
}

/// Of two failed attempts at one request, what to tell: that a write may have been done is not forgotten.
fn worse(before: ClientError, now: ClientError) -> ClientError {
    if before.may_have_changed() && !now.may_have_changed() { before } else { now }
}

/// A start for tokens that no other client has: the standard library's hash keys come from the system's randomness.
fn random() -> u128 {
    use std::hash::{BuildHasher, RandomState};
    let (high, low) = (RandomState::new().hash_one(1), RandomState::new().hash_one(std::process::id()));
    u128::from(high) << 64 | u128::from(low)
}

#[cfg(test)]
mod tests;
