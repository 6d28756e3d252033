//! Replies as a client receives them: for the load generator, the tools and the tests.
//!
//! The rule: [`ReplyScanner`] finds where a reply ends, incrementally and without recursion, and has checked everything
//! by then; [`Reply::parse`] only gives the checked bytes a shape. So depth, counts and sizes are bounded before any
//! memory is reserved.
//!
//! Not here: how a command is written (`writer`).

use std::fmt;

use super::{LineEnd, line_end, parse_integer};

/// What a client takes from a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplyLimits {
    /// Arrays within arrays.
    pub depth_max: usize,
    /// Elements of all arrays of one reply together.
    pub elements_max: usize,
    /// Bytes of one string.
    pub bulk_bytes_max: usize,
    /// Bytes of one line.
    pub line_bytes_max: usize,
    /// Bytes of one whole reply.
    pub reply_bytes_max: usize,
}

impl Default for ReplyLimits {
    fn default() -> Self {
        Self {
            depth_max: 16,
            elements_max: 1 << 21,
            bulk_bytes_max: 64 << 20,
            line_bytes_max: 64 << 10,
            reply_bytes_max: 256 << 20,
        }
    }
}

/// Why the bytes are no reply. The connection is of no use after that; what the server did is unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplyError {
    /// A byte that starts no type of RESP2 or RESP3.
    UnknownType(u8),
    /// A number, boolean or length that is none.
    Malformed,
    /// A string that is not followed by `\r\n`.
    Unterminated,
    /// More nesting, elements or bytes than the limits allow.
    TooBig,
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownType(byte) => write!(f, "not a reply: no type starts with '{}'", byte.escape_ascii()),
            Self::Malformed => f.write_str("not a reply: malformed number or length"),
            Self::Unterminated => f.write_str("not a reply: a string without its end"),
            Self::TooBig => f.write_str("reply over the limit"),
        }
    }
}

impl std::error::Error for ReplyError {}

