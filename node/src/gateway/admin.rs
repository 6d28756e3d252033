//! `QUORATE`: what an operator, or a tool of one, asks of this very core.
//!
//! The rule: an answer is one string of JSON, with the same names on every core and in every version; numbers that need
//! all 64 bits are hexadecimal strings. What is not understood changes nothing, and the refusal lists what there is. A
//! change is answered when it is on this core's disk.
//!
//! Not here: where the answers come from ([`NodeView::inquire`]), who makes the changes (the core), what is made of them
//! (the tools).

use quorate_net::{
    id::NodeId,
    resp::{Command, CommandLimits, CommandParser, parse_integer, write_command},
};

use super::{
    Inquiry, NodeView,
    client::{subcommand, subcommand_at},
    command::wrong_arity,
    data::argument,
};
use crate::membership::state::Change;

type Subcommands = &'static [(&'static str, i32)];

const SUBCOMMANDS: Subcommands = &[
    ("cluster", -3),
    ("exchanges", 2),
    ("figures", 2),
    ("help", 2),
    ("hints", 2),
    ("keys", 2),
    ("latencies", 2),
    ("members", 2),
    ("metrics", 2),
    ("repair", -2),
    ("ring", 2),
    ("roots", 2),
    ("tail", 2),
    ("tasks", 2),
];

const CLUSTER: Subcommands = &[
    ("abort", 3),
    ("commit", 4),
    ("help", 3),
    ("leave", 4),
    ("pause", 3),
    ("plan", 3),
    ("remove", 4),
    ("replace", 5),
    ("resume", 3),
    ("status", 3),
    ("stay", 4),
];

/// What a command comes to.
pub(super) enum Wanted {
    /// Something is to be done.
    Order(Order),
    /// What there is.
    Help(&'static str, Subcommands),
}

/// What an operator wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// The core tells.
    Answer(Inquiry),
    /// The core changes who belongs, and tells when that is on disk.
    Change(Change),
}

impl Order {
    /// Whether it does more than look.
    #[must_use]
    pub fn changes(&self) -> bool {
        matches!(self, Self::Change(_) | Self::Answer(Inquiry::Repair(_)))
    }
}

/// What the words after `QUORATE` come to, for who speaks another protocol.
///
/// # Errors
/// They are not understood. The text begins with the word that programs tell it by, and says what there is.
pub fn order(words: &[&[u8]], node: &dyn NodeView) -> Result<Order, String> {
    let mut bytes = Vec::new();
    let all: Vec<&[u8]> = [b"QUORATE".as_slice()].iter().chain(words).copied().collect();
    write_command(&mut bytes, &all);
    let mut parser = CommandParser::new(CommandLimits::for_values(0));
    let parsed = parser.parse(&bytes).map_err(|error| format!("ERR {error}"))?;
    match quorate(parsed.ok_or("ERR too long")?, node)? {
        Wanted::Order(order) => Ok(order),
        Wanted::Help(container, known) => Err(with_names(&format!("ERR this is what {container} understands."), known)),
    }
}

pub(super) fn quorate(command: Command<'_>, node: &dyn NodeView) -> Result<Wanted, String> {
    let name = subcommand("quorate", SUBCOMMANDS, command).map_err(|refusal| with_names(&refusal, SUBCOMMANDS))?;
    Ok(Wanted::Order(Order::Answer(match name {
        "cluster" => return cluster(command),
        "exchanges" => Inquiry::Exchanges,
        "figures" => Inquiry::Figures,
        "hints" => Inquiry::Hints,
        "keys" => Inquiry::Keys,
        "latencies" => Inquiry::Latencies,
        "members" => Inquiry::Members,
        "metrics" => Inquiry::Metrics,
        "repair" => repair(command, node)?,
        "ring" => Inquiry::Ring,
        "roots" => Inquiry::Roots,
        "tail" => Inquiry::Tail,
        "tasks" => Inquiry::Tasks,
        _ => return Ok(Wanted::Help("quorate", SUBCOMMANDS)),
    })))
}

/// `CLUSTER subcommand …`
fn cluster(command: Command<'_>) -> Result<Wanted, String> {
    let found = subcommand_at(2, "quorate cluster", CLUSTER, command);
    let change = match found.map_err(|refusal| with_names(&refusal, CLUSTER))? {
        "plan" => return Ok(Wanted::Order(Order::Answer(Inquiry::Plan))),
        "status" => return Ok(Wanted::Order(Order::Answer(Inquiry::Cluster))),
        "abort" => Change::Abort,
        "commit" => Change::Commit { plan: plan(argument(command, 3))? },
        "leave" => Change::Leave(node_id(argument(command, 3))?),
        "pause" => Change::Pause,
        "remove" => Change::Remove(node_id(argument(command, 3))?),
        "replace" => Change::Replace { old: node_id(argument(command, 3))?, new: node_id(argument(command, 4))? },
        "resume" => Change::Resume,
        "stay" => Change::Stay(node_id(argument(command, 3))?),
        _ => return Ok(Wanted::Help("quorate cluster", CLUSTER)),
    };
    Ok(Wanted::Order(Order::Change(change)))
}

fn node_id(given: &[u8]) -> Result<NodeId, String> {
    let id = parse_integer(given).and_then(|number| u16::try_from(number).ok()).filter(|&number| number > 0);
    id.map(NodeId).ok_or_else(|| "ERR a node's id is a number from 1 to 65535; nothing was changed".to_owned())
}

/// A plan's id, as plans show it.
fn plan(given: &[u8]) -> Result<u64, String> {
    let digits = std::str::from_utf8(given).ok().filter(|text| text.len() == 16 && !text.starts_with('+'));
    digits.and_then(|text| u64::from_str_radix(text, 16).ok()).ok_or_else(|| {
        "ERR a plan's id has 16 hexadecimal digits, as QUORATE CLUSTER PLAN shows it; nothing was changed".to_owned()
    })
}

/// `REPAIR [partition]`
fn repair(command: Command<'_>, node: &dyn NodeView) -> Result<Inquiry, String> {
    if command.len() > 3 {
        return Err(wrong_arity("quorate|repair"));
    }
    if command.len() == 2 {
        return Ok(Inquiry::Repair(None));
    }
    let partitions = node.map().preference.len();
    let given = parse_integer(argument(command, 2)).and_then(|number| u16::try_from(number).ok());
    match given.filter(|&partition| usize::from(partition) < partitions) {
        Some(partition) => Ok(Inquiry::Repair(Some(partition))),
        None => Err(format!("ERR the partition must be a number from 0 to {}; nothing was done", partitions - 1)),
    }
}

fn with_names(refusal: &str, known: Subcommands) -> String {
    let names: Vec<String> = known.iter().map(|(name, _)| name.to_ascii_uppercase()).collect();
    format!("{refusal} There are: {}", names.join(", "))
}
