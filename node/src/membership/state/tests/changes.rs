//! Changes of the ring: what they ask for, and that two sides which made some come to one state.

use proptest::{collection::vec, prelude::*};
use quorate_net::{
    bounds::NODES_MAX,
    message::gossip::{CORES_MAX, RACK_BYTES_MAX, VERSION_MAX, WEIGHT_THOUSANDTHS_MAX},
};

use super::*;

fn status(state: &ClusterState, id: u16) -> Option<Status> {
    state.node(NodeId(id)).map(|node| node.status)
}

pub(super) fn join(state: &mut ClusterState, id: u16, identity: u128) {
    state.change(Change::Join(description(id, identity))).unwrap();
}

pub(in crate::membership::state) fn commit(state: &mut ClusterState) {
    let plan = state.plan().unwrap().id;
    state.change(Change::Commit { plan }).unwrap();
}

fn finish(state: &mut ClusterState) {
    commit(state);
    end(state);
}

/// All confirm, and the change is done.
fn end(state: &mut ClusterState) {
    state.unconfirmed().into_iter().for_each(|core| state.change(Change::Confirm(core)).unwrap());
    state.change(Change::Finish).unwrap();
}

/// Refused with this, and nothing has changed.
fn refused(state: &mut ClusterState, change: Change, error: ChangeError) {
    let before = state.clone();
    assert_eq!(state.change(change), Err(error));
    assert_eq!(*state, before);
    assert!(error.to_string().contains("nothing was changed"), "{error}");
}

#[test]
fn a_node_joins_leaves_and_is_gone() {
    let mut state = three();
    let start = state.digest();
    assert_eq!(state.plan(), Err(PlanError::NothingStaged));
    join(&mut state, 4, 99);
    let joining = state.digest();
    join(&mut state, 4, 99);
    assert_eq!(state.digest(), joining, "the same again is no change");
    assert_eq!(status(&state, 4), Some(Status::Joining));
    let ring = state.ring().unwrap();
    assert!((0..64).all(|p| ring.preference(p).iter().all(|endpoint| endpoint.node != NodeId(4))), "not yet");

    let plan = state.plan().unwrap();
    assert_eq!((plan.moves.len(), plan.balance_after, plan.without_source.len()), (48, 1.0, 0));
    let new = plan.nodes.iter().find(|node| node.id == NodeId(4)).unwrap();
    assert_eq!((new.before, new.after, new.gains, new.loses), (0, 48, 48, 0));
    assert_eq!(plan.nodes.iter().map(|node| node.loses).sum::<usize>(), 48);
    refused(&mut state, Change::Commit { plan: plan.id + 1 }, ChangeError::Stale { now: plan.id });
    refused(&mut state, Change::Finish, ChangeError::NoChange);
    commit(&mut state);
    refused(&mut state, Change::Commit { plan: plan.id }, ChangeError::Plan(PlanError::UnderWay));

    let cores: Vec<Endpoint> = [0, 1].map(|core| Endpoint::new(NodeId(4), CoreId(core))).into();
    assert_eq!(state.unconfirmed(), cores);
    assert!(state.is_mover(cores[0]) && !state.is_mover(Endpoint::new(NodeId(1), CoreId(0))));
    let ring = state.ring().unwrap();
    assert!(ring.is_changing() && (0..64).any(|p| ring.gaining(p).any(|of| of == cores[1])));
    let other = Endpoint::new(NodeId(1), CoreId(0));
    refused(&mut state, Change::Confirm(other), ChangeError::GainsNothing(other));
    state.change(Change::Confirm(cores[1])).unwrap();
    refused(&mut state, Change::Finish, ChangeError::Unconfirmed(1, cores[0]));
    refused(&mut state, Change::Remove(NodeId(4)), ChangeError::Concerned(NodeId(4)));
    state.change(Change::Confirm(cores[0])).unwrap();
    state.change(Change::Pause).unwrap();
    refused(&mut state, Change::Pause, ChangeError::Paused(true));
    refused(&mut state, Change::Finish, ChangeError::Paused(true));
    state.change(Change::Resume).unwrap();
    refused(&mut state, Change::Resume, ChangeError::Paused(false));
    state.change(Change::Finish).unwrap();
    assert_eq!((status(&state, 4), state.ring_state().change()), (Some(Status::Member), None));
    assert_eq!(state.ring_state().table(), Some(&plan.next));

    state.change(Change::Leave(NodeId(4))).unwrap();
    refused(&mut state, Change::Leave(NodeId(4)), ChangeError::Status(NodeId(4), Status::Leaving));
    state.change(Change::Stay(NodeId(4))).unwrap();
    assert_eq!(state.plan(), Err(PlanError::NothingStaged));
    state.change(Change::Leave(NodeId(4))).unwrap();
    commit(&mut state);
    refused(&mut state, Change::Stay(NodeId(4)), ChangeError::Concerned(NodeId(4)));
    state.change(Change::Abort).unwrap();
    assert_eq!(status(&state, 4), Some(Status::Leaving), "what was staged stays so");
    finish(&mut state);
    assert_eq!((status(&state, 4), state.has(cores[0])), (None, false));
    assert!(state.digest().epoch > start.epoch && state.is_whole());
    let again = Change::Join(description(4, 99));
    refused(&mut state, again, ChangeError::Refused(Refusal::Removed));
    // Another machine may take the id.
    join(&mut state, 4, 100);
    state.change(Change::Remove(NodeId(4))).unwrap();
    assert_eq!(status(&state, 4), None, "who only asked to join is gone at once");
    refused(&mut state, Change::Leave(NodeId(5)), ChangeError::Unknown(NodeId(5)));
}

