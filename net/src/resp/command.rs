//! Commands as clients send them: arrays of bulk strings, and inline lines typed by hand.
//!
//! The rule: the parser remembers how far it came, so a command that arrives byte by byte costs no more than one that
//! arrives whole; it never waits for bytes that could not make the command valid any more.
//!
//! Not here: replies (`reply`), the meaning of a command.

use std::{fmt, ops::Range};

use super::{LineEnd, line_end, parse_integer};

/// A line that holds only a count or a length: more than this is no number.
const COUNT_LINE_MAX: usize = 32;

/// More argument slots than this are given back after the command that needed them.
const ARGUMENTS_KEPT: usize = 1024;

/// More bytes of an inline command than this are given back after it.
const INLINE_KEPT: usize = 4096;

/// What a client may send in one command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommandLimits {
    /// Arguments of one command, its name included. Redis allows 1,048,576.
    pub arguments_max: usize,
    /// Bytes of one argument: the largest value, and some slack so that a value just over the limit is refused with an
    /// answer that names the limit and not with a closed connection.
    pub argument_bytes_max: usize,
    /// Bytes of one whole command, which bounds what a connection can make us keep. Below 4 GiB.
    pub command_bytes_max: usize,
    /// Bytes of an inline command's line. Redis allows 64 KiB.
    pub inline_bytes_max: usize,
}

impl CommandLimits {
    /// The limits that follow from the largest value, in bytes, that a client may store.
    #[must_use]
    pub fn for_values(value_bytes_max: usize) -> Self {
        let argument_bytes_max = value_bytes_max + (64 << 10);
        Self {
            arguments_max: 1 << 20,
            argument_bytes_max,
            command_bytes_max: 2 * argument_bytes_max + (1 << 20),
            inline_bytes_max: 64 << 10,
        }
    }
}

impl Default for CommandLimits {
    fn default() -> Self {
        Self::for_values(8 << 20)
    }
}

/// Why the bytes are no command. Nothing of the command was done; the connection ends after the answer. The texts are
/// those of Redis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProtocolError {
    /// An inline line without an end.
    InlineTooBig,
    /// An inline line whose quotes do not close.
    UnbalancedQuotes,
    /// `*` is followed by an endless line.
    CountTooBig,
    /// `*` is followed by no number, or by one over the limit.
    InvalidCount,
    /// An argument that does not start with `$`.
    ExpectedBulk(u8),
    /// `$` is followed by an endless line.
    LengthTooBig,
    /// `$` is followed by no number, by a negative one, or by one over the limit.
    InvalidLength,
    /// An argument that is not followed by `\r\n`.
    UnterminatedBulk,
    /// All arguments together are over the limit.
    CommandTooBig,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Protocol error: ")?;
        match self {
            Self::InlineTooBig => f.write_str("too big inline request"),
            Self::UnbalancedQuotes => f.write_str("unbalanced quotes in request"),
            Self::CountTooBig => f.write_str("too big mbulk count string"),
            Self::InvalidCount => f.write_str("invalid multibulk length"),
            Self::ExpectedBulk(got) => write!(f, "expected '$', got '{}'", got.escape_ascii()),
            Self::LengthTooBig => f.write_str("too big bulk count string"),
            Self::InvalidLength => f.write_str("invalid bulk length"),
            Self::UnterminatedBulk => f.write_str("expected CRLF after a bulk string"),
            Self::CommandTooBig => f.write_str("too big command"),
        }
    }
}

impl std::error::Error for ProtocolError {}

/// One command, its arguments where they were received.
#[derive(Clone, Copy)]
pub struct Command<'a> {
    bytes: &'a [u8],
    arguments: &'a [Range<u32>],
    consumed: usize,
}

impl<'a> Command<'a> {
    /// Bytes of input that the command took. Zero arguments and some bytes consumed: an empty line, to be passed over.
    #[must_use]
    pub fn consumed(&self) -> usize {
        self.consumed
    }

    /// The number of arguments, the command's name included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.arguments.len()
    }

    /// True for an empty line or an empty array, which Redis passes over without an answer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.arguments.is_empty()
    }

    /// The argument at `index`; 0 is the command's name.
    #[must_use]
    pub fn argument(&self, index: usize) -> Option<&'a [u8]> {
        self.arguments.get(index).map(|range| &self.bytes[range.start as usize..range.end as usize])
    }

    /// All arguments in order.
    pub fn arguments(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let bytes = self.bytes;
        self.arguments.iter().map(move |range| &bytes[range.start as usize..range.end as usize])
    }
}

