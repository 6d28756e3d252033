//! The client against nodes that are threads with a script.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
};

use super::*;
use crate::{
    frame,
    id::NodeId,
    message::{MappedNode, Message, Reply},
};

/// What a node does with a request: an outcome, or silence.
type Script = Arc<dyn Fn(&Operation) -> Option<Outcome> + Send + Sync>;

/// A node: a shared port and one for each core.
struct Node {
    address: String,
    /// The shared port, then the cores'.
    ports: Vec<u16>,
}

/// Adjacent free ports on a loopback address of the node's own: the cores' ports must follow each other.
fn bind(node: usize, count: u16) -> Vec<TcpListener> {
    let address = format!("127.7.{}.{}", std::process::id() % 250 + 1, node + 1);
    for base in (20_000..60_000).step_by(usize::from(count) + 1) {
        let all: Result<Vec<_>, _> = (0..count).map(|i| TcpListener::bind(format!("{address}:{}", base + i))).collect();
        if let Ok(all) = all {
            return all;
        }
    }
    panic!("no free ports");
}

fn serve(mut stream: TcpStream, script: &Script) {
    let mut input = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(count @ 1..) => input.extend_from_slice(&chunk[..count]),
            _ => return,
        }
        while let Some(frame) = frame::decode(&input, usize::MAX).unwrap() {
            let consumed = frame.consumed();
            let Message::Request(request) = frame.message().unwrap() else { panic!("a request") };
            input.drain(..consumed);
            let Some(outcome) = script(&request.operation) else { continue };
            let mut out = Vec::new();
            // A reply to an earlier request may come first.
            frame::encode(&Message::Reply(Reply { id: 0, outcome: Outcome::ClusterMap(empty_map()) }), &mut out)
                .unwrap();
            frame::encode(&Message::Reply(Reply { id: request.id, outcome }), &mut out).unwrap();
            stream.write_all(&out).unwrap();
        }
    }
}

fn empty_map() -> ClusterMap {
    let node = MappedNode { id: NodeId(1), address: "127.0.0.1".to_owned(), cores: 1, port: 1, core_port: 2 };
    ClusterMap { replicas: 1, nodes: vec![node], preference: vec![vec![0]], spread: vec![0] }
}

fn map(nodes: &[Node]) -> ClusterMap {
    let mapped = |(index, node): (usize, &Node)| MappedNode {
        id: NodeId(index as u16 + 1),
        address: node.address.clone(),
        cores: node.ports.len() as u16 - 1,
        port: node.ports[0],
        core_port: node.ports[1],
    };
    ClusterMap {
        replicas: 3,
        nodes: nodes.iter().enumerate().map(mapped).collect(),
        // Two partitions, two cores: the first partition is the first core's, the second the second's.
        preference: vec![vec![0, 1, 2], vec![1, 2, 0]],
        spread: vec![0, 1 << 31],
    }
}

/// Requests that a cluster got: node, port's index (0 is the shared one), operation.
type Log = Arc<Mutex<Vec<(usize, usize, Operation)>>>;

/// Three nodes of two cores. `answer` is asked for each get and put with the node's number.
fn cluster(answer: impl Fn(usize, &Operation) -> Option<Outcome> + Send + Sync + 'static) -> (Client, Log) {
    let listeners: Vec<_> = (0..3).map(|node| bind(node, 3)).collect();
    let nodes: Vec<Node> = listeners
        .iter()
        .map(|all| Node {
            address: all[0].local_addr().unwrap().ip().to_string(),
            ports: all.iter().map(|listener| listener.local_addr().unwrap().port()).collect(),
        })
        .collect();
    let (log, answer) = (Log::default(), Arc::new(answer));
    let seed = SocketAddr::new(nodes[0].address.parse().unwrap(), nodes[0].ports[0]);
    let map = map(&nodes);
    for (number, all) in listeners.into_iter().enumerate() {
        for (index, listener) in all.into_iter().enumerate() {
            let (log, answer, map) = (log.clone(), answer.clone(), map.clone());
            let script: Script = Arc::new(move |operation| match operation {
                Operation::ClusterMap => Some(Outcome::ClusterMap(map.clone())),
                operation => {
                    log.lock().unwrap().push((number, index, operation.clone()));
                    answer(number, operation)
                }
            });
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let script = script.clone();
                    thread::spawn(move || serve(stream.unwrap(), &script));
                }
            });
        }
    }
    let options = ClientOptions { timeout: Duration::from_millis(600), attempts_max: 3 };
    (Client::connect(&[seed], options).unwrap(), log)
}

fn written() -> Outcome {
    Outcome::Written { context: Bytes::from_static(b"c"), replaced: true, sloppy: false }
}

fn found(value: &'static str) -> Outcome {
    Outcome::Values { context: Bytes::from_static(b"ctx"), values: [value.into()].into(), sloppy: false }
}

/// A key in this half of the slots.
fn key_in(partition: u16) -> Key {
    let name =
        (0..).map(|n: u32| format!("k{n}")).find(|name| slot::slot(name.as_bytes()) / 8192 == partition).unwrap();
    Key::new(b"default", name.as_bytes()).unwrap()
}

fn asked(log: &Log) -> Vec<(usize, usize)> {
    log.lock().unwrap().iter().map(|(node, port, _)| (*node, *port)).collect()
}

