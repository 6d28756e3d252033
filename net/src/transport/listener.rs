//! A port: accepts connections and hands them to the transport.
//!
//! The rule: an address that somebody else listens on is an error, also when that somebody is another core of ours,
//! unless the port is meant to be shared. No more connections than allowed, in all and from one address; one too many
//! gets an answer that says so.
//!
//! Not here: what is served.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt, io,
    net::{IpAddr, SocketAddr},
    os::fd::{FromRawFd, IntoRawFd},
    pin::Pin,
    rc::Rc,
    time::Duration,
};

use futures_lite::AsyncWrite;
use glommio::{net::TcpStream, timer::Timer};
use socket2::{Domain, Socket, Type};

use super::{Connection, Handler, Limits, Transport};

/// Connections that the kernel holds ready until they are accepted.
const BACKLOG: i32 = 1024;

/// How long accepting pauses after an error such as "too many open files".
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who may listen on the same address at the same time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// Nobody else.
    Exclusive,
    /// Other cores too (`SO_REUSEPORT`): the kernel spreads connections over them. Also another process of the same
    /// user could join, so a node binds one exclusive port first.
    Cores,
}

/// What a listener takes.
#[derive(Clone, Copy, Debug)]
pub struct ListenerOptions {
    /// What each connection may cost.
    pub limits: Limits,
    /// Connections at a time.
    pub connections_max: usize,
    /// Connections at a time from one IP address.
    pub connections_per_address_max: usize,
    /// Written to a connection that is one too many, before it is closed.
    pub refusal: &'static [u8],
}

/// A port could not be opened. Nothing was changed.
#[derive(Debug)]
pub struct BindError {
    /// The port.
    pub address: SocketAddr,
    /// What the system said.
    pub error: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, error } = self;
        match error.kind() {
            io::ErrorKind::AddrInUse => write!(f, "cannot listen on {address}: another process does already"),
            io::ErrorKind::AddrNotAvailable => {
                write!(f, "cannot listen on {address}: this machine has no such address")
            }
            io::ErrorKind::PermissionDenied => {
                write!(f, "cannot listen on {address}: ports below 1024 need privileges")
            }
            _ => write!(f, "cannot listen on {address}: {error}"),
        }
    }
}

impl std::error::Error for BindError {}

/// An open port.
pub struct Listener {
    inner: glommio::net::TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Opens the port on the core that this runs on. Port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// Somebody else has it, or the address is not this machine's.
    pub fn bind(address: SocketAddr, sharing: Sharing) -> Result<Self, BindError> {
        Self::open(address, sharing).map_err(|error| BindError { address, error })
    }

    fn open(address: SocketAddr, sharing: Sharing) -> io::Result<Self> {
        // Not glommio's own: that one shares every port, so a second node would take half of the first one's clients.
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(socket2::Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(sharing == Sharing::Cores)?;
        // Accepted sockets take these from the listening one: a peer whose machine died is noticed at last.
        socket.set_keepalive(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let address = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        #[expect(unsafe_code, reason = "the only way to give glommio a socket with options of our own")]
        // SAFETY: `into_raw_fd` gives up the ownership of an open, listening socket, and nobody else has it.
        let inner = unsafe { glommio::net::TcpListener::from_raw_fd(socket.into_raw_fd()) };
        Ok(Self { inner, address })
    }

    /// The address, with the port that was taken.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts connections until the task is dropped; `handler` makes what each leads to.
    pub async fn serve(
        self,
        transport: Transport,
        options: ListenerOptions,
        mut handler: impl FnMut(&Connection) -> Box<dyn Handler>,
    ) {
        let accepted = |stream, seat| {
            // An error means that the peer is gone again.
            let _ = transport.adopt_counted(stream, &options.limits, Some(seat), &mut handler);
        };
        self.accept_each(&options, accepted, || transport.count(|s| s.refused += 1)).await;
    }

    /// Accepts sockets until the task is dropped, for who speaks a protocol of its own; `refused` is told of those that were
    /// too many. Of the options' limits, none holds.
    pub async fn accept_each(
        &self,
        options: &ListenerOptions,
        mut accepted: impl FnMut(TcpStream, Seat),
        refused: impl Fn(),
    ) {
        let seats = Seats(Rc::default());
        loop {
            let stream = match self.inner.accept().await {
                Ok(stream) => stream,
                Err(_) => {
                    // Out of files, or the peer was gone already: going on at once could spin.
                    Timer::new(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(peer) = stream.peer_addr() else { continue };
            match seats.take(peer.ip(), options) {
                Some(seat) => accepted(stream, seat),
                None => {
                    refused();
                    refuse(stream, options.refusal).await;
                }
            }
        }
    }
}

/// One attempt to write, which an empty socket buffer takes; nobody waits for a peer that is not served.
async fn refuse(mut stream: TcpStream, refusal: &[u8]) {
    std::future::poll_fn(|cx| {
        let _ = Pin::new(&mut stream).poll_write(cx, refusal);
        let _ = Pin::new(&mut stream).poll_close(cx);
        std::task::Poll::Ready(())
    })
    .await;
}

/// The connections of one listener.
#[derive(Clone)]
struct Seats(Rc<RefCell<Taken>>);

#[derive(Default)]
struct Taken {
    count: usize,
    by_address: BTreeMap<IpAddr, usize>,
}

/// One connection's place in its listener's number, given back when dropped.
pub struct Seat {
    seats: Seats,
    address: IpAddr,
}

impl Seats {
    fn take(&self, address: IpAddr, options: &ListenerOptions) -> Option<Seat> {
        let mut taken = self.0.borrow_mut();
        let from_address = taken.by_address.get(&address).copied().unwrap_or(0);
        if taken.count >= options.connections_max || from_address >= options.connections_per_address_max {
            return None;
        }
        taken.count += 1;
        taken.by_address.insert(address, from_address + 1);
        Some(Seat { seats: self.clone(), address })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.borrow_mut();
        taken.count -= 1;
        let from_address = taken.by_address.get_mut(&self.address).expect("a seat was taken from its address");
        *from_address -= 1;
        if *from_address == 0 {
            taken.by_address.remove(&self.address);
        }
    }
}
