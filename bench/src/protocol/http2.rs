//! As much of HTTP/2 (RFC 9113) as a client needs for small calls in the clear: frames, windows, compressed request headers.
//!
//! The rule: bytes in, bytes out. What the server is owed without being asked for (acknowledgements, windows, what it had
//! no window for) is collected, and sent with the next bytes that go. Of what came nothing is kept but the beginning of one
//! frame and the answers to calls, each of which has a bound.
//!
//! Not here: what a call says (`etcd`). Headers that come back are passed over: whether a call worked shows in its body.

use std::collections::{BTreeMap, VecDeque};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD_BYTES: usize = 9;
/// What every server takes, and all that we take: the protocol's default.
const FRAME_BYTES_MAX: usize = 16 << 10;
/// The windows that both sides begin with, until they say otherwise.
const WINDOW_BYTES: i64 = 65_535;
/// What the server may send of one answer, whose window is never opened again, and of all together before it hears from us.
const OWN_WINDOW_BYTES: u32 = 16 << 20;
/// The table of headers that is sent may be as large as the protocol's default.
const TABLE_BYTES: u32 = 4096;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH: u8 = 5;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

/// Of SETTINGS and PING.
const ACKNOWLEDGED: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

const HEADER_TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const INITIAL_WINDOW_SIZE: u16 = 4;
const WINDOW_BYTES_MAX: u32 = (1 << 31) - 1;

/// Why a stream is broken off (section 7).
const NO_ERROR: u32 = 0;
/// The server has done nothing of the call.
pub(super) const REFUSED_STREAM: u32 = 7;

/// One connection.
pub(super) struct Http2 {
    greeted: bool,
    /// Of the input that the caller still holds, what was read.
    parsed: usize,
    /// Headers that the server has in its table, oldest first.
    table: Vec<(Name, Vec<u8>)>,
    /// What may still be sent, and what of a new stream.
    window: i64,
    stream_window: i64,
    /// Bodies that wait for a window, oldest first. Only the first can have gone in part.
    held: VecDeque<Held>,
    /// Calls without an answer: what they call, and what came so far.
    calls: BTreeMap<u32, (&'static str, Vec<u8>)>,
    /// Bytes that came and were not given back to the server's window.
    received: u32,
    owed: Vec<u8>,
}

struct Held {
    stream: u32,
    window: i64,
    body: Vec<u8>,
}

/// The name of a header: its place in HPACK's static table (RFC 7541, appendix A), or spelt out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Static(u8),
    Spelt(&'static str),
}

pub(super) const AUTHORITY: Name = Name::Static(1);
pub(super) const CONTENT_TYPE: Name = Name::Static(31);
const PATH: Name = Name::Static(4);

/// A call that has its answer.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Ended {
    /// Bytes of the input that are used up.
    pub(super) length: usize,
    pub(super) stream: u32,
    pub(super) path: &'static str,
    /// What came, or the code with which the server broke it off.
    pub(super) body: Result<Vec<u8>, u32>,
}

struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'a [u8],
}

impl Http2 {
    pub(super) fn new() -> Self {
        Self {
            greeted: false,
            parsed: 0,
            table: Vec::new(),
            window: WINDOW_BYTES,
            stream_window: WINDOW_BYTES,
            held: VecDeque::new(),
            calls: BTreeMap::new(),
            received: 0,
            owed: Vec::new(),
        }
    }

    /// Posts `body` to `path` on a new stream. Streams are odd, and each is above all before it.
    pub(super) fn post(
        &mut self,
        stream: u32,
        path: &'static str,
        headers: &[(Name, &str)],
        body: &[u8],
        out: &mut Vec<u8>,
    ) {
        assert!(stream % 2 == 1 && stream < 1 << 31, "a client's stream");
        if !std::mem::replace(&mut self.greeted, true) {
            greet(out);
        }
        // POST and http are in the static table as they stand.
        let mut block = vec![0x83, 0x86];
        self.write_header(PATH, path, &mut block);
        for (name, value) in headers {
            self.write_header(*name, value, &mut block);
        }
        write_frame(HEADERS, END_HEADERS, stream, &block, out);
        self.calls.insert(stream, (path, Vec::new()));
        let mut window = self.stream_window;
        let sent = if self.held.is_empty() { write_body(stream, body, &mut window, &mut self.window, out) } else { 0 };
        if sent < body.len() {
            self.held.push_back(Held { stream, window, body: body[sent..].to_vec() });
        }
    }

