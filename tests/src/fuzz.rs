//! What strangers' bytes may do to every decoder: nothing but be refused.
//!
//! The rule: a target takes any bytes and never panics, and what it accepts it can say again. Where a checksum would
//! refuse every changed input, the target makes it right first, so that what lies behind it is reached.
//!
//! Driven by `tests/fuzz` (coverage-guided, cargo-fuzz) and by [`shake`] (a short run on any toolchain). Not here: what
//! the decoders are for.

use std::rc::Rc;

use bytes::Bytes;
use quorate_engine::{
    Append, Config as StoreConfig, Store,
    disk::simulated::{Executor, Random, SimulatedDisk, Timing},
    frame as log_frame,
    index::Index,
    record::Salt,
    recovery,
    versions::Versions,
};
use quorate_net::{
    frame,
    id::{CoreId, Endpoint, NodeId},
    key::Key,
    message::{
        Consistency, Durability, Failure, Get, Hello, Message, Operation, Outcome, PROTOCOL, Probe, Probed,
        ProbedVersion, Put, Replicate, Reply, Request,
    },
    resp::{self, CommandLimits, CommandParser, ReplyLimits, ReplyScanner},
};
use quorate_node::{
    config::Config,
    context::{Context, Sealer},
    object::{Object, Sibling, view},
    summary::ActorTable,
    version::{Actor, Clock, Dot},
};

/// So much of a segment is looked at.
const SEGMENT_BYTES: usize = 64 << 10;

/// A decoder, and inputs that it accepts.
pub struct Target {
    /// Its name, as cargo-fuzz knows it.
    pub name: &'static str,
    /// The decoder.
    pub run: fn(&[u8]),
    /// Inputs to start from.
    pub corpus: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: [Target; 9] = [
    Target { name: "frame", run: frame_bytes, corpus: frames },
    Target { name: "message", run: message, corpus: payloads },
    Target { name: "resp_command", run: resp_command, corpus: commands },
    Target { name: "resp_reply", run: resp_reply, corpus: replies },
    Target { name: "object", run: object, corpus: objects },
    Target { name: "context", run: context, corpus: contexts },
    Target { name: "index_image", run: index_image, corpus: images },
    Target { name: "log", run: log, corpus: logs },
    Target { name: "config", run: config, corpus: configs },
];

/// Runs the target of this name on one input.
///
/// # Panics
/// When the target does, or there is none.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of this name");
    (target.run)(input);
}

/// Runs a target on `count` inputs: those of its corpus, each changed a little, as `seed` says.
///
/// # Panics
/// When the target does. The input is printed first.
pub fn shake(target: &Target, seed: u64, count: u64) {
    let mut random = Random::new(seed);
    let corpus = (target.corpus)();
    for input in &corpus {
        (target.run)(input);
    }
    for round in 0..count {
        let mut input = corpus[random.index(corpus.len())].clone();
        for _ in 0..=random.range(0..4) {
            change(&mut input, &corpus, &mut random);
        }
        let told = Told { target, seed, round, input: &input };
        (target.run)(&input);
        std::mem::forget(told);
    }
}

/// Tells the input when it is dropped, which only a panic does.
struct Told<'a> {
    target: &'a Target,
    seed: u64,
    round: u64,
    input: &'a [u8],
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        let Self { target, seed, round, input } = self;
        let shown = &input[..input.len().min(512)];
        eprintln!(
            "{}: shake(seed {seed}), round {round}, {} bytes: {}",
            target.name,
            input.len(),
            shown.escape_ascii()
        );
    }
}

fn change(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    const TELLING: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, b'\r', b'\n', b'$'];
    if input.is_empty() {
        return input.push(random.next_u64() as u8);
    }
    let at = random.index(input.len());
    let length = 1 + random.index(8).min(input.len() - at - 1);
    match random.range(0..8) {
        0 => input[at] ^= 1 << random.range(0..8),
        1 => input[at] = TELLING[random.index(TELLING.len())],
        2 => input[at..at + length].fill_with(|| random.next_u64() as u8),
        3 => input[at..at + length].fill(0xff),
        4 => input.truncate(at),
        5 => drop(input.drain(at..at + length)),
        6 => input.splice(at..at, (0..length).map(|_| random.next_u64() as u8)).for_each(drop),
        _ => {
            let other = &corpus[random.index(corpus.len())];
            let from = random.index(other.len().max(1)).min(other.len());
            input.splice(at.., other[from..].iter().copied()).for_each(drop);
        }
    }
}

fn frame_bytes(input: &[u8]) {
    if let Ok(Some(frame)) = frame::decode(input, usize::MAX) {
        assert!(frame.consumed() <= input.len());
        let _ = frame.message();
    }
    assert!(frame::bytes_wanted(input) >= frame::HEADER_BYTES);
}