#[test]
fn a_plan_goes_stale_with_what_is_staged() {
    let mut state = three();
    join(&mut state, 4, 99);
    let shown = state.plan().unwrap().id;
    join(&mut state, 5, 98);
    let now = state.plan().unwrap().id;
    refused(&mut state, Change::Commit { plan: shown }, ChangeError::Stale { now });
    let mut other = three();
    [(5, 98), (4, 99)].into_iter().for_each(|(id, identity)| join(&mut other, id, identity));
    assert_eq!(other.plan(), state.plan(), "all show the same");
    commit(&mut state);
    state.change(Change::Abort).unwrap();
    let again = state.plan().unwrap().id;
    assert_ne!(again, now, "of another term");
}

#[test]
fn a_dead_node_is_replaced_in_its_places() {
    let mut state = ClusterState::founded(64, 3, (1..=5).map(|id| description(id, id.into())).collect()).unwrap();
    refused(&mut state, Change::Replace { old: NodeId(2), new: NodeId(6) }, ChangeError::Unknown(NodeId(6)));
    join(&mut state, 6, 60);
    join(&mut state, 7, 70);
    state.change(Change::Remove(NodeId(2))).unwrap();
    state.change(Change::Replace { old: NodeId(2), new: NodeId(6) }).unwrap();
    let twice = Change::Replace { old: NodeId(2), new: NodeId(7) };
    refused(&mut state, twice, ChangeError::Replaced(NodeId(2), NodeId(6)));
    state.change(Change::Remove(NodeId(7))).unwrap();
    let plan = state.plan().unwrap();
    let table = state.ring_state().table().unwrap().clone();
    assert_eq!(plan.next, table.replaced(NodeId(2), NodeId(6)));
    assert!(plan.moves.iter().all(|of| (of.gains, of.loses) == (NodeId(6), Some(NodeId(2)))));
    finish(&mut state);
    assert_eq!((status(&state, 2), status(&state, 6)), (None, Some(Status::Member)));
    // Who stays is not replaced.
    join(&mut state, 8, 80);
    state.change(Change::Replace { old: NodeId(3), new: NodeId(8) }).unwrap();
    assert_eq!(status(&state, 3), Some(Status::Leaving));
    state.change(Change::Stay(NodeId(3))).unwrap();
    let plan = state.plan().unwrap();
    assert!(plan.next.has(NodeId(3)) && plan.next.has(NodeId(8)));
}

