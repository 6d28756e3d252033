//! Real sockets on loopback: a server on an executor of its own, and blocking clients here.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream as Blocking},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use crate::id::CoreId;
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};

use super::*;

/// Messages are a length byte and as many bytes; each is answered by itself. Some bytes are orders.
struct Echo {
    /// Answered when the order comes.
    owed: Vec<Vec<u8>>,
    log: mpsc::Sender<Closed>,
}

impl Handler for Echo {
    fn received(&mut self, connection: &Connection, input: &[u8]) -> Taken {
        let mut at = 0;
        while let Some(&length) = input.get(at) {
            let Some(message) = input.get(at + 1..at + 1 + usize::from(length)) else {
                return Taken::read_more(at, 1 + usize::from(length));
            };
            at += 1 + message.len();
            match message {
                b"owe" => self.owed.push(message.to_vec()),
                b"close" => {
                    let _ = connection.send(|out| out.extend_from_slice(b"bye"));
                    return Taken { consumed: at, next: Next::Close };
                }
                b"pause" => {
                    let resumed = connection.clone();
                    glommio::spawn_local(async move {
                        Timer::new(Duration::from_millis(20)).await;
                        let _ = resumed.send(|out| out.extend_from_slice(b"resumed "));
                        resumed.resume();
                    })
                    .detach();
                    return Taken { consumed: at, next: Next::Pause };
                }
                b"yield" => {
                    let _ = connection.send(|out| out.push(b'y'));
                    return Taken { consumed: at, next: Next::Yield };
                }
                b"flood" => {
                    let megabyte = vec![7; 1 << 20];
                    while connection.send(|out| out.extend_from_slice(&megabyte)).is_ok() {}
                }
                _ => drop(connection.send(|out| out.extend_from_slice(message))),
            }
        }
        Taken::read_more(at, 0)
    }

    fn input_ended(&mut self, connection: &Connection) {
        for owed in self.owed.drain(..) {
            let _ = connection.send(|out| out.extend_from_slice(&owed));
        }
        connection.finish();
    }

    fn closed(&mut self, connection: &Connection, reason: Closed) {
        assert_eq!(connection.send(|_| unreachable!()), Err(SendError::Closed));
        let _ = self.log.send(reason);
    }
}

struct Server {
    address: SocketAddr,
    closed: mpsc::Receiver<Closed>,
    stop: Arc<AtomicBool>,
    executor: ExecutorJoinHandle<(Statistics, usize)>,
}

fn builder() -> LocalExecutorBuilder {
    LocalExecutorBuilder::new(Placement::Unbound).io_memory(64 << 10)
}

fn options(limits: Limits) -> ListenerOptions {
    ListenerOptions { limits, connections_max: 100, connections_per_address_max: 100, refusal: b"-ERR full\r\n" }
}

impl Server {
    fn start(options: ListenerOptions, buffered_max: usize) -> Self {
        let (log, closed) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let run = move || async move {
            let transport = Transport::new(buffered_max);
            let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), Sharing::Exclusive).unwrap();
            tell.send(listener.address()).unwrap();
            let echo =
                move |_: &Connection| -> Box<dyn Handler> { Box::new(Echo { owed: Vec::new(), log: log.clone() }) };
            let serving = glommio::spawn_local(listener.serve(transport.clone(), options, echo));
            while !stopping.load(Ordering::Relaxed) {
                Timer::new(Duration::from_millis(1)).await;
            }
            serving.cancel().await;
            transport.close_all().await;
            assert_eq!(transport.connection_count(), 0);
            (transport.statistics(), transport.buffered_bytes())
        };
        let executor = builder().spawn(run).unwrap();
        Self { address: told.recv().unwrap(), closed, stop, executor }
    }

    fn client(&self) -> Blocking {
        let client = Blocking::connect(self.address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client
    }

    /// Ends the server; all that it had charged to its buffers must be given back.
    fn stop(self) -> Statistics {
        self.stop.store(true, Ordering::Relaxed);
        let (statistics, buffered) = self.executor.join().unwrap();
        assert_eq!(buffered, 0);
        assert_eq!(statistics.opened, statistics.closed);
        statistics
    }
}

