//! RESP: `GET` and `SET`, which every Redis speaks, or `KV.GET` and `KV.PUT` with quorums and contexts.
//!
//! The rule: answers come in the order of the requests. An error leaves open whether a write happened, unless its class
//! is one that is only given before anything is written.
//!
//! Not here: the form of commands and replies (`net`'s `resp`).

use quorate_net::resp::{Reply, ReplyLimits, ReplyScanner, write_command};

use super::{Answer, Durability, Failed, Outcome, RequestOptions, Step};

/// Errors that are given before anything is written, by Redis or by Quorate.
const NOTHING_WRITTEN: [&str; 16] = [
    "ASK",
    "BADCONTEXT",
    "CLUSTERDOWN",
    "CORRUPT",
    "DISKFULL",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOAUTH",
    "NOPERM",
    "OOM",
    "READONLY",
    "SIBLINGS",
    "STOREFAILED",
    "TRYAGAIN",
];

/// One connection's RESP.
pub(crate) struct Resp {
    scanner: ReplyScanner,
    commands: Commands,
}

/// Which commands are sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Commands {
    /// `GET` and `SET`.
    Plain,
    /// `KV.GET` and `KV.PUT` with what follows the key and the value.
    Versioned { get: Vec<Vec<u8>>, put: Vec<Vec<u8>> },
}

impl Commands {
    /// `KV.GET` and `KV.PUT` with these options.
    pub(crate) fn versioned(options: &RequestOptions) -> Self {
        let word = |word: &str| word.as_bytes().to_vec();
        let (mut get, mut put) = (Vec::new(), Vec::new());
        if let Some(quorum) = options.read_quorum {
            get.extend([word("R"), word(&quorum.to_string())]);
        }
        if let Some(quorum) = options.write_quorum {
            put.extend([word("W"), word(&quorum.to_string())]);
        }
        if let Some(durability) = options.durability {
            let name = match durability {
                Durability::Durable => "durable",
                Durability::One => "one",
                Durability::Buffered => "buffered",
            };
            put.extend([word("DURABILITY"), word(name)]);
        }
        if let Some(strict) = options.strict {
            let name = if strict { "STRICT" } else { "SLOPPY" };
            get.push(word(name));
            put.push(word(name));
        }
        Self::Versioned { get, put }
    }
}

impl Resp {
    pub(crate) fn new(commands: Commands) -> Self {
        Self { scanner: ReplyScanner::new(ReplyLimits::default()), commands }
    }

    pub(crate) fn encode_get(&self, key: &[u8], out: &mut Vec<u8>) {
        match &self.commands {
            Commands::Plain => write_command(out, &[b"GET", key]),
            Commands::Versioned { get, .. } => write_with(out, &[b"KV.GET", key], get),
        }
    }

    pub(crate) fn encode_put(&self, key: &[u8], value: &[u8], context: Option<&[u8]>, out: &mut Vec<u8>) {
        match (&self.commands, context) {
            (Commands::Plain, _) => write_command(out, &[b"SET", key, value]),
            (Commands::Versioned { put, .. }, None) => write_with(out, &[b"KV.PUT", key, value], put),
            (Commands::Versioned { put, .. }, Some(context)) => {
                write_with(out, &[b"KV.PUT", key, value, b"CTX", context], put);
            }
        }
    }

    pub(crate) fn decode<'a>(&mut self, input: &'a [u8], oldest: Option<Step>) -> Result<Option<Answer<'a>>, String> {
        if input.is_empty() {
            return Ok(None);
        }
        let Some(length) = self.scanner.scan(input).map_err(|error| error.to_string())? else { return Ok(None) };
        let Some(step) = oldest else { return Err("an answer that nobody asked for".to_owned()) };
        let outcome = match (Reply::parse(&input[..length]), step) {
            (Reply::Error(text), _) => Outcome::Failed(failed(text)),
            (Reply::Bulk(value), Step::Get) => Outcome::Values { first: Some(value), more: Vec::new(), context: b"" },
            (Reply::Null, Step::Get) => Outcome::Values { first: None, more: Vec::new(), context: b"" },
            (Reply::Array(parts), Step::Get) => versioned(&parts)?,
            (Reply::Simple(_), Step::Put) => Outcome::Written { context: b"" },
            (Reply::Bulk(context), Step::Put) => Outcome::Written { context },
            (other, _) => return Err(format!("an answer of another shape than asked for: {}", shape(&other))),
        };
        Ok(Some(Answer { length, id: None, outcome }))
    }
}

