//! One connection: a task that reads and a task that writes, and the handle that everyone else has.
//!
//! The rule: the reader gives all that one read brought to the handler, which only appends answers; the writer, woken
//! by the first of them, runs when the reader waits again, and writes what has gathered in one piece. The two tasks own
//! the socket, so it is closed when both have ended, whoever still holds a handle.
//!
//! Not here: the tasks themselves (`tasks`), accepting and connecting (`listener`, `link`).

mod tasks;

use std::{
    cell::{Cell, RefCell},
    fmt,
    future::poll_fn,
    io,
    net::SocketAddr,
    rc::{Rc, Weak},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

pub(super) use tasks::spawn;

use glommio::net::TcpStream;

use super::{Limits, Transport, WhenFull, descriptor, silent_for};

/// A connection of one core, never used twice while the core runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// What one connection's bytes lead to. Dropped when the connection has ended.
pub trait Handler {
    /// `input` is all that was received and not yet taken. Takes whole messages off its front, as many as there are.
    /// Must not wait; answers go to [`Connection::send`], now or later.
    fn received(&mut self, connection: &Connection, input: &[u8]) -> Taken;

    /// The peer will send nothing more; what was not taken is lost. Whoever still owes answers calls
    /// [`Connection::finish`] after the last of them.
    fn input_ended(&mut self, connection: &Connection) {
        connection.finish();
    }

    /// The connection has ended: nothing more can be sent on it.
    fn closed(&mut self, connection: &Connection, reason: Closed) {
        let _ = (connection, reason);
    }
}

/// What a [`Handler`] took of the input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// So many bytes from the front. The others are given again, with those that follow them.
    pub consumed: usize,
    /// How it goes on.
    pub next: Next,
}

/// How a connection goes on after its [`Handler`] took something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Read more. The message at the front of what was not consumed takes `wanted` bytes in all, as far as is known
    /// (0: not known).
    Read {
        /// See above.
        wanted: usize,
    },
    /// Let others go on first; then the handler is asked again about what it did not consume.
    Yield,
    /// Read nothing more until [`Connection::resume`]; then the handler is asked again about what it did not consume.
    Pause,
    /// Write what is to be written, then end the connection.
    Close,
}

impl Taken {
    /// `consumed` bytes were taken; the rest is the beginning of a message of `wanted` bytes, as far as is known.
    #[must_use]
    pub fn read_more(consumed: usize, wanted: usize) -> Self {
        Self { consumed, next: Next::Read { wanted } }
    }
}

/// Why a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closed {
    /// The peer closed it.
    ByPeer,
    /// This side closed it.
    ByUs,
    /// The network reported an error.
    Error(io::ErrorKind),
    /// A request, its rest, or the reading of answers took too long.
    TimedOut,
    /// A request is longer than is allowed.
    InputTooLong,
    /// The peer did not read its answers.
    OutputFull,
    /// All connections of the core together hold too many bytes.
    OutOfBuffers,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByPeer => f.write_str("closed by the peer"),
            Self::ByUs => f.write_str("closed by this side"),
            Self::Error(kind) => write!(f, "{kind}"),
            Self::TimedOut => f.write_str("timed out"),
            Self::InputTooLong => f.write_str("a request is longer than is allowed"),
            Self::OutputFull => f.write_str("the peer did not read its answers"),
            Self::OutOfBuffers => f.write_str("the connections of this core hold too many bytes"),
        }
    }
}

/// Why nothing was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendError {
    /// The connection has ended or is ending.
    Closed,
    /// The peer has not read enough of what was sent before. The message may be tried again later.
    Full,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "not sent: the connection has ended",
            Self::Full => "not sent: the peer has not read what was sent before",
        })
    }
}

impl std::error::Error for SendError {}

/// The handle of a connection. Cheap to clone; it does not keep the socket open.
#[derive(Clone)]
pub struct Connection(Rc<Shared>);

struct Shared {
    id: ConnectionId,
    peer: SocketAddr,
    /// Of the two tasks.
    stream: RefCell<Weak<RefCell<TcpStream>>>,
    limits: Limits,
    transport: Transport,
    state: Cell<State>,
    reason: Cell<Closed>,
    paused: Cell<bool>,
    input_ended: Cell<bool>,
    /// When the peer must have sent what it owes us: the first request, the rest of one, or its end.
    deadline: Cell<Option<Instant>>,
    /// To be written; the writer takes it as a whole.
    output: RefCell<Vec<u8>>,
    /// Bytes that the writer has taken and not yet written.
    in_flight: Cell<usize>,
    reader: Cell<Option<Waker>>,
    writer: Cell<Option<Waker>>,
    /// Those who wait for the end.
    waiting: RefCell<Vec<Waker>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Open,
    /// Output is still written, input is thrown away.
    Finishing,
    /// The tasks are to end.
    Closed,
    /// The tasks have ended.
    Ended,
}

