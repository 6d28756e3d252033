//! The ring that ships, for tests alone: the binary hands it in.

use quorate_net::{id::NodeId, message::MappedNode};
use quorate_node::ring::{Member, Ring};

pub(super) fn placement(nodes: u16, partitions: u16, replicas: u8) -> Vec<Vec<u16>> {
    let member = |id: u16| {
        let node = MappedNode { id: NodeId(id), address: String::new(), cores: 1, port: 7400, core_port: 7401 };
        Member { node, rack: String::new(), weight: 1.0 }
    };
    let ring = Ring::new(partitions, replicas, (0..nodes).map(member).collect()).expect("there is such a ring");
    let row = |partition| ring.primaries(partition).iter().map(|endpoint| endpoint.node.0).collect();
    (0..partitions).map(row).collect()
}