#[test]
fn plans_that_cannot_be_are_refused() {
    let mut state = three();
    (1..=3).for_each(|id| state.change(Change::Leave(NodeId(id))).unwrap());
    assert_eq!(state.plan(), Err(PlanError::Ring(RingError::NoMembers)));
    assert_eq!(ClusterState::default().plan(), Err(PlanError::NoRing));
    let mut state = ClusterState::founded(64, 1, (1..=3).map(|id| description(id, id.into())).collect()).unwrap();
    state.change(Change::Remove(NodeId(2))).unwrap();
    let plan = state.plan().unwrap();
    assert_eq!(plan.without_source.len(), state.ring_state().table().unwrap().counts()[&NodeId(2)]);
    // One of no weight joins and owns nothing.
    let mut state = three();
    state.change(Change::Join(Description { weight_thousandths: 0, ..description(4, 40) })).unwrap();
    assert_eq!(state.plan().unwrap().moves, []);
    finish(&mut state);
    assert_eq!(status(&state, 4), Some(Status::Member));
    let ring = state.ring().unwrap();
    assert!((0..64).all(|p| ring.fallbacks(p).len() == 1 && ring.primaries(p).len() == 3));
}

#[test]
fn two_sides_that_let_in_one_id_agree_on_the_machine_that_their_ring_means() {
    let (mut left, mut right) = (three(), three());
    for (side, identity) in [(&mut left, 70), (&mut right, 60)] {
        join(side, 4, identity);
        finish(side);
    }
    // The right side changes more, so its ring counts.
    right.change(Change::Leave(NodeId(1))).unwrap();
    finish(&mut right);
    let healed = reconciled(&left, &right);
    assert_eq!(healed, reconciled(&right, &left));
    assert_eq!(healed.node(NodeId(4)).unwrap().identity, NodeIdentity(60), "the one that has the data");
    assert!(matches!(healed.standing(NodeIdentity(70), NodeId(4)), Standing::Refused(Refusal::IdTaken { .. })));
    assert!(healed.is_whole());
}

#[test]
fn a_ring_that_counts_on_a_removed_machine_leaves_its_places_empty_until_a_plan_fills_them() {
    let (mut left, mut right) = (three(), three());
    for side in [&mut left, &mut right] {
        (4..=5).for_each(|id| join(side, id, id.into()));
    }
    left.change(Change::Remove(NodeId(3))).unwrap();
    finish(&mut left);
    // The right side changes more, and its ring has node 3.
    finish(&mut right);
    right.change(Change::Leave(NodeId(1))).unwrap();
    finish(&mut right);
    let mut healed = reconciled(&left, &right);
    assert!(!healed.is_whole() && healed.ring_state().table().unwrap().has(NodeId(3)));
    let ring = healed.ring().unwrap();
    assert!((0..64).any(|p| ring.primaries(p).len() == 2));
    assert!((0..64).all(|p| ring.preference(p).iter().all(|of| of.node != NodeId(3))));
    // A machine of the same id has to wait until the table does not name the old one any more.
    join(&mut healed, 3, 33);
    finish(&mut healed);
    assert!(healed.is_whole() && !healed.ring_state().table().unwrap().has(NodeId(3)));
    finish(&mut healed);
    assert_eq!(healed.ring_state().machine(NodeId(3)), Some(NodeIdentity(33)));
}

#[test]
fn a_finish_counts_for_more_than_an_abort_at_the_same_time() {
    let mut left = three();
    join(&mut left, 4, 40);
    left.change(Change::Leave(NodeId(1))).unwrap();
    commit(&mut left);
    let mut right = left.clone();
    end(&mut left);
    right.change(Change::Abort).unwrap();
    let healed = reconciled(&left, &right);
    assert_eq!((healed.stamp(), healed.is_whole()), (left.stamp(), true));
}

#[test]
fn a_change_goes_on_though_the_other_side_has_removed_a_machine_that_it_lets_go_as_well() {
    let mut left = three();
    (4..=5).for_each(|id| join(&mut left, id, id.into()));
    finish(&mut left);
    left.change(Change::Remove(NodeId(3))).unwrap();
    commit(&mut left);
    let mut right = left.clone();
    end(&mut left);
    // The right side changes more, so its ring counts.
    for _ in 0..2 {
        right.change(Change::Abort).unwrap();
        commit(&mut right);
    }
    let mut healed = reconciled(&left, &right);
    assert_eq!((healed.stamp(), status(&healed, 3)), (right.stamp(), None));
    assert!(healed.ring_state().table().unwrap().has(NodeId(3)) && healed.is_whole());
    end(&mut healed);
    assert!(healed.is_whole() && !healed.ring_state().table().unwrap().has(NodeId(3)));
}

