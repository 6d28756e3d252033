//! `QUORATE`: what an operator, or a tool of one, asks of this very core.
//!
//! The rule: an answer is one string of JSON, with the same names on every core and in every version; numbers that need
//! all 64 bits are hexadecimal strings. What is not understood changes nothing, and the refusal lists what there is.
//!
//! Not here: where the answers come from ([`NodeView::inquire`]), what is made of them (the tools).

use quorate_net::resp::{Command, Writer, parse_integer};

use super::{
    Inquiry, NodeView,
    client::{Client, subcommand, write_help},
    command::wrong_arity,
    data::argument,
};

const SUBCOMMANDS: [(&str, i32); 6] =
    [("exchanges", 2), ("help", 2), ("hints", 2), ("members", 2), ("repair", -2), ("roots", 2)];

pub(super) fn quorate(_: &mut Client, command: Command<'_>, node: &dyn NodeView, writer: &mut Writer<'_>) {
    let inquiry = match subcommand("quorate", &SUBCOMMANDS, command) {
        Ok("exchanges") => Ok(Inquiry::Exchanges),
        Ok("hints") => Ok(Inquiry::Hints),
        Ok("members") => Ok(Inquiry::Members),
        Ok("repair") => repair(command, node),
        Ok("roots") => Ok(Inquiry::Roots),
        Ok(_) => return write_help("quorate", &SUBCOMMANDS, writer),
        Err(refusal) => Err(format!("{refusal} There are: {}", names())),
    };
    match inquiry {
        Ok(inquiry) => writer.bulk(node.inquire(inquiry).to_string().as_bytes()),
        Err(refusal) => writer.error(&refusal),
    }
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

fn names() -> String {
    SUBCOMMANDS.map(|(name, _)| name.to_ascii_uppercase()).join(", ")
}