impl Connection {
    pub(super) fn new(id: ConnectionId, peer: SocketAddr, limits: Limits, transport: Transport) -> Self {
        Self(Rc::new(Shared {
            id,
            peer,
            stream: RefCell::default(),
            limits,
            transport,
            state: Cell::new(State::Open),
            reason: Cell::new(Closed::ByUs),
            paused: Cell::new(false),
            input_ended: Cell::new(false),
            deadline: Cell::new(limits.first_request_timeout.map(|limit| Instant::now() + limit)),
            output: RefCell::default(),
            in_flight: Cell::new(0),
            reader: Cell::default(),
            writer: Cell::default(),
            waiting: RefCell::default(),
        }))
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.0.id
    }

    /// How long ago the peer's last bytes came, as the kernel tells it; zero once the connection has ended.
    #[must_use]
    pub fn silent_for(&self) -> Duration {
        let stream = self.0.stream.borrow().upgrade();
        stream.map_or(Duration::ZERO, |stream| silent_for(descriptor(&stream.borrow())))
    }

    /// The other side's address.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.0.peer
    }

    /// True until either side has begun to end the connection.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.state.get() == State::Open
    }

    /// Bytes that the peer has not yet taken.
    #[must_use]
    pub fn unwritten_bytes(&self) -> usize {
        self.0.output.borrow().len() + self.0.in_flight.get()
    }

    /// Has `write` append a message to what is to be written, and wakes the writer. All that is appended before the
    /// running task waits leaves in one write.
    ///
    /// # Errors
    ///
    /// `write` was not called, nothing is sent.
    pub fn send(&self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), SendError> {
        let shared = &*self.0;
        if shared.state.get() != State::Open {
            return Err(SendError::Closed);
        }
        if self.unwritten_bytes() >= shared.limits.output_bytes_max {
            return Err(self.refuse(Closed::OutputFull));
        }
        let appended = {
            let mut output = shared.output.borrow_mut();
            if output.capacity() == 0 {
                *output = shared.transport.take_spare();
            }
            let before = output.len();
            write(&mut output);
            assert!(output.len() >= before, "a message is appended, nothing is taken away");
            let appended = output.len() - before;
            if shared.transport.charge(appended) {
                Some(appended)
            } else {
                output.truncate(before);
                None
            }
        };
        match appended {
            None => Err(self.refuse(Closed::OutOfBuffers)),
            Some(0) => Ok(()),
            Some(_) => {
                wake(&shared.writer);
                Ok(())
            }
        }
    }

    fn refuse(&self, reason: Closed) -> SendError {
        match self.0.limits.when_full {
            WhenFull::Refuse => {
                self.0.transport.count(|s| s.messages_refused += 1);
                SendError::Full
            }
            WhenFull::Close => {
                self.close_because(reason);
                SendError::Closed
            }
        }
    }

    /// Reads on after [`Next::Pause`].
    pub fn resume(&self) {
        if self.0.paused.replace(false) {
            wake(&self.0.reader);
        }
    }

    /// Takes no more input, writes what is to be written, then ends the connection.
    pub fn finish(&self) {
        if self.0.state.get() == State::Open {
            self.0.state.set(State::Finishing);
            self.0.reason.set(if self.0.input_ended.get() { Closed::ByPeer } else { Closed::ByUs });
            // Counted from the last byte written, see the writer; until then its own limit on time holds.
            self.0.deadline.set(None);
            wake(&self.0.reader);
            wake(&self.0.writer);
        }
    }

    /// Ends the connection now. What is not written yet is lost.
    pub fn close(&self) {
        self.close_because(Closed::ByUs);
    }

    pub(super) fn close_because(&self, reason: Closed) {
        let shared = &*self.0;
        match shared.state.get() {
            State::Closed | State::Ended => return,
            // The reason for the end is why it began.
            State::Finishing => {}
            State::Open => {
                shared.reason.set(reason);
                shared.transport.count(|s| match reason {
                    Closed::TimedOut => s.timed_out += 1,
                    Closed::InputTooLong | Closed::OutputFull | Closed::OutOfBuffers => s.overflowed += 1,
                    Closed::ByPeer | Closed::ByUs | Closed::Error(_) => {}
                });
            }
        }
        shared.state.set(State::Closed);
        wake(&shared.reader);
        wake(&shared.writer);
    }

    /// Waits until the connection has ended, and says why.
    pub async fn closed(&self) -> Closed {
        poll_fn(|cx| {
            if self.0.state.get() == State::Ended {
                return Poll::Ready(self.0.reason.get());
            }
            let mut waiting = self.0.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.0.deadline.get().is_some_and(|deadline| deadline <= now)
    }

    /// Ready when the reader may ask for more: not while the handler wants no more, nor while the peer leaves too much
    /// unread.
    fn poll_may_read(&self, cx: &Context<'_>) -> Poll<()> {
        let open = self.0.state.get() == State::Open;
        // Two peers that stopped reading because of what the other had not read would wait for each other.
        let unread =
            self.0.limits.when_full == WhenFull::Close && self.unwritten_bytes() > self.0.limits.output_pause_bytes;
        if open && (self.0.paused.get() || unread) {
            self.0.reader.set(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("id", &self.0.id.0).field("peer", &self.0.peer).finish_non_exhaustive()
    }
}

fn wake(slot: &Cell<Option<Waker>>) {
    if let Some(waker) = slot.take() {
        waker.wake();
    }
}
