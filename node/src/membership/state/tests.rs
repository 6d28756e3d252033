//! The cluster's state: reconciling has no order, what was removed stays so, and of two machines with one id all name the
//! same.

use std::net::Ipv4Addr;

use proptest::{collection::vec, prelude::*};

use super::*;

mod changes;

pub(crate) fn description(id: u16, identity: u128) -> Description {
    Description {
        identity: NodeIdentity(identity),
        id: NodeId(id),
        address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, id as u8)),
        cores: 2,
        port: 7400,
        core_port: 7401,
        peer_port: 7500,
        http_port: 7600,
        rack: String::new(),
        weight_thousandths: 1000,
    }
}

pub(super) fn three() -> ClusterState {
    ClusterState::founded(64, 3, (1..=3).map(|id| description(id, id.into())).collect()).unwrap()
}

pub(super) fn reconciled(a: &ClusterState, b: &ClusterState) -> ClusterState {
    let mut both = a.clone();
    both.reconcile(&b.entries(), b.ring_state()).unwrap();
    both
}

/// Few machines, ids and versions, so that everything meets.
fn any_entry() -> impl Strategy<Value = NodeEntry> {
    let status = prop_oneof![Just(Status::Joining), Just(Status::Member), Just(Status::Leaving), Just(Status::Removed)];
    (1..5u128, 1..4u64, status, 1..4u16, 0..3u64, 1..3u16).prop_map(
        |(identity, version, status, id, admitted, cores)| {
            let description = Description { cores, ..description(id, identity) };
            entry(description, status, version, admitted)
        },
    )
}

