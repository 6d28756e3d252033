//! Commands about the node: `INFO`, `CONFIG`, `TIME` and what tools ask besides.
//!
//! The rule: the answers are true, or say that there is nothing of the kind. What we cannot do is refused with the way
//! out.
//!
//! Not here: where the figures come from ([`NodeView`]).

use std::fmt::Write as _;

use quorate_net::{
    message::ClusterMap,
    resp::{Command, Writer},
};

use super::{
    GatewayLimits, NodeView, REDIS_VERSION,
    client::{Client, subcommand, write_help},
    cluster::core_id,
    data::{self, Planned},
};

pub(super) fn ok(_: &mut Client, _: Command<'_>, _: &dyn NodeView, writer: &mut Writer<'_>) {
    writer.ok();
}

pub(super) fn time(_: &mut Client, _: Command<'_>, node: &dyn NodeView, writer: &mut Writer<'_>) {
    let now = node.now_unix();
    writer.array(2);
    writer.bulk(now.as_secs().to_string().as_bytes());
    writer.bulk(now.subsec_micros().to_string().as_bytes());
}

pub(super) fn dbsize(_: &mut Client, _: Command<'_>, node: &dyn NodeView, writer: &mut Writer<'_>) {
    writer.integer(i64::try_from(node.keys()).unwrap_or(i64::MAX));
}

/// A master without followers, so that no client looks for another one to write to.
pub(super) fn role(_: &mut Client, _: Command<'_>, _: &dyn NodeView, writer: &mut Writer<'_>) {
    writer.array(3);
    writer.bulk(b"master");
    writer.integer(0);
    writer.array(0);
}

pub(super) fn refuse_scan(_: &mut Client, _: Command<'_>, _: &dyn NodeView, writer: &mut Writer<'_>) {
    writer.error(
        "ERR listing keys is not supported: they lie in the order of their hashes, spread over all nodes; keep an \
         index of your own",
    );
}

pub(super) fn refuse_flush(_: &mut Client, _: Command<'_>, _: &dyn NodeView, writer: &mut Writer<'_>) {
    writer.error(
        "ERR deleting all keys at once is not supported, nothing was done: delete them one by one, or \
         start a new cluster",
    );
}

/// `MEMORY USAGE key [SAMPLES n]` asks for the key itself.
pub(super) fn memory(command: Command<'_>, _: &GatewayLimits, _: &dyn NodeView) -> Planned {
    subcommand("memory", &[("usage", -3)], command)?;
    data::memory_usage(command)
}

pub(super) fn module(_: &mut Client, command: Command<'_>, _: &dyn NodeView, writer: &mut Writer<'_>) {
    match subcommand("module", &[("list", 2)], command) {
        Ok(_) => writer.array(0),
        Err(refusal) => writer.error(&refusal),
    }
}

const SLOWLOG: [(&str, i32); 4] = [("get", -2), ("help", 2), ("len", 2), ("reset", 2)];

pub(super) fn slowlog(_: &mut Client, command: Command<'_>, _: &dyn NodeView, writer: &mut Writer<'_>) {
    match subcommand("slowlog", &SLOWLOG, command) {
        Ok("get") => writer.array(0),
        Ok("len") => writer.integer(0),
        Ok("reset") => writer.ok(),
        Ok(_) => write_help("slowlog", &SLOWLOG, writer),
        Err(refusal) => writer.error(&refusal),
    }
}

const LATENCY: [(&str, i32); 4] = [("help", 2), ("history", 3), ("latest", 2), ("reset", -2)];

pub(super) fn latency(_: &mut Client, command: Command<'_>, _: &dyn NodeView, writer: &mut Writer<'_>) {
    match subcommand("latency", &LATENCY, command) {
        Ok("latest" | "history") => writer.array(0),
        Ok("reset") => writer.integer(0),
        Ok(_) => write_help("latency", &LATENCY, writer),
        Err(refusal) => writer.error(&refusal),
    }
}

