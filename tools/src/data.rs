//! `quorate get`, `put` and `del`: one key, through the native client.
//!
//! The rule: a value is bytes. A lone one is written as it is; nothing is added but for a person at a terminal, and what
//! JSON cannot hold as text it holds as base64.

use std::{
    ffi::OsString,
    io::{self, IsTerminal, Read, Write},
    os::unix::ffi::OsStrExt,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use clap::ValueEnum;
use quorate_net::{
    bounds,
    client::{ClientError, Found, GetOptions, PutOptions, Written},
    key::Key,
    message,
};
use serde_json::{Value, json};

use crate::{
    failure::{Failure, failed},
    nodes::Common,
};

/// Read a key: its value, or all its siblings with the context that resolves them
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate get greeting                          # exit code 1 if there is no such key
  quorate get photo --strict > photo.jpg        # the value as it is; the last one that was written
  quorate get greeting --json | jq -r .value    # `values` holds all siblings, the latest first; null: there is none")]
pub(crate) struct GetArgs {
    #[command(flatten)]
    of: KeyArgs,
    /// How many replicas must answer [default: the cluster's R]
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u8).range(1..=7))]
    r: Option<u8>,
    #[command(flatten)]
    request: RequestArgs,
}

/// Write a key
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate put greeting hello
  quorate put photo - < photo.jpg                      # the value from the standard input
  quorate put cart 'apples, pears' --context AAEC      # replaces what the context, which `get` printed, has seen
  quorate put order paid --id 7d2f4c1a                 # may be said again until it succeeds: it is applied once")]
pub(crate) struct PutArgs {
    #[command(flatten)]
    of: KeyArgs,
    /// The value; `-` reads it from the standard input
    value: OsString,
    #[command(flatten)]
    write: WriteArgs,
    #[command(flatten)]
    request: RequestArgs,
}

/// Delete a key
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate del greeting
  quorate del cart --context AAEC       # only what the context, which `get` printed, has seen")]
pub(crate) struct DelArgs {
    #[command(flatten)]
    of: KeyArgs,
    #[command(flatten)]
    write: WriteArgs,
    #[command(flatten)]
    request: RequestArgs,
}

#[derive(clap::Args)]
struct KeyArgs {
    /// The key
    key: OsString,
    /// The bucket that the key is in; RESP clients speak to `default`
    #[arg(long, default_value = "default")]
    bucket: String,
}

#[derive(clap::Args)]
struct RequestArgs {
    /// Only primaries count: with R + W > N a read then sees the last write
    #[arg(long, conflicts_with = "sloppy")]
    strict: bool,
    /// Fallbacks count too: always writable. The default
    #[arg(long)]
    sloppy: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
struct WriteArgs {
    /// What was seen, as `get` printed it: replaces just that. Empty: nothing was seen, so the value becomes a sibling.
    /// Without it: replaces what is there
    #[arg(long)]
    context: Option<String>,
    /// How many replicas must have it [default: the cluster's W]
    #[arg(long, value_name = "W", value_parser = clap::value_parser!(u8).range(1..=7))]
    w: Option<u8>,
    /// What must be on disk before the answer
    #[arg(long, value_enum, default_value = "durable")]
    durability: Durability,
    /// The same for each attempt at one write (up to 32 hexadecimal digits, such as a UUID): it is then applied once
    #[arg(long, value_name = "TOKEN", value_parser = token)]
    id: Option<u128>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Durability {
    /// On the disks of W nodes
    Durable,
    /// On the disk of one of the W nodes
    One,
    /// In the memory of W nodes
    Buffered,
}

pub(crate) fn get(args: &GetArgs) -> Result<(), Failure> {
    let options = GetOptions { quorum: args.r.unwrap_or(0), consistency: args.request.consistency() };
    let key = args.of.key()?;
    let found = args.request.common.connect()?.get(&key, options).map_err(|error| told(&error))?;
    let output = io::stdout();
    let for_person = output.is_terminal();
    let written = write_found(&mut output.lock(), &key, &found, args.request.common.json, for_person);
    written.map_err(|error| failed(format!("cannot write the value: {error}")))?;
    if found.values.is_empty() {
        let key = key.name().escape_ascii();
        return Err(failed(format!("there is no key {key}: `quorate put {key} VALUE` makes it")));
    }
    Ok(())
}

pub(crate) fn put(args: &PutArgs) -> Result<(), Failure> {
    let value = if args.value == "-" { read_value()? } else { Bytes::copy_from_slice(args.value.as_bytes()) };
    let (key, options) = (args.of.key()?, args.write.options(&args.request));
    let written = args.request.common.connect()?.put(&key, value, &options).map_err(|error| told(&error))?;
    print_written(&key, &written, args.request.common.json);
    Ok(())
}

pub(crate) fn del(args: &DelArgs) -> Result<(), Failure> {
    let (key, options) = (args.of.key()?, args.write.options(&args.request));
    let written = args.request.common.connect()?.delete(&key, &options).map_err(|error| told(&error))?;
    print_written(&key, &written, args.request.common.json);
    Ok(())
}

impl KeyArgs {
    fn key(&self) -> Result<Key, Failure> {
        Key::new(self.bucket.as_bytes(), self.key.as_bytes()).map_err(|error| Failure::Usage(error.to_string()))
    }
}

impl RequestArgs {
    fn consistency(&self) -> message::Consistency {
        if self.strict { message::Consistency::Strict } else { message::Consistency::Sloppy }
    }
}

impl WriteArgs {
    fn options(&self, request: &RequestArgs) -> PutOptions {
        PutOptions {
            context: self.context.as_ref().map(|context| Bytes::copy_from_slice(context.as_bytes())),
            quorum: self.w.unwrap_or(0),
            durability: match self.durability {
                Durability::Durable => message::Durability::Durable,
                Durability::One => message::Durability::One,
                Durability::Buffered => message::Durability::Buffered,
            },
            consistency: request.consistency(),
            token: self.id,
        }
    }
}

fn token(text: &str) -> Result<u128, String> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    if digits.is_empty() || digits.len() > 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("must be 1 to 32 hexadecimal digits; dashes are passed over".to_owned());
    }
    u128::from_str_radix(&digits, 16).map_err(|error| error.to_string())
}

