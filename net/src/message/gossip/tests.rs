//! Gossip: the largest messages fit their frames, and nothing over a bound gets through.

use std::net::Ipv6Addr;

use super::*;
use crate::{
    bounds::{HANDSHAKE_BYTES_MAX, Violation},
    frame::{self, FrameError},
    id::CoreId,
    message::{Kind, Message},
};

fn entry(identity: u128) -> NodeEntry {
    NodeEntry {
        identity: NodeIdentity(identity),
        version: VERSION_MAX,
        status: Status::Member,
        id: NodeId(u16::MAX),
        admitted: 7,
        address: IpAddr::V6(Ipv6Addr::LOCALHOST),
        cores: CORES_MAX,
        port: 7400,
        core_port: 7401,
        peer_port: u16::MAX - CORES_MAX + 1,
        http_port: u16::MAX,
        rack: "r".repeat(RACK_BYTES_MAX),
        weight_thousandths: WEIGHT_THOUSANDTHS_MAX,
        replaces: Some(NodeId(u16::MAX)),
    }
}

/// Partition p has the nodes p, p + 1 … of `nodes`.
fn table(partitions: u16, replicas: u8, copies: u8, nodes: u16) -> Places {
    let row = |partition: u16| (0..copies).map(move |copy| NodeId(60_000 + (partition + u16::from(copy)) % nodes));
    Places { partitions, replicas, copies, nodes: (0..partitions).flat_map(row).collect() }
}

fn ring(table: &Places, next: &Places) -> RingBody {
    let mut nodes = [table.distinct(), next.distinct()].concat();
    nodes.sort_unstable();
    nodes.dedup();
    let machine = |node: &NodeId| Machine { node: *node, identity: NodeIdentity(u128::MAX) };
    let confirmed = next.distinct().into_iter().map(|node| Confirmed { node, cores: [u64::MAX; 4] }).collect();
    let change = ChangeBody { next: pack(next), confirmed, pauses: TERM_MAX };
    RingBody { term: TERM_MAX, table: pack(table), machines: nodes.iter().map(machine).collect(), change: Some(change) }
}

fn state(entries: Vec<NodeEntry>) -> GossipBody {
    GossipBody::State(StateBody { entries, ring: RingBody::default() })
}

fn claim(core: u16) -> Claim {
    let endpoint = Endpoint::new(NodeId(3), CoreId(core));
    Claim { endpoint, incarnation: u64::MAX, refutation: u32::MAX, liveness: Liveness::Suspect }
}

fn gossip(claims: Vec<Claim>, body: GossipBody) -> Gossip {
    let digest = Digest { epoch: 3, hash: 4 };
    let ring = RingStamp { term: TERM_MAX, hash: u64::MAX };
    Gossip { identity: NodeIdentity(u128::MAX), incarnation: 1, refutation: 2, digest, ring, empty: true, claims, body }
}

/// The message after its way through a frame.
fn sent(gossip: &Gossip) -> Result<Gossip, FrameError> {
    let mut bytes = Vec::new();
    frame::encode(&Message::Gossip(gossip.clone()), &mut bytes)?;
    let frame = frame::decode(&bytes, usize::MAX)?.expect("it is whole");
    assert_eq!(frame.kind(), Kind::Gossip);
    let Message::Gossip(received) = frame.message()? else { panic!("another message") };
    Ok(received)
}

fn fault(gossip: &Gossip) -> GossipFault {
    match sent(gossip) {
        Err(FrameError::Bounds(Violation::Gossip(fault))) => fault,
        other => panic!("not refused for its bounds: {other:?}"),
    }
}

