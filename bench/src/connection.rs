//! One nonblocking TCP connection with its requests under way.
//!
//! The rule: every request that was put on a connection ends in exactly one of three ways: its answer, [`Lost::Unsent`]
//! (the connection never opened), or [`Lost::Unknown`].
//!
//! Not here: what a request is part of (`client`), when connections are opened again (`desk`).

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd, BorrowedFd},
};

use rustix::{
    event::epoll::{self, EventData, EventFlags},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, sockopt},
};

use crate::{
    client::Operation,
    protocol::{Outcome, Protocol},
};

/// How many bytes one read takes at most.
pub(crate) const READ_BYTES: usize = 256 << 10;

/// A connection to one endpoint.
pub(crate) struct Connection {
    stream: TcpStream,
    opening: bool,
    /// Whether epoll watches for room to write.
    watches_room: bool,
    protocol: Protocol,
    /// Bytes to send; those before `sent` have gone.
    out: Vec<u8>,
    sent: usize,
    /// What came and is not used up yet: the beginning of an answer, or of a frame.
    partial: Vec<u8>,
    /// Oldest first.
    under_way: VecDeque<UnderWay>,
    next_id: u64,
    token: u64,
}

/// A request without an answer.
#[derive(Debug)]
pub(crate) struct UnderWay {
    id: u64,
    /// When it was put on the connection, in nanoseconds of the run.
    pub(crate) since: u64,
    pub(crate) operation: Operation,
}

/// What becomes of the requests of a connection that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lost {
    /// The connection was never open: they can be sent elsewhere.
    Unsent,
    /// They may have been done.
    Unknown,
}

/// Why a connection is of no use.
#[derive(Debug)]
pub(crate) struct Broken {
    /// For counting.
    pub(crate) class: String,
    /// The whole story.
    pub(crate) text: String,
}

impl Connection {
    /// Starts to connect. Requests can be put on it at once.
    ///
    /// # Errors
    /// When the machine refuses at once: no descriptors or ports left, no route.
    pub(crate) fn open(address: SocketAddr, protocol: Protocol, epoll: BorrowedFd<'_>, token: u64) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        epoll::add(epoll, &socket, EventData::new_u64(token), EventFlags::IN | EventFlags::OUT)?;
        Ok(Self {
            stream: TcpStream::from(socket),
            opening: true,
            watches_room: true,
            protocol,
            out: Vec::new(),
            sent: 0,
            partial: Vec::new(),
            under_way: VecDeque::new(),
            next_id: 0,
            token,
        })
    }

    /// What its events carry.
    pub(crate) fn token(&self) -> u64 {
        self.token
    }

    /// Puts a get on the connection; [`Connection::send`] sends it.
    pub(crate) fn get(&mut self, key: &[u8], since: u64, operation: Operation) {
        self.protocol.encode_get(self.next_id, key, &mut self.out);
        self.add(since, operation);
    }

