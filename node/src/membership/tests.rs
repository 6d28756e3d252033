//! Many cores on a simulated network: the dead are found, the living are not, and all end with one view.

mod network;

use std::{collections::BTreeSet, time::Duration};

use quorate_net::{
    frame,
    id::{CoreId, NodeId},
    message::Message,
};

use self::network::{Network, endpoint};
use super::{state::tests::description, *};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn for_each_seed(check: impl Fn(u64)) {
    (1..=20).for_each(|seed| {
        let seeded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(seed)));
        if let Err(panic) = seeded {
            eprintln!("failed with seed {seed}");
            std::panic::resume_unwind(panic);
        }
    });
}

/// A dead core is found by all the others within this.
fn found_within(network: &Network) -> Duration {
    let cores = network.len();
    let config = GossipConfig::default();
    // At least one of the others probes it within two rounds; in truth all others try.
    config.probe_interval * 8 + config.suspicion(cores) + config.probe_interval * 10
}

#[test]
fn a_quiet_network_accuses_nobody() {
    for_each_seed(|seed| {
        let mut network = Network::new(seed, 8, 2);
        network.run(2 * MINUTE);
        assert_eq!(network.changes(), &[]);
        assert!(network.all(|core| core.statistics().refutations == 0 && core.statistics().probes_failed == 0));
    });
}

#[test]
fn a_dead_core_is_found_by_all_and_it_alone() {
    for_each_seed(|seed| {
        let mut network = Network::new(seed, 10, 2);
        network.run(5 * SECOND);
        let dead = endpoint(3, 1);
        network.kill(dead);
        network.run(found_within(&network));
        for core in network.running() {
            assert_eq!(network.core(core).claim(dead).map(|claim| claim.liveness), Some(Liveness::Dead), "by {core}");
        }
        assert!(network.changes().iter().all(|&(_, of, _)| of == dead), "{:?}", network.changes());
        assert!(network.all(|core| core.state().has(dead)), "it still belongs");
    });
}

#[test]
fn many_cores_find_a_dead_one_too() {
    let mut network = Network::new(7, 50, 2);
    network.run(10 * SECOND);
    network.kill(endpoint(9, 0));
    network.run(found_within(&network));
    assert!(network.all(|core| !core.is_alive(endpoint(9, 0))));
    assert_eq!(network.running().len(), 99);
}

#[test]
fn loss_and_delay_kill_nobody() {
    for_each_seed(|seed| {
        let mut network = Network::new(seed, 6, 2);
        network.loss_percent = 10;
        network.delay_max = Duration::from_millis(40);
        network.run(2 * MINUTE);
        let dead = |core: &Membership| core.peers.values().any(|peer| peer.is_dead());
        assert!(!network.any(dead));
        network.loss_percent = 0;
        network.run(30 * SECOND);
        network.assert_all_alive();
    });
}

#[test]
fn a_paused_core_comes_back_and_was_never_removed() {
    for_each_seed(|seed| {
        let mut network = Network::new(seed, 5, 2);
        network.run(5 * SECOND);
        let digest = network.core(endpoint(1, 0)).state().digest();
        let paused = [endpoint(2, 0), endpoint(2, 1)];
        paused.iter().for_each(|&core| network.pause(core));
        network.run(MINUTE);
        assert!(network.running().into_iter().all(|core| !network.core(core).is_alive(paused[0])));
        paused.iter().for_each(|&core| network.resume(core));
        network.run(10 * SECOND);
        network.assert_all_alive();
        assert!(network.all(|core| core.state().digest() == digest));
        assert!(
            network.changes().iter().all(|(_, of, _)| paused.contains(of)),
            "who stood still accuses nobody: {:?}",
            network.changes()
        );
    });
}

