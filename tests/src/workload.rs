//! What the clients ask for, and what they remember.
//!
//! The rule: values are unique, so that a value names the operation that wrote it; contexts are those that the system
//! gave out (fresh, stale, empty, or for another key), never made up.
//!
//! Not here: how requests travel (`world`), what the answers must be (`checkers`).

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use quorate_engine::disk::simulated::Random;
use quorate_net::{
    key::{DEFAULT_BUCKET, Key},
    message::{Consistency, Durability, Get, Operation as Asked, Outcome, Put, Reply},
};

use crate::{
    causality::Events,
    checkers::Ledger,
    history::{Action, Operation, Status, wrote_nothing},
    world::{Settings, Shape},
};

/// A client remembers so many contexts of a key.
const CONTEXTS_MAX: usize = 5;

/// A request is sent so often at most.
const ATTEMPTS_MAX: u32 = 4;

/// What all clients go by.
pub struct Workload {
    /// The average time between two operations of a client.
    pub think: Duration,
    hot_keys: u64,
    cold_keys: u64,
    value_bytes_max: u64,
    gets_permille: u32,
    deletes_one_in: u64,
    replicas: u8,
    open: bool,
}

/// One client: it waits for one answer at a time.
pub struct Client {
    pub(crate) random: Random,
    contexts: BTreeMap<Key, Vec<(Bytes, Events)>>,
    /// Which operation each of its requests was for.
    requests: Vec<usize>,
    waiting: Option<Waiting>,
}

#[derive(Clone, Copy)]
struct Waiting {
    operation: usize,
    request: u64,
    attempts: u32,
}

impl Workload {
    pub(crate) fn new(shape: &Shape, replicas: u8, random: &mut Random) -> Self {
        Self {
            think: Duration::from_micros(random.range(500..20_000)) * shape.leisure,
            hot_keys: shape.hot_keys,
            cold_keys: shape.cold_keys,
            value_bytes_max: shape.value_bytes_max,
            gets_permille: shape.gets_permille,
            deletes_one_in: shape.deletes_one_in,
            replicas,
            open: true,
        }
    }

    /// No client begins anything any more.
    pub(crate) fn close(&mut self) {
        self.open = false;
    }

    /// The client's next operation; `None` when there is none any more.
    pub(crate) fn next(&self, client: &mut Client, number: usize, ledger: &Ledger, now: Duration) -> Option<Operation> {
        if !self.open {
            return None;
        }
        let random = &mut client.random;
        let hot = self.cold_keys == 0 || random.permille(800);
        let name = if hot {
            format!("hot{}", random.range(0..self.hot_keys))
        } else {
            format!("cold{}", random.range(0..self.cold_keys))
        };
        let key = Key::new(DEFAULT_BUCKET, name.as_bytes()).expect("a short name");
        let quorum =
            if random.one_in(2) { 2.min(self.replicas) } else { random.range(1..u64::from(self.replicas) + 1) as u8 };
        let action = if random.permille(self.gets_permille) {
            Action::Get { quorum }
        } else {
            let value = (!random.one_in(self.deletes_one_in)).then(|| self.value(random, ledger.operations.len()));
            let durability = match random.range(0..8) {
                0 => Durability::One,
                1 => Durability::Buffered,
                _ => Durability::Durable,
            };
            let token = random.one_in(3).then(|| u128::from(random.next_u64()));
            let context = match random.range(0..10) {
                0..3 => None,
                3 => Some((Bytes::new(), Events::default())),
                fresh => match client.contexts.get(&key) {
                    Some(contexts) if fresh < 8 => contexts.last().cloned(),
                    Some(contexts) => Some(contexts[random.index(contexts.len())].clone()),
                    None => None,
                },
            };
            // One that was given out for another key opens nothing, so its writer has seen nothing.
            let forged = if ledger.operations.len() % 29 == 7 {
                client.contexts.iter().find(|(other, _)| **other != key).and_then(|(_, contexts)| contexts.last())
            } else {
                None
            };
            let context = forged.map(|(context, _)| (context.clone(), Events::default())).or(context);
            Action::Put { value, quorum, durability, token, context }
        };
        let consistency = if random.one_in(2) { Consistency::Strict } else { Consistency::Sloppy };
        Some(Operation {
            client: number,
            key,
            action,
            consistency,
            start: now,
            end: None,
            status: Status::Unknown,
            sloppy: false,
            sends: 0,
            writes: Events::default(),
        })
    }

