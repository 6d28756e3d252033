//! What `QUORATE CLUSTER …` is answered: what is staged, what a commit would do, how far a change of the ring is.
//!
//! The rule: each core tells what it knows and how far it is itself; nobody speaks for the others.
//!
//! Not here: the changes (`membership/state`), what a whole cluster's answers come to (the tools).

use std::collections::BTreeMap;

use quorate_engine::disk::Disk;
use quorate_net::{
    id::Endpoint,
    message::gossip::{NodeEntry, Status},
};
use serde_json::{Value, json};

use super::inquiry::{as_json, from_here, hexadecimal, status};
use crate::{
    core::Core,
    membership::state::{ChangeError, PlannedNode},
    ring::Move,
    runtime::shell::Shell,
};

/// What tools tell refusals by.
pub(super) fn code(error: &ChangeError) -> &'static str {
    match error {
        ChangeError::Stale { .. } => "STALE",
        ChangeError::Refused(_) => "REFUSED",
        _ => "ERR",
    }
}

/// Which state of the cluster this core knows.
pub(super) fn state<D: Disk>(core: &Core<D>) -> Value {
    let state = core.membership().state();
    from_here(core, json!({"epoch": state.digest().epoch, "digest": hexadecimal(state.digest().hash)}))
}

/// How this core stands in a change of the ring, and what is staged.
pub(super) fn cluster(shell: &Shell) -> Value {
    let mut answer = shell.look(of_core);
    answer["refusals"] = Value::Array(shell.refusals());
    answer
}

fn of_core<D: Disk>(core: &Core<D>) -> Value {
    let members = core.membership();
    let state = members.state();
    let store = core.store().statistics();
    // Its id may mean another machine.
    let own = state.entries().into_iter().find(|entry| entry.identity == members.identity());
    let mut answer = json!({
        "identity": members.identity().to_string(),
        "status": own.map(|own| status(own.status)),
        "refused": members.refusal().map(|refusal| refusal.to_string()),
        "stored": core.is_state_stored(),
        "term": state.ring_state().term(),
        "partitions": core.settings().partitions,
        "replicas": core.settings().replicas,
        "nodes": state.entries().iter().map(node).collect::<Vec<_>>(),
        "change": state.ring_state().change().map(|change| {
            let moves = state.ring_state().table().map_or_else(Vec::new, |table| table.moves(&change.next));
            json!({
                "paused": change.is_paused(),
                "moves": moves.len(),
                "owners_to_be": owners_to_be(&moves),
                "waits_for": endpoints(state.unconfirmed()),
            })
        }),
        // Who has not shown that it goes by the same tables: nothing is transferred, and nothing dropped, before all do.
        "behind": endpoints(members.behind_ring()),
        "transfer": transfer(core),
        "keys": store.keys,
        "live_bytes": store.live_bytes,
    });
    answer["epoch"] = json!(state.digest().epoch);
    answer["digest"] = json!(hexadecimal(state.digest().hash));
    from_here(core, answer)
}

/// By node: the partitions that it is to keep and does not yet.
fn owners_to_be(moves: &[Move]) -> Vec<Value> {
    let mut gained: BTreeMap<u16, Vec<u16>> = BTreeMap::new();
    moves.iter().for_each(|of| gained.entry(of.gains.0).or_default().push(of.partition));
    gained.into_iter().map(|(node, partitions)| json!({"node": node, "partitions": partitions})).collect()
}

/// What this core gains or gives away.
fn transfer<D: Disk>(core: &Core<D>) -> Value {
    let (ring, me) = (core.ring(), core.settings().me);
    let (left, total) = core.transfer().progress();
    let gained = (0..ring.partitions()).filter(|&partition| ring.gaining(partition).any(|gains| gains == me));
    let keys: u64 = gained.map(|partition| core.store().index(|index| index.partition_len(partition))).sum();
    json!({
        "gains": ring.is_changing(),
        "total": total,
        "left": left,
        "gained_keys": keys,
        "given_keys": given_keys(core),
    })
}

/// Keys that others gain by the change that is under way, of those partitions that this core speaks for: it is the first of
/// the primaries that it takes for alive. A partition that several gain counts for each of them.
fn given_keys<D: Disk>(core: &Core<D>) -> u64 {
    let (ring, me) = (core.ring(), core.settings().me);
    let speaks = |partition| {
        let alive = |&&primary: &&Endpoint| core.membership().is_alive(primary);
        ring.primaries(partition).iter().find(alive) == Some(&me)
    };
    let keys = |partition| core.store().index(|index| index.partition_len(partition));
    let given = |partition| ring.gaining(partition).count() as u64;
    let moved = (0..ring.partitions()).filter(|&partition| given(partition) > 0 && speaks(partition));
    moved.map(|partition| keys(partition) * given(partition)).sum()
}

fn node(node: &NodeEntry) -> Value {
    json!({
        "id": node.id.0,
        "identity": node.identity.to_string(),
        "status": status(node.status),
        "address": node.address.to_string(),
        "port": node.port,
        "cores": node.cores,
        "replaces": node.replaces.map(|old| old.0),
        "staged": !matches!(node.status, Status::Member | Status::Removed),
    })
}

/// What a commit would do now, or why there is nothing to commit.
pub(super) fn plan<D: Disk>(core: &Core<D>) -> Result<Value, String> {
    if let Some(refusal) = core.membership().refusal() {
        return Err(refusal.to_string());
    }
    let plan = core.plan().map_err(|error| error.to_string())?;
    let moved = |of: &Move| json!({"partition": of.partition, "from": of.loses.map(|node| node.0), "to": of.gains.0});
    let planned = |node: &PlannedNode| {
        json!({
            "id": node.id.0,
            "status": node.status.map(status),
            "before": node.before,
            "after": node.after,
            "gains": node.gains,
            "loses": node.loses,
        })
    };
    let shown = json!({
        "plan": hexadecimal(plan.id),
        "term": plan.term,
        "balance_before": plan.balance_before,
        "balance_after": plan.balance_after,
        "without_source": plan.without_source,
        "nodes": plan.nodes.iter().map(planned).collect::<Vec<_>>(),
        "moves": plan.moves.iter().map(moved).collect::<Vec<_>>(),
    });
    Ok(from_here(core, shown))
}

fn endpoints(endpoints: Vec<Endpoint>) -> Vec<Value> {
    endpoints.into_iter().map(as_json).collect()
}