#[test]
fn the_largest_messages_fit_their_frames() {
    let claims: Vec<Claim> = (0..CLAIMS_MAX as u16).map(claim).collect();
    let entries: Vec<NodeEntry> = (1..=ENTRIES_MAX as u128).map(entry).collect();
    let largest = table(1 << 14, REPLICAS_MAX, REPLICAS_MAX, 1 << 10);
    let ring = ring(&largest, &largest);
    assert_eq!(ring.table.len(), TABLE_BYTES_MAX);
    let target = Endpoint::new(NodeId(3), CoreId(CORES_MAX - 1));
    for body in [
        GossipBody::Ping { sequence: u32::MAX },
        GossipBody::Ack { sequence: 1 },
        GossipBody::PingFor { sequence: 1, target },
        GossipBody::AckFor { sequence: 1 },
        GossipBody::State(StateBody { entries, ring }),
        GossipBody::Farewell,
    ] {
        let message = gossip(claims.clone(), body);
        assert_eq!(sent(&message), Ok(message));
    }
}

#[test]
fn a_message_without_a_state_is_small() {
    let mut bytes = Vec::new();
    let claims = (0..CLAIMS_MAX as u16).map(claim).collect();
    frame::encode(&Message::Gossip(gossip(claims, GossipBody::Ping { sequence: 1 })), &mut bytes).unwrap();
    assert!(bytes.len() < 1024 && bytes.len() < HANDSHAKE_BYTES_MAX, "{} bytes", bytes.len());
}

#[test]
fn counts_over_their_bounds_are_refused() {
    let claims = (0..=CLAIMS_MAX as u16).map(claim).collect();
    assert_eq!(fault(&gossip(claims, GossipBody::Farewell)), GossipFault::Claims(CLAIMS_MAX + 1));
    // Short racks keep the frame within its length: the count itself must be looked at.
    let entries: Vec<_> =
        (1..=ENTRIES_MAX as u128 + 1).map(|at| NodeEntry { rack: String::new(), ..entry(at) }).collect();
    assert_eq!(fault(&gossip(vec![], state(entries))), GossipFault::Entries(ENTRIES_MAX + 1));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let state = |entries| gossip(vec![], state(entries));
    assert_eq!(fault(&state(vec![entry(2), entry(1)])), GossipFault::Order);
    assert_eq!(fault(&state(vec![entry(1), entry(1)])), GossipFault::Order);
    assert_eq!(fault(&state(vec![entry(0)])), GossipFault::Identity);
    let nobody = Gossip { identity: NodeIdentity(0), ..state(vec![]) };
    assert_eq!(fault(&nobody), GossipFault::Identity);
    assert_eq!(fault(&gossip(vec![claim(CORES_MAX)], GossipBody::Farewell)), GossipFault::Core(CORES_MAX));
    let target = Endpoint::new(NodeId(3), CoreId(CORES_MAX));
    assert_eq!(fault(&gossip(vec![], GossipBody::PingFor { sequence: 1, target })), GossipFault::Core(CORES_MAX));
    let good = entry(1);
    for bad in [
        NodeEntry { version: 0, ..good.clone() },
        NodeEntry { version: VERSION_MAX + 1, ..good.clone() },
        NodeEntry { admitted: u64::MAX, ..good.clone() },
        NodeEntry { cores: 0, ..good.clone() },
        NodeEntry { cores: CORES_MAX + 1, peer_port: 7500, ..good.clone() },
        NodeEntry { port: 0, ..good.clone() },
        NodeEntry { http_port: 0, ..good.clone() },
        NodeEntry { core_port: u16::MAX, ..good.clone() },
        NodeEntry { peer_port: u16::MAX - CORES_MAX + 2, ..good.clone() },
        NodeEntry { address: "0.0.0.0".parse().unwrap(), ..good.clone() },
        NodeEntry { address: "224.0.0.1".parse().unwrap(), ..good.clone() },
        NodeEntry { rack: "r".repeat(RACK_BYTES_MAX + 1), ..good.clone() },
        NodeEntry { weight_thousandths: WEIGHT_THOUSANDTHS_MAX + 1, ..good.clone() },
    ] {
        assert_eq!(fault(&state(vec![bad])), GossipFault::Entry(NodeId(u16::MAX)));
    }
    assert!(sent(&state(vec![good])).is_ok());
}

