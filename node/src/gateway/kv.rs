//! The commands that Redis has not: they show what Dynamo is about, contexts and siblings (section 4.4).
//!
//! | command | reply |
//! |---|---|
//! | `KV.GET key [R n] [STRICT\|SLOPPY]` | the context, and an array of all siblings, the winner first |
//! | `KV.PUT key value [CTX context] [W n] [DURABILITY d] [ID token] [STRICT\|SLOPPY]` | the new context |
//! | `KV.DEL key [CTX context] [W n] [DURABILITY d] [ID token] [STRICT\|SLOPPY]` | the new context |
//!
//! Without `CTX` a write replaces what the coordinator holds; with an empty one it has seen nothing, and makes a
//! sibling. `d` is `durable`, `one` or `buffered`. `ID` names one logical write, so a retry with the same name is
//! applied once. Not here: the context's form (`context`).

use bytes::Bytes;
use quorate_net::{
    bounds::CONTEXT_BYTES_MAX,
    message::{Consistency, Durability, Get, Operation, Put},
    resp::{Command, parse_integer},
};
use xxhash_rust::xxh3::xxh3_128;

use super::{
    GatewayLimits, NodeView,
    data::{Planned, argument, key, put_of, value},
    reply::Shape,
    session::Plan,
};

/// The most bytes in the name that `ID` gives to a write.
const TOKEN_BYTES_MAX: usize = 256;

pub(super) fn get(command: Command<'_>, _: &GatewayLimits, node: &dyn NodeView) -> Planned {
    let key = key(argument(command, 1))?;
    let mut get = Get { key, quorum: 0, consistency: Consistency::default(), wants_context: true };
    let mut options = Options { command, at: 2 };
    while let Some(name) = options.next_name() {
        match name.as_str() {
            "R" => get.quorum = options.quorum("R", node)?,
            other => get.consistency = consistency(other)?,
        }
    }
    Ok(Plan { shape: Shape::Siblings, first: Operation::Get(get), more: Vec::new() })
}

pub(super) fn put(command: Command<'_>, limits: &GatewayLimits, node: &dyn NodeView) -> Planned {
    let value = value(argument(command, 2), limits)?;
    write(put_of(key(argument(command, 1))?, Some(value)), Options { command, at: 3 }, node)
}

pub(super) fn del(command: Command<'_>, _: &GatewayLimits, node: &dyn NodeView) -> Planned {
    write(put_of(key(argument(command, 1))?, None), Options { command, at: 2 }, node)
}

fn write(mut put: Put, mut options: Options<'_>, node: &dyn NodeView) -> Planned {
    put.wants_context = true;
    while let Some(name) = options.next_name() {
        match name.as_str() {
            "CTX" => put.context = Some(context(options.argument()?)?),
            "W" => put.quorum = options.quorum("W", node)?,
            "DURABILITY" => put.durability = durability(options.argument()?)?,
            "ID" => put.token = Some(token(options.argument()?)?),
            other => put.consistency = consistency(other)?,
        }
    }
    Ok(Plan { shape: Shape::Context, first: Operation::Put(put), more: Vec::new() })
}

/// The options at the end of a command, by name, in any order.
struct Options<'a> {
    command: Command<'a>,
    at: usize,
}

impl<'a> Options<'a> {
    fn next_name(&mut self) -> Option<String> {
        let name = self.command.argument(self.at)?;
        self.at += 1;
        Some(String::from_utf8_lossy(name).to_ascii_uppercase())
    }

    fn argument(&mut self) -> Result<&'a [u8], String> {
        let argument = self.command.argument(self.at).ok_or_else(|| SYNTAX.to_owned())?;
        self.at += 1;
        Ok(argument)
    }

    fn quorum(&mut self, name: &str, node: &dyn NodeView) -> Result<u8, String> {
        let replicas = node.map().replicas;
        let quorum = parse_integer(self.argument()?).and_then(|n| u8::try_from(n).ok());
        quorum
            .filter(|n| (1..=replicas).contains(n))
            .ok_or_else(|| format!("ERR {name} must be a number from 1 to {replicas}; nothing was done"))
    }
}

const SYNTAX: &str = "ERR syntax error";

fn consistency(name: &str) -> Result<Consistency, String> {
    match name {
        "STRICT" => Ok(Consistency::Strict),
        "SLOPPY" => Ok(Consistency::Sloppy),
        _ => Err(SYNTAX.to_owned()),
    }
}

/// What a client calls it.
pub(crate) fn durability(name: &[u8]) -> Result<Durability, String> {
    match name.to_ascii_lowercase().as_slice() {
        b"durable" => Ok(Durability::Durable),
        b"one" => Ok(Durability::One),
        b"buffered" => Ok(Durability::Buffered),
        _ => Err("ERR DURABILITY must be durable, one or buffered; nothing was done".to_owned()),
    }
}

fn context(bytes: &[u8]) -> Result<Bytes, String> {
    let length = bytes.len();
    if length > CONTEXT_BYTES_MAX {
        return Err(format!(
            "ERR the context has {length} bytes, at most {CONTEXT_BYTES_MAX} are allowed; nothing was done"
        ));
    }
    Ok(Bytes::copy_from_slice(bytes))
}

/// Any name will do: what travels is its hash.
fn token(name: &[u8]) -> Result<u128, String> {
    if name.is_empty() || name.len() > TOKEN_BYTES_MAX {
        return Err(format!("ERR ID must have 1 to {TOKEN_BYTES_MAX} bytes; nothing was done"));
    }
    Ok(xxh3_128(name))
}
