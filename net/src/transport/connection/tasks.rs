//! The two tasks of a connection: one reads, one writes.
//!
//! The rule: neither holds a borrow while it waits, and whatever wakes one of them makes it look at the connection's
//! state first. All that a read brought is handled before the writer runs.
//!
//! Not here: what others may do with a connection (its handle, above).

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_lite::{AsyncRead, AsyncWrite};
use glommio::{net::TcpStream, timer::Timer};

use super::{Closed, Connection, Handler, Next, Shared, State, Taken, wake};
use crate::transport::listener::Seat;

/// How long a connection that we end may take to read our last answer and to close its side.
const LINGER: Duration = Duration::from_secs(2);

/// Who lets others go on waits so long: until the executor has been at the sockets and files again. A task that is ready at once
/// would be run again before that, as glommio looks there only when nothing is ready, or a tenth of a second is over.
const A_TURN: Duration = Duration::from_micros(1);

/// Starts the two tasks.
pub(in crate::transport) fn spawn(
    connection: Connection,
    stream: TcpStream,
    handler: Box<dyn Handler>,
    seat: Option<Seat>,
) {
    let stream = Rc::new(RefCell::new(stream));
    *connection.0.stream.borrow_mut() = Rc::downgrade(&stream);
    let writer = glommio::spawn_local(write(connection.clone(), stream.clone()));
    glommio::spawn_local(async move {
        read(&connection, stream, handler).await;
        // Whatever is still unwritten goes with the writer, so that the end is the end.
        writer.await;
        drop(seat);
        connection.0.transport.forget(connection.id());
        connection.0.state.set(State::Ended);
        for waker in connection.0.waiting.take() {
            waker.wake();
        }
    })
    .detach();
}

async fn read(connection: &Connection, stream: Rc<RefCell<TcpStream>>, mut handler: Box<dyn Handler>) {
    let shared = &*connection.0;
    let mut reader = Reader { connection, stream, kept: Vec::new(), wanted: 0, charged: 0, ask_again: false };
    loop {
        poll_fn(|cx| connection.poll_may_read(cx)).await;
        match shared.state.get() {
            State::Open => {}
            State::Finishing => break,
            State::Closed | State::Ended => break,
        }
        if std::mem::take(&mut reader.ask_again) && !reader.kept.is_empty() {
            Timer::new(A_TURN).await;
            reader.handle_kept(handler.as_mut());
            continue;
        }
        match reader.read().await {
            Some((scratch, Ok(0))) => {
                shared.transport.put_scratch(scratch);
                shared.input_ended.set(true);
                shared.deadline.set(Some(Instant::now() + shared.limits.request_timeout));
                handler.input_ended(connection);
                break;
            }
            Some((scratch, Ok(count))) => {
                reader.handle(handler.as_mut(), scratch, count);
                // A peer that always has more must not keep the core for itself.
                glommio::executor().yield_if_needed().await;
            }
            Some((scratch, Err(error))) => {
                shared.transport.put_scratch(scratch);
                connection.close_because(closed_by(&error));
            }
            // Somebody ended the connection.
            None => {}
        }
    }
    reader.forget_input();
    reader.linger().await;
    connection.close();
    handler.closed(connection, shared.reason.get());
}

struct Reader<'a> {
    connection: &'a Connection,
    stream: Rc<RefCell<TcpStream>>,
    /// Input that the handler has not consumed.
    kept: Vec<u8>,
    /// Bytes of the message at the front of `kept`, as far as is known; 0 when not.
    wanted: usize,
    /// Bytes of the core's buffers that `kept` stands for.
    charged: usize,
    /// The handler left off, so what is kept may hold whole messages.
    ask_again: bool,
}

