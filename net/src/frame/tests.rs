//! Frames: what is written is read back, what is cut waits, and what is not a frame is refused as early as it shows.

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::{
    bounds::payload_bytes_max,
    id::{CoreId, Endpoint, NodeId},
    key::Key,
    message::{
        ClusterMap, Consistency, Durability, Exchange, Failure, Get, Hello, MappedNode, Operation, Outcome, Probe,
        Probed, ProbedVersion, Put, ReplicaOutcome, Replicate, Replicated, Reply, Request,
        exchange::{
            BRANCHES_MAX, Branch, DEEPER_MAX, ENTRIES_MAX, HashedKey, HeldKey, KEYS_MAX, LEAVES_MAX, LEVEL_MAX,
            SIZE_CLASS_MAX, Step, Whole,
        },
    },
};

fn any_bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn any_key() -> impl Strategy<Value = Key> {
    vec(any::<u8>(), 1..40).prop_map(|name| Key::new(b"default", &name).unwrap())
}

fn any_operation() -> impl Strategy<Value = Operation> {
    let consistency = || prop_oneof![Just(Consistency::Strict), Just(Consistency::Sloppy)];
    prop_oneof![
        (any_key(), any::<u8>(), consistency(), any::<bool>()).prop_map(|(key, quorum, consistency, wants_context)| {
            Operation::Get(Get { key, quorum, consistency, wants_context })
        }),
        (
            any_key(),
            option::of(any_bytes()),
            option::of(any_bytes()),
            any::<u8>(),
            option::of(any::<u128>()),
            consistency(),
            any::<bool>()
        )
            .prop_map(|(key, value, context, quorum, token, consistency, wants_context)| {
                let durability = Durability::One;
                Operation::Put(Put { key, value, context, quorum, durability, consistency, token, wants_context })
            }),
        Just(Operation::ClusterMap),
    ]
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        (any_bytes(), vec(any_bytes(), 0..5), any::<bool>()).prop_map(|(context, values, sloppy)| Outcome::Values {
            context,
            values: values.into(),
            sloppy
        }),
        (any_bytes(), any::<bool>()).prop_map(|(context, sloppy)| Outcome::Written { context, replaced: true, sloppy }),
        "[a-z ]{0,40}".prop_map(|text| Outcome::Failed(Failure::BadRequest(text))),
        any::<u32>().prop_map(|limit| Outcome::Failed(Failure::TooLarge { limit })),
        Just(Outcome::ClusterMap(small_map())),
    ]
}

