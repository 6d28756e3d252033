//! A RESP connection for a question and its answer.
//!
//! The rule: a node that hangs costs a bounded time, whatever it sends.
//!
//! Not here: keys and contexts, which go through the native client.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use quorate_net::resp::{Reply, ReplyLimits, ReplyScanner, write_command};

/// No answer that is asked for here is longer.
const REPLY_BYTES_MAX: usize = 4 << 20;

/// The text that the node at `address` answers to `command`.
pub(crate) fn ask(address: SocketAddr, command: &[&[u8]], timeout: Duration) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + timeout;
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(timeout))?;
    let mut request = Vec::new();
    write_command(&mut request, command);
    stream.write_all(&request)?;
    let limits = ReplyLimits { reply_bytes_max: REPLY_BYTES_MAX, ..ReplyLimits::default() };
    let mut scanner = ReplyScanner::new(limits);
    let mut received = Vec::new();
    let mut chunk = [0; 16 << 10];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
        }
        stream.set_read_timeout(Some(left))?;
        let bytes = match stream.read(&mut chunk) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed")),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        received.extend_from_slice(&chunk[..bytes]);
        if let Some(length) = scanner.scan(&received).map_err(io::Error::other)? {
            let reply = Reply::parse(&received[..length]);
            return match (reply.as_bytes(), reply.as_error()) {
                (Some(text), _) => Ok(text.to_vec()),
                (None, Some(error)) => Err(io::Error::other(String::from_utf8_lossy(error).into_owned())),
                (None, None) => Err(io::Error::other("answered no text")),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    /// What the client makes of a server that answers `reply` in pieces of `piece` bytes and then closes.
    fn ping_of(reply: &'static [u8], piece: usize) -> io::Result<Vec<u8>> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 14];
            stream.read_exact(&mut request).unwrap();
            assert_eq!(&request, b"*1\r\n$4\r\nPING\r\n");
            for bytes in reply.chunks(piece) {
                // A client that has refused the answer is gone.
                let _ = stream.write_all(bytes);
            }
        });
        let answer = ask(address, &[b"PING"], Duration::from_secs(5));
        server.join().unwrap();
        answer
    }

    #[test]
    fn only_text_is_an_answer() {
        assert_eq!(ping_of(b"+PONG\r\n", 100).unwrap(), b"PONG");
        assert_eq!(ping_of(b"$4\r\nPONG\r\n", 1).unwrap(), b"PONG");
        for (reply, wanted) in [
            (&b"-LOADING wait\r\n"[..], "LOADING wait"),
            (b":1\r\n", "no text"),
            (b"HTTP/1.1 400\r\n", "not a reply"),
            (b"+PO", "closed"),
        ] {
            let error = ping_of(reply, 100).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn a_silent_server_costs_a_bounded_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(ask(address, &[b"PING"], Duration::from_millis(20)).is_err());
    }
}