const CONFIG: [(&str, i32); 5] = [("get", -3), ("help", 2), ("resetstat", 2), ("rewrite", 2), ("set", -4)];

pub(super) fn config(_: &mut Client, command: Command<'_>, node: &dyn NodeView, writer: &mut Writer<'_>) {
    match subcommand("config", &CONFIG, command) {
        Ok("get") => config_get(command, node, writer),
        Ok("help") => write_help("config", &CONFIG, writer),
        Ok(_) => writer.error(
            "ERR settings live in the node's configuration file, nothing was changed: edit it, then send the node SIGHUP \
             or start it again",
        ),
        Err(refusal) => writer.error(&refusal),
    }
}

fn config_get(command: Command<'_>, node: &dyn NodeView, writer: &mut Writer<'_>) {
    let counters = node.counters();
    let port = own_port(node).to_string();
    let clients = counters.connections_max.to_string();
    let settings: [(&str, &str); 14] = [
        // Every write that is answered as durable is on disk, which is what those who ask for it want to know.
        ("appendfsync", "always"),
        ("appendonly", "yes"),
        ("cluster-enabled", "yes"),
        ("databases", "1"),
        ("maxclients", &clients),
        ("maxmemory", "0"),
        ("maxmemory-policy", "noeviction"),
        ("notify-keyspace-events", ""),
        ("port", &port),
        ("replica-read-only", "no"),
        ("requirepass", ""),
        ("save", ""),
        ("slave-read-only", "no"),
        ("timeout", "0"),
    ];
    let asked = |name: &str| command.arguments().skip(2).any(|pattern| matches_pattern(pattern, name.as_bytes()));
    let found: Vec<_> = settings.into_iter().filter(|(name, _)| asked(name)).collect();
    writer.map(found.len());
    for (name, value) in found {
        writer.bulk(name.as_bytes());
        writer.bulk(value.as_bytes());
    }
}

/// `*` and `?` as in Redis, any case; no classes. Takes time in proportion to both lengths together for one star, and
/// never recurses.
fn matches_pattern(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where the last star was, and how much of the name it has taken.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(b'?') => (p, n) = (p + 1, n + 1),
            Some(byte) if byte.eq_ignore_ascii_case(&name[n]) => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, n) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// A section of `INFO`, in the order in which Redis has them.
type Section = (&'static str, fn(&dyn NodeView) -> String);

const SECTIONS: [Section; 9] = [
    ("server", info_server),
    ("clients", info_clients),
    ("memory", info_memory),
    ("persistence", |_| "loading:0\r\naof_enabled:1\r\naof_last_write_status:ok\r\n".to_owned()),
    ("stats", info_stats),
    ("replication", |_| "role:master\r\nconnected_slaves:0\r\nmaster_repl_offset:0\r\n".to_owned()),
    ("cpu", info_cpu),
    ("cluster", |_| "cluster_enabled:1\r\n".to_owned()),
    ("quorate", info_quorate),
];

pub(super) fn info(_: &mut Client, command: Command<'_>, node: &dyn NodeView, writer: &mut Writer<'_>) {
    let all = command.len() == 1
        || command.arguments().skip(1).any(|name| {
            [b"all".as_slice(), b"default", b"everything"].iter().any(|word| name.eq_ignore_ascii_case(word))
        });
    let asked = |name: &str| all || command.arguments().skip(1).any(|word| word.eq_ignore_ascii_case(name.as_bytes()));
    let mut text = String::new();
    for (name, section) in SECTIONS.into_iter().chain([("keyspace", info_keyspace as fn(&dyn NodeView) -> String)]) {
        if asked(name) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            let title = if name == "cpu" { "CPU".to_owned() } else { name[..1].to_ascii_uppercase() + &name[1..] };
            let _ = write!(text, "# {title}\r\n{}", section(node));
        }
    }
    writer.verbatim(&text);
}

