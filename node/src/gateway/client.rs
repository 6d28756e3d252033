//! Commands about the connection itself, and what a session knows of its client.
//!
//! The rule: what a client says about itself is bounded, and can break no line that it is shown in.
//!
//! Not here: the order of replies (`session`).

use std::time::Duration;

use quorate_net::resp::{Command, Protocol, Writer, parse_integer};

use super::{
    NodeView, Origin, REDIS_VERSION,
    command::{Spec, arity_fits, unknown_subcommand, wrong_arity},
    data::argument,
};

/// The most bytes in a name that a client gives to itself or to its library.
const NAME_BYTES_MAX: usize = 256;

/// So long after a refused `MULTI` what follows counts as its transaction, unless it is ended: a pipeline that was
/// under way when the refusal was sent.
const REFUSED_TRANSACTION: Duration = Duration::from_secs(1);

const NO_MULTI: &str = "MULTI is not supported, since keys live on different nodes: send the commands without it, in a \
                        pipeline (redis-py: pipeline(transaction=False))";

/// What a session knows of its client.
pub(super) struct Client {
    origin: Origin,
    pub(super) protocol: Protocol,
    name: String,
    library: String,
    library_version: String,
    /// No more commands are taken.
    pub(super) closing: bool,
    pub(super) commands: u64,
    pub(super) last_command: &'static str,
    /// When a `MULTI` was refused whose end has not come.
    refused_multi: Option<Duration>,
}

impl Client {
    pub(super) fn new(origin: Origin) -> Self {
        Self {
            origin,
            protocol: Protocol::Resp2,
            name: String::new(),
            library: String::new(),
            library_version: String::new(),
            closing: false,
            commands: 0,
            last_command: "NULL",
            refused_multi: None,
        }
    }

    /// Whether a command may be done now. Those that a client sent as a transaction are not done one by one when it was
    /// refused: the client's program believes that either all or none are.
    pub(super) fn admit(&mut self, spec: &Spec, node: &dyn NodeView) -> Result<(), String> {
        let Some(since) = self.refused_multi else { return Ok(()) };
        if matches!(spec.name, "exec" | "discard" | "quit" | "reset") {
            return Ok(());
        }
        if node.now_unix().saturating_sub(since) < REFUSED_TRANSACTION {
            return Err(format!("ERR nothing was done, since this came within a transaction, and {NO_MULTI}"));
        }
        self.refused_multi = None;
        Ok(())
    }

    pub(super) fn describe(&self, now: Duration) -> String {
        let Origin { id, peer, local, since } = self.origin;
        format!(
            "id={id} addr={peer} laddr={local} fd=0 name={} age={} idle=0 flags=N db=0 sub=0 psub=0 ssub=0 multi=-1 \
             qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r cmd={} \
             user=default redir=-1 resp={} lib-name={} lib-ver={}",
            self.name,
            now.saturating_sub(since).as_secs(),
            self.last_command,
            version(self.protocol),
            self.library,
            self.library_version,
        )
    }
}

fn version(protocol: Protocol) -> i64 {
    match protocol {
        Protocol::Resp2 => 2,
        Protocol::Resp3 => 3,
    }
}

pub(super) fn ping(_: &mut Client, command: Command<'_>, _: &dyn NodeView, writer: &mut Writer<'_>) {
    match (command.argument(1), command.len()) {
        (None, _) => writer.simple("PONG"),
        (Some(text), 2) => writer.bulk(text),
        _ => writer.error(&wrong_arity("ping")),
    }
}

pub(super) fn echo(_: &mut Client, command: Command<'_>, _: &dyn NodeView, writer: &mut Writer<'_>) {
    writer.bulk(argument(command, 1));
}

pub(super) fn quit(client: &mut Client, _: Command<'_>, _: &dyn NodeView, writer: &mut Writer<'_>) {
    client.closing = true;
    writer.ok();
}

pub(super) fn reset(client: &mut Client, _: Command<'_>, _: &dyn NodeView, writer: &mut Writer<'_>) {
    client.protocol = Protocol::Resp2;
    client.name.clear();
    client.refused_multi = None;
    writer.simple("RESET");
}

pub(super) fn select(_: &mut Client, command: Command<'_>, _: &dyn NodeView, writer: &mut Writer<'_>) {
    match parse_integer(argument(command, 1)) {
        Some(0) => writer.ok(),
        Some(_) => writer.error("ERR DB index is out of range"),
        None => writer.error("ERR value is not an integer or out of range"),
    }
}

const NO_PASSWORD: &str = "ERR AUTH <password> called without any password configured for the default user. Are you \
                           sure your configuration is correct?";
const WRONG_USER: &str = "WRONGPASS invalid username-password pair or user is disabled.";