    /// Each header is spelt once on a connection; from then on its place in the server's table is named.
    fn write_header(&mut self, name: Name, value: &str, block: &mut Vec<u8>) {
        if let Some(at) = self.table.iter().position(|known| known.0 == name && known.1 == value.as_bytes()) {
            // The youngest has 62, the first place behind the static table.
            block.push(0x80 | (61 + self.table.len() - at) as u8);
            return;
        }
        let spell = |text: &str, block: &mut Vec<u8>| {
            assert!(text.len() < 127, "one byte tells its length");
            block.push(text.len() as u8);
            block.extend_from_slice(text.as_bytes());
        };
        match name {
            Name::Static(place) => block.push(0x40 | place),
            Name::Spelt(name) => {
                block.push(0x40);
                spell(name, block);
            }
        }
        spell(value, block);
        self.table.push((name, value.as_bytes().to_vec()));
        assert!(self.table.len() < 16, "a handful of headers, which fit the server's table");
    }

    /// The first call in `input` that ends. Ask again with the same bytes, less those that are used up (which
    /// [`Http2::take_parsed`] tells when no call has ended), and those that follow.
    ///
    /// # Errors
    /// When the connection is of no use any more.
    pub(super) fn receive(&mut self, input: &[u8]) -> Result<Option<Ended>, String> {
        while let Some((frame, length)) = Frame::read(&input[self.parsed..])? {
            self.parsed += length;
            let Some(how) = self.handle(&frame)? else { continue };
            // A stream that nobody waits for was reset after its end.
            let Some((path, came)) = self.calls.remove(&frame.stream) else { continue };
            self.drop_held(frame.stream, how.is_ok());
            return Ok(Some(Ended {
                length: self.take_parsed(),
                stream: frame.stream,
                path,
                body: how.map(|()| came),
            }));
        }
        Ok(None)
    }

    /// Bytes at the beginning of the input that are used up, though no call has ended.
    pub(super) fn take_parsed(&mut self) -> usize {
        std::mem::take(&mut self.parsed)
    }

