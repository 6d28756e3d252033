//! What each figure of a core is: whether it only rises, and what it counts.
//!
//! The rule: every figure is here, in the order of the names. Not here: the counting (`runtime/view`).

/// One figure.
pub(super) struct Figure {
    pub(super) name: &'static str,
    /// It only rises, until the node starts again.
    pub(super) rises: bool,
    pub(super) help: &'static str,
}

const fn counter(name: &'static str, help: &'static str) -> Figure {
    Figure { name, rises: true, help }
}

const fn gauge(name: &'static str, help: &'static str) -> Figure {
    Figure { name, rises: false, help }
}

/// The figure that `INFO` lists by this name.
pub(super) fn find(name: &str) -> Option<&'static Figure> {
    FIGURES.binary_search_by(|figure| figure.name.cmp(name)).ok().map(|at| &FIGURES[at])
}

pub(super) const FIGURES: &[Figure] = &[
    counter("actor_renewals", "New actors that a core took after its first, so that no dot is given twice."),
    counter("clock_entries_dropped", "Entries taken out of clocks at their limit without a proof that this is safe."),
    counter("clocks_shortened", "Long clocks that were shortened because all replicas have what they tell."),
    counter("commands", "Commands of Redis clients."),
    gauge("connections", "Connections of Redis clients that are open."),
    counter("connections_closed", "Connections of clients and peers that ended."),
    counter("connections_opened", "Connections of clients and peers that were accepted or made."),
    counter("connections_refused", "Connections that were refused because there were too many."),
    gauge("copies_unhealed", "Partitions whose copy here has to be compared with the other owners' before it counts."),
    counter("divergent_gets", "Gets whose replicas did not agree."),
    counter("exchange_busy", "Exchanges that were refused because a core was in another one about the partition."),
    counter("exchange_differences", "Keys that differed between replicas, looked at twice."),
    counter("exchange_equal_roots", "Exchanges that ended at once since the Merkle roots were equal."),
    counter("exchange_given_up", "Exchanges that got no answer, or could not repair all that they found."),
    counter("exchange_keys_received", "Objects that exchanges brought."),
    counter("exchange_keys_sent", "Objects that exchanges sent."),
    counter("exchange_leaves", "Leaves of Merkle trees that exchanges compared key by key."),
    counter("exchange_malformed", "Messages of exchanges that made no sense."),
    counter("exchange_passed", "Keys that differed between replicas at first and no longer when looked at again."),
    counter("exchange_received_bytes", "Bytes of objects that exchanges brought."),
    counter("exchange_sent_bytes", "Bytes of objects that exchanges sent."),
    counter("exchanges", "Exchanges of Merkle trees that this core began."),
    gauge("exchanges_underway", "Exchanges under way."),
    gauge("exchanges_underway_bytes", "Bytes of objects that exchanges hold in memory."),
    counter("failures", "Replies that said that something failed."),
    counter("forgetting_asked", "Versions whose past was offered to all replicas to be forgotten."),
    counter("forgetting_given_up", "Batches of these that were given up: somebody was away, or the ring changed."),
    counter("forgetting_not_ready", "Versions of these that some replica was not ready for."),
    counter("forgetting_proven", "Versions of these whose past all were told to forget."),
    counter("forwarded", "Requests that were sent on to an owner of their key."),
    counter("forwarded_again", "Requests that were sent to another owner besides, since the first did not answer."),
    counter("get_loads", "Bodies that were read from the store for a get or a probe."),
    counter("gets", "Gets that were coordinated here."),
    gauge("gossip_epoch", "Version of the cluster's membership that is known here."),
    counter("gossip_pauses", "Times that this core found that it had been standing still."),
    counter("gossip_probes_failed", "Probes that got no answer at all."),
    counter("gossip_probes_indirect", "Probes that only others got an answer to."),
    counter("gossip_refused", "Messages of machines that do not belong to the cluster."),
    counter("gossip_refutations", "Times that this core had to say that it is alive after all."),
    counter(
        "gossip_states_not_taken",
        "States of the cluster that were not taken in: of another cluster, or too large.",
    ),
    counter("gossip_states_sent", "States of the cluster that were sent because the receiver's was another."),
    counter("handoff_acknowledged", "Answers of primaries that they have a hint."),
    counter("handoff_loads", "Hints that were read to be handed off."),
    counter("handoff_probes", "Questions to primaries whether they have a hint."),
    counter("handoff_refused", "Answers of primaries that would not take a hint."),
    counter("handoff_sent", "Hints that were sent to primaries."),
    counter("handoff_sent_bytes", "Bytes of hints that were sent to primaries."),
    counter("handoff_timeouts", "Messages of the handoff that nobody answered in time."),
    gauge("handoff_underway", "Hints on their way."),
    gauge("handoff_underway_bytes", "Bytes of hints on their way."),
    counter("hedges", "Gets that were asked for once more, since they took unusually long."),
    counter("hints_accepted", "Hints that were taken in for others."),
    counter("hints_checkpoints_bad", "Checkpoints of the hints' log that did not validate."),
    counter("hints_damaged", "Places where the hints' log was found damaged."),
    counter("hints_delivered", "Hints that were forgotten because all primaries have them."),
    counter("hints_dropped", "Hints that were given up."),
    gauge("hints_held", "Hints that are held for others."),
    gauge("hints_live_bytes", "Bytes of the hints that are held."),
    counter("hints_log_bytes", "Bytes written to the hints' log."),
    gauge("hints_lost", "Hints that were found unreadable and could not be handed off."),
    gauge("hints_segments", "Segment files of the hints' log."),
    counter("hints_sent", "Objects that were given to fallbacks for owners that did not answer."),
    counter("hints_superseded", "Hints that a newer one of the same key had replaced when all primaries had them."),
    counter("malformed", "Messages that made no sense."),
    counter("messages_unsent", "Messages that could not be sent: there was no connection, or its queue was full."),
    counter("network_read_bytes", "Bytes read from clients and peers."),
    counter("network_written_bytes", "Bytes written to clients and peers."),
    counter("objects_unfit", "Objects that were refused because with what is here they fit no record."),
    counter("overloads", "Requests that were refused because too many were under way."),
    gauge("partitions_without_quorum", "Partitions kept here of which too few owners can be reached for a quorum."),
    gauge("peers_alive", "Cores of the cluster that are said to be alive."),
    gauge("peers_avoided", "Cores of the cluster that this one does not get through to, or that are dead."),
    gauge("peers_dead", "Cores of the cluster that are said to be dead."),
    gauge("peers_down", "Cores of the cluster that requests do not go to: dead, avoided, or not connected."),
    gauge("peers_suspect", "Cores of the cluster that are suspected to be dead."),
    counter("probed", "Versions that were told as a replica."),
    counter("put_loads", "Bodies that were read from the store for a put."),
    counter("puts", "Puts that were coordinated here."),
    gauge("queue_length", "Requests, reads and writes that this core has under way or waiting."),
    counter("read_repairs", "Objects sent to replicas that a get had seen to lack them."),
    counter("replicated", "Objects that were taken as a replica."),
    counter("stale_gets", "Gets whose later answers told of more than was answered."),
    counter("stalls", "Times that something kept a core from everything else for over a millisecond."),
    counter("stalls_total_us", "Time for which something kept a core from everything else."),
    gauge("store_cache_bytes", "Bytes in the cache of records."),
    counter("store_cache_hits", "Reads that the cache of records answered."),
    counter("store_checkpoint_bytes", "Bytes written into checkpoints of the index."),
    counter("store_checkpoints_bad", "Checkpoints of the index that did not validate."),
    counter("store_commits", "Frames written to the log."),
    counter("store_compaction_bytes", "Bytes written by compaction."),
    counter("store_damaged", "Places where the log was found damaged, by whatever read them."),
    counter("store_disk_reads", "Reads that went to the disk."),
    gauge("store_full", "1 when the disk or the quota is full: only deletes are accepted."),
    gauge("store_index_bytes", "Bytes of memory that the index takes."),
    gauge("store_keys", "Keys in the index, tombstones included."),
    gauge("store_live_bytes", "Bytes of records that the index points at."),
    counter("store_log_bytes", "Bytes written to the log."),
    gauge("store_lost", "Keys whose record is lost here and has not come back from a replica yet."),
    counter("store_pending_hits", "Reads of what was not on the disk yet."),
    counter("store_prepared_bytes", "Bytes written to make segments ready."),
    gauge("store_queued_bytes", "Bytes of records that are not durable yet."),
    counter("store_record_bytes", "Bytes of records appended."),
    counter("store_records", "Records appended."),
    counter("store_scrub_bytes", "Bytes read by the scrub."),
    counter("store_scrub_damaged", "Records that the scrub found damaged."),
    counter("store_scrub_passes", "Passes of the scrub from start to end."),
    gauge("store_segment_bytes", "Bytes of one segment."),
    gauge("store_segments", "Segment files of the log."),
    gauge("store_segments_free", "Segments that could be filled before the disk or the quota is full."),
    gauge("store_tombstones", "Tombstones in the index."),
    counter("strangers", "Messages of cores that do not belong to the cluster."),
    counter("tombstones_dropped", "Tombstones that were forgotten because they were proven to be everywhere."),
    gauge("tombstones_oldest_seconds_now", "Age of the oldest tombstone that waits to be forgotten."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_order_and_each_figure_is_explained() {
        assert!(FIGURES.is_sorted_by(|one, next| one.name < next.name));
        assert!(FIGURES.iter().all(|figure| figure.help.ends_with('.') && !figure.help.contains('\\')));
    }
}
