//! How a get and a put are written to a connection and how what comes back is read.
//!
//! The rule: bytes in, outcomes out; an outcome says whether the write may have happened.
//!
//! Not here: sockets (`connection`), which connection a key goes to (`route`).

mod etcd;
mod http2;
mod memcached;
mod native;
mod resp;

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

pub(crate) use etcd::Etcd;
pub(crate) use memcached::Memcached;
pub(crate) use native::Native;
pub(crate) use resp::{Commands, Resp};

/// What one request does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Reads a key.
    Get,
    /// Writes a key.
    Put,
}

/// The options of requests, the same for the whole run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct RequestOptions {
    /// R; `None` is the cluster's default.
    pub read_quorum: Option<u8>,
    /// W; `None` is the cluster's default.
    pub write_quorum: Option<u8>,
    /// What must be on disk before the answer.
    pub durability: Option<Durability>,
    /// Whether fallbacks count; `None` is the cluster's default.
    pub strict: Option<bool>,
    /// How long the generator waits for an answer.
    pub timeout: Duration,
}

/// How many copies are on disk before a put is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// On the disks of W nodes.
    Durable,
    /// On one disk, and in the memory of the others of W.
    One,
    /// In the memory of W nodes.
    Buffered,
}

/// One request's answer.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Outcome<'a> {
    /// To a get: the values, the winner first. None: the key is absent.
    Values { first: Option<&'a [u8]>, more: Vec<&'a [u8]>, context: &'a [u8] },
    /// To a put. The context is empty where the protocol has none.
    Written { context: &'a [u8] },
    /// To anything that did not work.
    Failed(Failed),
}

/// Why a request failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Failed {
    /// A few words at most: errors are counted by it.
    pub class: String,
    /// The whole message.
    pub text: String,
    /// Whether a put can be taken as never happened.
    pub nothing_written: bool,
}

/// A whole answer that was read from a connection.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Answer<'a> {
    /// Its bytes, which are read now.
    pub length: usize,
    /// The request's id, or `None` when answers come in the order of the requests.
    pub id: Option<u64>,
    /// What came of it.
    pub outcome: Outcome<'a>,
}

/// One connection's protocol.
pub(crate) enum Protocol {
    /// Redis's, with or without the commands that are Quorate's own.
    Resp(Resp),
    /// Quorate's own.
    Native(Native),
    /// memcached's, in text.
    Memcached(Memcached),
    /// etcd's, by gRPC.
    Etcd(Box<Etcd>),
}

impl Protocol {
    pub(crate) fn encode_get(&mut self, id: u64, key: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Resp(resp) => resp.encode_get(key, out),
            Self::Native(native) => native.encode_get(id, key, out),
            Self::Memcached(memcached) => memcached.encode_get(key, out),
            Self::Etcd(etcd) => etcd.encode_get(id, key, out),
        }
    }

    /// `context`: what the writer has seen; `None` replaces whatever is there.
    pub(crate) fn encode_put(&mut self, id: u64, key: &[u8], value: &[u8], context: Option<&[u8]>, out: &mut Vec<u8>) {
        match self {
            Self::Resp(resp) => resp.encode_put(key, value, context, out),
            Self::Native(native) => native.encode_put(id, key, value, context, out),
            Self::Memcached(memcached) => memcached.encode_put(key, value, out),
            Self::Etcd(etcd) => etcd.encode_put(id, key, value, out),
        }
    }

    /// The first answer in `input`, if it is whole. `oldest` is the step of the oldest request without an answer. Ask
    /// again with the same bytes, but for [`Protocol::take_parsed`] of them, and those that follow.
    ///
    /// # Errors
    /// When these bytes are no answer: the connection is of no use any more.
    pub(crate) fn decode<'a>(
        &'a mut self,
        input: &'a [u8],
        oldest: Option<Step>,
    ) -> Result<Option<Answer<'a>>, String> {
        match self {
            Self::Resp(resp) => resp.decode(input, oldest),
            Self::Native(native) => native.decode(input),
            Self::Memcached(memcached) => memcached.decode(input, oldest),
            Self::Etcd(etcd) => etcd.decode(input),
        }
    }

    /// After [`Protocol::decode`] gave nothing: how many bytes at the beginning of its input are used up all the same, by
    /// answers to several requests that come in pieces, and by what is no answer.
    pub(crate) fn take_parsed(&mut self) -> usize {
        if let Self::Etcd(etcd) = self { etcd.take_parsed() } else { 0 }
    }

    /// What the server shall have besides requests, after it was listened to.
    pub(crate) fn take_owed(&mut self, out: &mut Vec<u8>) {
        if let Self::Etcd(etcd) = self {
            etcd.take_owed(out);
        }
    }
}
