//! The data commands of Redis: each becomes gets and puts.
//!
//! The rule: a command is read as a whole, and refused as a whole, before its first request is made.
//!
//! A `SET` or a `DEL` carries no context, so it replaces what the coordinator holds at that moment; only writes that
//! are truly concurrent make siblings. `GET` answers the winner among them and keeps them all. Not here: the commands
//! that show contexts and siblings (`kv`).

use bytes::Bytes;
use quorate_net::{
    key::{DEFAULT_BUCKET, Key},
    message::{Consistency, Durability, Get, Operation, Put},
    resp::Command,
};

use super::{GatewayLimits, NodeView, command::wrong_arity, reply::Shape, session::Plan};

/// What a command asks, or the error that it gets.
pub(super) type Planned = Result<Plan, String>;

/// The options of Redis' `SET` that would need more than a put, and the arguments that each takes.
const SET_OPTIONS: [(&str, usize); 9] =
    [("NX", 0), ("XX", 0), ("GET", 0), ("KEEPTTL", 0), ("EX", 1), ("PX", 1), ("EXAT", 1), ("PXAT", 1), ("IFEQ", 1)];

pub(super) fn get(command: Command<'_>, _: &GatewayLimits, _: &dyn NodeView) -> Planned {
    one_get(command, 1, Shape::Value)
}

pub(super) fn strlen(command: Command<'_>, _: &GatewayLimits, _: &dyn NodeView) -> Planned {
    one_get(command, 1, Shape::Length)
}

pub(super) fn kind(command: Command<'_>, _: &GatewayLimits, _: &dyn NodeView) -> Planned {
    one_get(command, 1, Shape::Type)
}

pub(super) fn mget(command: Command<'_>, _: &GatewayLimits, _: &dyn NodeView) -> Planned {
    each(command, Shape::Values, |name| Ok(get_of(key(name)?, false)))
}

pub(super) fn exists(command: Command<'_>, _: &GatewayLimits, _: &dyn NodeView) -> Planned {
    each(command, Shape::Present, |name| Ok(get_of(key(name)?, false)))
}

pub(super) fn del(command: Command<'_>, _: &GatewayLimits, _: &dyn NodeView) -> Planned {
    each(command, Shape::Deleted, |name| Ok(Operation::Put(put_of(key(name)?, None))))
}

/// `MEMORY USAGE key [SAMPLES n]`; what it says is checked by its container.
pub(super) fn memory_usage(command: Command<'_>) -> Planned {
    one_get(command, 2, Shape::Memory { key_bytes: argument(command, 2).len() })
}

pub(super) fn set(command: Command<'_>, limits: &GatewayLimits, _: &dyn NodeView) -> Planned {
    if let Some(option) = command.argument(3) {
        return Err(refuse_set_option(command, option));
    }
    let put = put_of(key(argument(command, 1))?, Some(value(argument(command, 2), limits)?));
    Ok(Plan { shape: Shape::Ok, first: Operation::Put(put), more: Vec::new() })
}

pub(super) fn mset(command: Command<'_>, limits: &GatewayLimits, _: &dyn NodeView) -> Planned {
    if command.len().is_multiple_of(2) {
        return Err(wrong_arity("mset"));
    }
    let mut puts = Vec::with_capacity(command.len() / 2);
    for at in (1..command.len()).step_by(2) {
        let put = put_of(key(argument(command, at))?, Some(value(argument(command, at + 1), limits)?));
        puts.push(Operation::Put(put));
    }
    several(Shape::Ok, puts)
}

/// The argument that the command's arity promises.
pub(super) fn argument(command: Command<'_>, index: usize) -> &[u8] {
    command.argument(index).expect("arity was checked")
}

/// A key's name as a client gives it.
pub(super) fn key(name: &[u8]) -> Result<Key, String> {
    Key::new(DEFAULT_BUCKET, name).map_err(|error| format!("ERR {error}; nothing was done"))
}

/// A value as a client gives it.
pub(super) fn value(bytes: &[u8], limits: &GatewayLimits) -> Result<Bytes, String> {
    let (length, max) = (bytes.len(), limits.value_bytes_max);
    if length > max {
        return Err(format!("ERR the value has {length} bytes, at most {max} are allowed; nothing was written"));
    }
    Ok(Bytes::copy_from_slice(bytes))
}

fn get_of(key: Key, wants_context: bool) -> Operation {
    Operation::Get(Get { key, quorum: 0, consistency: Consistency::default(), wants_context })
}

/// A put by the cluster's defaults, without context, and whose context nobody wants.
pub(super) fn put_of(key: Key, value: Option<Bytes>) -> Put {
    Put {
        key,
        value,
        context: None,
        quorum: 0,
        durability: Durability::default(),
        consistency: Consistency::default(),
        token: None,
        wants_context: false,
    }
}

fn one_get(command: Command<'_>, at: usize, shape: Shape) -> Planned {
    let wants_context = matches!(shape, Shape::Memory { .. });
    Ok(Plan { shape, first: get_of(key(argument(command, at))?, wants_context), more: Vec::new() })
}

fn each(command: Command<'_>, shape: Shape, operation: impl Fn(&[u8]) -> Result<Operation, String>) -> Planned {
    several(shape, command.arguments().skip(1).map(operation).collect::<Result<_, _>>()?)
}

fn several(shape: Shape, mut operations: Vec<Operation>) -> Planned {
    let more = operations.split_off(1);
    let first = operations.pop().expect("arity gives one key at the least");
    Ok(Plan { shape, first, more })
}

fn refuse_set_option(command: Command<'_>, option: &[u8]) -> String {
    let known = SET_OPTIONS.iter().find(|(name, _)| option.eq_ignore_ascii_case(name.as_bytes()));
    match known {
        Some((name, arguments)) if command.len() >= 4 + arguments => format!(
            "ERR SET option '{name}' is not supported, nothing was written: keys do not expire, and a condition cannot \
             be checked on all replicas at once; use KV.GET and KV.PUT with its context instead"
        ),
        _ => "ERR syntax error".to_owned(),
    }
}