    /// What the server shall have besides requests.
    pub(super) fn take_owed(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.owed);
    }

    /// Whether the frame ends its stream: in order, or broken off with this code.
    fn handle(&mut self, frame: &Frame<'_>) -> Result<Option<Result<(), u32>>, String> {
        match frame.kind {
            DATA => self.handle_data(frame)?,
            HEADERS => {}
            RESET => return Ok(Some(Err(frame.number()?))),
            SETTINGS if frame.flags & ACKNOWLEDGED == 0 => self.handle_settings(frame.payload)?,
            PING if frame.flags & ACKNOWLEDGED == 0 => {
                if frame.payload.len() != 8 {
                    return Err("a PING of another size".to_owned());
                }
                write_frame(PING, ACKNOWLEDGED, 0, frame.payload, &mut self.owed);
            }
            WINDOW_UPDATE => self.handle_window(frame)?,
            // Calls that it may still answer are given up with the connection, as if it had been cut.
            GO_AWAY => {
                let (code, why) = frame.payload.get(4..).and_then(<[u8]>::split_first_chunk).unwrap_or((&[0; 4], &[]));
                let (code, why) = (u32::from_be_bytes(*code), String::from_utf8_lossy(&why[..why.len().min(200)]));
                return Err(format!("the server ends the connection (GOAWAY, code {code}) {why}")
                    .trim_end()
                    .to_owned());
            }
            PUSH => return Err("the server pushes what nobody asked for".to_owned()),
            // The rest of headers, and what later versions may add.
            _ => {}
        }
        let ends = matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0;
        Ok(ends.then_some(Ok(())))
    }

    fn handle_data(&mut self, frame: &Frame<'_>) -> Result<(), String> {
        let mut payload = frame.payload;
        if frame.flags & PADDED != 0 {
            let (&padding, rest) = payload.split_first().ok_or("padding without its length")?;
            let length = rest.len().checked_sub(usize::from(padding)).ok_or("more padding than frame")?;
            payload = &rest[..length];
        }
        let (_, body) = self.calls.get_mut(&frame.stream).ok_or("data that nobody asked for")?;
        if body.len() + payload.len() > OWN_WINDOW_BYTES as usize {
            return Err("an answer larger than its window".to_owned());
        }
        body.extend_from_slice(payload);
        self.received += frame.payload.len() as u32;
        if self.received >= OWN_WINDOW_BYTES / 2 {
            let received = std::mem::take(&mut self.received);
            write_frame(WINDOW_UPDATE, 0, 0, &received.to_be_bytes(), &mut self.owed);
        }
        Ok(())
    }

    fn handle_settings(&mut self, payload: &[u8]) -> Result<(), String> {
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err("half a setting".to_owned());
        }
        for [name @ .., a, b, c, d] in settings {
            let value = u32::from_be_bytes([*a, *b, *c, *d]);
            match u16::from_be_bytes(*name) {
                HEADER_TABLE_SIZE if value < TABLE_BYTES => return Err("the server has no table of headers".to_owned()),
                INITIAL_WINDOW_SIZE if value > WINDOW_BYTES_MAX => return Err("a window too large".to_owned()),
                INITIAL_WINDOW_SIZE => {
                    // It may shrink below zero what streams have that are open.
                    let change = i64::from(value) - self.stream_window;
                    self.held.iter_mut().for_each(|held| held.window += change);
                    self.stream_window += change;
                }
                _ => {}
            }
        }
        write_frame(SETTINGS, ACKNOWLEDGED, 0, &[], &mut self.owed);
        self.send_held();
        Ok(())
    }

    fn handle_window(&mut self, frame: &Frame<'_>) -> Result<(), String> {
        let more = i64::from(frame.number()? & WINDOW_BYTES_MAX);
        if frame.stream == 0 {
            self.window += more;
        } else if let Some(held) = self.held.iter_mut().find(|held| held.stream == frame.stream) {
            held.window += more;
        }
        self.send_held();
        Ok(())
    }

    /// Forgets what was not yet sent of a call that has ended: the server wants no more of it.
    fn drop_held(&mut self, stream: u32, in_order: bool) {
        let Some(at) = self.held.iter().position(|held| held.stream == stream) else { return };
        self.held.remove(at);
        if in_order {
            // Its own end is not the stream's, which is half open until we say that nothing follows.
            write_frame(RESET, 0, stream, &NO_ERROR.to_be_bytes(), &mut self.owed);
        }
        self.send_held();
    }

    fn send_held(&mut self) {
        while let Some(first) = self.held.front_mut() {
            let sent = write_body(first.stream, &first.body, &mut first.window, &mut self.window, &mut self.owed);
            first.body.drain(..sent);
            if !first.body.is_empty() {
                break;
            }
            self.held.pop_front();
        }
    }
}

/// Writes as much of a body as both windows allow, and ends the stream with its last byte. Gives how much that was.
fn write_body(stream: u32, body: &[u8], window: &mut i64, connection: &mut i64, out: &mut Vec<u8>) -> usize {
    let mut sent = 0;
    while sent < body.len() {
        let room = usize::try_from(*window.min(connection)).unwrap_or(0).min(FRAME_BYTES_MAX);
        if room == 0 {
            break;
        }
        let count = room.min(body.len() - sent);
        let last = sent + count == body.len();
        write_frame(DATA, if last { END_STREAM } else { 0 }, stream, &body[sent..sent + count], out);
        *window -= count as i64;
        *connection -= count as i64;
        sent += count;
    }
    sent
}

