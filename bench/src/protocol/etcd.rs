//! etcd by gRPC: linearizable gets and puts that a majority has on disk, which is what etcd does unless asked otherwise.
//!
//! The rule: a call of one message worked if a message came back, for gRPC sends none with an error. Which error it was is
//! in compressed headers that are not read; it leaves open whether a put happened.
//!
//! Not here: HTTP/2 (`http2`).

use super::{
    Answer, Failed, Outcome,
    http2::{AUTHORITY, CONTENT_TYPE, Http2, Name, REFUSED_STREAM},
};

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
/// Not compressed, and the length of the message.
const PREFIX_BYTES: usize = 5;

/// One connection's gRPC.
pub(crate) struct Etcd {
    http: Http2,
    /// The request that is being written.
    request: Vec<u8>,
    /// The answer that was read last.
    answer: Vec<u8>,
}

impl Etcd {
    pub(crate) fn new() -> Self {
        Self { http: Http2::new(), request: Vec::new(), answer: Vec::new() }
    }

    pub(crate) fn encode_get(&mut self, id: u64, key: &[u8], out: &mut Vec<u8>) {
        self.call(id, RANGE, &[(1, key)], out);
    }

    pub(crate) fn encode_put(&mut self, id: u64, key: &[u8], value: &[u8], out: &mut Vec<u8>) {
        self.call(id, PUT, &[(1, key), (2, value)], out);
    }

    fn call(&mut self, id: u64, path: &'static str, fields: &[(u8, &[u8])], out: &mut Vec<u8>) {
        self.request.clear();
        self.request.resize(PREFIX_BYTES, 0);
        for (number, bytes) in fields {
            // Of the wire type that has a length.
            self.request.push(number << 3 | 2);
            write_varint(bytes.len() as u64, &mut self.request);
            self.request.extend_from_slice(bytes);
        }
        let length = (self.request.len() - PREFIX_BYTES) as u32;
        self.request[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
        let stream = u32::try_from(2 * id + 1).expect("a connection has fewer requests");
        let headers = [(AUTHORITY, "localhost"), (CONTENT_TYPE, "application/grpc"), (Name::Spelt("te"), "trailers")];
        self.http.post(stream, path, &headers, &self.request, out);
    }

    pub(crate) fn decode(&mut self, input: &[u8]) -> Result<Option<Answer<'_>>, String> {
        let Some(ended) = self.http.receive(input)? else { return Ok(None) };
        let refused = |text: String, nothing_written| {
            Outcome::Failed(Failed { class: "etcd refused".to_owned(), text, nothing_written })
        };
        let outcome = match ended.body {
            Err(code) => refused(format!("a call was broken off, code {code}"), code == REFUSED_STREAM),
            Ok(body) => {
                self.answer = body;
                match message(&self.answer) {
                    Some(_) if ended.path == PUT => Outcome::Written { context: b"" },
                    Some(message) => Outcome::Values { first: value(message)?, more: Vec::new(), context: b"" },
                    None => {
                        let why = "no leader, no space, or too large a request";
                        refused(format!("a call was answered without a message: {why}"), false)
                    }
                }
            }
        };
        Ok(Some(Answer { length: ended.length, id: Some(u64::from(ended.stream / 2)), outcome }))
    }

    /// Bytes at the beginning of the input that are used up without an answer.
    pub(crate) fn take_parsed(&mut self) -> usize {
        self.http.take_parsed()
    }

    /// What the server shall have besides requests.
    pub(crate) fn take_owed(&mut self, out: &mut Vec<u8>) {
        self.http.take_owed(out);
    }
}

/// The one whole message of a body.
fn message(body: &[u8]) -> Option<&[u8]> {
    let (prefix, message) = body.split_at_checked(PREFIX_BYTES)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().expect("four bytes"));
    (prefix[0] == 0 && length as usize == message.len()).then_some(message)
}

/// The value of the first key in a `RangeResponse`: field 5 of its field 2, which is left out when it is empty.
fn value(response: &[u8]) -> Result<Option<&[u8]>, String> {
    let malformed = || "an answer that is no RangeResponse".to_owned();
    let found = field(response, 2).ok_or_else(malformed)?;
    found.map(|key_value| Ok(field(key_value, 5).ok_or_else(malformed)?.unwrap_or_default())).transpose()
}