    fn value(&self, random: &mut Random, number: usize) -> Bytes {
        let mut value = format!("v{number}.").into_bytes();
        let length = random.range(0..self.value_bytes_max + 1) as usize;
        if value.len() < length {
            value.resize(length, b'a' + (number % 26) as u8);
        }
        Bytes::from(value)
    }

    /// The operation as it is sent.
    pub(crate) fn message(&self, operation: &Operation) -> Asked {
        let (key, consistency) = (operation.key.clone(), operation.consistency);
        match &operation.action {
            Action::Get { quorum } => Asked::Get(Get { key, quorum: *quorum, consistency, wants_context: true }),
            Action::Put { value, quorum, durability, token, context } => Asked::Put(Put {
                key,
                value: value.clone(),
                context: context.as_ref().map(|(context, _)| context.clone()),
                quorum: *quorum,
                durability: *durability,
                consistency,
                token: *token,
                wants_context: true,
            }),
        }
    }
}

impl Client {
    pub(crate) fn new(random: Random) -> Self {
        Self { random, contexts: BTreeMap::new(), requests: Vec::new(), waiting: None }
    }

    /// The client takes up an operation.
    pub(crate) fn begin(&mut self, operation: usize) {
        self.waiting = Some(Waiting { operation, request: 0, attempts: 0 });
    }

    /// What it waits for.
    pub(crate) fn operation(&self) -> Option<usize> {
        self.waiting.map(|waiting| waiting.operation)
    }

    /// It waits for nothing any more.
    pub(crate) fn abandon(&mut self) {
        self.waiting = None;
    }

    /// What the answer to a get covered, if it was answered.
    pub(crate) fn last_seen(&self, key: &Key, operation: usize, ledger: &Ledger) -> Option<Events> {
        let answered = ledger.operations[operation].status == Status::Ok;
        self.contexts.get(key).filter(|_| answered)?.last().map(|(_, seen)| seen.clone())
    }

    /// What a request was for.
    pub(crate) fn operation_of(&self, request: u64) -> Option<usize> {
        self.requests.get(request as usize).copied()
    }

    /// How often the operation was sent so far.
    pub(crate) fn attempts(&self, operation: usize) -> usize {
        self.requests.iter().filter(|&&sent| sent == operation).count()
    }

    /// The number of the next request, and how long it may take.
    pub(crate) fn send(&mut self, settings: &Settings) -> (u64, Duration) {
        let request = self.requests.len() as u64;
        let waiting = self.waiting.as_mut().expect("only who waits sends");
        self.requests.push(waiting.operation);
        waiting.request = request;
        waiting.attempts += 1;
        let timeout = settings.timeout.mul_f64(0.2 + 0.8 * self.random.unit());
        (request, timeout)
    }

    /// An answer has come: whether to send the operation again; `None` when it is not what the client waits for.
    pub(crate) fn answered(&mut self, ledger: &mut Ledger, reply: &Reply) -> Option<bool> {
        let waiting = self.waiting.filter(|waiting| waiting.request == reply.id)?;
        let key = ledger.operations[waiting.operation].key.clone();
        match &reply.outcome {
            Outcome::Values { context, .. } | Outcome::Written { context, .. } => {
                if let Ok(seen) = ledger.open(&key, context) {
                    let contexts = self.contexts.entry(key).or_default();
                    contexts.push((context.clone(), seen));
                    if contexts.len() > CONTEXTS_MAX {
                        contexts.remove(0);
                    }
                }
                self.waiting = None;
                Some(false)
            }
            Outcome::Failed(failure) => {
                let operation = &mut ledger.operations[waiting.operation];
                if wrote_nothing(failure) && waiting.attempts == 1 && operation.status == Status::Unknown {
                    operation.status = Status::Failed;
                }
                Some(self.again(ledger))
            }
            Outcome::ClusterMap(_) => Some(false),
        }
    }

    /// No answer has come in time.
    pub(crate) fn gave_up(&mut self, ledger: &Ledger, request: u64) -> Option<bool> {
        self.waiting.filter(|waiting| waiting.request == request)?;
        Some(self.again(ledger))
    }

    fn again(&mut self, ledger: &Ledger) -> bool {
        let waiting = self.waiting.expect("it failed");
        let token = matches!(ledger.operations[waiting.operation].action, Action::Put { token: Some(_), .. });
        let again = waiting.attempts < ATTEMPTS_MAX && (token || self.random.one_in(5));
        if !again {
            self.waiting = None;
        }
        again
    }

    /// How long the client rests before its next operation.
    pub(crate) fn pause(&mut self, average: Duration) -> Duration {
        average.mul_f64(0.05 - (1.0 - self.random.unit()).ln())
    }
}