/// The payload of a frame whose header and checksum are right; the first byte chooses the kind.
fn message(input: &[u8]) {
    let Some((kind, payload)) = input.split_first() else { return };
    let mut bytes = vec![frame::MAGIC[0], frame::MAGIC[1], frame::VERSION, kind % 8];
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&bytes);
    checksum.update(payload);
    bytes.extend_from_slice(&checksum.finalize().to_le_bytes());
    bytes.extend_from_slice(payload);
    let Ok(Some(frame)) = frame::decode(&bytes, usize::MAX) else { return };
    let Ok(message) = frame.message() else { return };
    let mut again = Vec::new();
    frame::encode(&message, &mut again).expect("what was accepted can be sent on");
    let decoded = frame::decode(&again, usize::MAX).expect("it is whole").expect("it is sound");
    assert_eq!(decoded.message(), Ok(message));
}

fn resp_command(input: &[u8]) {
    let mut parser = CommandParser::new(CommandLimits::for_values(1 << 16));
    let mut consumed = 0;
    while let Ok(Some(command)) = parser.parse(&input[consumed..]) {
        assert!(command.consumed() > 0 && command.arguments().all(|argument| argument.len() <= input.len()));
        consumed += command.consumed();
        assert!(consumed <= input.len());
    }
}

fn resp_reply(input: &[u8]) {
    let mut scanner = ReplyScanner::new(ReplyLimits::default());
    if let Ok(Some(length)) = scanner.scan(input) {
        let _ = resp::Reply::parse(&input[..length]);
    }
}

fn object(input: &[u8]) {
    let body = Bytes::copy_from_slice(input);
    let table = ActorTable::default();
    let summary = table.summarise(input);
    let Ok(object) = Object::decode(&body) else {
        assert!(summary.is_none(), "what has a summary is an object");
        return;
    };
    let summary = summary.expect("an object has a summary");
    assert_eq!((table.version(summary), table.has_value(summary)), (object.version(), object.has_value()));
    assert_eq!(view(input).expect("it was decoded").to_object(), object);
    assert_eq!(Object::decode(&object.encode()), Ok(object.clone()), "what was accepted can be sent on");
    assert_eq!(object.reconcile(&object).clock, object.clock);
}

fn context(input: &[u8]) {
    let sealer = Sealer::new("a secret of the tests");
    if let Ok(context) = sealer.open(b"key", input) {
        assert_eq!(sealer.open(b"key", &sealer.seal(b"key", &context)), Ok(context));
    }
}

fn index_image(input: &[u8]) {
    let mut index = Index::new(1, 7);
    if index.restore(0, input).is_ok() {
        let mut image = Vec::new();
        index.image(0, &mut image);
        assert_eq!(index.entries(0, 0, 0).count() as u64, index.len());
        assert!(Index::new(1, 7).restore(0, &image).is_ok(), "what was accepted can be stored again");
    }
}

/// The beginning of a segment, which is always read whole.
fn log(input: &[u8]) {
    let salt = Salt::new(1, 1);
    let mut segment = input.to_vec();
    segment.resize(SEGMENT_BYTES, 0);
    let sightings = recovery::survey(&segment, 0, 1, salt);
    let judged = recovery::judge(&sightings, 0, None);
    assert!(judged.end as usize <= SEGMENT_BYTES);
    for sighting in &sightings {
        let _ = log_frame::is_sound(&sighting.header, &segment[sighting.header.offset as usize..], salt);
    }
    for offset in (0..input.len().min(4 << 10)).step_by(16) {
        let _ = quorate_engine::record::verify(&segment[offset..], salt, offset as u32);
    }
}

fn config(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = Config::parse(text);
    }
}

fn some_objects() -> Vec<Object> {
    let write = |node, counter, token, value: Option<&'static str>| Sibling {
        dot: Dot { actor: Actor { node, core: 0, incarnation: 77 }, counter },
        timestamp_ms: 1_700_000_000_000,
        token,
        value: value.map(|value| Bytes::from_static(value.as_bytes())),
    };
    let one = Object::default().after_write(&Clock::new(), write(1, 1, None, Some("first")));
    let two = one.after_write(&Clock::new(), write(2, 9, Some(5), Some("second")));
    let gone = two.after_write(&two.clock, write(1, 3, None, None));
    let mut seen = Clock::new();
    seen.add(Dot { actor: Actor { node: 3, core: 1, incarnation: 4 }, counter: 8 });
    let beyond = one.after_write(&seen, write(2, 10, None, Some("")));
    vec![one, two, gone, beyond]
}