impl Reader<'_> {
    /// One read into the core's scratch buffer, which comes back with the result; `None` when the connection is ending.
    async fn read(&self) -> Option<(Vec<u8>, io::Result<usize>)> {
        let shared = &*self.connection.0;
        poll_fn(|cx| {
            if shared.state.get() != State::Open {
                return Poll::Ready(None);
            }
            self.poll_read(cx).map(Some)
        })
        .await
    }

    fn poll_read(&self, cx: &mut Context<'_>) -> Poll<(Vec<u8>, io::Result<usize>)> {
        let shared = &*self.connection.0;
        let mut scratch = shared.transport.take_scratch();
        match Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, &mut scratch) {
            Poll::Ready(result) => {
                if let Ok(count) = result {
                    shared.transport.count(|s| {
                        s.reads += 1;
                        s.bytes_read += count as u64;
                    });
                }
                Poll::Ready((scratch, result))
            }
            Poll::Pending => {
                shared.transport.put_scratch(scratch);
                shared.reader.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }

    /// Gives the first `count` bytes of `scratch` to the handler: in place when nothing was kept from before.
    fn handle(&mut self, handler: &mut dyn Handler, scratch: Vec<u8>, count: usize) {
        let input = &scratch[..count];
        if self.kept.is_empty() {
            let taken = handler.received(self.connection, input);
            self.wanted = 0;
            if self.keep(&input[taken.consumed..]) {
                self.go_on(taken);
            }
        } else if self.keep(input) {
            self.handle_kept(handler);
        }
        self.connection.0.transport.put_scratch(scratch);
    }

    fn handle_kept(&mut self, handler: &mut dyn Handler) {
        let taken = handler.received(self.connection, &self.kept);
        assert!(taken.consumed <= self.kept.len(), "a handler consumes what it was given");
        self.kept.drain(..taken.consumed);
        self.go_on(taken);
    }

    fn go_on(&mut self, taken: Taken) {
        let shared = &*self.connection.0;
        match taken.next {
            Next::Close => return self.connection.finish(),
            Next::Pause => {
                shared.paused.set(true);
                self.ask_again = true;
                shared.deadline.set(None);
            }
            Next::Yield => {
                self.ask_again = true;
                shared.deadline.set(None);
            }
            Next::Read { wanted } => {
                if self.kept.len().max(wanted) > shared.limits.input_bytes_max {
                    return self.connection.close_because(Closed::InputTooLong);
                }
                let had_deadline = shared.deadline.get().is_some();
                if self.kept.is_empty() {
                    if taken.consumed > 0 {
                        shared.deadline.set(None);
                    }
                } else if taken.consumed > 0 || !had_deadline {
                    shared.deadline.set(Some(Instant::now() + shared.limits.request_timeout));
                }
                self.wanted = wanted;
            }
        }
        if self.kept.is_empty() {
            self.forget_input();
        }
    }

    /// Appends `input` to what is kept. The buffer grows with what has arrived, at most doubling, and not past the
    /// message that it is for. False when the connection ended for lack of buffers.
    fn keep(&mut self, input: &[u8]) -> bool {
        let needed = self.kept.len() + input.len();
        if needed > self.kept.capacity() {
            let most = if self.wanted == 0 { usize::MAX } else { self.wanted };
            let capacity = (2 * self.kept.capacity()).min(most).max(needed);
            self.kept.reserve_exact(capacity - self.kept.len());
        }
        self.kept.extend_from_slice(input);
        let capacity = self.kept.capacity();
        if capacity > self.charged {
            if !self.connection.0.transport.charge(capacity - self.charged) {
                self.connection.close_because(Closed::OutOfBuffers);
                return false;
            }
            self.charged = capacity;
        }
        true
    }

    fn forget_input(&mut self) {
        self.kept = Vec::new();
        self.connection.0.transport.release(std::mem::take(&mut self.charged));
    }

    /// After our last answer: reads and throws away until the peer closes or the deadline passes. A socket that is
    /// closed with unread input resets the connection, and the peer might never see the answer.
    async fn linger(&self) {
        let shared = &*self.connection.0;
        loop {
            let end = poll_fn(|cx| {
                if matches!(shared.state.get(), State::Closed | State::Ended) {
                    return Poll::Ready(true);
                }
                if shared.input_ended.get() {
                    // Nothing more to read; the writer, or the deadline, ends it.
                    shared.reader.set(Some(cx.waker().clone()));
                    return Poll::Pending;
                }
                self.poll_read(cx).map(|(scratch, result)| {
                    shared.transport.put_scratch(scratch);
                    !matches!(result, Ok(1..))
                })
            })
            .await;
            if end {
                return;
            }
            glommio::executor().yield_if_needed().await;
        }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.forget_input();
    }
}

async fn write(connection: Connection, stream: Rc<RefCell<TcpStream>>) {
    let shared = &*connection.0;
    while wait_for_output(shared).await {
        let buffer = shared.output.take();
        if buffer.is_empty() {
            // All is written and no more will be.
            let _ = poll_fn(|cx| Pin::new(&mut *stream.borrow_mut()).poll_close(cx)).await;
            if shared.input_ended.get() {
                connection.close();
            } else {
                shared.deadline.set(Some(Instant::now() + LINGER));
            }
            return;
        }
        shared.in_flight.set(buffer.len());
        if let Err(error) = write_buffer(shared, &stream, &buffer).await {
            connection.close_because(closed_by(&error));
        }
        shared.transport.put_spare(buffer);
        if connection.unwritten_bytes() <= shared.limits.output_pause_bytes / 2 {
            wake(&shared.reader);
        }
    }
    // Sent at once, where the socket's own close would wait for what the reactor still holds of it.
    let _ = poll_fn(|cx| Pin::new(&mut *stream.borrow_mut()).poll_close(cx)).await;
    let lost = connection.unwritten_bytes();
    shared.output.take();
    shared.in_flight.set(0);
    shared.transport.release(lost);
}

/// False when the connection is to end now.
async fn wait_for_output(shared: &Shared) -> bool {
    poll_fn(|cx| match shared.state.get() {
        State::Closed | State::Ended => Poll::Ready(false),
        State::Open if shared.output.borrow().is_empty() => {
            shared.writer.set(Some(cx.waker().clone()));
            Poll::Pending
        }
        State::Open | State::Finishing => Poll::Ready(true),
    })
    .await
}

async fn write_buffer(shared: &Shared, stream: &Rc<RefCell<TcpStream>>, buffer: &[u8]) -> io::Result<()> {
    let mut written = 0;
    while written < buffer.len() {
        let count = poll_fn(|cx| {
            if shared.state.get() == State::Closed {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            let poll = Pin::new(&mut *stream.borrow_mut()).poll_write(cx, &buffer[written..]);
            if poll.is_pending() {
                shared.writer.set(Some(cx.waker().clone()));
            }
            poll
        })
        .await?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        written += count;
        shared.in_flight.set(buffer.len() - written);
        shared.transport.release(count);
        shared.transport.count(|s| {
            s.writes += 1;
            s.bytes_written += count as u64;
        });
    }
    Ok(())
}

fn closed_by(error: &io::Error) -> Closed {
    match error.kind() {
        io::ErrorKind::TimedOut => Closed::TimedOut,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Closed::ByPeer,
        kind => Closed::Error(kind),
    }
}