/// What a client says first: that nothing is pushed, and how much may come.
fn greet(out: &mut Vec<u8>) {
    out.extend_from_slice(PREFACE);
    let mut settings = Vec::new();
    for (name, value) in [(ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, OWN_WINDOW_BYTES)] {
        settings.extend_from_slice(&name.to_be_bytes());
        settings.extend_from_slice(&value.to_be_bytes());
    }
    write_frame(SETTINGS, 0, 0, &settings, out);
    write_frame(WINDOW_UPDATE, 0, 0, &(OWN_WINDOW_BYTES - WINDOW_BYTES as u32).to_be_bytes(), out);
}

fn write_frame(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    assert!(payload.len() <= FRAME_BYTES_MAX, "no frame is larger");
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

impl<'a> Frame<'a> {
    /// Of the frames that carry nothing else.
    fn number(&self) -> Result<u32, String> {
        let bytes = self.payload.try_into().map_err(|_| format!("a frame of kind {} of another size", self.kind))?;
        Ok(u32::from_be_bytes(bytes))
    }

    /// The first frame of `input`, if it is whole, and its length.
    fn read(input: &'a [u8]) -> Result<Option<(Self, usize)>, String> {
        let Some(head) = input.get(..HEAD_BYTES) else { return Ok(None) };
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        if length > FRAME_BYTES_MAX {
            return Err("a frame larger than allowed, or no HTTP/2".to_owned());
        }
        let end = HEAD_BYTES + length;
        let Some(payload) = input.get(HEAD_BYTES..end) else { return Ok(None) };
        let stream = u32::from_be_bytes(head[5..].try_into().expect("four bytes")) & !(1 << 31);
        Ok(Some((Self { kind: head[3], flags: head[4], stream, payload }, end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The frames of what a client sent, after its greeting if there is one.
    fn frames(bytes: &[u8]) -> Vec<(u8, u8, u32, Vec<u8>)> {
        let mut rest = bytes.strip_prefix(PREFACE).unwrap_or(bytes);
        let mut all = Vec::new();
        while let Some((frame, length)) = Frame::read(rest).unwrap() {
            all.push((frame.kind, frame.flags, frame.stream, frame.payload.to_vec()));
            rest = &rest[length..];
        }
        assert!(rest.is_empty(), "whole frames");
        all
    }

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write_frame(kind, flags, stream, payload, &mut out);
        out
    }

    fn owed(http: &mut Http2) -> Vec<(u8, u8, u32, Vec<u8>)> {
        let mut out = Vec::new();
        http.take_owed(&mut out);
        frames(&out)
    }

    #[test]
    fn headers_are_spelt_once() {
        let (mut http, mut out) = (Http2::new(), Vec::new());
        http.post(1, "/a", &[(AUTHORITY, "h"), (Name::Spelt("te"), "x")], b"one", &mut out);
        let first = frames(&out);
        assert_eq!(first.iter().map(|frame| frame.0).collect::<Vec<_>>(), [SETTINGS, WINDOW_UPDATE, HEADERS, DATA]);
        assert_eq!(first[2].3, b"\x83\x86\x44\x02/a\x41\x01h\x40\x02te\x01x");
        assert_eq!(first[3], (DATA, END_STREAM, 1, b"one".to_vec()));
        out.clear();
        http.post(3, "/a", &[(AUTHORITY, "h"), (Name::Spelt("te"), "x")], b"two", &mut out);
        assert_eq!(frames(&out)[0].3, b"\x83\x86\xc0\xbf\xbe");
        out.clear();
        http.post(5, "/b", &[(AUTHORITY, "h")], b"two", &mut out);
        // One more stands before those that were there.
        assert_eq!(frames(&out)[0].3, b"\x83\x86\x44\x02/b\xc0");
    }

    #[test]
    fn answers_are_read_in_any_pieces() {
        let (mut out, mut input) = (Vec::new(), Vec::new());
        input.extend(frame(SETTINGS, 0, 0, &[]));
        input.extend(frame(PING, 0, 0, b"12345678"));
        input.extend(frame(HEADERS, END_HEADERS, 1, b"whatever"));
        input.extend(frame(DATA, PADDED, 1, b"\x02abc??"));
        input.extend(frame(99, 0, 0, b"of a later version"));
        input.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, b"whatever"));
        let mut http = Http2::new();
        http.post(1, "/a", &[], b"x", &mut out);
        let mut used = 0;
        for cut in 0..input.len() {
            assert_eq!(http.receive(&input[used..cut]), Ok(None), "cut at {cut}");
            // Every whole frame is used up at once.
            used += http.take_parsed();
            assert!(cut - used < HEAD_BYTES + 18, "cut at {cut}");
        }
        let ended = Ended { length: input.len() - used, stream: 1, path: "/a", body: Ok(b"abc".to_vec()) };
        assert_eq!(http.receive(&input[used..]), Ok(Some(ended)));
        // However often it was asked, each is owed once.
        assert_eq!(
            owed(&mut http),
            [(SETTINGS, ACKNOWLEDGED, 0, vec![]), (PING, ACKNOWLEDGED, 0, b"12345678".to_vec())]
        );
    }

    #[test]
    fn answers_come_in_any_order_and_may_be_broken_off() {
        let (mut http, mut out) = (Http2::new(), Vec::new());
        http.post(1, "/a", &[], b"x", &mut out);
        http.post(3, "/b", &[], b"x", &mut out);
        let mut input = frame(RESET, 0, 3, &REFUSED_STREAM.to_be_bytes());
        let length = input.len();
        input.extend(frame(DATA, END_STREAM, 1, b"late"));
        assert_eq!(http.receive(&input), Ok(Some(Ended { length, stream: 3, path: "/b", body: Err(REFUSED_STREAM) })));
        let ended = http.receive(&input[length..]).unwrap().unwrap();
        assert_eq!((ended.stream, ended.body.as_deref()), (1, Ok(&b"late"[..])));
        assert_eq!(http.receive(&frame(RESET, 0, 1, &[0; 4])), Ok(None));
    }

    #[test]
    fn what_has_no_window_waits_for_one() {
        let (mut http, mut out) = (Http2::new(), Vec::new());
        let body = vec![7; 40_000];
        let sent = |frames: &[(u8, u8, u32, Vec<u8>)]| {
            let data = frames.iter().filter(|frame| frame.0 == DATA);
            let bytes = |stream| data.clone().filter(|frame| frame.2 == stream).map(|frame| frame.3.len()).sum();
            let ended = data.clone().filter(|frame| frame.1 == END_STREAM).count();
            ([bytes(1), bytes(3), bytes(5)], ended)
        };
        for stream in [1, 3, 5] {
            http.post(stream, "/a", &[], &body, &mut out);
        }
        assert_eq!(sent(&frames(&out)), ([40_000, 25_535, 0], 1));
        http.receive(&frame(WINDOW_UPDATE, 0, 0, &20_000_u32.to_be_bytes())).unwrap();
        assert_eq!(sent(&owed(&mut http)), ([0, 14_465, 5535], 1));
        // Now a stream's own window is the narrow one.
        let settings = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &10_000_u32.to_be_bytes()].concat();
        let input = [
            frame(WINDOW_UPDATE, 0, 0, &20_000_u32.to_be_bytes()),
            frame(SETTINGS, 0, 0, &settings),
            frame(WINDOW_UPDATE, 0, 0, &50_000_u32.to_be_bytes()),
        ];
        http.take_parsed();
        http.receive(&input.concat()).unwrap();
        assert_eq!(sent(&owed(&mut http)), ([0, 0, 20_000], 0));
        http.take_parsed();
        http.receive(&frame(WINDOW_UPDATE, 0, 5, &60_000_u32.to_be_bytes())).unwrap();
        assert_eq!(sent(&owed(&mut http)), ([0, 0, 14_465], 1));
    }

    #[test]
    fn windows_are_given_back() {
        let (mut http, mut out) = (Http2::new(), Vec::new());
        http.post(1, "/a", &[], b"x", &mut out);
        let input = frame(DATA, 0, 1, &[0; FRAME_BYTES_MAX]);
        let times = OWN_WINDOW_BYTES as usize / 2 / FRAME_BYTES_MAX;
        for time in 1..=times {
            assert_eq!(http.receive(&input), Ok(None));
            assert_eq!(http.take_parsed(), input.len());
            assert_eq!(owed(&mut http).len(), usize::from(time == times));
        }
    }

    #[test]
    fn what_an_ended_call_had_still_to_send_is_dropped() {
        for (end, reset) in [
            (frame(HEADERS, END_HEADERS | END_STREAM, 1, b"refused"), Some((RESET, 0, 1, vec![0; 4]))),
            (frame(RESET, 0, 1, &[0; 4]), None),
        ] {
            let (mut http, mut out) = (Http2::new(), Vec::new());
            http.post(1, "/a", &[], &[7; 70_000], &mut out);
            http.post(3, "/a", &[], b"next", &mut out);
            assert_eq!(http.receive(&end).unwrap().unwrap().stream, 1);
            http.receive(&frame(WINDOW_UPDATE, 0, 0, &10_u32.to_be_bytes())).unwrap();
            let wanted: Vec<_> = reset.into_iter().chain([(DATA, END_STREAM, 3, b"next".to_vec())]).collect();
            assert_eq!(owed(&mut http), wanted);
        }
    }

    #[test]
    fn headers_in_pieces_are_passed_over() {
        const CONTINUATION: u8 = 9;
        let (mut http, mut out) = (Http2::new(), Vec::new());
        http.post(1, "/a", &[], b"x", &mut out);
        let input = [
            frame(HEADERS, 0, 1, b"the first part"),
            frame(CONTINUATION, END_HEADERS, 1, b"the rest"),
            frame(DATA, PADDED, 1, b"\x01abc\0"),
            frame(HEADERS, END_STREAM, 1, b"trailers"),
            frame(CONTINUATION, END_HEADERS, 1, b"their rest"),
        ]
        .concat();
        let ended = http.receive(&input).unwrap().unwrap();
        assert_eq!(ended.body, Ok(b"abc".to_vec()));
        assert_eq!(http.receive(&input[ended.length..]), Ok(None));
        assert_eq!(ended.length + http.take_parsed(), input.len());
    }

    #[test]
    fn an_answer_has_a_bound() {
        let (mut http, mut out) = (Http2::new(), Vec::new());
        http.post(1, "/a", &[], b"x", &mut out);
        let input = frame(DATA, 0, 1, &[0; FRAME_BYTES_MAX]);
        for _ in 0..OWN_WINDOW_BYTES as usize / FRAME_BYTES_MAX {
            assert_eq!(http.receive(&input), Ok(None));
            http.take_parsed();
        }
        assert!(http.receive(&input).is_err());
    }

    #[test]
    fn the_server_says_why_it_goes() {
        let payload = [&[0, 0, 0, 1][..], &11_u32.to_be_bytes(), b"too_many_pings"].concat();
        let text = Http2::new().receive(&frame(GO_AWAY, 0, 0, &payload)).unwrap_err();
        assert_eq!(text, "the server ends the connection (GOAWAY, code 11) too_many_pings");
    }

    #[test]
    fn nonsense_ends_the_connection() {
        for input in [
            b"HTTP/1.1 400 Bad Request\r\n".to_vec(),
            frame(GO_AWAY, 0, 0, &[0; 8]),
            frame(DATA, 0, 7, b"for whom?"),
            frame(PUSH, 0, 1, &[0; 4]),
            frame(PING, 0, 0, b"1234567"),
            frame(RESET, 0, 1, b"123"),
            frame(WINDOW_UPDATE, 0, 0, b"12345"),
            frame(SETTINGS, 0, 0, &[0; 7]),
            frame(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]),
            frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]),
        ] {
            assert!(Http2::new().receive(&input).is_err(), "{input:?}");
        }
    }
}