fn read_value() -> Result<Bytes, Failure> {
    let mut value = Vec::new();
    let limit = bounds::VALUE_BYTES_MAX as u64;
    let read = io::stdin().lock().take(limit + 1).read_to_end(&mut value);
    read.map_err(|error| failed(format!("cannot read the value from the standard input: {error}")))?;
    if value.len() as u64 > limit {
        return Err(failed(format!(
            "the value on the standard input has more than {limit} bytes; nothing was changed: put it in parts"
        )));
    }
    Ok(value.into())
}

/// A lone value is written as it is, so that `quorate get KEY > FILE` is the value.
fn write_found(out: &mut dyn Write, key: &Key, found: &Found, json: bool, for_person: bool) -> io::Result<()> {
    if json {
        let values: Vec<Value> = found.values.iter().map(|value| as_json(value)).collect();
        let context = String::from_utf8_lossy(&found.context);
        let key = as_json(key.name());
        let (value, sloppy) = (values.first(), found.sloppy);
        let found = json!({"key": key, "value": value, "values": values, "context": context, "sloppy": sloppy});
        return writeln!(out, "{found}");
    }
    match found.values.as_slice() {
        [] => Ok(()),
        [value] => {
            out.write_all(value)?;
            if for_person {
                writeln!(out, "\n(context {})", String::from_utf8_lossy(&found.context))?;
            }
            Ok(())
        }
        siblings => {
            writeln!(out, "{} siblings, written concurrently; the latest first:", siblings.len())?;
            for (number, value) in siblings.iter().enumerate() {
                writeln!(out, "  {}: {}", number + 1, value.escape_ascii())?;
            }
            writeln!(out, "context {}", String::from_utf8_lossy(&found.context))?;
            writeln!(out, "Resolve them: quorate put KEY VALUE --context CONTEXT")
        }
    }
}

fn print_written(key: &Key, written: &Written, json: bool) {
    let context = String::from_utf8_lossy(&written.context);
    if json {
        let (key, replaced, sloppy) = (as_json(key.name()), written.replaced, written.sloppy);
        println!("{}", json!({"key": key, "context": context, "replaced": replaced, "sloppy": sloppy}));
    } else {
        println!("OK (context {context})");
    }
}

fn as_json(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::String(text.to_owned()),
        Err(_) => json!({"base64": STANDARD.encode(bytes)}),
    }
}

/// The error, with how to try again where that needs something.
fn told(error: &ClientError) -> Failure {
    let token = match error {
        ClientError::Unanswered { token, .. } | ClientError::Refused { token, .. } => *token,
        _ => None,
    };
    let mut text = error.to_string();
    if let Some(token) = token.filter(|_| error.may_have_changed()) {
        text += &format!(" (--id {token:032x})");
    }
    let short_of_nodes = match error {
        ClientError::Unanswered { .. } => true,
        ClientError::Refused { failure, .. } => {
            matches!(failure, message::Failure::Timeout { .. } | message::Failure::Unavailable { .. })
        }
        _ => false,
    };
    if short_of_nodes {
        text += "; `quorate status` shows which nodes are down";
    }
    failed(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(values: &[&'static [u8]], json: bool, for_person: bool) -> String {
        let values = values.iter().map(|value| Bytes::from_static(value)).collect();
        let found = Found { context: Bytes::from_static(b"c0ntext"), values, sloppy: false };
        let mut out = Vec::new();
        write_found(&mut out, &Key::new(b"default", b"k").unwrap(), &found, json, for_person).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_lone_value_is_written_raw() {
        assert_eq!(text_of(&[b"v"], false, false), "v");
        assert_eq!(text_of(&[b"v"], false, true), "v\n(context c0ntext)\n");
        assert_eq!(text_of(&[], false, true), "");
    }

    #[test]
    fn siblings_come_with_their_context() {
        let text = text_of(&[b"tea", b"\xff"], false, false);
        assert!(
            text.contains("1: tea\n") && text.contains("2: \\xff\n") && text.contains("context c0ntext\n"),
            "{text}"
        );
    }

    #[test]
    fn json_holds_any_bytes() {
        let value: Value = serde_json::from_str(&text_of(&[b"tea", b"\xff"], true, true)).unwrap();
        let values = json!(["tea", {"base64": "/w=="}]);
        let wanted = json!({"key": "k", "value": "tea", "values": values, "context": "c0ntext", "sloppy": false});
        assert_eq!(value, wanted);
        let none: Value = serde_json::from_str(&text_of(&[], true, true)).unwrap();
        assert_eq!((&none["value"], &none["values"]), (&Value::Null, &json!([])));
    }

    #[test]
    fn a_token_is_hexadecimal() {
        assert_eq!(token("ff"), Ok(255));
        assert_eq!(token("00000000-0000-0000-0000-000000000010"), Ok(16));
        for text in ["", "-", "xyz", "+1", "123456789012345678901234567890123"] {
            assert!(token(text).is_err(), "{text}");
        }
    }
}