#[test]
fn who_stood_still_judges_nobody() {
    let mut network = Network::new(2, 3, 1);
    network.run(5 * SECOND);
    let (core, mut out) = (network.core_mut(endpoint(1, 0)), Vec::new());
    // It has just sent a ping, and heard of a suspect.
    let now = core.next_timeout().expect("it runs");
    core.handle_timeout(now, &mut out);
    let suspect = Claim { liveness: Liveness::Suspect, ..core.claim(endpoint(2, 0)).expect("a member") };
    core.hear(now, suspect, &mut out);
    out.clear();
    core.handle_timeout(now + MINUTE, &mut out);
    let judged = out.iter().find(|effect| matches!(effect, MembershipEffect::LivenessChanged { .. }));
    assert_eq!(judged, None);
    let liveness = |node| core.claim(endpoint(node, 0)).map(|claim| claim.liveness);
    assert_eq!((liveness(2), liveness(3)), (Some(Liveness::Suspect), Some(Liveness::Alive)));
    assert_eq!((core.statistics().pauses, core.statistics().probes_failed), (1, 0));
}

#[test]
fn a_core_is_away_from_the_suspicion_until_it_is_alive() {
    let mut network = Network::new(2, 3, 1);
    network.run(5 * SECOND);
    let (core, other, mut out) = (network.core_mut(endpoint(1, 0)), endpoint(2, 0), Vec::new());
    let now = core.next_timeout().expect("it runs");
    let claim = core.claim(other).expect("a member");
    assert_eq!(core.away_since(other), None);
    for (seconds, liveness, refuted, since) in
        [(0, Liveness::Suspect, 0, Some(now)), (5, Liveness::Dead, 0, Some(now)), (9, Liveness::Alive, 1, None)]
    {
        let claim = Claim { liveness, refutation: claim.refutation + refuted, ..claim };
        core.hear(now + seconds * SECOND, claim, &mut out);
        assert_eq!(core.away_since(other), since, "{liveness:?}");
    }
}

#[test]
fn a_core_that_starts_again_is_known_by_its_new_incarnation() {
    for_each_seed(|seed| {
        let mut network = Network::new(seed, 5, 2);
        network.run(5 * SECOND);
        let again = endpoint(4, 1);
        for (wait, incarnation) in [(0, 900), (20, 70), (20, 80)] {
            network.kill(again);
            network.run(wait * SECOND);
            network.start(again, incarnation);
            network.run(20 * SECOND);
            network.assert_all_alive();
            let knows = |core: &Membership| {
                core.me == again || core.claim(again).is_some_and(|claim| claim.incarnation == incarnation)
            };
            assert!(network.all(knows), "incarnation {incarnation}");
        }
    });
}

#[test]
fn who_stops_on_purpose_is_known_to_at_once() {
    for_each_seed(|seed| {
        let mut network = Network::new(seed, 5, 2);
        network.run(5 * SECOND);
        network.stop(endpoint(3, 0));
        network.run(Duration::from_millis(100));
        assert!(network.running().into_iter().all(|core| !network.core(core).is_alive(endpoint(3, 0))));
        network.start(endpoint(3, 0), 4);
        network.run(10 * SECOND);
        network.assert_all_alive();
    });
}

#[test]
fn a_one_way_split_kills_nobody() {
    for_each_seed(|seed| {
        let mut network = Network::new(seed, 5, 1);
        network.run(5 * SECOND);
        let (deaf, mute) = (endpoint(1, 0), endpoint(2, 0));
        network.block(mute, deaf);
        network.run(MINUTE);
        assert!(!network.any(|core| core.peers.values().any(|peer| peer.is_dead())), "others get an answer");
        assert!(network.all(|core| core.statistics().refutations == 0), "nobody had to defend itself");
        assert!(network.core(mute).statistics().probes_indirect > 0);
        // Only the two avoid each other: no request of theirs would be answered.
        assert!(!network.core(mute).is_alive(deaf) && !network.core(deaf).is_alive(mute));
        let others = network.changes().iter().filter(|(by, _, _)| *by != deaf && *by != mute);
        assert_eq!(others.count(), 0);
        network.heal();
        network.run(15 * SECOND);
        network.assert_all_alive();
    });
}

#[test]
fn who_hears_nothing_is_dead_to_the_others_until_it_does() {
    for_each_seed(|seed| {
        let mut network = Network::new(seed, 5, 1);
        network.run(5 * SECOND);
        let deaf = endpoint(1, 0);
        (2..=5).for_each(|node| network.block(endpoint(node, 0), deaf));
        network.run(MINUTE);
        assert!((2..=5).all(|node| !network.core(endpoint(node, 0)).is_alive(deaf)));
        network.heal();
        network.run(20 * SECOND);
        network.assert_all_alive();
    });
}

