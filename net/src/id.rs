//! Who is who in a cluster.
//!
//! The rule: a node's id is given by its operator and never means another machine; a core is a number below its node's
//! count of cores.
//!
//! Not here: actors, which are a core's incarnations in version vectors (`node/version`).

use std::fmt;

use rkyv::{Archive, Deserialize, Serialize};

/// One server process of the cluster.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub u16);

/// One core's executor on a node, counted from 0.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CoreId(pub u16);

/// One core of one node: what a peer message is addressed to.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Endpoint {
    /// The node.
    pub node: NodeId,
    /// Its core.
    pub core: CoreId,
}

impl Endpoint {
    /// The endpoint of `core` on `node`.
    #[must_use]
    pub fn new(node: NodeId, core: CoreId) -> Self {
        Self { node, core }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for CoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node, self.core)
    }
}