impl fmt::Debug for Command<'_> {
    /// Sizes only: keys and values do not belong into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command").field("arguments", &self.len()).field("consumed", &self.consumed).finish()
    }
}

/// Parses the commands of one connection, one after the other.
pub struct CommandParser {
    limits: CommandLimits,
    state: State,
    /// Bytes of the current command that are parsed already, from its start.
    position: usize,
    arguments: Vec<Range<u32>>,
    /// An inline command's arguments, unquoted.
    inline: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    /// Within an array: so many arguments are still to come.
    Arguments {
        left: usize,
    },
    /// Within an argument: its bytes start at `position`.
    Bulk {
        left: usize,
        length: usize,
    },
    /// Within an inline line.
    Inline,
    /// The command was returned: its slots are free for the next one.
    Done,
}

impl CommandParser {
    /// A parser at the start of a connection.
    #[must_use]
    pub fn new(limits: CommandLimits) -> Self {
        let mut parser = Self { limits, state: State::Start, position: 0, arguments: Vec::new(), inline: Vec::new() };
        parser.set_limits(limits);
        parser
    }

    /// From now on these limits hold, also for the rest of a command that was begun.
    pub fn set_limits(&mut self, limits: CommandLimits) {
        assert!(u32::try_from(limits.command_bytes_max).is_ok(), "arguments are kept as 32-bit ranges");
        self.limits = limits;
    }

    /// The next command of `input`, which starts where the last command ended; `None` when more bytes are needed. Then
    /// call again with the same bytes and those that follow: none of an incomplete command may be dropped.
    ///
    /// # Errors
    ///
    /// The bytes are no command; the parser is of no use after that.
    pub fn parse<'a>(&'a mut self, input: &'a [u8]) -> Result<Option<Command<'a>>, ProtocolError> {
        if self.state == State::Done {
            self.reset();
        }
        if self.state == State::Start && !self.parse_start(input)? {
            return Ok(None);
        }
        if self.state == State::Inline {
            return self.parse_inline(input);
        }
        while self.state != (State::Arguments { left: 0 }) {
            if !self.parse_argument(input)? {
                return Ok(None);
            }
        }
        self.state = State::Done;
        Ok(Some(Command { bytes: input, arguments: &self.arguments, consumed: self.position }))
    }

    /// True when a command has begun to arrive and is not complete: what a limit on its time looks at.
    #[must_use]
    pub fn is_within_command(&self) -> bool {
        !matches!(self.state, State::Start | State::Done)
    }

    /// Bytes from the start of the current command that must be there before parsing can go on, as far as is known: a
    /// hint for sizing the receive buffer, already checked against the limits.
    #[must_use]
    pub fn bytes_wanted(&self) -> usize {
        match self.state {
            State::Bulk { length, .. } => self.position + length + 2,
            _ => self.position + 1,
        }
    }

    fn reset(&mut self) {
        self.state = State::Start;
        self.position = 0;
        self.arguments.clear();
        self.arguments.shrink_to(ARGUMENTS_KEPT);
        self.inline.clear();
        self.inline.shrink_to(INLINE_KEPT);
    }

    fn parse_start(&mut self, input: &[u8]) -> Result<bool, ProtocolError> {
        match input.first() {
            None => Ok(false),
            Some(b'*') => match line_end(input, 1, COUNT_LINE_MAX) {
                LineEnd::Incomplete => Ok(false),
                LineEnd::TooLong => Err(ProtocolError::CountTooBig),
                LineEnd::Broken => Err(ProtocolError::InvalidCount),
                LineEnd::At(end) => {
                    let count = parse_integer(&input[1..end]).ok_or(ProtocolError::InvalidCount)?;
                    // A negative count is an empty command, as in Redis.
                    let left = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
                    if left > self.limits.arguments_max {
                        return Err(ProtocolError::InvalidCount);
                    }
                    self.position = end + 2;
                    self.state = State::Arguments { left };
                    Ok(true)
                }
            },
            Some(_) => {
                self.state = State::Inline;
                Ok(true)
            }
        }
    }