/// The first field of this number, of the wire type that has a length. The outer `None`: it is no protobuf.
fn field(mut message: &[u8], number: u64) -> Option<Option<&[u8]>> {
    while !message.is_empty() {
        let tag = read_varint(&mut message)?;
        let length = match tag & 7 {
            0 => {
                read_varint(&mut message)?;
                continue;
            }
            1 => 8,
            2 => usize::try_from(read_varint(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let (bytes, rest) = message.split_at_checked(length)?;
        if tag == number << 3 | 2 {
            return Some(Some(bytes));
        }
        message = rest;
    }
    Some(None)
}

fn write_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn read_varint(input: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HTTP/2's frame of an answer that ends its stream, or not.
    fn frame(kind: u8, ends: bool, stream: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![0, (payload.len() >> 8) as u8, payload.len() as u8, kind, u8::from(ends), 0, 0, 0, stream];
        out.extend_from_slice(payload);
        out
    }

    fn grpc(message: &[u8]) -> Vec<u8> {
        [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
    }

    #[test]
    fn requests_are_messages() {
        let (mut etcd, mut out) = (Etcd::new(), Vec::new());
        etcd.encode_put(0, b"k", &[b'v'; 200], &mut out);
        let message = [b"\x0a\x01k\x12\xc8\x01".as_slice(), &[b'v'; 200]].concat();
        assert!(out.ends_with(&frame(0, true, 1, &grpc(&message))), "{out:?}");
        etcd.encode_get(1, b"k", &mut out);
        assert!(out.ends_with(&frame(0, true, 3, &grpc(b"\x0a\x01k"))), "{out:?}");
    }

    /// What comes of a get (id 4) and a put (id 5) that are answered with `body`, in frames, and the end.
    fn outcomes(body: &[&[u8]], check: impl Fn(u64, Outcome<'_>)) {
        for id in [4, 5] {
            let (mut etcd, mut out) = (Etcd::new(), Vec::new());
            etcd.encode_get(4, b"k", &mut out);
            etcd.encode_put(5, b"k", b"v", &mut out);
            let stream = 2 * id as u8 + 1;
            let mut input = frame(1, false, stream, b"headers");
            body.iter().for_each(|piece| input.extend(frame(0, false, stream, piece)));
            input.extend(frame(1, true, stream, b"trailers"));
            let answer = etcd.decode(&input).unwrap().unwrap();
            assert_eq!((answer.length, answer.id), (input.len(), Some(id)));
            check(id, answer.outcome);
        }
    }

    #[test]
    fn answers_are_put_together() {
        let value = |first| Outcome::Values { first, more: vec![], context: b"" };
        // A header (field 1), the number of keys (field 4) and the key's own numbers are passed over.
        let response = grpc(b"\x0a\x02\x08\x07\x12\x0d\x0a\x01k\x10\xff\xff\x03\x2a\x04abcd\x20\x01");
        let (head, tail) = response.split_at(20);
        outcomes(&[head, tail], |id, outcome| match id {
            4 => assert_eq!(outcome, value(Some(b"abcd"))),
            _ => assert_eq!(outcome, Outcome::Written { context: b"" }),
        });
        // A key whose value is empty, and none.
        outcomes(&[&grpc(b"\x12\x03\x0a\x01k")], |id, outcome| assert!(id == 5 || outcome == value(Some(b""))));
        outcomes(&[&grpc(b"\x0a\x02\x08\x07")], |id, outcome| assert!(id == 5 || outcome == value(None)));
    }

    #[test]
    fn without_a_message_it_failed() {
        for body in [vec![], vec![&b"\0\0\0\0\x05ab"[..]]] {
            outcomes(&body, |_, outcome| {
                let Outcome::Failed(failed) = outcome else { panic!("failed") };
                assert!(!failed.nothing_written);
            });
        }
    }

    #[test]
    fn a_call_that_was_not_taken_up_wrote_nothing() {
        for (code, expected) in [(7, true), (2, false)] {
            let (mut etcd, mut out) = (Etcd::new(), Vec::new());
            etcd.encode_put(0, b"k", b"v", &mut out);
            let reset = frame(3, false, 1, &[0, 0, 0, code]);
            let Outcome::Failed(failed) = etcd.decode(&reset).unwrap().unwrap().outcome else { panic!("failed") };
            assert_eq!(failed.nothing_written, expected, "{}", failed.text);
        }
    }

    #[test]
    fn nonsense_ends_the_connection() {
        let (mut etcd, mut out) = (Etcd::new(), Vec::new());
        etcd.encode_get(0, b"k", &mut out);
        assert!(etcd.decode(&frame(0, true, 1, &grpc(b"\x12\x7f"))).is_err());
    }
}
