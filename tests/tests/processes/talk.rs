//! Talking to one node: native requests to just that node, and RESP as any Redis client would.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use bytes::Bytes;
use quorate_net::{
    client::PipelinedConnection,
    key::{DEFAULT_BUCKET, Key},
    message::{Consistency, Durability, Failure, Get, Operation, Outcome, Put, Request},
    resp::{Reply, ReplyLimits, ReplyScanner, write_command},
};

use super::harness::{PATIENCE, wait_for};

/// Requests that one connection has under way at most.
const UNDER_WAY: u64 = 32;

/// What that very node makes of a request, as coordinator or by forwarding it.
pub(crate) fn ask(address: SocketAddr, operation: Operation) -> Outcome {
    let mut connection = PipelinedConnection::connect(address, PATIENCE).expect("the node listens");
    connection.queue(Request { id: 1, timeout_us: 5_000_000, hops: 0, operation }).expect("it is small enough");
    connection.flush().expect("the node takes requests");
    connection.receive(Instant::now() + PATIENCE).expect("the node answers").outcome
}

pub(crate) fn key(name: &str) -> Key {
    Key::new(DEFAULT_BUCKET, name.as_bytes()).expect("a short name is a key")
}

/// The context and the values.
pub(crate) fn get(address: SocketAddr, name: &str) -> (Bytes, Vec<Bytes>) {
    let get = Get { key: key(name), quorum: 0, consistency: Consistency::Strict, wants_context: true };
    match ask(address, Operation::Get(get)) {
        Outcome::Values { context, values, .. } => (context, values.into_vec()),
        other => panic!("no values of {name}: {other:?}"),
    }
}

/// A durable put by the owners alone, with the cluster's W.
pub(crate) fn put_of(name: &str, value: &str, context: Option<Bytes>) -> Operation {
    Operation::Put(Put {
        key: key(name),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        context,
        quorum: 0,
        durability: Durability::Durable,
        consistency: Consistency::Strict,
        token: None,
        wants_context: true,
    })
}

/// The new context, or why not.
pub(crate) fn put(address: SocketAddr, name: &str, value: &str, context: Option<Bytes>) -> Result<Bytes, Failure> {
    match ask(address, put_of(name, value, context)) {
        Outcome::Written { context, .. } => Ok(context),
        Outcome::Failed(failure) => Err(failure),
        other => panic!("{name} was not written: {other:?}"),
    }
}

/// The values of many keys with this R, or why there are none.
pub(crate) fn get_all(address: SocketAddr, names: &[&str], quorum: u8) -> Vec<Result<Vec<String>, Failure>> {
    let operation = |name: &&str| {
        Operation::Get(Get { key: key(name), quorum, consistency: Consistency::Strict, wants_context: true })
    };
    let read = |outcome| match outcome {
        Outcome::Values { values, .. } => {
            Ok(values.iter().map(|value| String::from_utf8_lossy(value).into_owned()).collect())
        }
        Outcome::Failed(failure) => Err(failure),
        other => panic!("no answer to a get: {other:?}"),
    };
    ask_all(address, names.iter().map(operation)).into_iter().map(read).collect()
}

/// Puts many keys, each of which must be accepted.
pub(crate) fn put_all(address: SocketAddr, values: &BTreeMap<String, String>) {
    let operation = |(name, value): (&String, &String)| put_of(name, value, None);
    for ((name, value), outcome) in values.iter().zip(ask_all(address, values.iter().map(operation))) {
        if let Outcome::Failed(Failure::Overloaded { .. }) = outcome {
            // More at once than a small store takes: nothing was done.
            wait_for("room for a write", || put(address, name, value, None).ok());
            continue;
        }
        assert!(matches!(outcome, Outcome::Written { .. }), "{name}: {outcome:?}");
    }
}