fn message(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

fn read_exactly(client: &mut Blocking, bytes: usize) -> Vec<u8> {
    let mut answer = vec![0; bytes];
    client.read_exact(&mut answer).unwrap();
    answer
}

fn read_to_end(client: &mut Blocking) -> Vec<u8> {
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    answer
}

#[test]
fn what_arrives_together_is_answered_in_one_write() {
    let server = Server::start(options(Limits::default()), 1 << 20);
    let mut client = server.client();
    client.write_all(&message(b"hello").repeat(500)).unwrap();
    assert_eq!(read_exactly(&mut client, 2500), b"hello".repeat(500));
    let statistics = server.stop();
    // Loopback may deliver 3000 bytes in two pieces, never in hundreds.
    assert!(statistics.writes <= 3, "{statistics:?}");
    assert_eq!((statistics.bytes_read, statistics.bytes_written), (3000, 2500));
}

#[test]
fn messages_in_pieces_are_put_together() {
    let server = Server::start(options(Limits::default()), 1 << 20);
    let mut client = server.client();
    client.set_nodelay(true).unwrap();
    for piece in [message(b"abcdef"), message(b"xyz")].concat().chunks(1) {
        client.write_all(piece).unwrap();
        thread::yield_now();
    }
    assert_eq!(read_exactly(&mut client, 9), b"abcdefxyz");
    server.stop();
}

#[test]
fn many_connections_and_much_data() {
    let server = Server::start(options(Limits::default()), 256 << 20);
    let stream = message(&[5; 255]).repeat(20_000);
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (mut reader, stream) = (server.client(), stream.clone());
            let mut writer = reader.try_clone().unwrap();
            let write = thread::spawn(move || writer.write_all(&stream).unwrap());
            thread::spawn(move || {
                let answer = read_exactly(&mut reader, 255 * 20_000);
                write.join().unwrap();
                answer.iter().all(|&byte| byte == 5)
            })
        })
        .collect();
    assert!(clients.into_iter().all(|client| client.join().unwrap()));
    assert_eq!(server.stop().opened, 8);
}

#[test]
fn an_end_that_we_make_writes_all_before() {
    let server = Server::start(options(Limits::default()), 1 << 20);
    let mut client = server.client();
    // Much more follows the order to close: unread input must not destroy the answer.
    let rest = vec![0; 200_000];
    client.write_all(&[message(b"one"), message(b"close"), rest].concat()).unwrap();
    assert_eq!(read_to_end(&mut client), b"onebye");
    drop(client);
    assert_eq!(server.closed.recv().unwrap(), Closed::ByUs);
    server.stop();
}

#[test]
fn answers_still_owed_at_the_end_of_input_are_written() {
    let server = Server::start(options(Limits::default()), 1 << 20);
    let mut client = server.client();
    client.write_all(&message(b"owe")).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut client), b"owe");
    assert_eq!(server.closed.recv().unwrap(), Closed::ByPeer);
    server.stop();
}

#[test]
fn a_paused_connection_goes_on_where_it_was() {
    let server = Server::start(options(Limits::default()), 1 << 20);
    let mut client = server.client();
    client.write_all(&[message(b"a"), message(b"pause"), message(b"b"), message(b"c")].concat()).unwrap();
    assert_eq!(read_exactly(&mut client, 11), b"aresumed bc");
    server.stop();
}

#[test]
fn who_yields_lets_others_go_on_and_is_asked_again() {
    let server = Server::start(options(Limits::default()), 1 << 20);
    let mut client = server.client();
    client.write_all(&[message(b"yield").repeat(8), message(b"a"), message(b"b")[..1].to_vec()].concat()).unwrap();
    assert_eq!(read_exactly(&mut client, 9), b"yyyyyyyya");
    client.write_all(b"b").unwrap();
    assert_eq!(read_exactly(&mut client, 1), b"b");
    // The writer is one of those who got their turn.
    assert!(server.stop().writes >= 8);
}