fn some_messages() -> Vec<Message> {
    let key = Key::new(b"default", b"key").expect("it is short");
    let body = some_objects()[1].encode();
    let put = Put {
        key: key.clone(),
        value: Some(Bytes::from_static(b"value")),
        context: Some(Bytes::from_static(b"context")),
        quorum: 2,
        durability: Durability::Durable,
        consistency: Consistency::Strict,
        token: Some(1 << 70),
        wants_context: true,
    };
    let get = Get { key: key.clone(), quorum: 0, consistency: Consistency::Sloppy, wants_context: true };
    let request = |operation| Message::Request(Request { id: 1, timeout_us: 2, hops: 0, operation });
    let core = Endpoint::new(NodeId(1), CoreId(0));
    let values =
        Outcome::Values { context: Bytes::new(), values: vec![Bytes::from_static(b"a"); 3].into(), sloppy: false };
    vec![
        Message::Hello(Hello {
            protocol: PROTOCOL,
            cluster: 3,
            from: core,
            to: core,
            partitions: 64,
            replicas: 3,
            identity: quorate_net::message::gossip::NodeIdentity(7),
        }),
        request(Operation::Put(put)),
        request(Operation::Get(get)),
        request(Operation::ClusterMap),
        Message::Reply(Reply { id: 4, outcome: values }),
        Message::Reply(Reply { id: 4, outcome: Outcome::Failed(Failure::BadRequest("no".to_owned())) }),
        Message::Probe(Probe { operation: 5, timeout_us: 6, partition: 7, known: 8, owner: true, key: key.clone() }),
        Message::Probed(Probed { operation: 9, version: ProbedVersion::Object(body.clone()) }),
        Message::Replicate(Replicate {
            operation: 10,
            timeout_us: 11,
            partition: 12,
            durable: true,
            hint_for: Some(NodeId(2)),
            base: 13,
            key,
            body,
        }),
    ]
}

fn frames() -> Vec<Vec<u8>> {
    let encoded = |message: Message| {
        let mut bytes = Vec::new();
        frame::encode(&message, &mut bytes).expect("it is short");
        bytes
    };
    some_messages().into_iter().map(encoded).collect()
}

fn payloads() -> Vec<Vec<u8>> {
    frames().into_iter().map(|frame| [&frame[3..4], &frame[frame::HEADER_BYTES..]].concat()).collect()
}

fn commands() -> Vec<Vec<u8>> {
    let lines: [&[u8]; 6] = [
        b"PING\r\n",
        b"set \"a \\x41\" 'b'\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
        b"*0\r\n*-1\r\n*2\r\n$0\r\n\r\n$1\r\nx\r\n",
        b"*1000000\r\n$65536\r\n",
    ];
    lines.iter().map(|line| line.to_vec()).collect()
}

fn replies() -> Vec<Vec<u8>> {
    let lines: [&[u8]; 7] = [
        b"+OK\r\n",
        b"-ERR no\r\n",
        b":-17\r\n$3\r\nabc\r\n",
        b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
        b"%2\r\n+a\r\n:1\r\n+b\r\n#t\r\n",
        b"_\r\n,1.5\r\n(123\r\n=7\r\ntxt:abc\r\n~1\r\n+x\r\n>1\r\n+y\r\n",
        b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n",
    ];
    lines.iter().map(|line| line.to_vec()).collect()
}

fn objects() -> Vec<Vec<u8>> {
    some_objects().iter().map(|object| object.encode().to_vec()).collect()
}

fn contexts() -> Vec<Vec<u8>> {
    let sealer = Sealer::new("a secret of the tests");
    let sealed = |object: Object| {
        let context = Context { version: object.version(), seen: object.clock };
        sealer.seal(b"key", &context).to_vec()
    };
    some_objects().into_iter().map(sealed).collect()
}

fn images() -> Vec<Vec<u8>> {
    [3, 200].map(|keys| small_store(keys).0).to_vec()
}

fn logs() -> Vec<Vec<u8>> {
    vec![small_store(20).1]
}

fn configs() -> Vec<Vec<u8>> {
    let example = include_str!("../../quorate.example.toml");
    // What stands right behind a `#` is a key that is left out.
    let given = |line: &'static str| line.strip_prefix('#').filter(|key| !key.starts_with(' ')).unwrap_or(line);
    let all: Vec<&str> = example.lines().map(given).collect();
    vec![example.as_bytes().to_vec(), all.join("\n").into_bytes()]
}

/// A store with a few keys: the image of its index, and the beginning of its first segment.
fn small_store(keys: u32) -> (Vec<u8>, Vec<u8>) {
    let disk = SimulatedDisk::new(1, Timing::default());
    let executor = Executor::new();
    let mut config = StoreConfig::new(1, 1, 7);
    (config.segment_bytes, config.frame_bytes_max, config.body_bytes_max) = (1 << 20, 64 << 10, 64 << 10);
    let actors = Rc::new(ActorTable::default());
    let opening = Store::open(disk.clone(), config, actors.clone());
    let opened = disk.run(&executor, opening).expect("the disk moves").expect("an empty disk opens");
    for task in opened.tasks {
        executor.spawn(1, Box::pin(task));
    }
    let body = some_objects()[1].encode();
    let summary = actors.summarise(&body).expect("it is an object");
    for key in 0..keys {
        let append = Append { partition: 0, key: &key.to_le_bytes(), body: &[&body], summary };
        opened.store.append(append).expect("there is room");
    }
    let mut image = Vec::new();
    opened.store.index(|index| index.image(0, &mut image));
    let store = opened.store.clone();
    disk.run(&executor, async move { store.close().await });
    let (name, _) = disk.names().into_iter().find(|(name, _)| name.starts_with("segment-")).expect("there is one");
    let mut segment = disk.contents(&name).expect("it is there");
    segment.truncate(SEGMENT_BYTES / 2);
    (image, segment)
}