/// The port that this node's cores share.
fn own_port(node: &dyn NodeView) -> u16 {
    let (own, _) = node.endpoint();
    node.map().nodes.iter().find(|mapped| mapped.id == own).map_or(0, |mapped| mapped.port)
}

fn info_server(node: &dyn NodeView) -> String {
    let counters = node.counters();
    let (own, core) = node.endpoint();
    let uptime = counters.uptime.as_secs();
    format!(
        "redis_version:{REDIS_VERSION}\r\nredis_mode:cluster\r\nserver_name:quorate\r\nquorate_version:{}\r\n\
         quorate_node:{own}\r\nquorate_core:{core}\r\nos:Linux\r\narch_bits:64\r\nmultiplexing_api:io_uring\r\n\
         process_id:{}\r\nrun_id:{}\r\ntcp_port:{}\r\nserver_time_usec:{}\r\nuptime_in_seconds:{uptime}\r\n\
         uptime_in_days:{}\r\nhz:0\r\n",
        env!("CARGO_PKG_VERSION"),
        counters.process_id,
        core_id(node.cluster_id(), own, core),
        own_port(node),
        node.now_unix().as_micros(),
        uptime / 86400,
    )
}

fn info_clients(node: &dyn NodeView) -> String {
    let counters = node.counters();
    format!(
        "connected_clients:{}\r\nmaxclients:{}\r\nblocked_clients:0\r\n",
        counters.connections, counters.connections_max
    )
}

fn info_memory(node: &dyn NodeView) -> String {
    let bytes = node.counters().memory_bytes;
    format!(
        "used_memory:{bytes}\r\nused_memory_human:{:.2}M\r\nused_memory_rss:{bytes}\r\nmaxmemory:0\r\n\
         maxmemory_policy:noeviction\r\n",
        bytes as f64 / f64::from(1 << 20)
    )
}

fn info_stats(node: &dyn NodeView) -> String {
    let counters = node.counters();
    format!(
        "total_connections_received:{}\r\ntotal_commands_processed:{}\r\ntotal_net_input_bytes:{}\r\n\
         total_net_output_bytes:{}\r\nrejected_connections:{}\r\nexpired_keys:0\r\nevicted_keys:0\r\n",
        counters.connections_accepted,
        counters.commands,
        counters.bytes_read,
        counters.bytes_written,
        counters.connections_refused,
    )
}

fn info_cpu(node: &dyn NodeView) -> String {
    let counters = node.counters();
    format!(
        "used_cpu_sys:{:.6}\r\nused_cpu_user:{:.6}\r\n",
        counters.cpu_system.as_secs_f64(),
        counters.cpu_user.as_secs_f64()
    )
}

fn info_quorate(node: &dyn NodeView) -> String {
    node.figures().into_iter().fold(String::new(), |mut lines, (name, figure)| {
        let _ = write!(lines, "{name}:{figure}\r\n");
        lines
    })
}

fn info_keyspace(node: &dyn NodeView) -> String {
    match node.keys() {
        0 => String::new(),
        keys => format!("db0:keys={keys},expires=0,avg_ttl=0\r\n"),
    }
}

/// The ports of a node's cores and their number, as clients reach them.
pub(super) fn core_port(map: &ClusterMap, node: usize, core: u16) -> u16 {
    map.nodes[node].core_port.saturating_add(core)
}

#[cfg(test)]
mod tests {
    use super::matches_pattern;

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("save", "save", true),
            ("SAVE", "save", true),
            ("save", "saves", false),
            ("*", "", true),
            ("max*", "maxmemory", true),
            ("max*y", "maxmemory", true),
            ("max*y", "maxmemory-policy", true),
            ("max*x", "maxmemory-policy", false),
            ("?ort", "port", true),
            ("?", "", false),
            ("*a*b*", "xxaxxbxx", true),
            ("**", "a", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches_pattern(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
        // A hostile pattern ends all the same.
        assert!(!matches_pattern(&b"*a".repeat(1000), b"maxmemory-policy"));
    }
}
