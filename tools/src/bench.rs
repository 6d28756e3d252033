//! `quorate bench`: hands over to the load generator.
//!
//! The rule: the load generator does not contain the server; what it wants of it, the ring that ships, it gets from here.

use quorate_bench::{Args, Command, Error, Outcome, paper};
use quorate_net::{id::NodeId, message::MappedNode};
use quorate_node::ring::{Member, Ring};

use crate::{
    failure::{Failure, failed},
    signals::{self, SIGHUP, SIGINT, SIGTERM},
};

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let stop = signals::stop_flag(&[SIGINT, SIGTERM, SIGHUP])?;
    let outcome = match &args.command {
        Some(Command::Paper(args)) => paper(args, placement, &stop).map(Outcome::Paper),
        _ => quorate_bench::run(args, &stop),
    };
    let outcome = outcome.map_err(|error| match error {
        Error::Usage(text) => Failure::Usage(text),
        error => failed(error.to_string()),
    })?;
    if args.json() {
        println!("{}", serde_json::to_string_pretty(&outcome).expect("a report is JSON"));
    } else {
        println!("{outcome}");
    }
    if outcome.passed() {
        Ok(())
    } else {
        Err(failed("no operation succeeded, or what was to be verified does not hold: the report says which"))
    }
}

/// The primaries of each partition, in a new cluster of equal nodes.
fn placement(nodes: u16, partitions: u16, replicas: u8) -> Vec<Vec<u16>> {
    let member = |id: u16| {
        let node = MappedNode { id: NodeId(id), address: String::new(), cores: 1, port: 7400, core_port: 7401 };
        Member { node, rack: String::new(), weight: 1.0 }
    };
    let members = (0..nodes).map(member).collect();
    let ring = Ring::new(partitions, replicas, members).expect("the figures ask for rings that can be");
    let row = |partition| ring.primaries(partition).iter().map(|endpoint| endpoint.node.0).collect();
    (0..partitions).map(row).collect()
}