/// `[context, [value, …]]`
fn versioned<'a>(parts: &[Reply<'a>]) -> Result<Outcome<'a>, String> {
    let [Reply::Bulk(context), values] = parts else { return Err("KV.GET answers context and values".to_owned()) };
    let mut values = values.as_elements().unwrap_or_default().iter().filter_map(Reply::as_bytes);
    Ok(Outcome::Values { first: values.next(), more: values.collect(), context })
}

fn failed(text: &[u8]) -> Failed {
    let text = String::from_utf8_lossy(text).into_owned();
    let class: String = text.split_whitespace().next().unwrap_or("ERR").chars().take(32).collect();
    let nothing_written = NOTHING_WRITTEN.contains(&class.as_str()) || text.starts_with("ERR unknown command");
    Failed { class, text, nothing_written }
}

/// For a message: what came, without its content.
fn shape(reply: &Reply<'_>) -> &'static str {
    match reply {
        Reply::Simple(_) => "a status",
        Reply::Integer(_) => "an integer",
        Reply::Bulk(_) => "a string",
        Reply::Null => "no value",
        Reply::Array(_) => "an array",
        Reply::Push(_) => "a push message",
        _ => "something else",
    }
}

fn write_with(out: &mut Vec<u8>, head: &[&[u8]], tail: &[Vec<u8>]) {
    // Five before the options and five of options are the most there are.
    let mut arguments: [&[u8]; 12] = [b""; 12];
    let mut count = 0;
    for argument in head.iter().copied().chain(tail.iter().map(Vec::as_slice)) {
        arguments[count] = argument;
        count += 1;
    }
    write_command(out, &arguments[..count]);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn versioned_commands() -> Commands {
        Commands::versioned(&RequestOptions {
            read_quorum: Some(2),
            write_quorum: Some(3),
            durability: Some(Durability::One),
            strict: Some(true),
            timeout: Duration::from_secs(1),
        })
    }

    #[test]
    fn requests_are_commands() {
        let mut out = Vec::new();
        let plain = Resp::new(Commands::Plain);
        plain.encode_get(b"k", &mut out);
        plain.encode_put(b"k", b"v", Some(b"ignored"), &mut out);
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n");
        out.clear();
        Resp::new(versioned_commands()).encode_put(b"k", b"v", Some(b""), &mut out);
        let text = String::from_utf8(out).unwrap();
        let words: Vec<_> = text.split("\r\n").filter(|word| !word.starts_with(['*', '$'])).collect();
        assert_eq!(words, ["KV.PUT", "k", "v", "CTX", "", "W", "3", "DURABILITY", "one", "STRICT", ""]);
    }

    fn check(input: &str, step: Step, expected: &Outcome<'_>) {
        let mut resp = Resp::new(Commands::Plain);
        for cut in 0..input.len() {
            assert_eq!(resp.decode(&input.as_bytes()[..cut], Some(step)), Ok(None), "{input:?} cut at {cut}");
        }
        let answer = resp.decode(input.as_bytes(), Some(step)).unwrap().unwrap();
        assert_eq!((answer.length, &answer.outcome), (input.len(), expected));
    }

    #[test]
    fn answers_are_read_in_any_pieces() {
        let value = |first, more, context| Outcome::Values { first, more, context };
        check("$2\r\nab\r\n", Step::Get, &value(Some(b"ab"), vec![], b""));
        check("$-1\r\n", Step::Get, &value(None, vec![], b""));
        check("*2\r\n$1\r\nc\r\n*0\r\n", Step::Get, &value(None, vec![], b"c"));
        check("*2\r\n$1\r\nc\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n", Step::Get, &value(Some(b"a"), vec![b"b"], b"c"));
        check("+OK\r\n", Step::Put, &Outcome::Written { context: b"" });
        check("$1\r\nc\r\n", Step::Put, &Outcome::Written { context: b"c" });
    }

    #[test]
    fn errors_say_whether_something_was_written() {
        for (text, class, nothing_written) in [
            ("OOM command not allowed", "OOM", true),
            ("ERR unknown command 'KV.PUT', with args", "ERR", true),
            ("TIMEOUT 1 of 2", "TIMEOUT", false),
            ("ERR whatever", "ERR", false),
        ] {
            let failed = Failed { class: class.to_owned(), text: text.to_owned(), nothing_written };
            check(&format!("-{text}\r\n"), Step::Put, &Outcome::Failed(failed));
        }
    }

    #[test]
    fn nonsense_ends_the_connection() {
        let mut resp = Resp::new(Commands::Plain);
        assert!(resp.decode(b"+OK\r\n", None).is_err());
        assert!(resp.decode(b"+OK\r\n", Some(Step::Get)).is_err());
        assert!(Resp::new(Commands::Plain).decode(b"nonsense\r\n", Some(Step::Get)).is_err());
    }
}