#[test]
fn two_halves_that_changed_the_state_agree_after_healing() {
    for_each_seed(|seed| {
        let mut network = Network::new(seed, 6, 2);
        network.run(5 * SECOND);
        let halves = [vec![1, 2, 3], vec![4, 5, 6]].map(|half| half.into_iter().map(NodeId).collect::<BTreeSet<_>>());
        network.split(&halves[0], &halves[1]);
        network.run(20 * SECOND);
        assert!(!network.core(endpoint(1, 0)).is_alive(endpoint(4, 0)));
        network.change(endpoint(1, 0), Change::Leave(NodeId(2)));
        network.change(endpoint(1, 0), Change::Join(description(7, 70)));
        network.change(endpoint(3, 1), Change::Leave(NodeId(3)));
        network.change(endpoint(5, 1), Change::Leave(NodeId(2)));
        network.change(endpoint(5, 1), Change::Remove(NodeId(2)));
        network.commit(endpoint(5, 1));
        network.change(endpoint(4, 0), Change::Join(description(7, 71)));
        network.run(3 * SECOND);
        assert_eq!((network.views(&halves[0]), network.views(&halves[1])), (1, 1), "a half agrees by itself");
        network.heal();
        network.run(20 * SECOND);
        let all = halves[0].union(&halves[1]).copied().filter(|&node| node != NodeId(2)).collect();
        assert_eq!(network.views(&all), 1);
        let state = network.core(endpoint(6, 1)).state().clone();
        assert_eq!(state.node(NodeId(2)), None, "removed");
        assert_eq!(state.node(NodeId(3)).map(|node| node.status), Some(Status::Leaving));
        assert_eq!(state.node(NodeId(7)).map(|node| node.identity), Some(NodeIdentity(70)));
        // The removed node was told why nobody listens.
        assert_eq!(network.core(endpoint(2, 0)).refusal(), Some(Refusal::Removed));
        let members = network.running().into_iter().filter(|core| core.node != NodeId(2));
        assert!(members.clone().all(|core| members.clone().all(|other| network.core(core).is_alive(other))));
    });
}

#[test]
fn a_removed_node_that_comes_back_is_refused_with_all_that_it_says() {
    for_each_seed(|seed| {
        let mut network = Network::new(seed, 4, 1);
        network.run(5 * SECOND);
        let back = endpoint(4, 0);
        network.kill(back);
        network.change(endpoint(1, 0), Change::Remove(NodeId(4)));
        network.run(5 * SECOND);
        assert!((1..=3).all(|node| network.core(endpoint(node, 0)).all_know_ring()), "nobody waits for it");
        network.commit(endpoint(1, 0));
        network.run(5 * SECOND);
        let before = network.core(endpoint(2, 0)).state().clone();
        // Its disk knows nothing of that, and brings a change of its own.
        network.start(back, 77);
        network.change(back, Change::Leave(NodeId(1)));
        network.run(10 * SECOND);
        for node in 1..=3 {
            let core = network.core(endpoint(node, 0));
            assert_eq!(core.state(), &before);
            assert!((1..=3).all(|other| core.is_alive(endpoint(other, 0))) && !core.is_alive(back));
        }
        assert_eq!(network.core(back).refusal(), Some(Refusal::Removed));
        assert_eq!(network.refusals(), &[(back, Refusal::Removed)]);
    });
}

