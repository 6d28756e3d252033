//! One logical client: its stream of operations, its connections, and what it remembers of the keys that it owns.
//!
//! The rule: a client has at most one write of a key under way; where writes are verified, key k belongs to client
//! k mod clients, which alone writes it.
//!
//! Not here: time, sockets' readiness, and who answers what (`worker`).

use std::collections::HashMap;

use crate::{
    connection::Connection,
    protocol::Step,
    value::Recipe,
    workload::{Keys, Kind, Source},
};

/// How often a busy key is passed over before a write becomes a read.
const OTHER_KEYS_MAX: u64 = 8;

/// One operation, which may take two requests.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) kind: Kind,
    /// The request that is under way or comes next.
    pub(crate) step: Step,
    pub(crate) key: u64,
    /// What a put writes.
    pub(crate) recipe: Recipe,
    /// When it was meant to be sent: its latency counts from here. Nanoseconds of the run, as all times here.
    pub(crate) intended: u64,
    /// When the generator took it up: its timeout counts from here.
    pub(crate) begun: u64,
    /// What a read must show at least.
    pub(crate) floor: u64,
    /// Of the key's writes, the last that was sent when the read began.
    pub(crate) sent_before: u64,
    /// Of the write under way; 0 until it is sent.
    pub(crate) sequence: u64,
    /// Whether the write under way says nothing of what its writer has seen.
    pub(crate) blind: bool,
    /// Whether it was found to be stale before, in a phase that tries again.
    pub(crate) stale: bool,
    /// What a read-modify-write has read.
    pub(crate) context: Option<Box<[u8]>>,
}

/// A logical client.
pub(crate) struct Client {
    /// Its number in the whole run.
    pub(crate) index: u64,
    pub(crate) source: Source,
    /// One per endpoint, opened when it is first needed.
    pub(crate) connections: Vec<Option<Connection>>,
    /// Own keys with a write under way.
    writing: Vec<u64>,
    /// Of own keys, the context that the last write or read gave.
    contexts: HashMap<u64, Box<[u8]>>,
    /// The next key in phases that visit each key once.
    next_key: u64,
}

impl Client {
    pub(crate) fn new(index: u64, source: Source, endpoints: usize) -> Self {
        Self {
            index,
            source,
            connections: std::iter::repeat_with(|| None).take(endpoints).collect(),
            writing: Vec::new(),
            contexts: HashMap::new(),
            next_key: index,
        }
    }

    /// Starts again with the first of its keys.
    pub(crate) fn rewind(&mut self) {
        self.next_key = self.index;
    }

    /// The next of its keys below `end`, of which every `clients`-th is its own.
    pub(crate) fn visit(&mut self, end: u64, clients: u64) -> Option<u64> {
        let key = self.next_key;
        (key < end).then(|| {
            self.next_key += clients;
            key
        })
    }

    /// Draws an operation. `clients`: how many share the keys, if only their owners may write them.
    pub(crate) fn draw(&mut self, keys: &Keys, clients: Option<u64>) -> (Kind, u64) {
        let (kind, key) = self.source.draw(keys);
        match (kind, clients) {
            (Kind::Update | Kind::ReadModifyWrite, Some(clients)) => {
                self.own_free(key, keys.count(), clients).map_or((Kind::Read, key), |own| (kind, own))
            }
            _ => (kind, key),
        }
    }

    /// A key near `key` that this client owns and does not write right now.
    fn own_free(&self, key: u64, count: u64, clients: u64) -> Option<u64> {
        let mut own = key - key % clients + self.index;
        for _ in 0..OTHER_KEYS_MAX {
            if own >= count {
                own = self.index;
            }
            if own >= count {
                return None;
            }
            if !self.writing.contains(&own) {
                return Some(own);
            }
            own += clients;
        }
        None
    }

    pub(crate) fn start_writing(&mut self, key: u64) {
        self.writing.push(key);
    }

    pub(crate) fn stop_writing(&mut self, key: u64) {
        if let Some(at) = self.writing.iter().position(|&writing| writing == key) {
            self.writing.swap_remove(at);
        }
    }

    pub(crate) fn is_writing(&self, key: u64) -> bool {
        self.writing.contains(&key)
    }

    pub(crate) fn context(&self, key: u64) -> Option<&[u8]> {
        self.contexts.get(&key).map(|context| &**context)
    }

    pub(crate) fn remember(&mut self, key: u64, context: &[u8]) {
        self.contexts.insert(key, context.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        popularity::{Popularity, Shape},
        random::Random,
        workload::Workload,
    };

    #[test]
    fn clients_write_their_own_keys_alone_and_never_twice_at_once() {
        let keys = Keys::new(103);
        let popularity = Popularity::new(Shape::Zipfian, 0.99, 0.0, 0.0);
        for index in 0..10 {
            let source = Source::new(Random::new(1, index), Workload::A.mix(0.0), popularity.clone());
            let mut client = Client::new(index, source, 1);
            for _ in 0..5 {
                let own = client.own_free(3, 103, 10).unwrap();
                client.start_writing(own);
            }
            for _ in 0..1000 {
                let (kind, key) = client.draw(&keys, Some(10));
                assert!(key < 103);
                assert!(kind == Kind::Read || (key % 10 == index && !client.is_writing(key)));
            }
        }
    }

    #[test]
    fn together_they_visit_every_key_once() {
        let mut seen = Vec::new();
        for index in 0..7 {
            let source = Source::new(Random::new(1, index), Workload::A.mix(0.0), Popularity::Uniform);
            let mut client = Client::new(index, source, 1);
            seen.extend(std::iter::from_fn(|| client.visit(100, 7)));
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
    }
}
