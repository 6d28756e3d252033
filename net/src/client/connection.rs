//! One blocking connection to a node: requests go out in batches, replies come back in any order, matched by their ids.
//!
//! The rule: after any error the connection is of no use, since nobody knows which replies are still to come.
//!
//! Not here: which node to ask (`client`).

use std::{
    fmt,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use crate::{
    frame::{self, FrameError},
    message::{Message, Reply, Request},
};

/// Bytes that the receive buffer grows by.
const READ_BYTES: usize = 64 << 10;

/// Why a connection is of no use any more. What was sent may have been done.
#[derive(Debug)]
pub enum ConnectionError {
    /// No answer in time.
    Timeout,
    /// The network reported an error, or the node closed the connection.
    Io(io::Error),
    /// The node answered what is no reply.
    Frame(FrameError),
    /// The node sent another kind of message than a reply.
    UnexpectedMessage,
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("no answer in time"),
            Self::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                f.write_str("the node closed the connection")
            }
            Self::Io(error) => write!(f, "{error}"),
            Self::Frame(error) => write!(f, "the node's answer is {error}"),
            Self::UnexpectedMessage => f.write_str("the node's answer is no reply"),
        }
    }
}

impl std::error::Error for ConnectionError {}

impl From<io::Error> for ConnectionError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Io(error),
        }
    }
}

/// A blocking connection that holds any number of requests in flight.
pub struct PipelinedConnection {
    stream: TcpStream,
    output: Vec<u8>,
    /// Received bytes are `input[start..end]`.
    input: Vec<u8>,
    start: usize,
    end: usize,
    /// The socket's read timeout as it is set now.
    read_timeout: Option<Duration>,
}

impl PipelinedConnection {
    /// Connects to a port of a node.
    ///
    /// # Errors
    ///
    /// Nothing was sent.
    pub fn connect(address: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_nodelay(true)?;
        // A node that takes nothing holds nobody for ever.
        stream.set_write_timeout(Some(timeout))?;
        Ok(Self { stream, output: Vec::new(), input: Vec::new(), start: 0, end: 0, read_timeout: None })
    }

    /// Puts a request in line; [`PipelinedConnection::flush`] sends all that are. Its id should be in use only once.
    ///
    /// # Errors
    ///
    /// The request is too large. Nothing is sent of it, the connection is as it was.
    pub fn queue(&mut self, request: Request) -> Result<(), FrameError> {
        frame::encode(&Message::Request(request), &mut self.output)
    }

    /// Sends what is in line, in one write if the network takes it.
    ///
    /// # Errors
    ///
    /// Some requests may have been sent.
    pub fn flush(&mut self) -> Result<(), ConnectionError> {
        self.stream.write_all(&self.output)?;
        self.output.clear();
        Ok(())
    }

    /// The next reply to any request that was sent, at the latest at `deadline`.
    ///
    /// # Errors
    ///
    /// No reply; those that were due may still have been done.
    pub fn receive(&mut self, deadline: Instant) -> Result<Reply, ConnectionError> {
        loop {
            let unread = &self.input[self.start..self.end];
            if let Some(frame) = frame::decode(unread, usize::MAX).map_err(ConnectionError::Frame)? {
                self.start += frame.consumed();
                return match frame.message().map_err(ConnectionError::Frame)? {
                    Message::Reply(reply) => Ok(reply),
                    _ => Err(ConnectionError::UnexpectedMessage),
                };
            }
            self.read(deadline)?;
        }
    }

    fn read(&mut self, deadline: Instant) -> Result<(), ConnectionError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ConnectionError::Timeout);
        }
        // Rounded up, so that a pipeline of replies does not set it anew for each.
        let timeout = Duration::from_millis(left.as_millis() as u64 + 1);
        if self.read_timeout != Some(timeout) {
            self.stream.set_read_timeout(Some(timeout))?;
            self.read_timeout = Some(timeout);
        }
        self.input.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.input.len() - self.end < READ_BYTES {
            // Doubles with what has come, so a long reply is not copied again and again.
            self.input.resize((self.end + READ_BYTES).max(2 * self.end), 0);
        }
        match self.stream.read(&mut self.input[self.end..]) {
            Ok(0) => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(count) => {
                self.end += count;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl fmt::Debug for PipelinedConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelinedConnection").field("peer", &self.stream.peer_addr().ok()).finish_non_exhaustive()
    }
}