#[test]
fn a_node_joins_through_a_seed_and_a_second_one_of_its_id_is_told_why_not() {
    for_each_seed(|seed| {
        let mut network = Network::new(seed, 3, 2);
        network.run(5 * SECOND);
        network.join(&description(4, 500), endpoint(2, 0));
        network.run(5 * SECOND);
        assert!(network.all(|core| core.state().node(NodeId(4)).is_some_and(|node| node.status == Status::Joining)));
        let by = endpoint(1, 1);
        assert!(network.core(by).all_know_ring());
        let plan = network.core(by).state().plan().unwrap().id;
        network.change(by, Change::Commit { plan });
        assert!(!network.core(by).all_know_ring(), "they cannot know yet");
        network.run(5 * SECOND);
        assert!(network.all(|core| core.all_know_ring() && core.state().ring().unwrap().is_changing()));
        (0..2).for_each(|core| network.change(endpoint(4, core), Change::Confirm(endpoint(4, core))));
        network.run(5 * SECOND);
        network.change(endpoint(2, 0), Change::Finish);
        network.run(5 * SECOND);
        assert!(network.all(Membership::all_know_ring));
        assert!(network.all(|core| core.state().members(|status| status == Status::Member).len() == 4));
        network.assert_all_alive();
        let state = network.core(endpoint(1, 0)).state().clone();
        // Another machine says that it is node 4.
        network.kill(endpoint(4, 0));
        network.kill(endpoint(4, 1));
        network.join(&description(4, 600), endpoint(2, 0));
        network.run(20 * SECOND);
        let stranger = network.core(endpoint(4, 0));
        assert!(
            matches!(stranger.refusal(), Some(Refusal::IdTaken { by: NodeIdentity(500), .. })),
            "{:?}",
            stranger.refusal()
        );
        assert!((1..=3).all(|node| network.core(endpoint(node, 0)).state() == &state), "it changed nothing");
        assert!((1..=3).all(|node| !network.core(endpoint(node, 0)).is_alive(endpoint(4, 0))));
    });
}

#[test]
fn what_a_core_knew_in_an_earlier_life_does_not_count() {
    let mut network = Network::new(4, 3, 1);
    network.run(5 * SECOND);
    let (me, other) = (endpoint(1, 0), endpoint(2, 0));
    assert!(network.core(me).all_know_ring());
    // A third one says that it started again: what does it know now?
    let again = Claim { incarnation: 5, refutation: 9, ..network.core(me).claim(other).expect("a member") };
    network.core_mut(me).hear(Instant(0), again, &mut Vec::new());
    assert_eq!(network.core(me).behind_ring(), [other]);
    assert!(!network.core(me).all_know_ring());
    network.kill(other);
    network.start(other, 5);
    network.run(5 * SECOND);
    assert!(network.all(Membership::all_know_ring));
}

#[test]
fn nobody_knows_that_all_know_the_ring_while_one_cannot_be_heard() {
    for_each_seed(|seed| {
        let mut network = Network::new(seed, 4, 1);
        network.run(5 * SECOND);
        network.pause(endpoint(4, 0));
        network.change(endpoint(1, 0), Change::Leave(NodeId(1)));
        network.commit(endpoint(1, 0));
        network.run(MINUTE);
        for node in 2..=3 {
            assert_eq!(network.core(endpoint(node, 0)).behind_ring(), [endpoint(4, 0)], "dead, but it counts");
        }
        network.resume(endpoint(4, 0));
        network.run(10 * SECOND);
        assert!((2..=4).all(|node| network.core(endpoint(node, 0)).all_know_ring()));
    });
}

#[test]
fn another_cluster_of_the_same_name_does_not_flow_in() {
    let mut network = Network::new(3, 3, 1);
    network.run(5 * SECOND);
    let other = ClusterState::founded(64, 3, (11..=13).map(|id| description(id, id.into())).collect()).unwrap();
    network.begin(endpoint(11, 0), NodeIdentity(11), 5, vec![endpoint(1, 0)], other.clone());
    network.run(30 * SECOND);
    assert!((1..=3).all(|node| network.core(endpoint(node, 0)).state().nodes().count() == 3));
    assert_eq!(network.core(endpoint(11, 0)).state(), &other);
}

#[test]
fn a_founder_that_lost_its_disk_learns_from_who_joined_since_where_no_other_founder_is_left() {
    for_each_seed(|seed| {
        let mut network = Network::new(seed, 3, 1);
        let (founder, joined) = (endpoint(1, 0), endpoint(4, 0));
        network.join(&state::Description { cores: 1, ..description(4, 40) }, founder);
        network.run(5 * SECOND);
        network.commit(founder);
        for gone in 2..=3 {
            network.change(founder, Change::Remove(NodeId(gone)));
            network.commit(founder);
            network.run(5 * SECOND);
            network.kill(endpoint(gone, 0));
        }
        network.kill(founder);
        network.start(founder, 99);
        network.run(20 * SECOND);
        assert_eq!(network.core(founder).state(), network.core(joined).state());
        assert_eq!(network.core(joined).state().nodes().count(), 2);
        network.assert_all_alive();
    });
}

