//! RESP2 and RESP3, the protocol of Redis clients: commands in, replies out, and the other way round for our own
//! clients.
//!
//! The rule: bytes in, values out, nothing else. What a peer claims (a count, a length) is checked before it is
//! believed, and no memory is reserved for it: what is kept grows only with the bytes that came. Arguments stay where
//! they were received. A protocol error ends the connection, since nobody knows where the next command would start.
//!
//! Not here: what a command means (`node`'s gateway), sockets (`transport`).

mod command;
mod reply;
mod writer;

pub use command::{Command, CommandLimits, CommandParser, ProtocolError};
pub use reply::{Reply, ReplyError, ReplyLimits, ReplyScanner};
pub use writer::{Writer, write_command};

/// The version of the protocol that a connection speaks. Every connection starts with RESP2, `HELLO 3` changes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Protocol {
    /// Redis serialization protocol 2.
    #[default]
    Resp2,
    /// Redis serialization protocol 3: maps, nulls, doubles and booleans of their own.
    Resp3,
}

/// A decimal number as RESP writes lengths and integers: an optional `-`, then digits only.
#[must_use]
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    // 19 digits hold any i64; more would only be leading zeros.
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    let mut value = 0i64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        let digit = i64::from(digit - b'0');
        // Built on the negative side, which is one larger than the positive.
        value = value.checked_mul(10)?.checked_sub(digit)?;
    }
    if negative { Some(value) } else { value.checked_neg() }
}

/// Where the line that starts at `from` ends: the index of its `\r`, once both `\r` and the byte after it are there.
/// `limit` bounds the line without its end.
fn line_end(input: &[u8], from: usize, limit: usize) -> LineEnd {
    let rest = &input[from..];
    let window = &rest[..rest.len().min(limit + 1)];
    match window.iter().position(|&byte| byte == b'\r') {
        Some(length) if length + 1 < rest.len() => {
            if rest[length + 1] == b'\n' {
                LineEnd::At(from + length)
            } else {
                LineEnd::Broken
            }
        }
        Some(_) => LineEnd::Incomplete,
        None if rest.len() > limit => LineEnd::TooLong,
        None => LineEnd::Incomplete,
    }
}

enum LineEnd {
    At(usize),
    Incomplete,
    TooLong,
    /// A `\r` without its `\n`.
    Broken,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers() {
        for (text, value) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("1048576", Some(1 << 20)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("", None),
            ("-", None),
            ("+1", None),
            ("1a", None),
            (" 1", None),
            ("99999999999999999999999999", None),
        ] {
            assert_eq!(parse_integer(text.as_bytes()), value, "{text:?}");
        }
    }
}