fn any_state() -> impl Strategy<Value = ClusterState> {
    vec(any_entry(), 0..8).prop_map(|entries| {
        let mut state = ClusterState::default();
        entries.into_iter().for_each(|entry| {
            state.reconcile(&[entry], &RingState::default()).unwrap();
        });
        state
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn reconciling_has_no_order(a in any_state(), b in any_state(), c in any_state()) {
        prop_assert_eq!(reconciled(&a, &b), reconciled(&b, &a));
        prop_assert_eq!(reconciled(&reconciled(&a, &b), &c), reconciled(&a, &reconciled(&b, &c)));
        prop_assert_eq!(reconciled(&a, &a), a.clone());
        let both = reconciled(&a, &b);
        prop_assert_eq!(reconciled(&both, &a), both.clone());
        prop_assert!(both.digest().epoch >= a.digest().epoch.max(b.digest().epoch));
    }

    #[test]
    fn a_digest_tells_states_apart(a in any_state(), b in any_state()) {
        prop_assert_eq!(a.entries() == b.entries(), a.digest() == b.digest());
    }

    #[test]
    fn removed_stays_removed(a in any_state(), b in any_state()) {
        let both = reconciled(&a, &b);
        for entry in a.entries().iter().chain(&b.entries()).filter(|entry| entry.status == Status::Removed) {
            prop_assert_eq!(both.entries[&entry.identity].status, Status::Removed);
            prop_assert_eq!(both.standing(entry.identity, entry.id), Standing::Refused(Refusal::Removed));
        }
    }

    #[test]
    fn an_id_has_one_holder_or_none(state in any_state()) {
        for id in (1..4).map(NodeId) {
            let living: Vec<_> =
                state.entries.values().filter(|entry| entry.id == id && entry.status != Status::Removed).collect();
            prop_assert_eq!(state.node(id).is_some(), !living.is_empty());
            for entry in living {
                match state.standing(entry.identity, id) {
                    Standing::Belongs => prop_assert_eq!(state.node(id), Some(entry)),
                    Standing::Refused(Refusal::IdTaken { by, .. }) => {
                        prop_assert_eq!(Some(by), state.node(id).map(|node| node.identity));
                        prop_assert_ne!(by, entry.identity);
                    }
                    other => prop_assert!(false, "{:?} stands as {:?}", entry, other),
                }
            }
        }
    }
}

#[test]
fn a_member_keeps_its_id_from_one_that_joins() {
    let mut state = three();
    let other = description(2, 50);
    assert!(matches!(state.change(Change::Join(other.clone())), Err(ChangeError::Refused(Refusal::IdTaken { .. }))));
    // Even when it got in on the other side, with whatever version and identity.
    state
        .reconcile(
            &[entry(Description { identity: NodeIdentity(1 << 100), ..other }, Status::Joining, 9, 0)],
            &RingState::default(),
        )
        .unwrap();
    assert_eq!(state.node(NodeId(2)).unwrap().identity, NodeIdentity(2));
    assert_eq!(state.change(Change::Join(description(7, 2))), Err(ChangeError::OtherId(NodeId(2))));
}

#[test]
fn a_removal_beats_any_number_of_changes() {
    let (mut left, mut right) = (three(), three());
    left.change(Change::Remove(NodeId(3))).unwrap();
    changes::commit(&mut left);
    left.change(Change::Finish).unwrap();
    for _ in 0..5 {
        right.change(Change::Leave(NodeId(3))).unwrap();
        right.change(Change::Stay(NodeId(3))).unwrap();
    }
    let epoch = right.digest().epoch;
    right.reconcile(&left.entries(), left.ring_state()).unwrap();
    assert_eq!(right.node(NodeId(3)), None);
    assert!(right.digest().epoch >= epoch);
}

#[test]
fn a_state_is_bounded() {
    let mut state = ClusterState::default();
    let many = |from: u128| -> Vec<NodeEntry> {
        let removed = |at| entry(description(1, from + at), Status::Removed, 1, 0);
        (0..ENTRIES_MAX as u128).map(removed).collect()
    };
    let none = RingState::default();
    state.reconcile(&many(1), &none).unwrap();
    let before = state.clone();
    assert_eq!(state.reconcile(&many(2), &none), Err(ReconcileError::TooManyEntries));
    assert_eq!(state.change(Change::Join(description(9, 1 << 90))), Err(ChangeError::TooMany));
    assert_eq!(state, before);
}

#[test]
fn founders_agree_on_their_identities() {
    assert_eq!(founding_identity("a", NodeId(1)), founding_identity("a", NodeId(1)));
    assert_ne!(founding_identity("a", NodeId(1)), founding_identity("b", NodeId(1)));
    assert_ne!(founding_identity("a", NodeId(1)), founding_identity("a", NodeId(2)));
}

#[test]
fn a_ring_is_as_current_as_what_it_says_of_its_nodes() {
    let mut state = three();
    let ring = state.ring().unwrap();
    assert!(state.is_current(&ring));
    let address = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
    state.change(Change::Join(Description { address, ..description(2, 2) })).unwrap();
    assert!(!state.is_current(&ring) && state.is_current(&state.ring().unwrap()));
    assert_eq!(state.ring().unwrap().cluster_map().nodes[1].address, "127.0.0.9");
}

#[test]
fn a_digest_covers_every_field() {
    let good = entry(description(1, 1), Status::Member, 5, 1);
    let digest = |entry: &NodeEntry| {
        let mut state = ClusterState::default();
        state.reconcile(std::slice::from_ref(entry), &RingState::default()).unwrap();
        state.digest().hash
    };
    let changed = [
        NodeEntry { identity: NodeIdentity(2), ..good.clone() },
        NodeEntry { version: 6, ..good.clone() },
        NodeEntry { status: Status::Leaving, ..good.clone() },
        NodeEntry { id: NodeId(2), ..good.clone() },
        NodeEntry { admitted: 2, ..good.clone() },
        NodeEntry { address: "::1".parse().unwrap(), ..good.clone() },
        NodeEntry { address: "127.0.0.9".parse().unwrap(), ..good.clone() },
        NodeEntry { cores: 3, ..good.clone() },
        NodeEntry { port: 1, ..good.clone() },
        NodeEntry { core_port: 1, ..good.clone() },
        NodeEntry { peer_port: 1, ..good.clone() },
        NodeEntry { http_port: 1, ..good.clone() },
        NodeEntry { rack: "a".to_owned(), ..good.clone() },
        NodeEntry { weight_thousandths: 1, ..good.clone() },
        NodeEntry { replaces: Some(NodeId(0)), ..good.clone() },
        NodeEntry { replaces: Some(NodeId(1)), ..good.clone() },
    ];
    let mut digests: Vec<u64> = changed.iter().chain([&good]).map(digest).collect();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), changed.len() + 1);
}
