//! From the outcomes of requests to the reply of a command.
//!
//! The rule: a command of several keys fails as a whole when one of them fails, and says if others may have been
//! written.
//!
//! Not here: which requests a command makes (`data`, `kv`).

use bytes::Bytes;
use quorate_net::{
    message::{Failure, Outcome},
    resp::Writer,
};

/// What a command's reply is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// `GET`: the winner among the values, or nothing.
    Value,
    /// `STRLEN`: its length.
    Length,
    /// `TYPE`.
    Type,
    /// `MEMORY USAGE`: about what all siblings take, for a key of so many bytes.
    Memory { key_bytes: usize },
    /// `EXISTS`: how many keys have a value.
    Present,
    /// `DEL`: how many keys had a value.
    Deleted,
    /// `SET`, `MSET`.
    Ok,
    /// `MGET`: the winners of all keys.
    Values,
    /// `KV.GET`: the context and all siblings.
    Siblings,
    /// `KV.PUT`, `KV.DEL`: the new context.
    Context,
}

/// The outcomes of one command's requests as they come in.
pub(super) struct Gather {
    shape: Shape,
    left: usize,
    parts: usize,
    /// The first that came.
    failure: Option<Failure>,
    /// What the reply needs of the others, by the kind of shape.
    kept: Kept,
}

enum Kept {
    One(Option<Outcome>),
    Count(i64),
    Values(Vec<Option<Bytes>>),
}

impl Gather {
    pub(super) fn new(shape: Shape, parts: usize) -> Self {
        let kept = match shape {
            Shape::Values => Kept::Values(vec![None; parts]),
            Shape::Present | Shape::Deleted | Shape::Ok => Kept::Count(0),
            _ => Kept::One(None),
        };
        Self { shape, left: parts, parts, failure: None, kept }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.left == 0
    }

    /// Adds the outcome of one request. Gives the bytes that are kept of it.
    pub(super) fn add(&mut self, part: u32, outcome: Outcome) -> usize {
        self.left = self.left.checked_sub(1).expect("each request is answered once");
        if let Outcome::Failed(failure) = outcome {
            self.failure.get_or_insert(failure);
            return 0;
        }
        match &mut self.kept {
            Kept::One(kept) => {
                *kept = Some(outcome);
                self.held_bytes()
            }
            Kept::Count(count) => {
                *count += i64::from(counts(self.shape, &outcome));
                0
            }
            Kept::Values(values) => {
                let Outcome::Values { values: siblings, .. } = outcome else { return 0 };
                let winner = siblings.into_iter().next();
                let bytes = winner.as_ref().map_or(0, Bytes::len);
                values[part as usize] = winner;
                bytes
            }
        }
    }

    /// Bytes of values that are kept until the reply is written.
    pub(super) fn held_bytes(&self) -> usize {
        match &self.kept {
            Kept::One(Some(Outcome::Values { values, .. })) => values.iter().map(Bytes::len).sum(),
            Kept::Values(values) => values.iter().flatten().map(Bytes::len).sum(),
            Kept::One(_) | Kept::Count(_) => 0,
        }
    }

    /// Writes the reply, once complete.
    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        assert!(self.is_complete(), "a reply is written when all is known");
        if let Some(failure) = &self.failure {
            let partly = self.parts > 1 && matches!(self.shape, Shape::Ok | Shape::Deleted);
            let more = if partly { " (this is about one of the keys, others may have been written)" } else { "" };
            return writer.error(&format!("{} {failure}{more}", code(failure)));
        }
        match &self.kept {
            Kept::Count(_) if self.shape == Shape::Ok => writer.ok(),
            Kept::Count(count) => writer.integer(*count),
            Kept::Values(values) => {
                writer.array(values.len());
                values.iter().for_each(|value| write_value(writer, value.as_ref()));
            }
            Kept::One(outcome) => write_one(writer, self.shape, outcome.as_ref().expect("complete")),
        }
    }
}

fn write_one(writer: &mut Writer<'_>, shape: Shape, outcome: &Outcome) {
    match (shape, outcome) {
        (Shape::Value, Outcome::Values { values, .. }) => write_value(writer, values.first()),
        (Shape::Length, Outcome::Values { values, .. }) => writer.integer(values.first().map_or(0, Bytes::len) as i64),
        (Shape::Type, Outcome::Values { values, .. }) if values.is_empty() => writer.simple("none"),
        (Shape::Type, Outcome::Values { .. }) => writer.simple("string"),
        (Shape::Memory { .. }, Outcome::Values { values, .. }) if values.is_empty() => writer.null(),
        (Shape::Memory { key_bytes }, Outcome::Values { context, values, .. }) => {
            let bytes: usize = values.iter().map(Bytes::len).sum();
            writer.integer((key_bytes + context.len() + bytes) as i64);
        }
        (Shape::Siblings, Outcome::Values { context, values, .. }) => {
            writer.array(2);
            writer.bulk(context);
            writer.array(values.len());
            values.iter().for_each(|value| writer.bulk(value));
        }
        (Shape::Context, Outcome::Written { context, .. }) => writer.bulk(context),
        _ => writer.error("ERR internal error: the node answered something else than was asked for"),
    }
}

fn write_value(writer: &mut Writer<'_>, value: Option<&Bytes>) {
    match value {
        Some(value) => writer.bulk(value),
        None => writer.null(),
    }
}

fn counts(shape: Shape, outcome: &Outcome) -> bool {
    match (shape, outcome) {
        (Shape::Present, Outcome::Values { values, .. }) => !values.is_empty(),
        (Shape::Deleted, Outcome::Written { replaced, .. }) => *replaced,
        _ => false,
    }
}

/// The word that a client's library sees first. `TRYAGAIN` makes those for Redis Cluster retry by themselves, which is
/// safe since nothing was started.
pub(crate) fn code(failure: &Failure) -> &'static str {
    match failure {
        Failure::Timeout { .. } => "TIMEOUT",
        Failure::Unavailable { .. } => "UNAVAILABLE",
        Failure::Overloaded { .. } => "TRYAGAIN",
        Failure::DiskFull => "DISKFULL",
        Failure::StoreFailed => "STOREFAILED",
        Failure::BadContext => "BADCONTEXT",
        Failure::TooManySiblings { .. } => "SIBLINGS",
        Failure::Corrupt => "CORRUPT",
        Failure::TooLarge { .. } | Failure::BadRequest(_) => "ERR",
    }
}