#[test]
fn a_client_that_does_not_read_is_closed() {
    let limits = Limits { output_bytes_max: 4 << 20, ..Limits::default() };
    let server = Server::start(options(limits), 1 << 30);
    let mut client = server.client();
    client.write_all(&message(b"flood")).unwrap();
    assert_eq!(server.closed.recv().unwrap(), Closed::OutputFull);
    drop(client);
    assert_eq!(server.stop().overflowed, 1);
}

#[test]
fn a_peer_that_does_not_read_is_refused_and_stays() {
    let limits = Limits { output_bytes_max: 4 << 20, when_full: WhenFull::Refuse, ..Limits::default() };
    let server = Server::start(options(limits), 1 << 30);
    let mut client = server.client();
    client.write_all(&message(b"flood")).unwrap();
    assert_eq!(read_exactly(&mut client, 4 << 20), vec![7; 4 << 20]);
    client.write_all(&message(b"hello")).unwrap();
    assert_eq!(read_exactly(&mut client, 5), b"hello");
    let statistics = server.stop();
    assert_eq!((statistics.messages_refused, statistics.overflowed), (1, 0));
}

/// What all connections keep together is bounded too.
#[test]
fn a_core_without_buffers_closes_whoever_asks_for_more() {
    let server = Server::start(options(Limits::default()), 10 << 20);
    let mut client = server.client();
    client.write_all(&message(b"flood")).unwrap();
    assert_eq!(server.closed.recv().unwrap(), Closed::OutOfBuffers);
    let mut other = server.client();
    other.write_all(&message(b"hello")).unwrap();
    assert_eq!(read_exactly(&mut other, 5), b"hello");
    server.stop();
}