    /// One step within an array. False when more bytes are needed.
    fn parse_argument(&mut self, input: &[u8]) -> Result<bool, ProtocolError> {
        match self.state {
            State::Arguments { left } => {
                match input.get(self.position) {
                    None => return Ok(false),
                    Some(b'$') => {}
                    Some(&other) => return Err(ProtocolError::ExpectedBulk(other)),
                }
                let end = match line_end(input, self.position + 1, COUNT_LINE_MAX) {
                    LineEnd::Incomplete => return Ok(false),
                    LineEnd::TooLong => return Err(ProtocolError::LengthTooBig),
                    LineEnd::Broken => return Err(ProtocolError::InvalidLength),
                    LineEnd::At(end) => end,
                };
                let length = parse_integer(&input[self.position + 1..end])
                    .and_then(|length| usize::try_from(length).ok())
                    .filter(|&length| length <= self.limits.argument_bytes_max)
                    .ok_or(ProtocolError::InvalidLength)?;
                if end + 2 + length + 2 > self.limits.command_bytes_max {
                    return Err(ProtocolError::CommandTooBig);
                }
                self.position = end + 2;
                self.state = State::Bulk { left, length };
                Ok(true)
            }
            State::Bulk { left, length } => {
                let end = self.position + length;
                match input.get(end..end + 2) {
                    None => return Ok(false),
                    Some(b"\r\n") => {}
                    Some(_) => return Err(ProtocolError::UnterminatedBulk),
                }
                self.arguments.push(range(self.position, end));
                self.position = end + 2;
                self.state = State::Arguments { left: left - 1 };
                Ok(true)
            }
            State::Start | State::Inline | State::Done => unreachable!("not within an array"),
        }
    }

    fn parse_inline<'a>(&'a mut self, input: &'a [u8]) -> Result<Option<Command<'a>>, ProtocolError> {
        let limit = self.limits.inline_bytes_max;
        let window = &input[..input.len().min(limit + 1)];
        let Some(length) = window[self.position..].iter().position(|&byte| byte == b'\n') else {
            if input.len() > limit {
                return Err(ProtocolError::InlineTooBig);
            }
            // The next call looks only at what is new.
            self.position = window.len();
            return Ok(None);
        };
        let end = self.position + length;
        let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
        split_inline(line, &mut self.inline, &mut self.arguments).ok_or(ProtocolError::UnbalancedQuotes)?;
        self.position = end + 1;
        self.state = State::Done;
        Ok(Some(Command { bytes: &self.inline, arguments: &self.arguments, consumed: self.position }))
    }
}

fn range(start: usize, end: usize) -> Range<u32> {
    let fit = |at: usize| u32::try_from(at).expect("commands are below 4 GiB");
    fit(start)..fit(end)
}

/// Splits a line at white space, as Redis does: `"…"` with escapes (`\n`, `\x41`, …), `'…'` with `\'` only; a closing
/// quote must be followed by a space or the line's end. `None` when quotes do not close.
fn split_inline(line: &[u8], unquoted: &mut Vec<u8>, arguments: &mut Vec<Range<u32>>) -> Option<()> {
    let mut rest = line;
    loop {
        while let [first, tail @ ..] = rest
            && is_space(*first)
        {
            rest = tail;
        }
        if rest.is_empty() {
            return Some(());
        }
        let start = unquoted.len();
        while let [first, tail @ ..] = rest
            && !is_space(*first)
        {
            rest = match first {
                b'"' => take_double_quoted(tail, unquoted)?,
                b'\'' => take_single_quoted(tail, unquoted)?,
                &other => {
                    unquoted.push(other);
                    tail
                }
            };
        }
        arguments.push(range(start, unquoted.len()));
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r' | 0)
}

/// The rest after the closing quote, which must end the argument.
fn closed(rest: &[u8]) -> Option<&[u8]> {
    match rest.first() {
        Some(&next) if !is_space(next) => None,
        _ => Some(rest),
    }
}

fn take_double_quoted<'a>(mut rest: &'a [u8], unquoted: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [] => return None,
            [b'"', tail @ ..] => return closed(tail),
            [b'\\', b'x', high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                unquoted.push(hex_digit(*high) << 4 | hex_digit(*low));
                tail
            }
            [b'\\', escaped, tail @ ..] => {
                unquoted.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    &other => other,
                });
                tail
            }
            [other, tail @ ..] => {
                unquoted.push(*other);
                tail
            }
        };
    }
}

fn take_single_quoted<'a>(mut rest: &'a [u8], unquoted: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [] => return None,
            [b'\'', tail @ ..] => return closed(tail),
            [b'\\', b'\'', tail @ ..] => {
                unquoted.push(b'\'');
                tail
            }
            [other, tail @ ..] => {
                unquoted.push(*other);
                tail
            }
        };
    }
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests;