fn small_map() -> ClusterMap {
    let node = |id: u16| MappedNode {
        id: NodeId(id),
        address: format!("127.0.0.{id}"),
        cores: 2,
        port: 7400,
        core_port: 7401,
    };
    ClusterMap {
        replicas: 2,
        nodes: (1..4).map(node).collect(),
        preference: vec![vec![0, 1, 2], vec![1, 2, 0]],
        spread: vec![0, u32::MAX],
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let key = || (any::<u64>(), 1u8..).prop_map(|(fingerprint, tag)| HashedKey { fingerprint, tag });
    let branches = |max| vec((0u64..8, any::<u64>()).prop_map(|(index, sum)| Branch { index, sum }), 0..max);
    let held =
        (key(), 1u64.., 0..=SIZE_CLASS_MAX).prop_map(|(key, version, size_class)| HeldKey { key, version, size_class });
    let object = || (any_key(), any_bytes()).prop_map(|(key, body)| Whole { key, body });
    prop_oneof![
        Just(Step::Root),
        any::<(u64, bool)>().prop_map(|(sum, heals)| Step::RootIs { sum, level: LEVEL_MAX, heals }),
        branches(BRANCHES_MAX).prop_map(|branches| Step::Branches { level: 3, deeper: DEEPER_MAX, branches }),
        (vec(any::<bool>(), 0..BRANCHES_MAX), vec(any::<u64>(), 0..BRANCHES_MAX << DEEPER_MAX))
            .prop_map(|(differ, sums)| Step::BranchesAre { differ, sums }),
        (branches(LEAVES_MAX), option::of(key())).prop_map(|(leaves, after)| Step::List { level: 3, leaves, after }),
        (vec(any::<bool>(), 0..LEAVES_MAX), vec(held, 0..ENTRIES_MAX), any::<bool>())
            .prop_map(|(differ, held, more)| Step::ListIs { differ, held, more }),
        vec(key(), 0..KEYS_MAX).prop_map(|keys| Step::Compare { keys }),
        vec(any::<u64>(), 0..KEYS_MAX).prop_map(|versions| Step::CompareIs { versions }),
        (key(), any::<u64>()).prop_map(|(key, known)| Step::Fetch { key, known }),
        (key(), option::of(object())).prop_map(|(key, object)| Step::Fetched { key, object }),
        (key(), object()).prop_map(|(key, object)| Step::Give { key, object }),
        (key(), any::<bool>()).prop_map(|(key, durable)| Step::Given { key, durable }),
        Just(Step::Busy),
        any::<bool>().prop_map(|done| Step::Close { done }),
        Just(Step::Invite),
    ]
}

fn any_message() -> impl Strategy<Value = Message> {
    let endpoint = |node| Endpoint::new(NodeId(node), CoreId(0));
    prop_oneof![
        (any::<u64>(), 0u32..15).prop_map(move |(cluster, log)| Message::Hello(Hello {
            protocol: 1,
            cluster,
            from: endpoint(1),
            to: endpoint(2),
            partitions: 1 << log,
            replicas: 3,
            identity: crate::message::gossip::NodeIdentity(9),
        })),
        (any::<u64>(), any_operation()).prop_map(|(id, operation)| Message::Request(Request {
            id,
            timeout_us: 5,
            hops: 1,
            operation
        })),
        (any::<u64>(), any_outcome()).prop_map(|(id, outcome)| Message::Reply(Reply { id, outcome })),
        (any::<u64>(), any_key(), any_bytes(), 0u16..1024).prop_map(|(operation, key, body, partition)| {
            Message::Replicate(Replicate {
                operation,
                timeout_us: 1,
                partition,
                durable: true,
                hint_for: Some(NodeId(7)),
                base: operation,
                key,
                body,
            })
        }),
        any::<u64>()
            .prop_map(|operation| { Message::Replicated(Replicated { operation, outcome: ReplicaOutcome::NotOwner }) }),
        (any::<u64>(), any_key()).prop_map(|(operation, key)| {
            Message::Probe(Probe { operation, timeout_us: 9, partition: 3, known: 1, owner: false, key })
        }),
        any_bytes().prop_map(|body| Message::Probed(Probed { operation: 3, version: ProbedVersion::Object(body) })),
        (any::<u64>(), 0u16..1024, any_step()).prop_map(|(number, partition, step)| {
            Message::Exchange(Exchange { number, round: 2, partition, step })
        }),
    ]
}

fn encoded(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    encode(message, &mut out).unwrap();
    out
}

/// A header that is right for this payload.
fn frame_around(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![MAGIC[0], MAGIC[1], VERSION, kind];
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
    let checksum = checksum(&out, payload);
    out.extend_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(payload);
    out
}

fn get_request(name: &[u8]) -> Message {
    let key = Key::new(b"default", name).unwrap();
    let operation = Operation::Get(Get { key, quorum: 0, consistency: Consistency::Strict, wants_context: true });
    Message::Request(Request { id: 1, timeout_us: 0, hops: 0, operation })
}

fn check_refused(input: &[u8], error: FrameError) {
    let refused = match decode(input, usize::MAX) {
        Ok(Some(frame)) => frame.access().map(|_| ()).unwrap_err(),
        Ok(None) => panic!("more bytes were wanted instead of {error:?}"),
        Err(error) => error,
    };
    assert_eq!(refused, error);
}

#[test]
fn refused_as_soon_as_it_shows() {
    check_refused(b"P", FrameError::Magic);
    check_refused(b"\xd1P", FrameError::Magic);
    check_refused(b"\xd1\xf5\x02", FrameError::Version(2));
    check_refused(b"\xd1\xf5\x01\x00", FrameError::Kind(0));
    check_refused(b"\xd1\xf5\x01\xff", FrameError::Kind(255));
    let too_long =
        FrameError::TooLong { kind: Kind::Hello, length: u32::MAX as usize, max: payload_bytes_max(Kind::Hello) };
    check_refused(b"\xd1\xf5\x01\x01\xff\xff\xff\xff", too_long);
    check_refused(&frame_around(2, b""), FrameError::Malformed);
    check_refused(&frame_around(2, &[0xff; 300]), FrameError::Malformed);
}

#[test]
fn the_connection_may_allow_less_than_the_kind() {
    let frame = encoded(&get_request(&[b'k'; 100]));
    let length = frame.len() - HEADER_BYTES;
    assert!(decode(&frame, length).unwrap().is_some());
    let error = decode(&frame[..HEADER_BYTES], length - 1).unwrap_err();
    assert_eq!(error, FrameError::TooLong { kind: Kind::Request, length, max: length - 1 });
}

#[test]
fn a_kind_must_be_what_its_header_says() {
    let frame = encoded(&get_request(b"k"));
    check_refused(&frame_around(Kind::Reply as u8, &frame[HEADER_BYTES..]), FrameError::KindMismatch);
}

#[test]
fn the_size_of_a_message_is_bounded_where_it_is_made() {
    let put = |bytes: usize| {
        let key = Key::new(b"default", b"k").unwrap();
        let (consistency, durability) = (Consistency::Strict, Durability::Durable);
        let value = Some(Bytes::from(vec![7; bytes]));
        let put =
            Put { key, value, context: None, quorum: 0, durability, consistency, token: None, wants_context: true };
        Message::Request(Request { id: 1, timeout_us: 0, hops: 0, operation: Operation::Put(put) })
    };
    let mut out = b"before".to_vec();
    encode(&put(bounds::VALUE_BYTES_MAX), &mut out).unwrap();
    assert!(decode(&out[6..], usize::MAX).unwrap().unwrap().access().is_ok());
    out.truncate(6);
    let error = encode(&put(bounds::VALUE_BYTES_MAX + (128 << 10)), &mut out).unwrap_err();
    assert!(matches!(error, FrameError::TooLong { kind: Kind::Request, .. }), "{error}");
    assert_eq!(out, b"before");
    // One byte more than a value may have still fits into a frame, and is refused by what it holds.
    check_refused(&encoded(&put(bounds::VALUE_BYTES_MAX + 1)), FrameError::Bounds(Violation::Value((8 << 20) + 1)));
}

#[test]
fn parts_out_of_bounds() {
    let reply = |outcome| encoded(&Message::Reply(Reply { id: 1, outcome }));
    let values = |context: usize, values: usize| Outcome::Values {
        context: vec![0; context].into(),
        values: vec![Bytes::new(); values].into(),
        sloppy: false,
    };
    check_refused(&reply(values(65537, 0)), FrameError::Bounds(Violation::Context(65537)));
    check_refused(&reply(values(0, 1025)), FrameError::Bounds(Violation::Siblings(1025)));
    let text = Outcome::Failed(Failure::BadRequest("x".repeat(1025)));
    check_refused(&reply(text), FrameError::Bounds(Violation::Text(1025)));
    let map = |change: fn(&mut ClusterMap)| {
        let mut map = small_map();
        change(&mut map);
        reply(Outcome::ClusterMap(map))
    };
    check_refused(&map(|m| m.preference[1][2] = 3), FrameError::Bounds(Violation::ClusterMap));
    check_refused(&map(|m| m.spread.truncate(1)), FrameError::Bounds(Violation::ClusterMap));
    check_refused(&map(|m| m.nodes[0].cores = 0), FrameError::Bounds(Violation::ClusterMap));
    check_refused(&map(|m| m.preference.push(vec![])), FrameError::Bounds(Violation::Partition(3)));
    let probe = Probe {
        operation: 1,
        timeout_us: 1,
        partition: 16384,
        known: 0,
        owner: false,
        key: Key::new(b"b", b"k").unwrap(),
    };
    check_refused(&encoded(&Message::Probe(probe)), FrameError::Bounds(Violation::Partition(16384)));
}

#[test]
fn steps_of_an_exchange_out_of_bounds() {
    let key = HashedKey { fingerprint: 1, tag: 1 };
    let held = HeldKey { key, version: 1, size_class: SIZE_CLASS_MAX };
    let branch = Branch { index: 7, sum: 0 };
    let list = |leaves| Step::List { level: 3, leaves, after: None };
    let is = |held, leaves| Step::ListIs { differ: vec![true; leaves], held, more: false };
    let branches = |level, deeper, count| Step::Branches { level, deeper, branches: vec![branch; count] };
    let sums = |branches, sums| Step::BranchesAre { differ: vec![true; branches], sums: vec![0; sums] };
    let check = |step: Step, sound: bool| {
        let frame = encoded(&Message::Exchange(Exchange { number: 1, round: 1, partition: 1, step: step.clone() }));
        let expected = if sound { Ok(()) } else { Err(FrameError::Bounds(Violation::Exchange)) };
        assert_eq!(decode(&frame, usize::MAX).unwrap().unwrap().access().map(|_| ()), expected, "{step:?}");
    };
    check(Step::RootIs { sum: 1, level: LEVEL_MAX, heals: false }, true);
    check(Step::RootIs { sum: 1, level: LEVEL_MAX + 1, heals: false }, false);
    check(branches(3, DEEPER_MAX, BRANCHES_MAX), true);
    check(branches(3, DEEPER_MAX, BRANCHES_MAX + 1), false);
    check(branches(3, DEEPER_MAX + 1, 1), false);
    check(branches(3, 0, 1), false);
    check(branches(2, 1, 1), false);
    check(branches(LEVEL_MAX, 1, 1), false);
    check(branches(255, 1, 1), false);
    check(sums(BRANCHES_MAX, BRANCHES_MAX << DEEPER_MAX), true);
    check(sums(BRANCHES_MAX + 1, 0), false);
    check(sums(0, (BRANCHES_MAX << DEEPER_MAX) + 1), false);
    check(list(vec![branch; LEAVES_MAX]), true);
    check(list(vec![branch; LEAVES_MAX + 1]), false);
    check(list(vec![Branch { index: 8, sum: 0 }]), false);
    check(Step::List { level: 3, leaves: vec![], after: Some(HashedKey { fingerprint: 1, tag: 0 }) }, false);
    check(is(vec![held; ENTRIES_MAX], LEAVES_MAX), true);
    check(is(vec![held; ENTRIES_MAX + 1], 1), false);
    check(is(vec![], LEAVES_MAX + 1), false);
    check(is(vec![HeldKey { version: 0, ..held }], 1), false);
    check(is(vec![HeldKey { size_class: SIZE_CLASS_MAX + 1, ..held }], 1), false);
    check(Step::Compare { keys: vec![key; KEYS_MAX] }, true);
    check(Step::Compare { keys: vec![key; KEYS_MAX + 1] }, false);
    check(Step::CompareIs { versions: vec![0; KEYS_MAX + 1] }, false);
    check(Step::Fetch { key: HashedKey { fingerprint: 1, tag: 0 }, known: 0 }, false);
    let over = Message::Exchange(Exchange { number: 1, round: 1, partition: 1 << 14, step: Step::Root });
    check_refused(&encoded(&over), FrameError::Bounds(Violation::Partition(1 << 14)));
}

/// A key's inner length is not believed either: the byte that says how long the bucket is lies in the archived bytes.
#[test]
fn a_key_with_a_wrong_inner_length_is_refused() {
    let frame = encoded(&get_request(b"k"));
    let at = frame.windows(8).position(|window| window == b"\x07default").unwrap();
    let mut payload = frame[HEADER_BYTES..].to_vec();
    payload[at - HEADER_BYTES] = 200;
    check_refused(&frame_around(2, &payload), FrameError::Bounds(Violation::Key(crate::key::KeyError::Malformed)));
}

proptest! {
    #[test]
    fn messages_survive_the_trip(messages in vec(any_message(), 1..4), before in vec(any::<u8>(), 0..9)) {
        // Whatever is in the buffer already, and however it is aligned.
        let mut out = before.clone();
        for message in &messages {
            encode(message, &mut out).unwrap();
        }
        let mut input = &out[before.len()..];
        for message in &messages {
            let frame = decode(input, usize::MAX).unwrap().unwrap();
            prop_assert_eq!(frame.kind(), message.kind());
            prop_assert_eq!(&frame.message().unwrap(), message);
            input = &input[frame.consumed()..];
        }
        prop_assert!(input.is_empty());
    }

    #[test]
    fn cut_frames_wait_and_changed_frames_are_refused(message in any_message(), flip in any::<(usize, u8)>()) {
        let frame = encoded(&message);
        for cut in 0..frame.len() {
            prop_assert!(decode(&frame[..cut], usize::MAX).unwrap().is_none());
            let wanted = bytes_wanted(&frame[..cut]);
            prop_assert!(wanted > cut && wanted <= frame.len());
        }
        let mut changed = frame.clone();
        let at = flip.0 % frame.len();
        changed[at] ^= flip.1 | 1;
        // A changed length may also wait for more, but never passes.
        prop_assert!(!matches!(decode(&changed, usize::MAX), Ok(Some(_))));
    }

    /// With a right checksum but any payload: a message within bounds or an error, never a panic.
    #[test]
    fn forged_payloads_never_panic(
        message in any_message(),
        changes in vec(any::<(usize, u8)>(), 1..8),
        cut in any::<usize>(),
    ) {
        let frame = encoded(&message);
        let mut payload = frame[HEADER_BYTES..].to_vec();
        for (at, byte) in changes {
            // Near the end lie the root and its relative pointers.
            let at = payload.len() - 1 - at % payload.len().min(120);
            payload[at] = byte;
        }
        payload.drain(..if cut % 4 == 0 { cut % payload.len() } else { 0 });
        let forged = frame_around(frame[3], &payload);
        if let Ok(message) = decode(&forged, usize::MAX).unwrap().unwrap().message() {
            encode(&message, &mut Vec::new()).unwrap();
        }
    }
}
