//! A core's own figures, by name, as `INFO` lists them.
//!
//! The rule: every core has all of them, under the same names for as long as they mean the same; a size says that it is
//! one of bytes. What is counted since the start only grows, what is held now says so by its name: `_held`, `_underway`,
//! `_now`.
//!
//! Not here: the counting.

use std::collections::BTreeMap;

use quorate_engine::{Statistics as StoreStatistics, disk::Disk};
use quorate_net::{
    id::{Endpoint, NodeId},
    message::gossip::Liveness,
};

use super::{
    super::{shell::Shell, stalls::micros},
    inquiry,
};
use crate::{
    admission::Work,
    clock::Now,
    core::Core,
    metrics::{CoreFigures, PeerFigures, Requests},
};

pub(super) type Figures = Vec<(&'static str, u64)>;

/// All figures of a core.
pub(super) fn of_shell(shell: &Shell) -> Figures {
    let now = shell.now();
    let mut figures = shell.look(|core| of(core, now));
    let (stalls, together) = shell.stalls().sum();
    figures.extend([("messages_unsent", shell.unsent()), ("stalls", stalls), ("stalls_total_us", micros(together))]);
    figures
}

/// What a core tells whoever asks for the figures of its node.
pub(super) fn told(shell: &Shell) -> CoreFigures {
    let figures = of_shell(shell);
    shell.look(|core| CoreFigures {
        figures,
        requests: Requests::of(core.recorder()),
        stretches: Work::ALL.map(|work| (work, core.admission().stretch(work))).to_vec(),
        failures: core.statistics().failures,
        peers: peers(core),
    })
}

fn of<D: Disk>(core: &Core<D>, now: Now) -> Figures {
    let mut figures = requests(core);
    figures.extend(members(core));
    figures.extend(hints(core));
    figures.extend(exchanges(core));
    figures.extend(forgetting(core, now));
    figures.extend(store(&core.store().statistics()));
    figures
}

fn requests<D: Disk>(core: &Core<D>) -> Figures {
    let counted = core.statistics();
    vec![
        ("gets", counted.gets),
        ("puts", counted.puts),
        ("forwarded", counted.forwarded),
        ("forwarded_again", counted.forwarded_again),
        ("hedges", counted.hedges),
        ("replicated", counted.replicated),
        ("probed", counted.probed),
        ("put_loads", counted.put_loads),
        ("get_loads", counted.get_loads),
        ("divergent_gets", counted.divergent),
        ("stale_gets", counted.stale),
        ("read_repairs", counted.repairs),
        ("failures", counted.failures.iter().sum()),
        ("overloads", counted.overloads),
        ("actor_renewals", counted.actor_renewals),
        ("malformed", counted.malformed),
        ("strangers", counted.strangers),
        ("queue_length", core.queue_length() as u64),
        ("peers_down", core.peers_down() as u64),
        ("copies_unhealed", core.unhealed().partitions().count() as u64),
        ("partitions_without_quorum", core.partitions_without_quorum() as u64),
    ]
}

fn members<D: Disk>(core: &Core<D>) -> Figures {
    let members = core.membership();
    let others: Vec<Endpoint> =
        members.state().endpoints().filter(|&endpoint| endpoint != core.settings().me).collect();
    let said = |liveness| {
        let same = |&&endpoint: &&Endpoint| members.claim(endpoint).is_some_and(|claim| claim.liveness == liveness);
        others.iter().filter(same).count() as u64
    };
    let avoided = others.iter().filter(|&&endpoint| !members.is_alive(endpoint)).count() as u64;
    let counted = members.statistics();
    vec![
        ("peers_alive", said(Liveness::Alive)),
        ("peers_suspect", said(Liveness::Suspect)),
        ("peers_dead", said(Liveness::Dead)),
        ("peers_avoided", avoided),
        ("gossip_epoch", members.state().digest().epoch),
        ("gossip_probes_failed", counted.probes_failed),
        ("gossip_probes_indirect", counted.probes_indirect),
        ("gossip_refutations", counted.refutations),
        ("gossip_states_sent", counted.states_sent),
        ("gossip_states_not_taken", counted.states_not_taken),
        ("gossip_refused", counted.refused),
        ("gossip_pauses", counted.pauses),
    ]
}

fn hints<D: Disk>(core: &Core<D>) -> Figures {
    let (handoff, store) = (core.handoff(), core.hint_store().statistics());
    let counted = handoff.statistics();
    vec![
        ("hints_sent", core.statistics().hints_sent),
        ("hints_held", held(&store)),
        ("hints_accepted", counted.accepted),
        ("hints_delivered", counted.delivered),
        ("hints_dropped", counted.dropped),
        ("hints_superseded", counted.superseded),
        ("hints_lost", store.lost),
        ("hints_damaged", store.damaged),
        ("hints_checkpoints_bad", store.checkpoints_bad),
        ("hints_live_bytes", store.live_bytes),
        ("hints_log_bytes", store.log_bytes),
        ("hints_segments", store.segments),
        ("handoff_underway", handoff.underway() as u64),
        ("handoff_underway_bytes", handoff.bytes_underway()),
        ("handoff_loads", counted.loads),
        ("handoff_probes", counted.probes),
        ("handoff_sent", counted.sent),
        ("handoff_sent_bytes", counted.bytes_sent),
        ("handoff_acknowledged", counted.acknowledged),
        ("handoff_refused", counted.refused),
        ("handoff_timeouts", counted.timeouts),
    ]
}

/// The other nodes.
fn peers<D: Disk>(core: &Core<D>) -> Vec<PeerFigures> {
    let mut peers: BTreeMap<NodeId, PeerFigures> = BTreeMap::new();
    for peer in core.membership().state().endpoints().filter(|peer| peer.node != core.settings().me.node) {
        let node = peers.entry(peer.node).or_insert(PeerFigures { node: peer.node, up: true, hints: 0 });
        node.up &= core.membership().is_alive(peer);
    }
    for (to, partition) in core.handoff().owed() {
        if let Some(node) = peers.get_mut(&to.node) {
            node.hints += inquiry::keys(core.hint_store(), partition);
        }
    }
    peers.into_values().collect()
}

/// Hints that can be handed off: what was lost cannot.
pub(super) fn held(hints: &StoreStatistics) -> u64 {
    hints.keys.saturating_sub(hints.lost)
}

fn exchanges<D: Disk>(core: &Core<D>) -> Figures {
    let counted = core.anti_entropy().statistics();
    vec![
        ("exchanges", counted.exchanges),
        ("exchanges_underway", core.anti_entropy().underway() as u64),
        ("exchanges_underway_bytes", core.anti_entropy().bytes_underway()),
        ("exchange_equal_roots", counted.equal_roots),
        ("exchange_busy", counted.busy),
        ("exchange_given_up", counted.given_up),
        ("exchange_leaves", counted.leaves),
        ("exchange_passed", counted.passed),
        ("exchange_differences", counted.differences),
        ("exchange_keys_sent", counted.keys_sent),
        ("exchange_keys_received", counted.keys_received),
        ("exchange_sent_bytes", counted.bytes_sent),
        ("exchange_received_bytes", counted.bytes_received),
        ("exchange_malformed", counted.malformed),
    ]
}

/// What is forgotten. The tombstones that are held are `store_tombstones`.
fn forgetting<D: Disk>(core: &Core<D>, now: Now) -> Figures {
    let counted = core.reaper().statistics();
    let oldest = core.reaper().oldest().map_or(0, |since| now.instant.since(since).as_secs());
    vec![
        ("tombstones_dropped", core.statistics().tombstones_dropped),
        ("clocks_shortened", core.statistics().clocks_shortened),
        ("clock_entries_dropped", core.statistics().clock_entries_dropped),
        ("objects_unfit", core.statistics().unfit),
        ("forgetting_proven", counted.proven),
        ("forgetting_asked", counted.asked),
        ("forgetting_not_ready", counted.not_ready),
        ("forgetting_given_up", counted.given_up),
        ("tombstones_oldest_seconds_now", oldest),
    ]
}

fn store(store: &StoreStatistics) -> Figures {
    vec![
        ("store_keys", store.keys),
        ("store_tombstones", store.tombstones),
        ("store_lost", store.lost),
        ("store_damaged", store.damaged),
        ("store_checkpoints_bad", store.checkpoints_bad),
        ("store_scrub_passes", store.scrub_passes),
        ("store_scrub_bytes", store.scrub_read_bytes),
        ("store_scrub_damaged", store.scrub_damaged),
        ("store_index_bytes", store.index_bytes),
        ("store_cache_bytes", store.cache_bytes),
        ("store_live_bytes", store.live_bytes),
        ("store_records", store.records),
        ("store_record_bytes", store.record_bytes),
        ("store_commits", store.commits),
        ("store_log_bytes", store.log_bytes),
        ("store_compaction_bytes", store.compaction_bytes),
        ("store_checkpoint_bytes", store.checkpoint_bytes),
        ("store_prepared_bytes", store.prepared_bytes),
        ("store_disk_reads", store.disk_reads),
        ("store_cache_hits", store.cache_hits),
        ("store_pending_hits", store.pending_hits),
        ("store_segments", store.segments),
        ("store_segments_free", store.segments_free),
        ("store_segment_bytes", store.segment_bytes),
        ("store_queued_bytes", store.queued_bytes),
        ("store_full", store.full),
    ]
}
