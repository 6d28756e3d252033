//! What `QUORATE …` is answered: how a core stands in its partitions, its hints, its exchanges and its gossip.
//!
//! The rule: nothing here costs more than a look at each partition; no key is listed, and no disk is read.
//!
//! Not here: the command ([`crate::gateway`]), what a whole cluster's answers come to (the tools).

use std::collections::BTreeMap;

use quorate_engine::{Store, disk::Disk};
use quorate_net::{
    id::{CoreId, Endpoint},
    message::gossip::{Claim, Liveness, NodeEntry, Status},
};
use serde_json::{Map, Value, json};

use super::figures;
use crate::{clock::Instant, core::Core};

/// The Merkle root of each partition that this core keeps as a primary.
pub(super) fn roots<D: Disk>(core: &Core<D>) -> Value {
    let store = core.store().statistics();
    let partition = |partition| {
        let (root, keys) = core.store().index(|index| (index.root(partition), index.partition_len(partition)));
        json!({"partition": partition, "root": hexadecimal(root), "keys": keys})
    };
    let partitions: Vec<Value> = owned(core).into_iter().map(partition).collect();
    let counts =
        json!({"keys": store.keys, "tombstones": store.tombstones, "lost": store.lost, "partitions": partitions});
    from_here(core, counts)
}

/// The partitions that this core is a primary of.
pub(super) fn owned<D: Disk>(core: &Core<D>) -> Vec<u16> {
    let (ring, me) = (core.ring(), core.settings().me);
    (0..ring.partitions()).filter(|&partition| ring.primaries(partition).contains(&me)).collect()
}

/// By partition the cores that keep it, in the order of its preference list.
pub(super) fn ring<D: Disk>(core: &Core<D>) -> Value {
    let ring = core.ring();
    let owner = |owner: &Endpoint| json!([owner.node.0, owner.core.0]);
    let owners = |partition| ring.primaries(partition).iter().map(owner).collect::<Vec<_>>();
    let partitions: Vec<Vec<Value>> = (0..ring.partitions()).map(owners).collect();
    from_here(core, json!({"replicas": ring.replicas(), "partitions": partitions}))
}

