//! A tiny server that speaks enough RESP to be put under load, and that can be told to misbehave.
//!
//! Not here: what is expected of the load generator (`load`).

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use quorate_net::{
    frame,
    id::NodeId,
    message::{ClusterMap, Failure, MappedNode, Message, Operation, Outcome, Reply, Request},
    resp::{CommandLimits, CommandParser},
};

type Siblings = Vec<(u64, Vec<u8>)>;

/// What a server keeps; it outlives the server, as a disk does. Each key has its siblings, each with its dot.
#[derive(Default)]
pub(crate) struct Store {
    keys: Mutex<HashMap<Vec<u8>, Siblings>>,
    dots: AtomicU64,
    puts: Mutex<u64>,
    more_puts: Condvar,
    /// Gets that were answered.
    pub(crate) gets: AtomicU64,
}

impl Store {
    /// Puts that were acknowledged.
    pub(crate) fn puts(&self) -> u64 {
        *self.puts.lock().unwrap()
    }

    /// Returns when `count` more puts were acknowledged.
    pub(crate) fn wait_for_puts(&self, count: u64) {
        let puts = self.puts.lock().unwrap();
        let goal = *puts + count;
        let patience = Duration::from_secs(20);
        let (puts, _) = self.more_puts.wait_timeout_while(puts, patience, |puts| *puts < goal).unwrap();
        assert!(*puts >= goal, "the load stands still");
    }
}

/// How a server misbehaves.
#[derive(Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Every so many puts, one is acknowledged and not kept.
    pub(crate) loses_every: Option<u64>,
    /// Every so many puts, one flips a bit of the value.
    pub(crate) damages_every: Option<u64>,
    /// Every so many puts, one is refused after it was done.
    pub(crate) refuses_every: Option<u64>,
    /// At this command everything stops for so long, once.
    pub(crate) stalls_at: Option<(u64, Duration)>,
    /// Reads answer nothing to every so many gets.
    pub(crate) forgets_every: Option<u64>,
    /// Connections are cut after so many commands.
    pub(crate) cuts_after: Option<u64>,
}

/// A running server.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    address: SocketAddr,
    store: Arc<Store>,
    faults: Faults,
    commands: AtomicU64,
    puts: AtomicU64,
    gets: AtomicU64,
    /// Held by whoever stalls: all others wait.
    stall: Mutex<()>,
}

impl Fake {
    pub(crate) fn start(faults: Faults) -> (Self, Arc<Store>) {
        let store = Arc::new(Store::default());
        (Self::start_at("127.0.0.1:0".parse().unwrap(), Arc::clone(&store), faults), store)
    }

    /// A server at a given address, on what an earlier one has kept.
    pub(crate) fn start_at(address: SocketAddr, store: Arc<Store>, faults: Faults) -> Self {
        let listener = bind(address);
        let address = listener.local_addr().unwrap();
        let (stop, streams) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let zero = || AtomicU64::new(0);
        let shared =
            Shared { address, store, faults, commands: zero(), puts: zero(), gets: zero(), stall: Mutex::new(()) };
        let shared = Arc::new(shared);
        let (stopped, kept) = (Arc::clone(&stop), Arc::clone(&streams));
        let accepting = thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                stream.set_nodelay(true).unwrap();
                kept.lock().unwrap().push(stream.try_clone().unwrap());
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { address, stop, streams, accepting: Some(accepting) }
    }