/// One reply, its strings where they were received.
#[derive(Clone, PartialEq, Debug)]
pub enum Reply<'a> {
    /// A status line.
    Simple(&'a [u8]),
    /// An error line.
    Error(&'a [u8]),
    /// An integer.
    Integer(i64),
    /// A string.
    Bulk(&'a [u8]),
    /// No value, of either protocol.
    Null,
    /// Elements in order.
    Array(Vec<Reply<'a>>),
    /// Keys with their values.
    Map(Vec<(Reply<'a>, Reply<'a>)>),
    /// Elements without order.
    Set(Vec<Reply<'a>>),
    /// An out-of-band message.
    Push(Vec<Reply<'a>>),
    /// A floating point number.
    Double(f64),
    /// True or false.
    Boolean(bool),
    /// Text without its three-letter format.
    Verbatim(&'a [u8]),
    /// An integer of any size, in decimal digits.
    BigNumber(&'a [u8]),
}

impl<'a> Reply<'a> {
    /// The first reply in `bytes`, which a [`ReplyScanner`] found complete. Attributes are passed over.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Self {
        let mut at = 0;
        parse_checked(bytes, &mut at)
    }

    /// The text of an error reply.
    #[must_use]
    pub fn as_error(&self) -> Option<&'a [u8]> {
        match self {
            Self::Error(text) => Some(text),
            _ => None,
        }
    }

    /// The bytes of any kind of string.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        match self {
            Self::Simple(text) | Self::Bulk(text) | Self::Verbatim(text) => Some(text),
            _ => None,
        }
    }

    /// The elements of any kind of list.
    #[must_use]
    pub fn as_elements(&self) -> Option<&[Reply<'a>]> {
        match self {
            Self::Array(elements) | Self::Set(elements) | Self::Push(elements) => Some(elements),
            _ => None,
        }
    }
}

/// Finds where one reply ends. Remembers how far it came, so a long reply in many pieces is read once.
pub struct ReplyScanner {
    limits: ReplyLimits,
    position: usize,
    elements: usize,
    /// Elements still to come, per open array, the outermost first; the bottom entry is the reply itself.
    open: Vec<usize>,
}

impl ReplyScanner {
    /// A scanner at the start of a connection.
    #[must_use]
    pub fn new(limits: ReplyLimits) -> Self {
        Self { limits, position: 0, elements: 0, open: vec![1] }
    }

    /// The length of the reply at the start of `input`, or `None` when more bytes are needed: then call again with the
    /// same bytes and those that follow. After a length was returned, the next call is for the next reply.
    ///
    /// # Errors
    ///
    /// The bytes are no reply, or one over the limits.
    pub fn scan(&mut self, input: &[u8]) -> Result<Option<usize>, ReplyError> {
        while let Some(left) = self.open.last_mut() {
            if *left == 0 {
                self.open.pop();
                continue;
            }
            let Some(item) = scan_item(input, self.position, &self.limits)? else {
                if input.len() > self.limits.reply_bytes_max {
                    return Err(ReplyError::TooBig);
                }
                return Ok(None);
            };
            // An attribute belongs to the reply that follows it, so it does not count as one.
            if !item.attribute {
                *left -= 1;
            }
            self.position = item.end;
            self.elements += item.children;
            if self.elements > self.limits.elements_max || self.position > self.limits.reply_bytes_max {
                return Err(ReplyError::TooBig);
            }
            if item.children > 0 {
                self.open.push(item.children);
                if self.open.len() > self.limits.depth_max + 1 {
                    return Err(ReplyError::TooBig);
                }
            }
        }
        let length = self.position;
        self.position = 0;
        self.elements = 0;
        self.open.push(1);
        Ok(Some(length))
    }
}

/// One scalar, or the head of an aggregate.
struct Item {
    end: usize,
    children: usize,
    attribute: bool,
}

fn scan_item(input: &[u8], at: usize, limits: &ReplyLimits) -> Result<Option<Item>, ReplyError> {
    let Some(&kind) = input.get(at) else { return Ok(None) };
    if !b"+-:$*_%~>|,#=(!".contains(&kind) {
        return Err(ReplyError::UnknownType(kind));
    }
    let end = match line_end(input, at + 1, limits.line_bytes_max) {
        LineEnd::Incomplete => return Ok(None),
        LineEnd::TooLong => return Err(ReplyError::TooBig),
        LineEnd::Broken => return Err(ReplyError::Malformed),
        LineEnd::At(end) => end,
    };
    let line = &input[at + 1..end];
    let scalar = |end| Ok(Some(Item { end, children: 0, attribute: false }));
    match kind {
        b'+' | b'-' => scalar(end + 2),
        b':' => parse_integer(line).ok_or(ReplyError::Malformed).and_then(|_| scalar(end + 2)),
        b',' => parse_double(line).ok_or(ReplyError::Malformed).and_then(|_| scalar(end + 2)),
        b'#' if matches!(line, b"t" | b"f") => scalar(end + 2),
        b'_' if line.is_empty() => scalar(end + 2),
        b'(' if is_big_number(line) => scalar(end + 2),
        b'$' | b'=' | b'!' => {
            let Some(length) = length_of(line, kind == b'$', limits.bulk_bytes_max)? else { return scalar(end + 2) };
            if kind == b'=' && length < 4 {
                return Err(ReplyError::Malformed);
            }
            let bulk_end = end + 2 + length;
            match input.get(bulk_end..bulk_end + 2) {
                None => Ok(None),
                Some(b"\r\n") => scalar(bulk_end + 2),
                Some(_) => Err(ReplyError::Unterminated),
            }
        }
        b'*' | b'%' | b'~' | b'>' | b'|' => {
            let count = length_of(line, kind == b'*', limits.elements_max)?.unwrap_or(0);
            let pairs = matches!(kind, b'%' | b'|');
            Ok(Some(Item { end: end + 2, children: if pairs { 2 * count } else { count }, attribute: kind == b'|' }))
        }
        _ => Err(ReplyError::Malformed),
    }
}

/// A length up to `max`; `None` is RESP2's -1 where `nullable`.
fn length_of(line: &[u8], nullable: bool, max: usize) -> Result<Option<usize>, ReplyError> {
    match parse_integer(line) {
        Some(-1) if nullable => Ok(None),
        Some(length) => {
            let length = usize::try_from(length).map_err(|_| ReplyError::Malformed)?;
            if length > max { Err(ReplyError::TooBig) } else { Ok(Some(length)) }
        }
        None => Err(ReplyError::Malformed),
    }
}

fn parse_double(line: &[u8]) -> Option<f64> {
    std::str::from_utf8(line).ok()?.parse().ok()
}

fn is_big_number(line: &[u8]) -> bool {
    let digits = line.strip_prefix(b"-").unwrap_or(line);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

/// Recursion is bounded by the scanner's `depth_max`: attributes, of which any number may precede a reply, are a loop.
fn parse_checked<'a>(bytes: &'a [u8], at: &mut usize) -> Reply<'a> {
    let checked = "the scanner found the reply complete";
    while bytes[*at] == b'|' {
        let LineEnd::At(end) = line_end(bytes, *at + 1, usize::MAX - 1) else { panic!("{checked}") };
        let count = parse_integer(&bytes[*at + 1..end]).expect(checked);
        *at = end + 2;
        for _ in 0..2 * count {
            parse_checked(bytes, at);
        }
    }
    let kind = bytes[*at];
    let LineEnd::At(end) = line_end(bytes, *at + 1, usize::MAX - 1) else { panic!("{checked}") };
    let line = &bytes[*at + 1..end];
    *at = end + 2;
    let number = || parse_integer(line).expect(checked);
    let count = || usize::try_from(number()).expect(checked);
    match kind {
        b'+' => Reply::Simple(line),
        b'-' => Reply::Error(line),
        b':' => Reply::Integer(number()),
        b',' => Reply::Double(parse_double(line).expect(checked)),
        b'#' => Reply::Boolean(line == b"t"),
        b'(' => Reply::BigNumber(line),
        b'_' => Reply::Null,
        b'$' | b'*' if line == b"-1" => Reply::Null,
        b'$' | b'=' | b'!' => {
            let text = &bytes[*at..*at + count()];
            *at += text.len() + 2;
            match kind {
                b'$' => Reply::Bulk(text),
                b'=' => Reply::Verbatim(&text[4..]),
                _ => Reply::Error(text),
            }
        }
        b'%' => Reply::Map((0..count()).map(|_| (parse_checked(bytes, at), parse_checked(bytes, at))).collect()),
        b'*' => Reply::Array((0..count()).map(|_| parse_checked(bytes, at)).collect()),
        b'~' => Reply::Set((0..count()).map(|_| parse_checked(bytes, at)).collect()),
        _ => Reply::Push((0..count()).map(|_| parse_checked(bytes, at)).collect()),
    }
}

#[cfg(test)]
mod tests;
