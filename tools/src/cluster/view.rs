//! What the cores of a cluster say of the ring's change, and which of them is told to make one.
//!
//! The rule: a change is made by the core that knows the newest state, so that what was staged a moment ago counts.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use quorate_net::{
    client::Client,
    message::{ClusterMap, MappedNode},
};
use serde_json::Value;

use crate::{
    failure::{Failure, failed},
    nodes::{Answered, ask_cores, inquire, number},
    resp,
};

/// A node that takes longer to say that it is there is not.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(2);

/// A change is answered when it is on disk; a disk that is busy takes a while.
const CHANGED_WITHIN: Duration = Duration::from_secs(15);

/// The words that a core's refusal begins with.
const CODES: [&str; 4] = ["ERR ", "STALE ", "REFUSED ", "NOTSTORED "];

/// What all cores say.
pub(super) struct View {
    pub(super) map: ClusterMap,
    pub(super) cores: Vec<Answered<Value>>,
}

impl View {
    /// Asks all cores.
    pub(super) fn look(client: &mut Client) -> Self {
        // The old map will do when nobody tells a newer one.
        let _ = client.refresh();
        let map = client.map().clone();
        let cores = ask_cores(&map.nodes, |node, core| inquire(node, core, &[b"CLUSTER", b"STATUS"]));
        Self { map, cores }
    }

    /// What was answered.
    pub(super) fn answers(&self) -> impl Iterator<Item = &Value> {
        self.cores.iter().flat_map(Answered::answers)
    }

    /// The core that knows most, of those that belong.
    pub(super) fn foremost(&self) -> Result<(&MappedNode, u16, &Value), Failure> {
        let each = self.cores.iter().flat_map(|node| {
            let answers = (0..).zip(&node.cores).filter_map(|(core, answer)| Some((core, answer.as_ref().ok()?)));
            answers.map(move |(core, answer)| (&node.node, core, answer))
        });
        let belongs = |answer: &Value| answer["refused"].is_null() && number(answer, "term") > 0;
        // What a crash may take back counts last. Of several the first, so that one after the other sees what it did.
        let newest = |(node, core, answer): &(&MappedNode, u16, &Value)| {
            let first = std::cmp::Reverse((node.id, *core));
            (answer["stored"] == true, number(answer, "term"), number(answer, "epoch"), first)
        };
        if let Some(found) = each.clone().filter(|(_, _, answer)| belongs(answer)).max_by_key(newest) {
            return Ok(found);
        }
        if let Some(refused) = each.clone().find_map(|(_, _, answer)| answer["refused"].as_str()) {
            return Err(failed(format!(
                "no node that belongs to the cluster answers, and one that does not says: {refused}"
            )));
        }
        let why = self.cores.iter().flat_map(Answered::silent).next().map_or("there is none", |(_, error)| error);
        Err(failed(format!(
            "no core of the cluster answers ({why}); nothing was changed: name a running node by --node ADDRESS:PORT, \
             `quorate status` shows which ones answer"
        )))
    }

    /// Has the foremost core make a change.
    pub(super) fn order(&self, words: &[&str]) -> Result<Value, Failure> {
        let (node, core, _) = self.foremost()?;
        let command: Vec<&[u8]> = ["QUORATE", "CLUSTER"].iter().chain(words).map(|word| word.as_bytes()).collect();
        let at = core_address(node, core).map_err(failed)?;
        let text = resp::ask(at, &command, CHANGED_WITHIN).map_err(|error| failed(refusal(&error)))?;
        serde_json::from_slice(&text).map_err(|error| failed(format!("node {} answered no JSON: {error}", node.id)))
    }
}

/// Where clients of a core connect to.
pub(super) fn core_address(node: &MappedNode, core: u16) -> Result<SocketAddr, String> {
    let address: IpAddr = node.address.parse().map_err(|_| format!("`{}` is no address", node.address))?;
    let port = node.core_port.checked_add(core).ok_or("there is no such port")?;
    Ok(SocketAddr::new(address, port))
}

/// Where clients of a node connect to, by its entry in an answer.
pub(super) fn clients(entry: &Value) -> Option<SocketAddr> {
    let port = u16::try_from(number(entry, "port")).ok()?;
    Some(SocketAddr::new(entry["address"].as_str()?.parse().ok()?, port))
}

/// A core's refusal in words for people; or what is known when it did not answer.
pub(super) fn refusal(error: &io::Error) -> String {
    let text = error.to_string();
    if text.starts_with("STALE ") {
        return "the plan has changed, nothing was committed: look at it again: `quorate cluster plan`".to_owned();
    }
    match CODES.iter().find_map(|code| text.strip_prefix(code)) {
        Some(refusal) => refusal.to_owned(),
        None => format!(
            "no answer whether the change was made ({text}): `quorate cluster status` shows whether it was; if not, say it again"
        ),
    }
}
