//! `quorate cluster join`: waits until the cluster has heard of a new node.
//!
//! The rule: a node asks to join by itself when it starts with `join = true`; here it is seen that the cluster knows it, or
//! why not. It takes part only when a plan with it is committed.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use quorate_bench::Bar;
use serde_json::{Value, json};

use super::{
    NOTHING_MOVES,
    view::{ANSWER_MAX, View},
};
use crate::{
    failure::{Failure, failed},
    nodes::{Common, number, resolve},
    resp,
};

/// Who is refused for so long is not waited for any more.
const REFUSED_FOR: Duration = Duration::from_secs(2);

/// Between two looks.
const LOOK_PERIOD: Duration = Duration::from_millis(100);

pub(super) fn run(common: &Common, address: &str, shown: bool) -> Result<(), Failure> {
    let addresses = resolve(address).map_err(|_| {
        Failure::Usage(format!("{address}: not an ADDRESS or ADDRESS:PORT that can be found, such as 127.0.0.4"))
    })?;
    let mut client = common.connect()?;
    let begun = Instant::now();
    let until = begun + common.timeout;
    let mut refused_since = None;
    let bar = Bar::new("waiting for the cluster to hear of it", shown);
    // After that it is given up.
    let wait = || {
        bar.show(begun.elapsed().as_millis() as u64, common.timeout.as_millis() as u64, &"");
        thread::sleep(LOOK_PERIOD);
    };
    loop {
        let joiner = match ask(&addresses) {
            Ok(joiner) => joiner,
            // It may have been started a moment ago.
            Err(_) if Instant::now() < until => {
                wait();
                continue;
            }
            Err(error) => return Err(failed(error)),
        };
        let view = View::look(&mut client);
        let standing = standing(&joiner, view.foremost()?.2, shape(&view));
        match standing {
            Standing::Refused(why) => return Err(failed(why)),
            Standing::Known(status) => {
                tell(common, &joiner, status);
                return Ok(());
            }
            Standing::Unknown => {
                let why = why_not(&joiner, &view);
                let refused = why.as_ref().map(|_| *refused_since.get_or_insert_with(Instant::now));
                // A refusal may be of a moment ago, and another node may let it in.
                if Instant::now() > until || refused.is_some_and(|since| since.elapsed() > REFUSED_FOR) {
                    return Err(failed(in_words(&joiner, why)));
                }
                wait();
            }
        }
    }
}

fn ask(addresses: &[SocketAddr]) -> Result<Value, String> {
    let mut last = String::new();
    for &address in addresses {
        match resp::ask(address, &[b"QUORATE", b"CLUSTER", b"STATUS"], ANSWER_MAX) {
            Ok(text) => {
                return serde_json::from_slice(&text).map_err(|error| format!("{address} answered no JSON: {error}"));
            }
            Err(error) => last = format!("{address}: {error}"),
        }
    }
    Err(format!(
        "no node answers there ({last}); nothing was changed: start it first, by `quorate serve --config FILE` with \
         `join = true` in [node]"
    ))
}

/// Q and N of the cluster.
fn shape(view: &View) -> (u64, u64) {
    (view.map.preference.len() as u64, view.map.replicas.into())
}

enum Standing<'a> {
    Known(&'a str),
    Refused(String),
    Unknown,
}

/// How a node stands in the cluster, by what it says of itself and what the cluster says.
fn standing<'a>(joiner: &Value, cluster: &'a Value, (partitions, replicas): (u64, u64)) -> Standing<'a> {
    if let Some(refused) = joiner["refused"].as_str() {
        return Standing::Refused(refused.to_owned());
    }
    let (its, its_replicas) = (number(joiner, "partitions"), number(joiner, "replicas"));
    if (its, its_replicas) != (partitions, replicas) {
        return Standing::Refused(format!(
            "its ring has {its} partitions and {its_replicas} replicas, the cluster's {partitions} and {replicas}; nothing was \
             changed: write the cluster's `partitions` and `replicas` into [cluster] of its configuration, empty its data \
             directory and start it again"
        ));
    }
    let entries = cluster["nodes"].as_array().into_iter().flatten();
    let known = entries.clone().find(|entry| entry["identity"] == joiner["identity"] && !joiner["identity"].is_null());
    match known.and_then(|entry| entry["status"].as_str()) {
        Some(status) => Standing::Known(status),
        None => Standing::Unknown,
    }
}

fn tell(common: &Common, joiner: &Value, status: &str) {
    let id = number(joiner, "node");
    let answer = json!({"id": id, "identity": joiner["identity"], "status": status});
    let said = match status {
        "joining" => format!("Node {id} asks to join. {NOTHING_MOVES}"),
        _ => format!("Node {id} belongs to the cluster already: it is {status}."),
    };
    super::tell(common, &answer, &said);
}

/// What either side says of the other when it hung up.
fn why_not(joiner: &Value, view: &View) -> Option<String> {
    let reasons = |answer: &Value, of: Option<u64>| -> Vec<String> {
        let refusals = answer["refusals"].as_array().into_iter().flatten();
        // Of one whose version is another not even the name is known.
        let meant = |refusal: &&Value| of.is_none() || refusal["node"].is_null() || refusal["node"].as_u64() == of;
        refusals.filter(meant).filter_map(|refusal| refusal["reason"].as_str()).map(str::to_owned).collect()
    };
    let theirs = view.answers().flat_map(|answer| reasons(answer, Some(number(joiner, "node"))));
    let said = reasons(joiner, None).into_iter().next().map(|said| format!("it says of a node of the cluster: {said}"));
    said.or_else(|| theirs.last().map(|said| format!("a node of the cluster says of it: {said}")))
}

fn in_words(joiner: &Value, why: Option<String>) -> String {
    let why = why.unwrap_or_else(|| {
        "neither has heard of the other: list nodes of the cluster as [[cluster.node]] in its configuration, and check the \
         network between them"
            .to_owned()
    });
    format!("the cluster does not know node {}, nothing was changed: {why}", number(joiner, "node"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_stands_as_both_sides_say() {
        let joiner = json!({"node": 4, "identity": "a", "partitions": 64, "replicas": 3, "refused": null});
        let cluster = json!({"nodes": [{"id": 4, "identity": "a", "status": "joining"}]});
        assert!(matches!(standing(&joiner, &cluster, (64, 3)), Standing::Known("joining")));
        assert!(matches!(standing(&joiner, &json!({"nodes": []}), (64, 3)), Standing::Unknown));
        for shape in [(128, 3), (64, 2)] {
            let Standing::Refused(why) = standing(&joiner, &cluster, shape) else { panic!("{shape:?}") };
            assert!(why.contains("64 partitions and 3 replicas") && why.contains("nothing was changed"), "{why}");
        }
        let refused = json!({"node": 4, "refused": "it was removed", "partitions": 64, "replicas": 3});
        assert!(matches!(standing(&refused, &cluster, (64, 3)), Standing::Refused(why) if why == "it was removed"));
    }
}
