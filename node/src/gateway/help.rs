//! `COMMAND`: what commands there are, for clients that look before they ask.
//!
//! The rule: what is told is what the table holds. Not here: the table (`command`).

use quorate_net::resp::{Command, Writer};

use super::{
    NodeView,
    client::{Client, subcommand, write_help},
    command::{COMMANDS, Run, Spec, arity_fits, by_name},
    data::argument,
};

const SUBCOMMANDS: [(&str, i32); 6] =
    [("count", 2), ("docs", -2), ("getkeys", -3), ("help", 2), ("info", -2), ("list", 2)];

pub(super) fn command(_: &mut Client, command: Command<'_>, _: &dyn NodeView, writer: &mut Writer<'_>) {
    if command.len() == 1 {
        return write_all(writer);
    }
    match subcommand("command", &SUBCOMMANDS, command) {
        Err(refusal) => writer.error(&refusal),
        Ok("count") => writer.integer(listed().count() as i64),
        Ok("list") => {
            writer.array(listed().count());
            listed().for_each(|spec| writer.bulk(spec.name.as_bytes()));
        }
        Ok("info") if command.len() == 2 => write_all(writer),
        Ok("info") => {
            writer.array(command.len() - 2);
            for name in command.arguments().skip(2) {
                match by_name(name) {
                    Some(spec) => write_spec(spec, writer),
                    None => writer.null_array(),
                }
            }
        }
        Ok("docs") => write_docs(command, writer),
        Ok("getkeys") => write_keys(command, writer),
        Ok(_) => write_help("command", &SUBCOMMANDS, writer),
    }
}

/// Those that a client may send.
fn listed() -> impl Iterator<Item = &'static Spec> {
    COMMANDS.iter().filter(|spec| !matches!(spec.run, Run::HangUp))
}

fn write_all(writer: &mut Writer<'_>) {
    writer.array(listed().count());
    listed().for_each(|spec| write_spec(spec, writer));
}

/// The ten fields of Redis 7; categories, tips, key specifications and subcommands are empty.
fn write_spec(spec: &Spec, writer: &mut Writer<'_>) {
    writer.array(10);
    writer.bulk(spec.name.as_bytes());
    writer.integer(i64::from(spec.arity));
    writer.set(spec.flags.len());
    spec.flags.iter().for_each(|flag| writer.simple(flag));
    let (first, last, step) = spec.keys;
    [first, last, step].into_iter().for_each(|number| writer.integer(number));
    writer.set(0);
    writer.set(0);
    writer.array(0);
    writer.array(0);
}

fn write_docs(command: Command<'_>, writer: &mut Writer<'_>) {
    let specs: Vec<_> =
        if command.len() == 2 { listed().collect() } else { command.arguments().skip(2).filter_map(by_name).collect() };
    writer.map(specs.len());
    for spec in specs {
        writer.bulk(spec.name.as_bytes());
        writer.map(3);
        for (key, text) in [("summary", spec.summary), ("since", "1.0.0"), ("group", spec.group)] {
            writer.bulk(key.as_bytes());
            writer.bulk(text.as_bytes());
        }
    }
}

fn write_keys(command: Command<'_>, writer: &mut Writer<'_>) {
    let Some(spec) = by_name(argument(command, 2)) else {
        return writer.error("ERR Invalid command specified");
    };
    let arguments = command.len() - 2;
    if !arity_fits(spec.arity, arguments) {
        return writer.error("ERR Invalid number of arguments specified for command");
    }
    let (first, last, step) = spec.keys;
    if first == 0 {
        return writer.error("ERR The command has no key arguments");
    }
    let last = if last < 0 { arguments as i64 + last } else { last.min(arguments as i64 - 1) };
    let places: Vec<usize> = (first..=last).step_by(step as usize).map(|at| at as usize + 2).collect();
    writer.array(places.len());
    places.into_iter().for_each(|at| writer.bulk(argument(command, at)));
}
