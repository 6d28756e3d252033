//! Whether the replicas of each partition are equal, by the Merkle roots that their cores tell.
//!
//! The rule: two roots are never read at the same moment, so a write under way makes them differ: a partition differs
//! when it does so at every one of several looks. What a silent core has is not known, and is never called equal.
//!
//! Not here: what is done about it (`repair`).

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::Duration,
};

use quorate_bench::Bar;
use quorate_net::{
    id::Endpoint,
    message::{ClusterMap, MappedNode},
};
use serde_json::{Value, json};

use crate::nodes::{Answered, ask_cores, inquire, number};

/// So often a partition must be seen to differ.
const LOOKS: u32 = 4;

/// Between two looks: a write takes less to reach all replicas.
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);

/// What one core keeps of a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Copy {
    root: String,
    keys: u64,
}

impl Copy {
    /// As cells of a listing: the root and the number of keys.
    pub(crate) fn cells(&self) -> [String; 2] {
        [self.root.clone(), self.keys.to_string()]
    }
}

/// A partition's primaries, and what each keeps of it, if it is known.
type Copies = Vec<(Endpoint, Option<Copy>)>;

/// How the partitions stand.
#[derive(Clone, Debug, Default)]
pub(crate) struct Comparison {
    /// All whose primaries all answered.
    pub(crate) compared: usize,
    /// Those whose primaries do not have the same.
    pub(crate) differing: BTreeMap<u16, Copies>,
    /// Those of which a primary did not answer, and which do not differ as far as is known.
    pub(crate) unchecked: BTreeSet<u16>,
    /// The cores that did not answer, and why.
    pub(crate) silent: Vec<(Endpoint, String)>,
}

impl Comparison {
    /// Whether all replicas of all partitions are known to be equal.
    pub(crate) fn is_equal(&self) -> bool {
        self.differing.is_empty() && self.unchecked.is_empty()
    }

    pub(crate) fn as_json(&self) -> Value {
        let copy = |(at, copy): &(Endpoint, Option<Copy>)| {
            let (root, keys) = (copy.as_ref().map(|copy| &copy.root), copy.as_ref().map(|copy| copy.keys));
            json!({"node": at.node.0, "core": at.core.0, "root": root, "keys": keys})
        };
        let differing = |(partition, copies): (&u16, &Copies)| json!({"partition": partition, "primaries": copies.iter().map(copy).collect::<Vec<_>>()});
        let silent = |(at, error): &(Endpoint, String)| json!({"node": at.node.0, "core": at.core.0, "error": error});
        json!({
            "equal": self.is_equal(),
            "compared": self.compared,
            "differing": self.differing.iter().map(differing).collect::<Vec<_>>(),
            "unchecked": self.unchecked,
            "silent": self.silent.iter().map(silent).collect::<Vec<_>>(),
        })
    }
}

/// Compares all partitions, or one.
pub(crate) fn compare(map: &ClusterMap, only: Option<u16>, bar: &Bar) -> Comparison {
    let mut comparison = look(map, only);
    for looks in 1..LOOKS {
        if comparison.differing.is_empty() {
            break;
        }
        bar.show(looks.into(), LOOKS.into(), &format!("look {looks} of {LOOKS}"));
        thread::sleep(BETWEEN_LOOKS);
        comparison = look_again(map, only, &comparison);
    }
    comparison
}

/// Compares them once more: of those that differed, which still do.
pub(crate) fn look_again(map: &ClusterMap, only: Option<u16>, before: &Comparison) -> Comparison {
    let mut again = look(map, only);
    again.differing.retain(|partition, _| before.differing.contains_key(partition));
    again
}

fn look(map: &ClusterMap, only: Option<u16>) -> Comparison {
    let cores = ask_cores(&map.nodes, |node, core| inquire(node, core, &[b"ROOTS"]).map(|answer| copies(&answer)));
    judge(map, &cores, only)
}

fn copies(answer: &Value) -> BTreeMap<u16, Copy> {
    let partition = |of: &Value| {
        let copy = Copy { root: of["root"].as_str()?.to_owned(), keys: number(of, "keys") };
        Some((u16::try_from(of["partition"].as_u64()?).ok()?, copy))
    };
    answer["partitions"].as_array().into_iter().flatten().filter_map(partition).collect()
}

fn judge(map: &ClusterMap, cores: &[Answered<BTreeMap<u16, Copy>>], only: Option<u16>) -> Comparison {
    let mut comparison = Comparison::default();
    for (partition, primaries) in (0..).zip(&map.preference) {
        if only.is_some_and(|only| only != partition) {
            continue;
        }
        let copy = |&node: &u16| {
            let (at, core) = owner(map, partition, node);
            let answered = cores[usize::from(node)].cores.get(usize::from(core)).and_then(|core| core.as_ref().ok());
            (at, answered.and_then(|copies| copies.get(&partition)).cloned())
        };
        let copies: Copies = primaries.iter().take(map.replicas.into()).map(copy).collect();
        let known: Vec<&Copy> = copies.iter().filter_map(|(_, copy)| copy.as_ref()).collect();
        comparison.compared += usize::from(known.len() == copies.len());
        if known.windows(2).any(|pair| pair[0].root != pair[1].root) {
            comparison.differing.insert(partition, copies);
        } else if known.len() < copies.len() {
            comparison.unchecked.insert(partition);
        }
    }
    comparison.silent = cores.iter().flat_map(silent).collect();
    comparison
}

