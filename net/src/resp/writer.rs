//! Replies and commands as bytes, appended to a connection's outgoing buffer.
//!
//! The rule: whatever strings are given, the bytes stay well formed: a line break inside a one-line reply becomes a
//! space. A caller that announces n elements writes n.
//!
//! Not here: which reply a command gets.

use super::Protocol;

/// Appends replies in one version of the protocol.
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    protocol: Protocol,
}

impl<'a> Writer<'a> {
    /// A writer at the end of `out`.
    pub fn new(out: &'a mut Vec<u8>, protocol: Protocol) -> Self {
        Self { out, protocol }
    }

    /// The version of the protocol that is written.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Writes the other version from here on: what answers `HELLO`.
    pub fn switch(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// `+OK`.
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// A status line.
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// An error line. `text` starts with its class in capitals, such as `ERR`.
    pub fn error(&mut self, text: &str) {
        self.line(b'-', text.as_bytes());
    }

    /// An integer.
    pub fn integer(&mut self, value: i64) {
        self.number_line(b':', value);
    }

    /// A string of any bytes.
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.length_line(b'$', bytes.len());
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    /// No value where a string was asked for.
    pub fn null(&mut self) {
        self.out.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"$-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// No value where an array was asked for.
    pub fn null_array(&mut self) {
        self.out.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"*-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// The head of an array; `length` elements follow.
    pub fn array(&mut self, length: usize) {
        self.length_line(b'*', length);
    }

    /// The head of a map; `length` keys follow, each before its value. An array of both in RESP2.
    pub fn map(&mut self, length: usize) {
        match self.protocol {
            Protocol::Resp2 => self.length_line(b'*', 2 * length),
            Protocol::Resp3 => self.length_line(b'%', length),
        }
    }

    /// The head of a set; `length` elements follow. An array in RESP2.
    pub fn set(&mut self, length: usize) {
        self.length_line(if self.protocol == Protocol::Resp2 { b'*' } else { b'~' }, length);
    }

    /// The head of an out-of-band message; `length` elements follow. An array in RESP2.
    pub fn push(&mut self, length: usize) {
        self.length_line(if self.protocol == Protocol::Resp2 { b'*' } else { b'>' }, length);
    }

    /// A floating point number; a string in RESP2.
    pub fn double(&mut self, value: f64) {
        let text = if value.is_nan() {
            "nan".to_owned()
        } else if value.is_infinite() {
            if value > 0.0 { "inf" } else { "-inf" }.to_owned()
        } else {
            value.to_string()
        };
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => self.line(b',', text.as_bytes()),
        }
    }

    /// True or false; 1 or 0 in RESP2.
    pub fn boolean(&mut self, value: bool) {
        match self.protocol {
            Protocol::Resp2 => self.integer(i64::from(value)),
            Protocol::Resp3 => self.line(b'#', if value { b"t" } else { b"f" }),
        }
    }

    /// Text to be shown as it is; a plain string in RESP2.
    pub fn verbatim(&mut self, text: &str) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => {
                self.length_line(b'=', text.len() + 4);
                self.out.extend_from_slice(b"txt:");
                self.out.extend_from_slice(text.as_bytes());
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        self.out.push(kind);
        let start = self.out.len();
        self.out.extend_from_slice(text);
        for byte in &mut self.out[start..] {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        self.out.extend_from_slice(b"\r\n");
    }

    fn length_line(&mut self, kind: u8, length: usize) {
        write_number_line(self.out, kind, false, length as u64);
    }

    fn number_line(&mut self, kind: u8, value: i64) {
        write_number_line(self.out, kind, value < 0, value.unsigned_abs());
    }
}

/// Appends a command as clients send it.
pub fn write_command(out: &mut Vec<u8>, arguments: &[&[u8]]) {
    write_number_line(out, b'*', false, arguments.len() as u64);
    for argument in arguments {
        write_number_line(out, b'$', false, argument.len() as u64);
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
}

/// `kind`, the number, `\r\n`: written backwards into a small array, since every reply has one.
fn write_number_line(out: &mut Vec<u8>, kind: u8, negative: bool, mut magnitude: u64) {
    let mut line = [0u8; 24];
    let mut at = line.len() - 2;
    line[at..].copy_from_slice(b"\r\n");
    loop {
        at -= 1;
        line[at] = b'0' + (magnitude % 10) as u8;
        magnitude /= 10;
        if magnitude == 0 {
            break;
        }
    }
    if negative {
        at -= 1;
        line[at] = b'-';
    }
    at -= 1;
    line[at] = kind;
    out.extend_from_slice(&line[at..]);
}