#[test]
fn a_peer_that_requests_do_not_reach_is_avoided_at_once_and_taken_back() {
    let mut network = Network::new(5, 3, 1);
    network.run(5 * SECOND);
    let (me, peer) = (endpoint(1, 0), endpoint(2, 0));
    network.contact(me, peer, Contact::TimedOut);
    assert!(network.core(me).is_alive(peer), "one request may be slow");
    network.contact(me, peer, Contact::Answered);
    network.contact(me, peer, Contact::TimedOut);
    assert!(network.core(me).is_alive(peer), "not in a row");
    network.contact(me, peer, Contact::TimedOut);
    assert!(!network.core(me).is_alive(peer));
    network.run(SECOND);
    assert!(network.core(me).is_alive(peer), "it answers pings");
    network.contact(me, peer, Contact::Unreachable);
    assert!(!network.core(me).is_alive(peer));
    let others = network.changes().iter().filter(|&&(by, _, _)| by != me);
    assert_eq!(others.count(), 0, "nobody else is told");
    network.contact(me, peer, Contact::Answered);
    assert!(network.core(me).is_alive(peer));
    // Who keeps failing is taken back later and later, but is.
    for _ in 0..10 {
        network.contact(me, peer, Contact::Unreachable);
        network.run(SECOND);
    }
    assert!(!network.core(me).is_alive(peer));
    network.run(10 * SECOND);
    assert!(network.core(me).is_alive(peer));
}

#[test]
fn a_failed_request_makes_the_others_know_soon() {
    for_each_seed(|seed| {
        let mut network = Network::new(seed, 20, 1);
        network.run(5 * SECOND);
        network.kill(endpoint(2, 0));
        network.contact(endpoint(1, 0), endpoint(2, 0), Contact::Unreachable);
        network.run(2 * GossipConfig::default().probe_interval);
        let suspected = network.core(endpoint(1, 0)).claim(endpoint(2, 0)).map(|claim| claim.liveness);
        assert_eq!(suspected, Some(Liveness::Suspect));
    });
}

#[test]
fn every_message_is_within_its_bounds_however_much_there_is_to_tell() {
    let mut network = Network::new(11, 40, 4);
    network.run(2 * SECOND);
    (2..=20).for_each(|node| (0..4).for_each(|core| network.kill(endpoint(node, core))));
    network.run(20 * SECOND);
    let largest = network.sent().iter().map(|gossip| gossip.claims.len()).max();
    assert_eq!(largest, Some(CLAIMS_MAX), "there was more to tell than one message holds");
    for gossip in network.sent().iter().step_by(97) {
        let mut bytes = Vec::new();
        frame::encode(&Message::Gossip(gossip.clone()), &mut bytes).unwrap();
        let received = frame::decode(&bytes, usize::MAX).unwrap().expect("whole").message();
        assert_eq!(received, Ok(Message::Gossip(gossip.clone())));
    }
    assert!(network.all(|core| core.relays.len() <= 256 && core.rumors.len() <= core.peers.len()));
    assert!(network.all(|core| core.suspicions.len() <= core.peers.len() && core.round.len() <= core.peers.len()));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut network = Network::new(seed, 5, 2);
        network.loss_percent = 20;
        network.run(20 * SECOND);
        network.sent().to_vec()
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

#[test]
fn news_in_any_order_ends_in_one_claim() {
    let claims: Vec<Claim> = (0..3u32)
        .flat_map(|refutation| [1, 2].map(|incarnation| (refutation, incarnation)))
        .flat_map(|(refutation, incarnation)| {
            [Liveness::Alive, Liveness::Suspect, Liveness::Dead].map(|liveness| Claim {
                endpoint: endpoint(2, 0),
                incarnation,
                refutation,
                liveness,
            })
        })
        .collect();
    let mut random = Random::new(1);
    for _ in 0..100 {
        let mut network = Network::new(1, 2, 1);
        for claim in random.choose(claims.clone(), claims.len()) {
            network.core_mut(endpoint(1, 0)).hear(Instant(0), claim, &mut Vec::new());
        }
        assert_eq!(network.core(endpoint(1, 0)).claim(endpoint(2, 0)), claims.last().copied());
    }
}
