//! Quorate's own protocol: rkyv messages in frames.
//!
//! The rule: answers carry the id of their request and may come in any order; a failure says whether a write may have
//! happened.
//!
//! Not here: the form of frames and messages (`net`).

use bytes::Bytes;
use quorate_net::{
    client::ClientError,
    frame,
    key::{DEFAULT_BUCKET, Key},
    message::{
        ArchivedMessage, ArchivedOutcome, Consistency, Durability as NetDurability, Get, Message, Operation, Put,
        Request,
    },
};

use super::{Answer, Durability, Failed, Outcome, RequestOptions};

/// The options of every request in the form of messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Native {
    timeout_us: u32,
    read_quorum: u8,
    write_quorum: u8,
    durability: NetDurability,
    consistency: Consistency,
}

impl Native {
    pub(crate) fn new(options: &RequestOptions) -> Self {
        let durability = match options.durability {
            None => NetDurability::default(),
            Some(Durability::Durable) => NetDurability::Durable,
            Some(Durability::One) => NetDurability::One,
            Some(Durability::Buffered) => NetDurability::Buffered,
        };
        let consistency = match options.strict {
            None => Consistency::default(),
            Some(true) => Consistency::Strict,
            Some(false) => Consistency::Sloppy,
        };
        Self {
            timeout_us: u32::try_from(options.timeout.as_micros()).unwrap_or(u32::MAX),
            read_quorum: options.read_quorum.unwrap_or(0),
            write_quorum: options.write_quorum.unwrap_or(0),
            durability,
            consistency,
        }
    }

    pub(crate) fn encode_get(&self, id: u64, key: &[u8], out: &mut Vec<u8>) {
        let get = Get { key: name(key), quorum: self.read_quorum, consistency: self.consistency, wants_context: true };
        self.encode(id, Operation::Get(get), out);
    }

    pub(crate) fn encode_put(&self, id: u64, key: &[u8], value: &[u8], context: Option<&[u8]>, out: &mut Vec<u8>) {
        let put = Put {
            key: name(key),
            value: Some(Bytes::copy_from_slice(value)),
            context: context.map(Bytes::copy_from_slice),
            quorum: self.write_quorum,
            durability: self.durability,
            consistency: self.consistency,
            // Each request is sent once.
            token: None,
            wants_context: true,
        };
        self.encode(id, Operation::Put(put), out);
    }

    fn encode(&self, id: u64, operation: Operation, out: &mut Vec<u8>) {
        let request = Request { id, timeout_us: self.timeout_us, hops: 0, operation };
        frame::encode(&Message::Request(request), out).expect("the options bound keys and values");
    }

    pub(crate) fn decode<'a>(&self, input: &'a [u8]) -> Result<Option<Answer<'a>>, String> {
        let describe = |error: frame::FrameError| error.to_string();
        let Some(frame) = frame::decode(input, usize::MAX).map_err(describe)? else { return Ok(None) };
        let ArchivedMessage::Reply(reply) = frame.access().map_err(describe)? else {
            return Err("a message that is no reply".to_owned());
        };
        let outcome = match &reply.outcome {
            ArchivedOutcome::Values { context, values, .. } => {
                let mut values = values.iter().map(|value| value.as_slice());
                Outcome::Values { first: values.next(), more: values.collect(), context: context.as_slice() }
            }
            ArchivedOutcome::Written { context, .. } => Outcome::Written { context: context.as_slice() },
            ArchivedOutcome::Failed(_) => Outcome::Failed(failed(frame.message().map_err(describe)?)?),
            _ => return Err("an answer that nobody asked for".to_owned()),
        };
        Ok(Some(Answer { length: frame.consumed(), id: Some(reply.id.to_native()), outcome }))
    }
}

fn failed(message: Message) -> Result<Failed, String> {
    let Message::Reply(reply) = message else { return Err("a message that is no reply".to_owned()) };
    let quorate_net::message::Outcome::Failed(failure) = reply.outcome else {
        return Err("a failure that is none".to_owned());
    };
    let class = format!("{failure:?}").chars().take_while(char::is_ascii_alphanumeric).collect();
    let text = failure.to_string();
    let refused = ClientError::Refused { failure, token: None };
    Ok(Failed { class, text, nothing_written: !refused.may_have_changed() })
}

fn name(key: &[u8]) -> Key {
    Key::new(DEFAULT_BUCKET, key).expect("the options bound the key's prefix")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quorate_net::message::{Failure, Outcome as NetOutcome, Reply};

    use super::*;

    fn native() -> Native {
        Native::new(&RequestOptions {
            write_quorum: Some(3),
            timeout: Duration::from_secs(1),
            ..RequestOptions::default()
        })
    }

    #[test]
    fn requests_are_messages() {
        let mut out = Vec::new();
        native().encode_put(7, b"key:1", b"value", Some(b"seen"), &mut out);
        let Message::Request(request) = frame::decode(&out, usize::MAX).unwrap().unwrap().message().unwrap() else {
            panic!("a request")
        };
        assert_eq!((request.id, request.timeout_us), (7, 1_000_000));
        let Operation::Put(put) = request.operation else { panic!("a put") };
        assert_eq!((put.key.name(), put.quorum, put.context.as_deref()), (&b"key:1"[..], 3, Some(&b"seen"[..])));
    }

    fn answer(outcome: NetOutcome, check: impl Fn(Answer<'_>)) {
        let mut bytes = Vec::new();
        frame::encode(&Message::Reply(Reply { id: 9, outcome }), &mut bytes).unwrap();
        for cut in 0..bytes.len() {
            assert_eq!(native().decode(&bytes[..cut]), Ok(None));
        }
        check(native().decode(&bytes).unwrap().unwrap());
    }

    #[test]
    fn answers_are_read_in_place() {
        let (context, values) = (Bytes::from("c"), vec![Bytes::from("a"), Bytes::from("b")].into());
        answer(NetOutcome::Values { context, values, sloppy: false }, |answer| {
            assert_eq!(answer.id, Some(9));
            assert_eq!(answer.outcome, Outcome::Values { first: Some(b"a"), more: vec![b"b"], context: b"c" });
        });
        for (failure, class, nothing_written) in
            [(Failure::Timeout { acks: 1, needed: 2 }, "Timeout", false), (Failure::DiskFull, "DiskFull", true)]
        {
            answer(NetOutcome::Failed(failure), |answer| {
                let Outcome::Failed(failed) = answer.outcome else { panic!("failed") };
                assert_eq!((failed.class.as_str(), failed.nothing_written), (class, nothing_written));
            });
        }
        assert!(native().decode(b"+OK\r\n").is_err());
    }
}