#[test]
fn a_key_is_asked_of_the_core_that_owns_it() {
    let (mut client, log) = cluster(|_, operation| match operation {
        Operation::Get(_) => Some(found("v")),
        _ => Some(written()),
    });
    let answer = client.get(&key_in(0), GetOptions::default()).unwrap();
    assert_eq!((answer.values, &answer.context[..]), (vec![Bytes::from("v")], &b"ctx"[..]));
    assert!(client.put(&key_in(1), "v".into(), &PutOptions::default()).unwrap().replaced);
    // Node 0's first core has port 1; node 1's second has port 2.
    assert_eq!(asked(&log), [(0, 1), (1, 2)]);
}

#[test]
fn the_next_primary_is_asked_with_the_same_token() {
    // Node 0 says nothing, node 1 is overloaded.
    let (mut client, log) = cluster(|node, _| match node {
        0 => None,
        1 => Some(Outcome::Failed(Failure::Overloaded { retry_after_us: 1 })),
        _ => Some(written()),
    });
    client.put(&key_in(0), "v".into(), &PutOptions::default()).unwrap();
    assert_eq!(asked(&log), [(0, 1), (1, 1), (2, 1)]);
    let tokens: Vec<_> = log
        .lock()
        .unwrap()
        .iter()
        .map(|(_, _, operation)| match operation {
            Operation::Put(put) => put.token.unwrap(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(tokens.iter().all(|&token| token == tokens[0]), "{tokens:?}");
    // The silent node is avoided for a while: the next request goes past it at once.
    log.lock().unwrap().clear();
    client.put(&key_in(0), "v".into(), &PutOptions::default()).unwrap();
    assert_eq!(asked(&log), [(1, 1), (2, 1)]);
    match &log.lock().unwrap()[0].2 {
        Operation::Put(put) => assert_ne!(put.token, Some(tokens[0])),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_no_node_can_do_is_not_tried_elsewhere() {
    let (mut client, log) = cluster(|_, _| Some(Outcome::Failed(Failure::TooLarge { limit: 3 })));
    let error = client.put(&key_in(0), "v".into(), &PutOptions::default()).unwrap_err();
    assert!(matches!(error, ClientError::Refused { failure: Failure::TooLarge { limit: 3 }, .. }), "{error}");
    assert!(!error.may_have_changed());
    assert_eq!(asked(&log).len(), 1);
}

/// A timeout at the first node is not forgotten when the last one says that it did nothing.
#[test]
fn an_error_says_whether_the_write_may_have_been_done() {
    let (mut client, _) = cluster(|node, _| match node {
        0 => Some(Outcome::Failed(Failure::Timeout { acks: 1, needed: 2 })),
        _ => Some(Outcome::Failed(Failure::DiskFull)),
    });
    let error = client.put(&key_in(0), "v".into(), &PutOptions::default()).unwrap_err();
    assert!(error.may_have_changed(), "{error}");
    let (mut full, _) = cluster(|_, _| Some(Outcome::Failed(Failure::DiskFull)));
    assert!(!full.put(&key_in(0), "v".into(), &PutOptions::default()).unwrap_err().may_have_changed());
    let (mut silent, _) = cluster(|_, _| None);
    let error =
        silent.put(&key_in(0), "v".into(), &PutOptions { token: Some(7), ..PutOptions::default() }).unwrap_err();
    assert!(matches!(error, ClientError::Unanswered { token: Some(7), .. }) && error.may_have_changed(), "{error}");
    let error = silent.get(&key_in(0), GetOptions::default()).unwrap_err();
    assert!(!error.may_have_changed() && error.to_string().contains("nothing was changed"), "{error}");
}

#[test]
fn a_node_that_refuses_connections_costs_no_attempt() {
    let (mut client, log) = cluster(|_, _| Some(found("v")));
    client.options.attempts_max = 1;
    // Nobody listens at what the map now says of the first node.
    client.map.nodes[0].address = "127.7.255.254".to_owned();
    client.get(&key_in(0), GetOptions::default()).unwrap();
    assert_eq!(asked(&log), [(1, 1)]);
}

#[test]
fn nobody_there() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = Client::connect(&[port], ClientOptions::default()).err().unwrap();
    assert!(error.to_string().starts_with("no node can be reached"), "{error}");
    assert!(!error.may_have_changed());
}

/// A server of the other protocol, or garbage, is an error and not a hang.
#[test]
fn garbage_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.write_all(b"-ERR Protocol error\r\n").unwrap();
            let _ = stream.read(&mut [0; 100]);
        }
    });
    let error = Client::connect(&[port], ClientOptions::default()).err().unwrap();
    assert!(error.to_string().contains("not a frame"), "{error}");
}

#[test]
fn many_requests_in_flight() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap();
    let (done, wait) = mpsc::channel();
    thread::spawn(move || {
        let script: Script = Arc::new(|_| Some(found("v")));
        serve(listener.accept().unwrap().0, &script);
        done.send(()).unwrap();
    });
    let mut connection = PipelinedConnection::connect(port, Duration::from_secs(5)).unwrap();
    let get = Get { key: key_in(0), quorum: 0, consistency: Consistency::Strict, wants_context: true };
    for id in 1..=1000 {
        connection.queue(Request { id, timeout_us: 0, hops: 0, operation: Operation::Get(get.clone()) }).unwrap();
    }
    connection.flush().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let replies = (0..2000).map(|_| connection.receive(deadline).unwrap().id).filter(|&id| id != 0);
    assert!(replies.eq(1..=1000));
    let short = Instant::now() + Duration::from_millis(10);
    assert!(matches!(connection.receive(short), Err(ConnectionError::Timeout)));
    drop(connection);
    wait.recv().unwrap();
}