#[test]
fn a_table_comes_back_as_it_was() {
    for (partitions, replicas, copies, nodes) in
        [(64, 1, 1, 1), (64, 3, 1, 1), (64, 3, 2, 2), (128, 3, 3, 3), (1024, 3, 3, 5), (1 << 14, 7, 7, 1000)]
    {
        let places = table(partitions, replicas, copies, nodes);
        assert_eq!(unpack(&pack(&places)), Some(places));
    }
    assert!(pack(&table(1024, 3, 3, 4)).len() < 800, "two bits a place");
}

#[test]
fn what_is_no_table_is_refused() {
    let good = pack(&table(64, 3, 3, 5));
    for length in 0..good.len() {
        assert_eq!(unpack(&good[..length]), None, "{length} bytes");
    }
    assert_eq!(unpack(&[&good[..], &[0]].concat()), None);
    let with = |at: usize, byte: u8| unpack(&[&good[..at], &[byte], &good[at + 1..]].concat());
    assert!(with(0, good[0]).is_some());
    // Q, N, the places of a partition, the unused byte, the number of nodes, the order of their ids.
    for (at, byte) in
        [(0, 5), (0, 15), (0, 16), (0, 255), (1, 0), (1, 8), (1, 2), (2, 0), (2, 4), (3, 1), (4, 4), (5, 4)]
    {
        assert_eq!(with(at, byte), None, "byte {at} is {byte}");
    }
    assert_eq!(with(6, good[8]), None, "an id twice");
    // A number that no node has; a node twice in a partition; the first places are 0, 1, 2.
    assert_eq!(with(16, good[16] | 7), None);
    assert_eq!(with(16, good[16] & !0b111_000), None);
    // A node that has no place.
    let places = table(64, 3, 3, 4);
    let mut packed = pack(&places);
    packed[4] = 5;
    packed.splice(14..14, 60_004_u16.to_le_bytes());
    assert_eq!(unpack(&packed), None);
}

#[test]
fn a_ring_that_contradicts_itself_is_refused() {
    let good = ring(&table(64, 3, 3, 3), &table(64, 3, 3, 4));
    let sent = |ring: RingBody| sent(&gossip(vec![], GossipBody::State(StateBody { entries: vec![], ring })));
    let sound = |ring: &RingBody| sent(ring.clone()).is_ok();
    assert!(sound(&good) && sound(&RingBody::default()));
    let changed = |change: &dyn Fn(&mut RingBody)| {
        let mut ring = good.clone();
        change(&mut ring);
        ring
    };
    let other = |change: &dyn Fn(&mut ChangeBody)| changed(&|ring| change(ring.change.as_mut().unwrap()));
    for bad in [
        changed(&|ring| ring.term = 0),
        changed(&|ring| ring.term = TERM_MAX + 1),
        changed(&|ring| ring.table.clear()),
        changed(&|ring| ring.machines.truncate(3)),
        changed(&|ring| ring.machines.swap(0, 1)),
        changed(&|ring| ring.machines[0].identity = NodeIdentity(0)),
        changed(&|ring| ring.change = None),
        other(&|change| change.next.truncate(9)),
        other(&|change| change.next = pack(&table(128, 3, 3, 4))),
        other(&|change| change.next = pack(&table(64, 4, 3, 4))),
        other(&|change| change.pauses = TERM_MAX + 1),
        other(&|change| change.confirmed.swap(0, 1)),
        other(&|change| change.confirmed[0].node = NodeId(1)),
        other(&|change| change.confirmed[0].cores = [0; 4]),
    ] {
        assert_eq!(sent(bad.clone()), Err(FrameError::Bounds(Violation::Gossip(GossipFault::Ring))), "{bad:?}");
    }
    let stamped = |term| Gossip { ring: RingStamp { term, hash: 0 }, ..gossip(vec![], GossipBody::Farewell) };
    assert_eq!(fault(&stamped(TERM_MAX + 1)), GossipFault::Ring);
}
