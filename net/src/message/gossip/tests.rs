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
    }
}

fn claim(core: u16) -> Claim {
    let endpoint = Endpoint::new(NodeId(3), CoreId(core));
    Claim { endpoint, incarnation: u64::MAX, refutation: u32::MAX, liveness: Liveness::Suspect }
}

fn gossip(claims: Vec<Claim>, body: GossipBody) -> Gossip {
    let digest = Digest { epoch: 3, hash: 4 };
    Gossip { identity: NodeIdentity(u128::MAX), incarnation: 1, refutation: 2, digest, claims, body }
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
    let target = Endpoint::new(NodeId(3), CoreId(CORES_MAX - 1));
    for body in [
        GossipBody::Ping { sequence: u32::MAX },
        GossipBody::Ack { sequence: 1 },
        GossipBody::PingFor { sequence: 1, target },
        GossipBody::AckFor { sequence: 1 },
        GossipBody::State(entries),
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
    assert_eq!(fault(&gossip(vec![], GossipBody::State(entries))), GossipFault::Entries(ENTRIES_MAX + 1));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let state = |entries| gossip(vec![], GossipBody::State(entries));
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
