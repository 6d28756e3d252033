//! The table of commands: what each is called, how many arguments it takes, what it is for, and what runs it.
//!
//! The rule: a command that is not in the table gets exactly the answer that Redis gives to an unknown one, because
//! clients recognise it by its text. Those that Redis has and we refuse are in the table, with the way out.
//!
//! Not here: what the commands do.

use quorate_net::resp::{Command, Writer};

use super::{
    GatewayLimits, NodeView,
    admin::{self, Wanted},
    client::{self, Client},
    cluster,
    data::{self, Planned},
    help, kv, server,
};

/// One command.
pub(super) struct Spec {
    /// In lower case.
    pub(super) name: &'static str,
    /// Arguments with the name: exactly so many, or at least so many if negative.
    pub(super) arity: i32,
    /// As `COMMAND` tells them.
    pub(super) flags: &'static [&'static str],
    /// Where the keys are: the first, the last (negative: from the end), the step. Zeros: nowhere.
    pub(super) keys: (i64, i64, i64),
    /// For `COMMAND DOCS`.
    pub(super) group: &'static str,
    /// For `COMMAND DOCS`.
    pub(super) summary: &'static str,
    pub(super) run: Run,
}

/// What runs a command.
#[derive(Clone, Copy)]
pub(super) enum Run {
    /// The session itself knows the reply.
    Here(fn(&mut Client, Command<'_>, &dyn NodeView, &mut Writer<'_>)),
    /// A coordinator is asked.
    Asking(fn(Command<'_>, &GatewayLimits, &dyn NodeView) -> Planned),
    /// The core itself tells something, or changes who belongs.
    Operating(fn(Command<'_>, &dyn NodeView) -> Result<Wanted, String>),
    /// The connection ends without a word.
    HangUp,
}

const NO_KEYS: (i64, i64, i64) = (0, 0, 0);
const ONE_KEY: (i64, i64, i64) = (1, 1, 1);
const ALL_KEYS: (i64, i64, i64) = (1, -1, 1);
const READ: &[&str] = &["readonly", "fast"];
const WRITE: &[&str] = &["write", "denyoom"];
const DELETE: &[&str] = &["write", "fast"];
const CONNECTION: &[&str] = &["loading", "stale", "fast"];
const ADMIN: &[&str] = &["loading", "stale"];

/// A command that works on keys.
const fn keyed(
    name: &'static str,
    arity: i32,
    flags: &'static [&'static str],
    keys: (i64, i64, i64),
    run: fn(Command<'_>, &GatewayLimits, &dyn NodeView) -> Planned,
    summary: &'static str,
) -> Spec {
    Spec { name, arity, flags, keys, group: "string", summary, run: Run::Asking(run) }
}

/// A command without keys.
const fn plain(
    name: &'static str,
    arity: i32,
    flags: &'static [&'static str],
    group: &'static str,
    run: fn(&mut Client, Command<'_>, &dyn NodeView, &mut Writer<'_>),
    summary: &'static str,
) -> Spec {
    Spec { name, arity, flags, keys: NO_KEYS, group, summary, run: Run::Here(run) }
}

/// A command of an operator.
const fn operating(
    name: &'static str,
    arity: i32,
    run: fn(Command<'_>, &dyn NodeView) -> Result<Wanted, String>,
    summary: &'static str,
) -> Spec {
    Spec { name, arity, flags: ADMIN, keys: NO_KEYS, group: "server", summary, run: Run::Operating(run) }
}

/// What a browser says to a web server: the connection ends, so that no page can make a browser send commands.
const fn web(name: &'static str) -> Spec {
    let summary = "Not a command: what a browser sends";
    Spec { name, arity: -1, flags: ADMIN, keys: NO_KEYS, group: "connection", summary, run: Run::HangUp }
}

/// All commands, sorted by name.
pub(super) const COMMANDS: &[Spec] = &[
    plain("acl", -2, ADMIN, "server", client::acl, "Tells who the connection's user is: always the default one"),
    plain("asking", 1, CONNECTION, "cluster", server::ok, "Does nothing: any node serves any key"),
    plain("auth", -2, CONNECTION, "connection", client::auth, "Says that no password is set"),
    plain("client", -2, ADMIN, "connection", client::client, "A container for commands about connections"),
    plain("cluster", -2, ADMIN, "cluster", cluster::cluster, "A container for commands about the cluster's cores"),
    plain("command", -1, ADMIN, "server", help::command, "Tells what commands there are"),
    plain("config", -2, ADMIN, "server", server::config, "Tells settings that clients look at"),
    plain("dbsize", 1, READ, "server", server::dbsize, "Estimates the number of keys in the cluster"),
    keyed("del", -2, DELETE, ALL_KEYS, data::del, "Deletes keys"),
    plain("discard", 1, CONNECTION, "transactions", client::discard, "Ends what a refused MULTI began"),
    plain("echo", 2, CONNECTION, "connection", client::echo, "Returns its argument"),
    plain("exec", 1, CONNECTION, "transactions", client::exec, "Ends what a refused MULTI began"),
    keyed("exists", -2, READ, ALL_KEYS, data::exists, "Counts the keys that have a value"),
    plain("flushall", -1, ADMIN, "server", server::refuse_flush, "Not supported"),
    plain("flushdb", -1, ADMIN, "server", server::refuse_flush, "Not supported"),
    keyed("get", 2, READ, ONE_KEY, data::get, "Returns a key's value, the winner among its siblings"),
    plain("hello", -1, CONNECTION, "connection", client::hello, "Chooses the version of the protocol"),
    web("host:"),
    plain("info", -1, ADMIN, "server", server::info, "Tells about the node"),
    plain("keys", 2, READ, "generic", server::refuse_scan, "Not supported"),
    keyed("kv.del", -2, DELETE, ONE_KEY, kv::del, "Deletes what its context has seen, and returns the new context"),
    keyed("kv.get", -2, READ, ONE_KEY, kv::get, "Returns a key's context and all its siblings"),
    keyed("kv.put", -3, WRITE, ONE_KEY, kv::put, "Replaces what its context has seen, and returns the new context"),
    plain("latency", -2, ADMIN, "server", server::latency, "Answers as a server without slow events"),
    Spec { keys: (2, 2, 1), ..keyed("memory", -2, READ, ONE_KEY, server::memory, "Estimates the memory of a key") },
    keyed("mget", -2, READ, ALL_KEYS, data::mget, "Returns the values of several keys"),
    plain("module", -2, ADMIN, "server", server::module, "Answers as a server without modules"),
    Spec { keys: (1, -1, 2), ..keyed("mset", -3, WRITE, ALL_KEYS, data::mset, "Sets several keys, each by itself") },
    plain("multi", 1, CONNECTION, "transactions", client::multi, "Not supported"),
    plain("ping", -1, CONNECTION, "connection", client::ping, "Returns PONG, or its argument"),
    web("post"),
    plain("quit", -1, CONNECTION, "connection", client::quit, "Ends the connection"),
    operating("quorate", -2, admin::quorate, "A container for what operators ask of this very core"),
    plain("randomkey", 1, READ, "generic", server::refuse_scan, "Not supported"),
    plain("readonly", 1, CONNECTION, "cluster", server::ok, "Does nothing: any node serves any key"),
    plain("readwrite", 1, CONNECTION, "cluster", server::ok, "Does nothing: any node serves any key"),
    plain("reset", 1, CONNECTION, "connection", client::reset, "Makes the connection as new"),
    plain("role", 1, CONNECTION, "server", server::role, "Says master: all nodes are equal"),
    plain("scan", -2, READ, "generic", server::refuse_scan, "Not supported"),
    plain("select", 2, CONNECTION, "connection", client::select, "Chooses database 0, the only one"),
    keyed("set", -3, WRITE, ONE_KEY, data::set, "Sets a key, replacing what is there"),
    plain("slowlog", -2, ADMIN, "server", server::slowlog, "Answers as a server without slow commands"),
    keyed("strlen", 2, READ, ONE_KEY, data::strlen, "Returns the length of a value"),
    plain("time", 1, CONNECTION, "server", server::time, "Returns the node's time"),
    keyed("type", 2, READ, ONE_KEY, data::kind, "Returns string, or none"),
    keyed("unlink", -2, DELETE, ALL_KEYS, data::del, "Deletes keys"),
    plain("unwatch", 1, CONNECTION, "transactions", server::ok, "Does nothing: nothing is watched"),
    plain("watch", -2, CONNECTION, "transactions", client::refuse_watch, "Not supported"),
];

/// Longer names than this are no commands.
const NAME_BYTES_MAX: usize = 16;

/// The command of this name, in any case.
pub(super) fn by_name(name: &[u8]) -> Option<&'static Spec> {
    let mut lower = [0; NAME_BYTES_MAX];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let at = COMMANDS.binary_search_by(|spec| spec.name.as_bytes().cmp(lower)).ok()?;
    Some(&COMMANDS[at])
}

/// The command that is meant, or the error that is due.
pub(super) fn find(command: Command<'_>) -> Result<&'static Spec, String> {
    let name = command.argument(0).expect("an empty command is passed over");
    let spec = by_name(name).ok_or_else(|| unknown(command, name))?;
    if !arity_fits(spec.arity, command.len()) {
        return Err(wrong_arity(spec.name));
    }
    Ok(spec)
}

/// Whether so many arguments, with the name, fit.
pub(super) fn arity_fits(arity: i32, arguments: usize) -> bool {
    let expected = arity.unsigned_abs() as usize;
    if arity < 0 { arguments >= expected } else { arguments == expected }
}

/// `name` is in lower case; a subcommand's is `container|subcommand`.
pub(super) fn wrong_arity(name: &str) -> String {
    format!("ERR wrong number of arguments for '{name}' command")
}

/// What a container answers to a subcommand that it has not.
pub(super) fn unknown_subcommand(container: &str, name: &[u8]) -> String {
    format!("ERR unknown subcommand '{}'. Try {} HELP.", excerpt(name, 128), container.to_ascii_uppercase())
}

/// To the letter what Redis answers, the space at the end too: clients recognise an old server by it.
fn unknown(command: Command<'_>, name: &[u8]) -> String {
    let mut arguments = String::new();
    for argument in command.arguments().skip(1) {
        let room = 128usize.saturating_sub(arguments.len());
        if room == 0 {
            break;
        }
        arguments.push_str(&format!("'{}' ", excerpt(argument, room)));
    }
    format!("ERR unknown command '{}', with args beginning with: {arguments}", excerpt(name, 128))
}

fn excerpt(bytes: &[u8], length_max: usize) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(length_max)]).into_owned()
}
