//! memcached's text protocol: `get` and `set`, which every memcached speaks.
//!
//! The rule: answers come in the order of the requests. An error leaves open what became of the key, for memcached may
//! drop the old value of a key whose new one it refuses.
//!
//! Not here: what a key may be, which the options check (`args`).

use super::{Answer, Failed, Outcome, Step};

/// A line that is longer is none of memcached's: a key of 250 bytes is the longest thing that it repeats.
const LINE_BYTES_MAX: usize = 512;

/// Every connection's: it remembers nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Memcached;

impl Memcached {
    pub(crate) fn encode_get(self, key: &[u8], out: &mut Vec<u8>) {
        for part in [b"get ", key, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }

    pub(crate) fn encode_put(self, key: &[u8], value: &[u8], out: &mut Vec<u8>) {
        // No flags, and it never expires.
        let length = format!(" 0 0 {}\r\n", value.len());
        for part in [b"set ", key, length.as_bytes(), value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }

    pub(crate) fn decode(self, input: &[u8], oldest: Option<Step>) -> Result<Option<Answer<'_>>, String> {
        let Some(line) = line(input)? else { return Ok(None) };
        let length = line.len() + 2;
        let done = |outcome| Ok(Some(Answer { length, id: None, outcome }));
        match (line, oldest) {
            (_, None) => Err("an answer that nobody asked for".to_owned()),
            (b"STORED", Some(Step::Put)) => done(Outcome::Written { context: b"" }),
            (b"END", Some(Step::Get)) => done(Outcome::Values { first: None, more: Vec::new(), context: b"" }),
            (line, Some(Step::Get)) if line.starts_with(b"VALUE ") => value(input, line),
            (line, Some(_)) => match failed(line) {
                Some(failed) => done(Outcome::Failed(failed)),
                None => Err(format!("an answer of another shape than asked for: {}", String::from_utf8_lossy(line))),
            },
        }
    }
}

/// The first line, without its end.
fn line(input: &[u8]) -> Result<Option<&[u8]>, String> {
    let head = &input[..input.len().min(LINE_BYTES_MAX)];
    match head.windows(2).position(|pair| pair == b"\r\n") {
        Some(end) => Ok(Some(&head[..end])),
        None if head.len() == LINE_BYTES_MAX => Err("a line that does not end".to_owned()),
        None => Ok(None),
    }
}

/// `VALUE key flags bytes`, the bytes, and `END`.
fn value<'a>(input: &'a [u8], line: &[u8]) -> Result<Option<Answer<'a>>, String> {
    let bytes = line.rsplit(|&byte| byte == b' ').next().and_then(|text| std::str::from_utf8(text).ok());
    let bytes = bytes.and_then(|text| text.parse::<u32>().ok()).ok_or("a value without its length")? as usize;
    let start = line.len() + 2;
    let tail = b"\r\nEND\r\n";
    let length = start + bytes + tail.len();
    if input.len() < length {
        return Ok(None);
    }
    if input[start + bytes..length] != *tail {
        return Err("a value that is longer than it says".to_owned());
    }
    let first = Some(&input[start..start + bytes]);
    Ok(Some(Answer { length, id: None, outcome: Outcome::Values { first, more: Vec::new(), context: b"" } }))
}

fn failed(line: &[u8]) -> Option<Failed> {
    let text = String::from_utf8_lossy(line).into_owned();
    let class = text.split(' ').next().unwrap_or_default();
    let known = ["ERROR", "CLIENT_ERROR", "SERVER_ERROR", "NOT_STORED"].contains(&class);
    known.then(|| Failed { class: class.to_owned(), text: text.clone(), nothing_written: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_lines() {
        let mut out = Vec::new();
        Memcached.encode_get(b"k", &mut out);
        Memcached.encode_put(b"k", b"\r\n", &mut out);
        assert_eq!(out, b"get k\r\nset k 0 0 2\r\n\r\n\r\n");
    }

    fn check(input: &str, step: Step, expected: &Outcome<'_>) {
        for cut in 0..input.len() {
            assert_eq!(Memcached.decode(&input.as_bytes()[..cut], Some(step)), Ok(None), "{input:?} cut at {cut}");
        }
        let more = format!("{input}STORED\r\n");
        let answer = Memcached.decode(more.as_bytes(), Some(step)).unwrap().unwrap();
        assert_eq!((answer.length, &answer.outcome), (input.len(), expected));
    }

    #[test]
    fn answers_are_read_in_any_pieces() {
        let value = |first| Outcome::Values { first, more: vec![], context: b"" };
        check("VALUE k 0 5\r\na\r\nEN\r\nEND\r\n", Step::Get, &value(Some(b"a\r\nEN")));
        check("VALUE k 0 0\r\n\r\nEND\r\n", Step::Get, &value(Some(b"")));
        check("END\r\n", Step::Get, &value(None));
        check("STORED\r\n", Step::Put, &Outcome::Written { context: b"" });
        let text = "SERVER_ERROR out of memory storing object";
        let failed = Failed { class: "SERVER_ERROR".to_owned(), text: text.to_owned(), nothing_written: false };
        check(&format!("{text}\r\n"), Step::Put, &Outcome::Failed(failed));
    }

    #[test]
    fn nonsense_ends_the_connection() {
        assert!(Memcached.decode(b"STORED\r\n", None).is_err());
        assert!(Memcached.decode(b"STORED\r\n", Some(Step::Get)).is_err());
        assert!(Memcached.decode(b"VALUE k 0 1\r\nabcdEND\r\n", Some(Step::Get)).is_err());
        assert!(Memcached.decode(&[b'x'; 600], Some(Step::Get)).is_err());
    }
}