/// What that node makes of many requests, some under way at a time; in their order.
fn ask_all(address: SocketAddr, operations: impl Iterator<Item = Operation>) -> Vec<Outcome> {
    let mut connection = PipelinedConnection::connect(address, PATIENCE).expect("the node listens");
    let mut outcomes = BTreeMap::new();
    let mut receive = |connection: &mut PipelinedConnection| {
        connection.flush().expect("the node takes requests");
        let reply = connection.receive(Instant::now() + PATIENCE).expect("the node answers");
        outcomes.insert(reply.id, reply.outcome);
    };
    let mut sent = 0;
    for operation in operations {
        let request = Request { id: sent, timeout_us: 5_000_000, hops: 0, operation };
        connection.queue(request).expect("it is small enough");
        sent += 1;
        if sent > UNDER_WAY {
            receive(&mut connection);
        }
    }
    for _ in 0..sent.min(UNDER_WAY) {
        receive(&mut connection);
    }
    outcomes.into_values().collect()
}

/// Whether the node answers clients at all.
pub(crate) fn is_up(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_secs(1))
        .is_ok_and(|stream| Resp::over(stream).try_command(&[b"PING"]).is_some_and(|reply| reply == b"+PONG\r\n"))
}

/// A RESP connection.
pub(crate) struct Resp(TcpStream);

impl Resp {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect_timeout(&address, PATIENCE).expect("the node listens"))
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a socket can be set up");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket can be set up");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket can be set up");
        Self(stream)
    }

    /// The whole reply, as it came.
    pub(crate) fn command(&mut self, arguments: &[&[u8]]) -> Vec<u8> {
        self.try_command(arguments).expect("the node answers")
    }

    fn try_command(&mut self, arguments: &[&[u8]]) -> Option<Vec<u8>> {
        let mut request = Vec::new();
        write_command(&mut request, arguments);
        self.0.write_all(&request).ok()?;
        self.reply()
    }

    /// The string or the error that a command is answered with.
    pub(crate) fn text(&mut self, arguments: &[&[u8]]) -> String {
        let reply = self.command(arguments);
        let parsed = Reply::parse(&reply);
        let text = parsed.as_bytes().or(parsed.as_error());
        String::from_utf8_lossy(text.unwrap_or_else(|| panic!("no text: {}", reply.escape_ascii()))).into_owned()
    }

    /// The next reply; nothing when the connection ends.
    pub(crate) fn reply(&mut self) -> Option<Vec<u8>> {
        let mut scanner = ReplyScanner::new(ReplyLimits::default());
        let mut received = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let bytes = self.0.read(&mut chunk).ok().filter(|bytes| *bytes > 0)?;
            received.extend_from_slice(&chunk[..bytes]);
            if let Some(length) = scanner.scan(&received).expect("the node answers in RESP") {
                assert_eq!(length, received.len(), "one command is answered once");
                return Some(received);
            }
        }
    }
}

/// Sends `bytes` again and again, `times` times, and reads until the node closes the connection. What it said.
pub(crate) fn send_and_read_to_end(address: SocketAddr, bytes: &[u8], times: usize) -> Vec<u8> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the node listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket can be set up");
    stream.set_write_timeout(Some(PATIENCE)).expect("a socket can be set up");
    for _ in 0..times {
        // A node that has had enough closes, and then this fails.
        if stream.write_all(bytes).is_err() {
            break;
        }
    }
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the node keeps the connection"),
        // Closed, or reset because not all that was sent was read.
        _ => said,
    }
}

/// Sends as much of `bytes`, `times` times over, as the node takes, reads nothing, and goes.
pub(crate) fn send_without_reading(address: SocketAddr, bytes: &[u8], times: usize) {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the node listens");
    stream.set_write_timeout(Some(Duration::from_secs(1))).expect("a socket can be set up");
    for _ in 0..times {
        // A node that has had enough takes no more, or closes.
        if stream.write_all(bytes).is_err() {
            return;
        }
    }
}

/// What a node answers to a GET by HTTP: its status, and the body.
pub(crate) fn http_get(address: SocketAddr, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    let answer = send_and_read_to_end(address, request.as_bytes(), 1);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer to {path}: {answer:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("an answer has a status");
    (status, body.to_owned())
}
