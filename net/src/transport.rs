//! The connections of one core, on glommio: listeners, connections, links to peers, and the mesh between a node's
//! cores.
//!
//! The rule: bytes only. A [`Handler`] is given what was received and says how much of it it took; answers are appended
//! to the connection's outgoing buffer, at once or later. All that arrived together is handled before anything is
//! written, and all that was written meanwhile leaves in one piece. Everything that a peer can make grow is bounded:
//! input, output, connections, and the time that a request may take to arrive.
//!
//! Not here: what the bytes mean (`frame`, `resp`), who listens where (`node/runtime`). Nothing outside this module,
//! the node's runtime and the engine's disk names glommio.

mod backoff;
mod connection;
mod link;
mod listener;
mod mesh;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd},
    rc::Rc,
    time::{Duration, Instant},
};

use glommio::{net::TcpStream, timer::Timer};
use socket2::{SockRef, TcpKeepalive};

pub use backoff::Backoff;
pub use connection::{Closed, Connection, ConnectionId, Handler, Next, SendError, Taken};
pub use link::{Link, LinkOptions};
pub use listener::{BindError, Listener, ListenerOptions, Seat, Sharing};
pub use mesh::{Mesh, MeshError, MeshReceiver, MeshSeat};

/// Bytes that one read takes at most.
const READ_BYTES: usize = 128 << 10;

/// Output buffers that are kept for reuse, and the largest that is.
const SPARE_BUFFERS: usize = 64;
const SPARE_BYTES_MAX: usize = 256 << 10;

/// How often deadlines of connections are looked at.
const SWEEP_PERIOD: Duration = Duration::from_millis(500);

/// What one connection may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one incomplete request that are kept. More ends the connection.
    pub input_bytes_max: usize,
    /// Unwritten bytes above which no more requests are read, so that a client that pipelines without reading stalls
    /// itself. Not with [`WhenFull::Refuse`]. Typical: 16 MiB.
    pub output_pause_bytes: usize,
    /// Unwritten bytes above which `when_full` applies. One message may go past it.
    pub output_bytes_max: usize,
    /// What happens to more output than that.
    pub when_full: WhenFull,
    /// How long a peer may take for its first complete request. `None`: as long as it likes.
    pub first_request_timeout: Option<Duration>,
    /// How long a request may take from its first to its last byte.
    pub request_timeout: Duration,
    /// How long the peer may take none of what is written to it.
    pub write_timeout: Duration,
    /// How long the peer's machine may be silent to what the kernel sent it, also to its probes of a connection at rest.
    /// `None`: as long as the kernel takes, a quarter of an hour or two. At least 1 s.
    pub silence_max: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            input_bytes_max: 64 << 20,
            output_pause_bytes: 16 << 20,
            output_bytes_max: 64 << 20,
            when_full: WhenFull::Close,
            first_request_timeout: None,
            request_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(30),
            silence_max: None,
        }
    }
}

/// What happens to output that a peer does not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhenFull {
    /// The connection ends: for clients, who must not miss an answer.
    Close,
    /// The message is refused, the connection goes on and is always read: for peers, whose messages may be lost anyhow.
    Refuse,
}

/// What all connections of a core have done since its start.
#[derive(Clone, Copy, Default, Debug)]
pub struct Statistics {
    /// Connections that were accepted or made.
    pub opened: u64,
    /// Connections that ended.
    pub closed: u64,
    /// Connections that were refused because a listener had its number.
    pub refused: u64,
    /// Connections that ended because a limit on time was passed.
    pub timed_out: u64,
    /// Connections that ended because of unread output, of input over its limit, or of the core's limit on buffers.
    pub overflowed: u64,
    /// Messages that were refused because the peer had not read the earlier ones.
    pub messages_refused: u64,
    /// Reads that brought bytes, and the bytes.
    pub reads: u64,
    /// See `reads`.
    pub bytes_read: u64,
    /// Writes that took bytes, and the bytes.
    pub writes: u64,
    /// See `writes`.
    pub bytes_written: u64,
}

/// All connections of one core, and what they share. Cheap to clone.
#[derive(Clone)]
pub struct Transport(Rc<Inner>);

struct Inner {
    next_id: Cell<u64>,
    connections: RefCell<BTreeMap<ConnectionId, Connection>>,
    /// One buffer to read into for all connections: an idle connection holds no memory.
    scratch: Cell<Vec<u8>>,
    spare: RefCell<Vec<Vec<u8>>>,
    buffered: Cell<usize>,
    buffered_max: usize,
    statistics: RefCell<Statistics>,
}

impl Transport {
    /// The transport of the core that this runs on. All connections together keep at most `buffered_bytes_max` bytes of
    /// incomplete requests and unwritten answers; a connection that asks for more ends.
    ///
    /// Must be called on a glommio executor: a task is started that looks at deadlines.
    #[must_use]
    pub fn new(buffered_bytes_max: usize) -> Self {
        let inner = Rc::new(Inner {
            next_id: Cell::new(1),
            connections: RefCell::default(),
            scratch: Cell::default(),
            spare: RefCell::default(),
            buffered: Cell::new(0),
            buffered_max: buffered_bytes_max,
            statistics: RefCell::default(),
        });
        let weak = Rc::downgrade(&inner);
        glommio::spawn_local(async move {
            loop {
                Timer::new(SWEEP_PERIOD).await;
                let Some(inner) = weak.upgrade() else { return };
                inner.close_overdue(Instant::now());
            }
        })
        .detach();
        Self(inner)
    }