    /// Puts a put on the connection; [`Connection::send`] sends it.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8], context: Option<&[u8]>, since: u64, operation: Operation) {
        self.protocol.encode_put(self.next_id, key, value, context, &mut self.out);
        self.add(since, operation);
    }

    fn add(&mut self, since: u64, operation: Operation) {
        self.under_way.push_back(UnderWay { id: self.next_id, since, operation });
        self.next_id += 1;
    }

    /// When the oldest request without an answer was put on.
    pub(crate) fn oldest_since(&self) -> Option<u64> {
        self.under_way.front().map(|oldest| oldest.since)
    }

    /// Whether the connection was ever open.
    pub(crate) fn is_opening(&self) -> bool {
        self.opening
    }

    /// Takes note of an event before it is read from.
    ///
    /// # Errors
    /// When the connection could not be opened.
    pub(crate) fn handle_event(&mut self, flags: EventFlags) -> Result<(), Broken> {
        if !self.opening || !flags.intersects(EventFlags::OUT | EventFlags::ERR | EventFlags::HUP) {
            return Ok(());
        }
        match sockopt::socket_error(&self.stream) {
            Ok(Ok(())) => {
                self.opening = false;
                Ok(())
            }
            Ok(Err(error)) | Err(error) => Err(Broken::connect(&error.into())),
        }
    }

    /// Sends what there is, as far as the socket takes it.
    ///
    /// # Errors
    /// When the connection broke.
    pub(crate) fn send(&mut self, epoll: BorrowedFd<'_>) -> Result<(), Broken> {
        if self.opening {
            return Ok(());
        }
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(0) => return Err(Broken::lost("the server takes nothing more")),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Broken::lost(&error.to_string())),
            }
        }
        let blocked = self.sent < self.out.len();
        if !blocked {
            self.out.clear();
            self.sent = 0;
        }
        if blocked != self.watches_room {
            let room = if blocked { EventFlags::OUT } else { EventFlags::empty() };
            epoll::modify(epoll, &self.stream, EventData::new_u64(self.token), EventFlags::IN | room)
                .map_err(|error| Broken::lost(&error.to_string()))?;
            self.watches_room = blocked;
        }
        Ok(())
    }

    /// Reads once, through `scratch`, and gives each whole answer with its request to `handle`. An answer whose request is
    /// no longer waited for is dropped.
    ///
    /// # Errors
    /// When the connection broke, or spoke nonsense.
    pub(crate) fn receive(
        &mut self,
        scratch: &mut [u8],
        mut handle: impl FnMut(UnderWay, Outcome<'_>),
    ) -> Result<(), Broken> {
        let count = match self.stream.read(scratch) {
            Ok(0) => return Err(Broken::lost("the server closed the connection")),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(error) => return Err(Broken::lost(&error.to_string())),
        };
        // Mostly answers come whole: then nothing is copied.
        let mut partial = std::mem::take(&mut self.partial);
        let mut input: &[u8] = &scratch[..count];
        if !partial.is_empty() {
            partial.extend_from_slice(input);
            input = &partial;
        }
        let mut at = 0;
        loop {
            let oldest = self.under_way.front().map(|oldest| oldest.operation.step);
            match self.protocol.decode(&input[at..], oldest) {
                Ok(None) => {
                    at += self.protocol.take_parsed();
                    break;
                }
                Ok(Some(answer)) => {
                    at += answer.length;
                    if let Some(request) = take(&mut self.under_way, answer.id) {
                        handle(request, answer.outcome);
                    }
                }
                Err(text) => return Err(Broken { class: "protocol error".to_owned(), text }),
            }
        }
        self.protocol.take_owed(&mut self.out);
        self.partial = if partial.is_empty() {
            input[at..].to_vec()
        } else {
            partial.drain(..at);
            partial
        };
        Ok(())
    }

    /// Gives up the connection: what was under way, and what is known of it.
    pub(crate) fn close(self, epoll: BorrowedFd<'_>) -> (VecDeque<UnderWay>, Lost) {
        // Closing the descriptor takes it out of epoll as well; this only makes it certain.
        let _ = epoll::delete(epoll, &self.stream);
        (self.under_way, if self.opening { Lost::Unsent } else { Lost::Unknown })
    }
}

fn take(under_way: &mut VecDeque<UnderWay>, id: Option<u64>) -> Option<UnderWay> {
    match id {
        None => under_way.pop_front(),
        Some(id) => {
            let at = under_way.iter().position(|request| request.id == id)?;
            under_way.remove(at)
        }
    }
}

impl Broken {
    /// The connection could not be opened.
    pub(crate) fn connect(error: &io::Error) -> Self {
        let class = match error.kind() {
            io::ErrorKind::ConnectionRefused => "connection refused",
            _ => "cannot connect",
        };
        Self { class: class.to_owned(), text: error.to_string() }
    }

    fn lost(text: &str) -> Self {
        Self { class: "connection lost".to_owned(), text: text.to_owned() }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