/// All figures, by name.
pub(super) fn figures<D: Disk>(core: &Core<D>, figures: &[(&'static str, u64)]) -> Value {
    let figures: Map<String, Value> = figures.iter().map(|&(name, value)| (name.to_owned(), json!(value))).collect();
    from_here(core, json!({"figures": figures}))
}

/// The hints that this core keeps for others, and how their handoff goes.
pub(super) fn hints<D: Disk>(core: &Core<D>) -> Value {
    let (handoff, store) = (core.handoff(), core.hint_store().statistics());
    let mut owed: BTreeMap<u16, Vec<Value>> = BTreeMap::new();
    for (to, partition) in handoff.owed() {
        owed.entry(partition).or_default().push(as_json(to));
    }
    let partitions: Vec<Value> = (0..core.ring().partitions())
        .map(|partition| (partition, keys(core.hint_store(), partition)))
        .filter(|(_, held)| *held > 0)
        .map(|(partition, held)| {
            json!({"partition": partition, "held": held, "owed_to": owed.remove(&partition).unwrap_or_default()})
        })
        .collect();
    let counted = handoff.statistics();
    let counts = json!({
        "held": figures::held(&store),
        "lost": store.lost,
        "live_bytes": store.live_bytes,
        "log_bytes": store.segments * store.segment_bytes,
        "underway": handoff.underway(),
        "underway_bytes": handoff.bytes_underway(),
        "accepted": counted.accepted,
        "delivered": counted.delivered,
        "dropped": counted.dropped,
        "superseded": counted.superseded,
        "probes": counted.probes,
        "sent": counted.sent,
        "sent_bytes": counted.bytes_sent,
        "acknowledged": counted.acknowledged,
        "refused": counted.refused,
        "timeouts": counted.timeouts,
        "partitions": partitions,
    });
    from_here(core, counts)
}

/// How many keys a store has in a partition.
pub(super) fn keys<D: Disk>(store: &Store<D>, partition: u16) -> u64 {
    store.index(|index| index.partition_len(partition))
}

/// How the exchanges that this core began go.
pub(super) fn exchanges<D: Disk>(core: &Core<D>) -> Value {
    let exchanges = core.anti_entropy();
    let counted = exchanges.statistics();
    let counts = json!({
        "underway": exchanges.underway(),
        "underway_bytes": exchanges.bytes_underway(),
        "exchanges": counted.exchanges,
        "equal_roots": counted.equal_roots,
        "busy": counted.busy,
        "given_up": counted.given_up,
        "leaves": counted.leaves,
        "passed": counted.passed,
        "differences": counted.differences,
        "keys_sent": counted.keys_sent,
        "keys_received": counted.keys_received,
        "sent_bytes": counted.bytes_sent,
        "received_bytes": counted.bytes_received,
        "malformed": counted.malformed,
    });
    from_here(core, counts)
}

/// Who belongs and who answers, as this core knows it.
pub(super) fn members<D: Disk>(core: &Core<D>, now: Instant) -> Value {
    let members = core.membership();
    let digest = members.state().digest();
    let nodes: Vec<Value> = members.state().entries().iter().map(|node| member(core, now, node)).collect();
    let known = json!({
        "epoch": digest.epoch,
        "digest": hexadecimal(digest.hash),
        "refused": members.refusal().map(|refusal| refusal.to_string()),
        "nodes": nodes,
    });
    from_here(core, known)
}

fn member<D: Disk>(core: &Core<D>, now: Instant, node: &NodeEntry) -> Value {
    // Its id may mean another machine by now.
    let belongs = core.membership().state().node(node.id).is_some_and(|holder| holder.identity == node.identity);
    let cores = if belongs { node.cores } else { 0 };
    let endpoints = (0..cores).map(|number| Endpoint::new(node.id, CoreId(number)));
    json!({
        "id": node.id.0,
        "identity": node.identity.to_string(),
        "status": status(node.status),
        "version": node.version,
        "admitted": node.admitted,
        "address": node.address.to_string(),
        "port": node.port,
        "core_port": node.core_port,
        "peer_port": node.peer_port,
        "http_port": node.http_port,
        "rack": node.rack,
        "weight": f64::from(node.weight_thousandths) / 1000.0,
        "cores": endpoints.map(|endpoint| liveness(core, now, endpoint)).collect::<Vec<_>>(),
    })
}

/// What is said of a core, and what this one makes of it. Of itself it says that it is alive, and no more.
fn liveness<D: Disk>(core: &Core<D>, now: Instant, endpoint: Endpoint) -> Value {
    let claim = core.membership().claim(endpoint);
    let word = match claim.map_or(Liveness::Alive, |claim| claim.liveness) {
        Liveness::Alive => "alive",
        Liveness::Suspect => "suspect",
        Liveness::Dead => "dead",
    };
    json!({
        "core": endpoint.core.0,
        "liveness": word,
        // Since it is a suspect or dead.
        "away_seconds": core.membership().away_since(endpoint).map(|since| now.since(since).as_secs()),
        "avoided": !core.membership().is_alive(endpoint),
        // 0: it has not been heard of.
        "incarnation": claim.map(|Claim { incarnation, .. }| hexadecimal(incarnation)),
        "refutations": claim.map(|claim| claim.refutation),
    })
}

pub(super) fn status(status: Status) -> &'static str {
    match status {
        Status::Joining => "joining",
        Status::Member => "member",
        Status::Leaving => "leaving",
        Status::Removing => "removing",
        Status::Removed => "removed",
    }
}

/// An answer begins with who gives it.
pub(super) fn from_here<D: Disk>(core: &Core<D>, said: Value) -> Value {
    let mut answer = Map::new();
    let Value::Object(here) = as_json(core.settings().me) else { unreachable!("an endpoint has two numbers") };
    answer.extend(here);
    let Value::Object(said) = said else { unreachable!("answers are objects") };
    answer.extend(said);
    Value::Object(answer)
}

pub(super) fn as_json(endpoint: Endpoint) -> Value {
    json!({"node": endpoint.node.0, "core": endpoint.core.0})
}

/// All 64 bits: many programs read numbers as floats.
pub(super) fn hexadecimal(number: u64) -> String {
    format!("{number:016x}")
}