    /// Takes over a connected socket: what arrives goes to the handler that `handler` makes. The handler may be called
    /// before this returns.
    ///
    /// # Errors
    ///
    /// The socket is already of no use.
    pub fn adopt(
        &self,
        stream: TcpStream,
        limits: &Limits,
        handler: impl FnOnce(&Connection) -> Box<dyn Handler>,
    ) -> io::Result<Connection> {
        self.adopt_counted(stream, limits, None, handler)
    }

    fn adopt_counted(
        &self,
        stream: TcpStream,
        limits: &Limits,
        seat: Option<Seat>,
        handler: impl FnOnce(&Connection) -> Box<dyn Handler>,
    ) -> io::Result<Connection> {
        let peer = stream.peer_addr()?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(limits.write_timeout))?;
        if let Some(silence) = limits.silence_max {
            let descriptor = descriptor(&stream);
            let socket = SockRef::from(&descriptor);
            socket.set_tcp_user_timeout(Some(silence))?;
            // After the first probe without an answer the time above has passed: the second look ends the connection.
            let probes = TcpKeepalive::new().with_time(silence).with_interval(Duration::from_secs(1));
            socket.set_tcp_keepalive(&probes)?;
        }
        let id = ConnectionId(self.0.next_id.replace(self.0.next_id.get() + 1));
        let connection = Connection::new(id, peer, *limits, self.clone());
        self.0.connections.borrow_mut().insert(id, connection.clone());
        self.count(|s| s.opened += 1);
        let handler = handler(&connection);
        connection::spawn(connection.clone(), stream, handler, seat);
        Ok(connection)
    }

    /// The connections that are open now.
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        self.0.connections.borrow().values().cloned().collect()
    }

    /// How many connections are open now.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.0.connections.borrow().len()
    }

    /// Bytes of incomplete requests and unwritten answers that are kept now.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.0.buffered.get()
    }

    /// What was done so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        *self.0.statistics.borrow()
    }

    /// Ends all connections and waits until their tasks have ended: for the end of the core, whose executor would keep
    /// their sockets open otherwise.
    pub async fn close_all(&self) {
        for connection in self.connections() {
            connection.close();
        }
        for connection in self.connections() {
            connection.closed().await;
        }
    }

    fn forget(&self, id: ConnectionId) {
        self.0.connections.borrow_mut().remove(&id);
        self.count(|s| s.closed += 1);
    }

    fn count(&self, add: impl FnOnce(&mut Statistics)) {
        add(&mut self.0.statistics.borrow_mut());
    }

    /// Reserves `bytes` of the core's buffers. False when they are used up; nothing is reserved then.
    fn charge(&self, bytes: usize) -> bool {
        let total = self.0.buffered.get() + bytes;
        if total > self.0.buffered_max {
            return false;
        }
        self.0.buffered.set(total);
        true
    }

    fn release(&self, bytes: usize) {
        let total = self.0.buffered.get().checked_sub(bytes).expect("no more is released than was charged");
        self.0.buffered.set(total);
    }

    /// The buffer to read into. Whoever takes it gives it back; should two be needed at once, a second is made.
    fn take_scratch(&self) -> Vec<u8> {
        let mut scratch = self.0.scratch.take();
        if scratch.is_empty() {
            scratch.resize(READ_BYTES, 0);
        }
        scratch
    }

    fn put_scratch(&self, scratch: Vec<u8>) {
        self.0.scratch.set(scratch);
    }

    fn take_spare(&self) -> Vec<u8> {
        self.0.spare.borrow_mut().pop().unwrap_or_default()
    }

    fn put_spare(&self, mut buffer: Vec<u8>) {
        let mut spare = self.0.spare.borrow_mut();
        if spare.len() < SPARE_BUFFERS && (1..=SPARE_BYTES_MAX).contains(&buffer.capacity()) {
            buffer.clear();
            spare.push(buffer);
        }
    }
}

/// The stream's socket, for options that glommio has no name for.
fn descriptor(stream: &TcpStream) -> BorrowedFd<'_> {
    #[expect(unsafe_code, reason = "glommio's streams tell nothing but the number")]
    // SAFETY: the stream owns the descriptor and keeps it open for as long as it is borrowed, as the signature has it.
    unsafe {
        BorrowedFd::borrow_raw(stream.as_raw_fd())
    }
}

/// How long ago a socket's last bytes came; zero if the kernel does not tell.
fn silent_for(socket: BorrowedFd<'_>) -> Duration {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    #[expect(unsafe_code, reason = "there is no safe call for what the kernel knows of a connection")]
    // SAFETY: the kernel writes no more than `length` bytes to `info`, which is so long; it is all numbers, and was zeroed.
    let info = unsafe {
        let to = info.as_mut_ptr().cast();
        if libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, to, &raw mut length) != 0 {
            return Duration::ZERO;
        }
        info.assume_init()
    };
    Duration::from_millis(info.tcpi_last_data_recv.into())
}

impl Inner {
    fn close_overdue(&self, now: Instant) {
        let overdue: Vec<_> = self.connections.borrow().values().filter(|c| c.is_overdue(now)).cloned().collect();
        for connection in overdue {
            connection.close_because(Closed::TimedOut);
        }
    }
}

#[cfg(test)]
mod tests;