#[test]
fn a_change_whose_gainer_is_gone_cannot_be_finished() {
    let mut left = three();
    join(&mut left, 4, 40);
    let mut right = left.clone();
    commit(&mut left);
    left.unconfirmed().into_iter().for_each(|core| left.change(Change::Confirm(core)).unwrap());
    right.change(Change::Remove(NodeId(4))).unwrap();
    let mut healed = reconciled(&left, &right);
    refused(&mut healed, Change::Finish, ChangeError::Gone(NodeId(4)));
    healed.change(Change::Abort).unwrap();
    assert!(healed.is_whole());
}

#[test]
fn rings_of_two_clusters_do_not_mix() {
    let mut state = three();
    let other = ClusterState::founded(128, 3, (1..=3).map(|id| description(id, id.into())).collect()).unwrap();
    let before = state.clone();
    assert_eq!(state.reconcile(&other.entries(), other.ring_state()), Err(ReconcileError::OtherRing));
    assert_eq!(state, before);
}

#[test]
fn what_is_stored_comes_back_or_is_an_error() {
    let mut state = three();
    join(&mut state, 4, 40);
    commit(&mut state);
    state.change(Change::Confirm(Endpoint::new(NodeId(4), CoreId(1)))).unwrap();
    state.change(Change::Pause).unwrap();
    let bytes = state.encode();
    assert_eq!(ClusterState::decode(&bytes), Ok(state));
    for at in (0..bytes.len()).step_by(7).chain(0..24) {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        assert!(ClusterState::decode(&bad).is_err(), "byte {at}");
        assert!(ClusterState::decode(&bytes[..at]).is_err(), "{at} bytes");
    }
    let nothing = ClusterState::default();
    assert_eq!(ClusterState::decode(&nothing.encode()), Ok(nothing));
}

#[test]
fn the_largest_state_can_be_stored() {
    let rack = "r".repeat(RACK_BYTES_MAX);
    let largest = |at: u128, id: u16, status| NodeEntry {
        replaces: Some(NodeId(1)),
        admitted: 1 << 40,
        address: "fe80::1:2:3:4".parse().unwrap(),
        ..entry(
            Description {
                cores: CORES_MAX,
                rack: rack.clone(),
                weight_thousandths: WEIGHT_THOUSANDTHS_MAX,
                ..description(id, (1 << 100) + at)
            },
            status,
            VERSION_MAX,
            0,
        )
    };
    let living = (0..NODES_MAX as u16).map(|id| largest(id.into(), id, Status::Member));
    let gone = (NODES_MAX..ENTRIES_MAX).map(|at| largest(at as u128, 1, Status::Removed));
    let entries: Vec<NodeEntry> = living.chain(gone).collect();
    let place = |partition: usize, copy: usize| NodeId(((partition + copy) % NODES_MAX) as u16);
    let table = |shift: usize| {
        let nodes = (0..1 << 14).flat_map(|partition| (0..7).map(move |copy| place(partition + shift, copy))).collect();
        let places = quorate_net::message::gossip::Places { partitions: 1 << 14, replicas: 7, copies: 7, nodes };
        Table::unpack(&quorate_net::message::gossip::pack(&places)).unwrap()
    };
    let machines = entries[..NODES_MAX].iter().map(|entry| (entry.id, entry.identity));
    let mut ring = RingState::new(1, table(0), Some(table(9)), machines);
    let all =
        (0..NODES_MAX as u16).flat_map(|id| (0..CORES_MAX).map(move |core| Endpoint::new(NodeId(id), CoreId(core))));
    ring.change_mut().unwrap().confirmed.extend(all);
    let mut state = ClusterState::default();
    state.reconcile(&entries, &ring).unwrap();
    let bytes = state.encode();
    println!("{} bytes", bytes.len());
    assert_eq!(ClusterState::decode(&bytes), Ok(state));
}