pub(super) fn auth(_: &mut Client, command: Command<'_>, _: &dyn NodeView, writer: &mut Writer<'_>) {
    match command.len() {
        2 => writer.error(NO_PASSWORD),
        3 if is_default_user(argument(command, 1)) => writer.ok(),
        3 => writer.error(WRONG_USER),
        _ => writer.error("ERR syntax error"),
    }
}

/// As in Redis, the default user without a password takes any.
fn is_default_user(name: &[u8]) -> bool {
    name == b"default"
}

pub(super) fn acl(_: &mut Client, command: Command<'_>, _: &dyn NodeView, writer: &mut Writer<'_>) {
    let name = argument(command, 1);
    if name.eq_ignore_ascii_case(b"whoami") {
        writer.bulk(b"default");
    } else {
        writer.error(&unknown_subcommand("acl", name));
    }
}

/// `HELLO [version [AUTH user password] [SETNAME name]]`. Nothing changes unless all of it is right.
pub(super) fn hello(client: &mut Client, command: Command<'_>, _: &dyn NodeView, writer: &mut Writer<'_>) {
    let (protocol, name) = match hello_options(client.protocol, command) {
        Ok(chosen) => chosen,
        Err(refusal) => return writer.error(&refusal),
    };
    client.protocol = protocol;
    if let Some(name) = name {
        client.name = name;
    }
    let id = client.origin.id;
    writer.switch(protocol);
    writer.map(7);
    let texts = [("server", "redis"), ("version", REDIS_VERSION)];
    for (key, text) in texts {
        writer.bulk(key.as_bytes());
        writer.bulk(text.as_bytes());
    }
    writer.bulk(b"proto");
    writer.integer(version(protocol));
    writer.bulk(b"id");
    writer.integer(i64::try_from(id).unwrap_or(i64::MAX));
    for (key, text) in [("mode", "cluster"), ("role", "master")] {
        writer.bulk(key.as_bytes());
        writer.bulk(text.as_bytes());
    }
    writer.bulk(b"modules");
    writer.array(0);
}

fn hello_options(current: Protocol, command: Command<'_>) -> Result<(Protocol, Option<String>), String> {
    let protocol = match command.argument(1).map(parse_integer) {
        None => current,
        Some(Some(2)) => Protocol::Resp2,
        Some(Some(3)) => Protocol::Resp3,
        Some(Some(_)) => return Err("NOPROTO unsupported protocol version".to_owned()),
        Some(None) => return Err("ERR Protocol version is not an integer or out of range".to_owned()),
    };
    let mut name = None;
    let mut at = 2;
    while let Some(option) = command.argument(at) {
        if option.eq_ignore_ascii_case(b"auth") && command.len() > at + 2 {
            if !is_default_user(argument(command, at + 1)) {
                return Err(WRONG_USER.to_owned());
            }
            at += 3;
        } else if option.eq_ignore_ascii_case(b"setname") && command.len() > at + 1 {
            name = Some(checked_name(argument(command, at + 1), "Client names")?);
            at += 2;
        } else {
            return Err(format!("ERR Syntax error in HELLO option '{}'", String::from_utf8_lossy(option)));
        }
    }
    Ok((protocol, name))
}

/// Printable, without spaces, so that it fits into a line of `CLIENT LIST`.
fn checked_name(name: &[u8], what: &str) -> Result<String, String> {
    let printable = name.iter().all(|byte| (b'!'..=b'~').contains(byte));
    match std::str::from_utf8(name) {
        Ok(text) if printable && name.len() <= NAME_BYTES_MAX => Ok(text.to_owned()),
        _ if name.len() > NAME_BYTES_MAX => Err(format!("ERR {what} cannot be longer than {NAME_BYTES_MAX} bytes.")),
        _ => Err(format!("ERR {what} cannot contain spaces, newlines or special characters.")),
    }
}

/// Subcommands of `CLIENT` with their arity, both names counted.
const CLIENT_SUBCOMMANDS: [(&str, i32); 11] = [
    ("getname", 2),
    ("getredir", 2),
    ("help", 2),
    ("id", 2),
    ("info", 2),
    ("list", -2),
    ("no-evict", 3),
    ("no-touch", 3),
    ("reply", 3),
    ("setinfo", 4),
    ("setname", 3),
];

/// The subcommand that is meant, in lower case, when it has as many arguments as it takes.
pub(super) fn subcommand(
    container: &str,
    known: &'static [(&'static str, i32)],
    command: Command<'_>,
) -> Result<&'static str, String> {
    subcommand_at(1, container, known, command)
}

/// The same, of a container within another one: its subcommands come later.
pub(super) fn subcommand_at(
    at: usize,
    container: &str,
    known: &'static [(&'static str, i32)],
    command: Command<'_>,
) -> Result<&'static str, String> {
    let given = argument(command, at);
    let found = known.iter().find(|(name, _)| given.eq_ignore_ascii_case(name.as_bytes()));
    let (name, arity) = found.ok_or_else(|| unknown_subcommand(container, given))?;
    if !arity_fits(*arity, command.len()) {
        return Err(wrong_arity(&format!("{container}|{name}")));
    }
    Ok(name)
}