/// A client that sends without reading stalls itself, and is not closed: all it sent is answered when it reads.
#[test]
fn unread_output_stops_the_reading() {
    let limits = Limits { output_pause_bytes: 1 << 20, output_bytes_max: 2 << 20, ..Limits::default() };
    let server = Server::start(options(limits), 64 << 20);
    let mut client = server.client();
    client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let chunk = message(&[9; 200]).repeat(100);
    let mut sent = 0;
    let error = loop {
        match client.write(&chunk[sent % 201..]) {
            Ok(count) => sent += count,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "stalled, not closed: {error}");
    let answered = sent / 201 * 200;
    assert!(read_exactly(&mut client, answered).iter().all(|&byte| byte == 9));
    server.stop();
}

#[test]
fn a_request_that_never_ends_is_timed_out() {
    let limits = Limits { request_timeout: Duration::from_millis(50), ..Limits::default() };
    let server = Server::start(options(limits), 1 << 20);
    let (mut idle, mut partial) = (server.client(), server.client());
    partial.write_all(b"\x05hel").unwrap();
    assert_eq!(server.closed.recv().unwrap(), Closed::TimedOut);
    assert_eq!(read_to_end(&mut partial), b"");
    // Between requests a client may rest.
    idle.write_all(&message(b"hello")).unwrap();
    assert_eq!(read_exactly(&mut idle, 5), b"hello");
    assert_eq!(server.stop().timed_out, 1);
}

#[test]
fn a_first_request_that_never_comes_is_timed_out() {
    let limits = Limits { first_request_timeout: Some(Duration::from_millis(50)), ..Limits::default() };
    let server = Server::start(options(limits), 1 << 20);
    let _idle = server.client();
    assert_eq!(server.closed.recv().unwrap(), Closed::TimedOut);
    server.stop();
}

#[test]
fn a_request_over_the_limit_ends_the_connection() {
    let limits = Limits { input_bytes_max: 100, ..Limits::default() };
    let server = Server::start(options(limits), 1 << 20);
    let mut client = server.client();
    client.write_all(&[message(&[1; 99]), vec![100, 1]].concat()).unwrap();
    assert_eq!(server.closed.recv().unwrap(), Closed::InputTooLong);
    server.stop();
}

#[test]
fn one_connection_too_many_is_told_so() {
    let options = ListenerOptions { connections_per_address_max: 1, ..options(Limits::default()) };
    let server = Server::start(options, 1 << 20);
    let mut first = server.client();
    first.write_all(&message(b"hello")).unwrap();
    read_exactly(&mut first, 5);
    assert_eq!(read_to_end(&mut server.client()), b"-ERR full\r\n");
    drop(first);
    server.closed.recv().unwrap();
    // The place is free again, at the latest when the first connection's tasks have ended.
    let mut answer = Vec::new();
    while answer != b"hello" {
        let mut next = server.client();
        let _ = next.write_all(&message(b"hello"));
        let _ = next.shutdown(Shutdown::Write);
        answer = Vec::new();
        let _ = next.read_to_end(&mut answer);
    }
    assert!(server.stop().refused >= 1);
}

#[test]
fn a_port_is_ours_alone_unless_it_is_shared() {
    builder()
        .spawn(|| async {
            let free = "127.0.0.1:0".parse().unwrap();
            let exclusive = Listener::bind(free, Sharing::Exclusive).unwrap();
            for sharing in [Sharing::Exclusive, Sharing::Cores] {
                let error = Listener::bind(exclusive.address(), sharing).err().unwrap();
                let text = format!("cannot listen on {}: another process does already", exclusive.address());
                assert_eq!(error.to_string(), text);
            }
            let shared = Listener::bind(free, Sharing::Cores).unwrap();
            assert!(Listener::bind(shared.address(), Sharing::Cores).is_ok());
            assert!(Listener::bind(shared.address(), Sharing::Exclusive).is_err());
            let elsewhere = Listener::bind("192.0.2.1:0".parse().unwrap(), Sharing::Exclusive).err().unwrap();
            assert!(elsewhere.to_string().ends_with("this machine has no such address"), "{elsewhere}");
        })
        .unwrap()
        .join()
        .unwrap();
}

struct Ignore;

impl Handler for Ignore {
    fn received(&mut self, _: &Connection, input: &[u8]) -> Taken {
        Taken::read_more(input.len(), 0)
    }
}

/// What the kernel was told of a connection with these limits: how long it may be silent, and when it is probed.
fn silence_of(limits: Limits) -> (Option<Duration>, Option<Duration>) {
    builder()
        .spawn(move || async move {
            let peer = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let stream = TcpStream::connect(peer.local_addr().unwrap()).await.unwrap();
            // Another descriptor of the same socket.
            let kept = descriptor(&stream).try_clone_to_owned().unwrap();
            let transport = Transport::new(1 << 20);
            transport.adopt(stream, &limits, |_| Box::new(Ignore)).unwrap();
            let socket = SockRef::from(&kept);
            let probed = socket.keepalive().unwrap().then(|| socket.tcp_keepalive_time().unwrap());
            let told = (socket.tcp_user_timeout().unwrap(), probed);
            transport.close_all().await;
            told
        })
        .unwrap()
        .join()
        .unwrap()
}

#[test]
fn the_kernel_bounds_the_silence_of_a_peer() {
    let five = Some(Duration::from_secs(5));
    assert_eq!(silence_of(Limits { silence_max: five, ..Limits::default() }), (five, five));
    assert_eq!(silence_of(Limits::default()), (None, None));
}

#[test]
fn a_link_is_made_again_when_it_breaks() {
    builder()
        .spawn(|| async {
            let transport = Transport::new(1 << 20);
            let port = Listener::bind("127.0.0.1:0".parse().unwrap(), Sharing::Exclusive).unwrap();
            let address = port.address();
            drop(port);
            let greeted = Rc::new(Cell::new(0));
            let counted = greeted.clone();
            let link = Link::open(
                &transport,
                address,
                LinkOptions {
                    limits: Limits::default(),
                    connect_timeout: Duration::from_secs(1),
                    backoff_min: Duration::from_millis(1),
                    backoff_max: Duration::from_millis(4),
                    seed: 1,
                },
                move |connection| {
                    counted.set(counted.get() + 1);
                    connection.send(|out| out.extend_from_slice(b"hello")).unwrap();
                    Box::new(Ignore)
                },
            );
            assert_eq!(link.send(|_| unreachable!()), Err(SendError::Closed));
            // Nobody listens yet: it goes on trying, and finds the port when it opens.
            let listener = Listener::bind(address, Sharing::Exclusive).unwrap();
            let accepting = transport.clone();
            let (seen, mut accepted) = (Rc::new(RefCell::new(Vec::new())), 0);
            let log = seen.clone();
            let serving =
                glommio::spawn_local(listener.serve(accepting, options(Limits::default()), move |connection| {
                    log.borrow_mut().push(connection.clone());
                    Box::new(Ignore)
                }));
            while accepted < 3 {
                Timer::new(Duration::from_millis(1)).await;
                let newest = seen.borrow().last().cloned();
                if let Some(connection) = newest
                    && seen.borrow().len() > accepted
                {
                    accepted = seen.borrow().len();
                    connection.close();
                }
            }
            assert!(greeted.get() >= 3);
            link.close();
            serving.cancel().await;
            transport.close_all().await;
            assert_eq!(transport.buffered_bytes(), 0);
        })
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn cores_of_a_mesh_reach_each_other() {
    let cores: Vec<_> = MeshSeat::<(u16, u32)>::all(3, 8)
        .into_iter()
        .map(|seat| {
            builder()
                .spawn(move || async move {
                    let me = seat.core().0;
                    let (mesh, receivers) = seat.join().await;
                    assert_eq!(mesh.send(CoreId(me), (me, 0)), Err(MeshError::NoSuchCore((me, 0))));
                    assert_eq!(mesh.send(CoreId(9), (me, 0)), Err(MeshError::NoSuchCore((me, 0))));
                    // More than the queues hold: whoever is refused tries again, and nobody waits for ever.
                    let sending = glommio::spawn_local(async move {
                        for number in 0..1000 {
                            for to in (0..3).filter(|&to| to != me) {
                                while mesh.send(CoreId(to), (me, number)).is_err() {
                                    Timer::new(Duration::from_micros(100)).await;
                                }
                            }
                        }
                    });
                    for receiver in &receivers {
                        let (mut batch, mut expected) = (Vec::new(), 0);
                        while expected < 1000 {
                            assert!(receiver.receive(&mut batch).await);
                            for message in batch.drain(..) {
                                assert_eq!(message, (receiver.from().0, expected));
                                expected += 1;
                            }
                        }
                    }
                    sending.await;
                })
                .unwrap()
        })
        .collect();
    for core in cores {
        core.join().unwrap();
    }
}

#[test]
fn a_full_queue_is_an_error_at_once() {
    let mut seats = MeshSeat::<u32>::all(2, 4);
    let (second, first) = (seats.pop().unwrap(), seats.pop().unwrap());
    let (done, wait) = mpsc::channel::<()>();
    let receiver = builder()
        .spawn(move || async move {
            let (_mesh, receivers) = second.join().await;
            wait.recv().unwrap();
            drop(receivers);
        })
        .unwrap();
    let sender = builder()
        .spawn(move || async move {
            let (mesh, _receivers) = first.join().await;
            let mut sent = 0;
            let refused = loop {
                match mesh.send(CoreId(1), sent) {
                    Ok(()) => sent += 1,
                    Err(error) => break error,
                }
            };
            assert_eq!((refused, sent), (MeshError::Full(4), 4));
            done.send(()).unwrap();
            let mut last = mesh.send(CoreId(1), 0);
            while matches!(last, Err(MeshError::Full(_))) {
                Timer::new(Duration::from_millis(1)).await;
                last = mesh.send(CoreId(1), 0);
            }
            assert_eq!(last, Err(MeshError::Closed(0)));
        })
        .unwrap();
    sender.join().unwrap();
    receiver.join().unwrap();
}