/// Something that an operator or a core does; what does not fit is refused.
#[derive(Clone, Debug)]
enum Act {
    Change(Change),
    Commit,
    ConfirmAll,
}

fn any_act() -> impl Strategy<Value = Act> {
    let id = || (1..7_u16).prop_map(NodeId);
    prop_oneof![
        3 => (4..7_u16, 0..2_u128).prop_map(|(id, machine)| {
            Act::Change(Change::Join(description(id, 10 * u128::from(id) + machine)))
        }),
        2 => id().prop_map(|id| Act::Change(Change::Leave(id))),
        1 => id().prop_map(|id| Act::Change(Change::Stay(id))),
        2 => id().prop_map(|id| Act::Change(Change::Remove(id))),
        1 => (id(), id()).prop_map(|(old, new)| Act::Change(Change::Replace { old, new })),
        1 => Just(Act::Change(Change::Abort)),
        1 => Just(Act::Change(Change::Pause)),
        1 => Just(Act::Change(Change::Resume)),
        2 => (1..7_u16, 0..2_u16).prop_map(|(id, core)| {
            Act::Change(Change::Confirm(Endpoint::new(NodeId(id), CoreId(core))))
        }),
        4 => Just(Act::Commit),
        3 => Just(Act::ConfirmAll),
        4 => Just(Act::Change(Change::Finish)),
    ]
}

fn acted(state: &ClusterState, acts: &[Act]) -> ClusterState {
    let mut state = state.clone();
    for act in acts {
        let before = state.clone();
        let done = match act {
            Act::Change(change) => state.change(change.clone()),
            Act::Commit => {
                let plan = state.plan();
                plan.map_err(ChangeError::Plan).and_then(|plan| state.change(Change::Commit { plan: plan.id }))
            }
            Act::ConfirmAll => state.unconfirmed().into_iter().try_for_each(|core| state.change(Change::Confirm(core))),
        };
        match done {
            Ok(()) => assert!(state.digest().epoch >= before.digest().epoch),
            Err(error) => {
                assert_eq!(state, before, "{act:?}: {error}");
                assert!(error.to_string().contains("nothing was changed"), "{error}");
            }
        }
    }
    state
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn sides_that_changed_the_ring_come_to_one_state(
        before in vec(any_act(), 0..12),
        sides in [vec(any_act(), 0..10), vec(any_act(), 0..10), vec(any_act(), 0..10)],
        after in vec(any_act(), 0..6),
    ) {
        let start = acted(&three(), &before);
        let [a, b, c] = sides.map(|acts| acted(&start, &acts));
        prop_assert_eq!(reconciled(&a, &b), reconciled(&b, &a));
        let all = reconciled(&reconciled(&a, &b), &c);
        prop_assert_eq!(&all, &reconciled(&a, &reconciled(&b, &c)));
        prop_assert_eq!(&reconciled(&all, &b), &all);
        prop_assert!([&a, &b, &c].iter().all(|side| side.stamp().term <= all.stamp().term));
        for side in [&a, &b, &c] {
            for gone in side.entries().iter().filter(|entry| entry.status == Status::Removed) {
                prop_assert!(all.nodes().all(|node| node.identity != gone.identity), "removed for ever");
            }
        }
        prop_assert_eq!(a.digest() == b.digest(), a == b);
        prop_assert_eq!(ClusterState::decode(&all.encode()), Ok(all.clone()));
        // Life goes on with whatever came out: from any state a plan can lead to a whole one.
        let mut state = acted(&all, &after);
        if state.ring_state().change().is_some() {
            state.change(Change::Abort).unwrap();
        }
        for _ in 0..3 {
            if state.plan().is_ok() {
                finish(&mut state);
            }
        }
        let left = state.members(|status| status == Status::Member).len();
        prop_assert!(state.is_whole() || left == 0, "{:?}", state);
        let ring = state.ring().unwrap();
        if state.is_whole() {
            let copies = usize::from(state.ring_state().table().unwrap().copies());
            prop_assert!((0..64).all(|partition| ring.primaries(partition).len() == copies));
        }
    }
}