    /// Cuts all connections and stops listening, as a killed process does.
    pub(crate) fn kill(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            accepting.join().unwrap();
        }
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The standard library sets SO_REUSEADDR, so the address of a server that was just killed is free.
fn bind(address: SocketAddr) -> TcpListener {
    TcpListener::bind(address).unwrap()
}

fn serve(mut stream: TcpStream, shared: &Shared) {
    let mut parser = CommandParser::new(CommandLimits::default());
    let (mut input, mut out, mut served) = (Vec::new(), Vec::new(), 0);
    let mut chunk = [0; 64 << 10];
    loop {
        match stream.read(&mut chunk) {
            Ok(count) if count > 0 => input.extend_from_slice(&chunk[..count]),
            _ => return,
        }
        let count = if input[0] == frame::MAGIC[0] {
            shared.answer_frames(&mut input, &mut out)
        } else {
            shared.answer_commands(&mut parser, &mut input, &mut out)
        };
        served += count;
        if shared.faults.cuts_after.is_some_and(|limit| served > limit) {
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
        if stream.write_all(&out).is_err() {
            return;
        }
        out.clear();
    }
}

/// The context that covers these values.
fn dots(siblings: &Siblings) -> String {
    let dots: Vec<String> = siblings.iter().map(|(dot, _)| dot.to_string()).collect();
    dots.join(",")
}

fn nth(counter: &AtomicU64, every: Option<u64>) -> bool {
    let count = counter.load(Ordering::SeqCst);
    every.is_some_and(|every| count % every == every - 1)
}

impl Shared {
    fn answer_commands(&self, parser: &mut CommandParser, input: &mut Vec<u8>, out: &mut Vec<u8>) -> u64 {
        let (mut at, mut count) = (0, 0);
        while let Some(command) = parser.parse(&input[at..]).unwrap() {
            at += command.consumed();
            count += 1;
            let arguments: Vec<Vec<u8>> = command.arguments().map(<[u8]>::to_vec).collect();
            self.answer(&arguments, out);
        }
        input.drain(..at);
        count
    }

    /// The answers to all frames that came together go out in the opposite order: their ids say which is which.
    fn answer_frames(&self, input: &mut Vec<u8>, out: &mut Vec<u8>) -> u64 {
        let (mut at, mut requests) = (0, Vec::new());
        while let Some(frame) = frame::decode(&input[at..], usize::MAX).unwrap() {
            at += frame.consumed();
            let Message::Request(request) = frame.message().unwrap() else { panic!("clients send requests") };
            requests.push(request);
        }
        input.drain(..at);
        let count = requests.len() as u64;
        for request in requests.into_iter().rev() {
            let reply = Reply { id: request.id, outcome: self.outcome(request) };
            frame::encode(&Message::Reply(reply), out).unwrap();
        }
        count
    }

    fn outcome(&self, request: Request) -> Outcome {
        self.stall_if_due();
        let bytes = |text: String| Bytes::from(text.into_bytes());
        match request.operation {
            Operation::ClusterMap => Outcome::ClusterMap(self.map()),
            Operation::Get(get) => {
                let siblings = self.get(get.key.name());
                let context = bytes(dots(&siblings));
                let values = siblings.into_iter().map(|(_, value)| Bytes::from(value)).collect();
                Outcome::Values { context, values, sloppy: false }
            }
            Operation::Put(put) => {
                let context = put.context.map(|context| String::from_utf8(context.to_vec()).unwrap());
                match self.put(put.key.name(), put.value.unwrap().to_vec(), context.as_deref()) {
                    Ok(dot) => Outcome::Written { context: bytes(dot.to_string()), replaced: false, sloppy: false },
                    Err(_) => Outcome::Failed(Failure::Timeout { acks: 1, needed: 2 }),
                }
            }
        }
    }

    /// All keys belong to this server.
    fn map(&self) -> ClusterMap {
        let (address, port) = (self.address.ip().to_string(), self.address.port());
        let node = MappedNode { id: NodeId(1), address, cores: 1, port, core_port: port };
        ClusterMap { replicas: 1, nodes: vec![node], preference: vec![vec![0]; 8], spread: vec![0; 8] }
    }

    fn stall_if_due(&self) {
        let _stall = self.stall.lock().unwrap();
        let command = self.commands.fetch_add(1, Ordering::SeqCst);
        if let Some((at, duration)) = self.faults.stalls_at
            && at == command
        {
            // The generator is what is tested, and it must see real time pass.
            thread::sleep(duration);
        }
    }

    fn answer(&self, arguments: &[Vec<u8>], out: &mut Vec<u8>) {
        self.stall_if_due();
        match &*arguments[0] {
            b"SET" => {
                let done = self.put(&arguments[1], arguments[2].clone(), None);
                reply(out, &done.map(|_| "+OK\r\n".to_owned().into_bytes()));
            }
            b"GET" => match self.get(&arguments[1]).last() {
                Some((_, value)) => bulk(out, value),
                None => out.extend_from_slice(b"$-1\r\n"),
            },
            b"KV.PUT" => {
                let at = arguments.iter().position(|word| word == b"CTX");
                let context = at.map(|at| String::from_utf8(arguments[at + 1].clone()).unwrap());
                let done = self.put(&arguments[1], arguments[2].clone(), context.as_deref());
                reply(out, &done.map(|dot| as_bulk(dot.to_string().as_bytes())));
            }
            b"KV.GET" => {
                let siblings = self.get(&arguments[1]);
                out.extend_from_slice(b"*2\r\n");
                bulk(out, dots(&siblings).as_bytes());
                out.extend_from_slice(format!("*{}\r\n", siblings.len()).as_bytes());
                siblings.iter().for_each(|(_, value)| bulk(out, value));
            }
            other => out.extend_from_slice(format!("-ERR unknown command '{}'\r\n", other.escape_ascii()).as_bytes()),
        }
    }

    /// `context`: the dots that the writer has seen; `None` replaces all there is.
    fn put(&self, key: &[u8], mut value: Vec<u8>, context: Option<&str>) -> Result<u64, &'static str> {
        let loses = nth(&self.puts, self.faults.loses_every);
        if nth(&self.puts, self.faults.damages_every) {
            value[40] ^= 1;
        }
        let refuses = nth(&self.puts, self.faults.refuses_every);
        self.puts.fetch_add(1, Ordering::SeqCst);
        let dot = self.store.dots.fetch_add(1, Ordering::SeqCst) + 1;
        if !loses {
            let mut keys = self.store.keys.lock().unwrap();
            let siblings = keys.entry(key.to_vec()).or_default();
            let seen: Option<Vec<u64>> =
                context.map(|dots| dots.split(',').filter_map(|dot| dot.parse().ok()).collect());
            siblings.retain(|(dot, _)| seen.as_ref().is_some_and(|seen| !seen.contains(dot)));
            siblings.push((dot, value));
        }
        if refuses {
            return Err("TIMEOUT it may have been done");
        }
        *self.store.puts.lock().unwrap() += 1;
        self.store.more_puts.notify_all();
        Ok(dot)
    }

    fn get(&self, key: &[u8]) -> Siblings {
        let forgets = nth(&self.gets, self.faults.forgets_every);
        self.gets.fetch_add(1, Ordering::SeqCst);
        self.store.gets.fetch_add(1, Ordering::SeqCst);
        if forgets { Vec::new() } else { self.store.keys.lock().unwrap().get(key).cloned().unwrap_or_default() }
    }
}

fn reply(out: &mut Vec<u8>, done: &Result<Vec<u8>, &'static str>) {
    match done {
        Ok(bytes) => out.extend_from_slice(bytes),
        Err(text) => out.extend_from_slice(format!("-{text}\r\n").as_bytes()),
    }
}

fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&as_bulk(bytes));
}

fn as_bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}