/// The names of a container's subcommands, as its `HELP` lists them.
pub(super) fn write_help(container: &str, known: &[(&str, i32)], writer: &mut Writer<'_>) {
    writer.array(known.len() + 1);
    writer.simple(&format!("{} <subcommand> [<arg> ...]. Subcommands are:", container.to_ascii_uppercase()));
    for (name, _) in known {
        writer.simple(&name.to_ascii_uppercase());
    }
}

pub(super) fn client(client: &mut Client, command: Command<'_>, node: &dyn NodeView, writer: &mut Writer<'_>) {
    let name = match subcommand("client", &CLIENT_SUBCOMMANDS, command) {
        Ok(name) => name,
        Err(refusal) => return writer.error(&refusal),
    };
    match name {
        "id" => writer.integer(i64::try_from(client.origin.id).unwrap_or(i64::MAX)),
        "getname" if client.name.is_empty() => writer.null(),
        "getname" => writer.bulk(client.name.as_bytes()),
        "getredir" => writer.integer(-1),
        "setname" => match checked_name(argument(command, 2), "Client names") {
            Ok(name) => {
                client.name = name;
                writer.ok();
            }
            Err(refusal) => writer.error(&refusal),
        },
        "setinfo" => set_info(client, command, writer),
        "info" => {
            client.last_command = "client|info";
            writer.verbatim(&format!("{}\n", client.describe(node.now_unix())));
        }
        "list" => {
            client.last_command = "client|list";
            let mut lines = vec![client.describe(node.now_unix())];
            lines.extend(node.other_clients());
            writer.verbatim(&format!("{}\n", lines.join("\n")));
        }
        "no-evict" | "no-touch" => switch(command, &[b"on", b"off"], writer),
        "reply" => reply_mode(command, writer),
        _ => write_help("client", &CLIENT_SUBCOMMANDS, writer),
    }
}

fn set_info(client: &mut Client, command: Command<'_>, writer: &mut Writer<'_>) {
    let attribute = argument(command, 2).to_ascii_lowercase();
    let (field, what) = match attribute.as_slice() {
        b"lib-name" => (&mut client.library, "lib-name"),
        b"lib-ver" => (&mut client.library_version, "lib-ver"),
        other => return writer.error(&format!("ERR Unrecognized option '{}'", String::from_utf8_lossy(other))),
    };
    match checked_name(argument(command, 3), what) {
        Ok(value) => {
            *field = value;
            writer.ok();
        }
        Err(refusal) => writer.error(&refusal),
    }
}

fn switch(command: Command<'_>, known: &[&[u8]], writer: &mut Writer<'_>) {
    if known.iter().any(|word| argument(command, 2).eq_ignore_ascii_case(word)) {
        writer.ok();
    } else {
        writer.error("ERR syntax error");
    }
}

/// `ON` is how it is; a client that asked for silence would wait for nothing, or mistake one reply for another.
fn reply_mode(command: Command<'_>, writer: &mut Writer<'_>) {
    let mode = argument(command, 2);
    if [b"off".as_slice(), b"skip"].iter().any(|word| mode.eq_ignore_ascii_case(word)) {
        writer.error("ERR CLIENT REPLY OFF and SKIP are not supported: each command is answered");
    } else {
        switch(command, &[b"on"], writer);
    }
}

pub(super) fn multi(client: &mut Client, _: Command<'_>, node: &dyn NodeView, writer: &mut Writer<'_>) {
    client.refused_multi = Some(node.now_unix());
    writer.error(&format!("ERR {NO_MULTI}"));
}

pub(super) fn exec(client: &mut Client, _: Command<'_>, _: &dyn NodeView, writer: &mut Writer<'_>) {
    match client.refused_multi.take() {
        Some(_) => writer.error(&format!("EXECABORT Transaction discarded, nothing of it was done: {NO_MULTI}")),
        None => writer.error("ERR EXEC without MULTI"),
    }
}

pub(super) fn discard(client: &mut Client, _: Command<'_>, _: &dyn NodeView, writer: &mut Writer<'_>) {
    match client.refused_multi.take() {
        Some(_) => writer.ok(),
        None => writer.error("ERR DISCARD without MULTI"),
    }
}

pub(super) fn refuse_watch(_: &mut Client, _: Command<'_>, _: &dyn NodeView, writer: &mut Writer<'_>) {
    writer.error(
        "ERR WATCH is not supported, nothing is watched: read with KV.GET and write with KV.PUT and its context, which \
         keeps what others wrote meanwhile as a sibling",
    );
}