fn silent<T>(node: &Answered<T>) -> Vec<(Endpoint, String)> {
    node.silent().map(|(core, error)| (endpoint(&node.node, core as u16), error.to_owned())).collect()
}

/// The core of a node, given as its place in the map, that owns a partition if the node does.
pub(crate) fn owner(map: &ClusterMap, partition: u16, node: u16) -> (Endpoint, u16) {
    let node = &map.nodes[usize::from(node)];
    let core = ClusterMap::core(map.spread[usize::from(partition)], node.cores);
    (Endpoint::new(node.id, core), core.0)
}

fn endpoint(node: &MappedNode, core: u16) -> Endpoint {
    Endpoint::new(node.id, quorate_net::id::CoreId(core))
}

#[cfg(test)]
pub(crate) mod tests {
    use quorate_net::id::NodeId;

    use super::*;

    /// Three nodes of one core, four partitions, two replicas: the nodes 1 and 2, 2 and 3, 3 and 1, 1 and 2.
    pub(crate) fn three_nodes() -> ClusterMap {
        let node = |id: u16| MappedNode {
            id: NodeId(id),
            address: format!("127.0.0.{id}"),
            cores: 1,
            port: 7400,
            core_port: 7401,
        };
        ClusterMap {
            replicas: 2,
            nodes: (1..=3).map(node).collect(),
            preference: vec![vec![0, 1, 2], vec![1, 2, 0], vec![2, 0, 1], vec![0, 1, 2]],
            spread: vec![0; 4],
        }
    }

    fn answer(map: &ClusterMap, node: usize, roots: Result<&[(u16, &str)], &str>) -> Answered<BTreeMap<u16, Copy>> {
        let partition = |(partition, root): &(u16, &str)| json!({"partition": partition, "root": root, "keys": 7});
        let core = roots
            .map(|roots| copies(&json!({"partitions": roots.iter().map(partition).collect::<Vec<_>>()})))
            .map_err(str::to_owned);
        Answered { node: map.nodes[node].clone(), cores: vec![core] }
    }

    /// Partition 0 differs.
    pub(crate) fn differing() -> Comparison {
        let map = three_nodes();
        let cores = [
            answer(&map, 0, Ok(&[(0, "a"), (2, "c"), (3, "d")])),
            answer(&map, 1, Ok(&[(0, "A"), (1, "b"), (3, "d")])),
            answer(&map, 2, Ok(&[(1, "b"), (2, "c")])),
        ];
        judge(&map, &cores, None)
    }

    #[test]
    fn only_what_is_known_to_be_equal_is_equal() {
        let map = three_nodes();
        let mut cores = vec![
            answer(&map, 0, Ok(&[(0, "a"), (2, "c"), (3, "d")])),
            answer(&map, 1, Ok(&[(0, "a"), (1, "b"), (3, "d")])),
            answer(&map, 2, Ok(&[(1, "b"), (2, "c")])),
        ];
        let equal = judge(&map, &cores, None);
        assert!(equal.is_equal() && equal.compared == 4 && equal.silent.is_empty(), "{equal:?}");

        cores[1] = answer(&map, 1, Ok(&[(0, "A"), (1, "b"), (3, "d")]));
        let one = judge(&map, &cores, None);
        assert_eq!((one.differing.keys().collect::<Vec<_>>(), one.is_equal()), (vec![&0], false));
        assert!(judge(&map, &cores, Some(3)).is_equal() && !judge(&map, &cores, Some(0)).is_equal());
        let shown = &one.as_json()["differing"][0];
        assert_eq!(shown["primaries"][1], json!({"node": 2, "core": 0, "root": "A", "keys": 7}), "{shown}");

        cores[2] = answer(&map, 2, Err("refused"));
        let silent = judge(&map, &cores, None);
        assert_eq!((silent.compared, silent.unchecked.iter().collect::<Vec<_>>()), (2, vec![&1, &2]));
        assert_eq!(silent.as_json()["silent"], json!([{"node": 3, "core": 0, "error": "refused"}]));
        // One that answers, but does not keep what the map says, is not equal either.
        cores[2] = answer(&map, 2, Ok(&[(1, "b")]));
        assert_eq!(judge(&map, &cores, None).unchecked.iter().collect::<Vec<_>>(), [&2]);
    }
}
