//! Sessions against a node that is a map in memory, command by command.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_net::{
    message::{Consistency, Durability, Failure, Get, MappedNode, Outcome, Put},
    resp::{Reply, ReplyLimits, ReplyScanner, write_command},
    transport::{Next, Taken},
};
use serde_json::json;

use super::*;

mod operators;
mod pipeline;

/// Two nodes of two cores, four partitions, two replicas.
struct Node {
    map: Rc<ClusterMap>,
    away: Vec<Endpoint>,
    now: Duration,
}

impl Node {
    fn new() -> Self {
        let node = |id: u16| MappedNode {
            id: NodeId(id),
            address: format!("127.0.0.{id}"),
            cores: 2,
            port: 7400,
            core_port: 7401,
        };
        let map = ClusterMap {
            replicas: 2,
            nodes: vec![node(1), node(2)],
            preference: vec![vec![0, 1], vec![0, 1], vec![1, 0], vec![0, 1]],
            spread: vec![0, 0, 1 << 31, 1 << 31],
        };
        Self { map: Rc::new(map), away: Vec::new(), now: Duration::from_micros(1_700_000_000_000_007) }
    }
}

impl NodeView for Node {
    fn endpoint(&self) -> (NodeId, CoreId) {
        (NodeId(2), CoreId(1))
    }
    fn cluster_id(&self) -> u64 {
        0xabc
    }
    fn map(&self) -> Rc<ClusterMap> {
        self.map.clone()
    }
    fn is_away(&self, peer: Endpoint) -> bool {
        self.away.contains(&peer)
    }
    fn now_unix(&self) -> Duration {
        self.now
    }
    fn keys(&self) -> u64 {
        42
    }
    fn counters(&self) -> Counters {
        Counters { process_id: 9, connections_max: 1000, uptime: Duration::from_secs(90_000), ..Counters::default() }
    }
    fn figures(&self) -> Vec<(&'static str, u64)> {
        vec![("store_commits", 7)]
    }
    fn inquire(&self, inquiry: Inquiry) -> Result<Value, String> {
        match inquiry {
            Inquiry::Plan => Err("there is nothing to plan".to_owned()),
            other => Ok(json!({"asked": format!("{other:?}")})),
        }
    }

    fn other_clients(&self) -> Vec<String> {
        vec!["id=8 addr=other".to_owned()]
    }
}

/// One session, and a store that answers in its own time.
struct Harness {
    session: Session,
    node: Node,
    input: Vec<u8>,
    asks: Vec<Ask>,
    out: Vec<u8>,
    store: BTreeMap<Vec<u8>, Vec<Bytes>>,
    puts: Vec<Put>,
    gets: Vec<Get>,
}

fn limits() -> GatewayLimits {
    GatewayLimits { value_bytes_max: 100, requests_max: 4, turn: 8, commands_max: 16, held_bytes_max: 10_000 }
}

impl Harness {
    fn new() -> Self {
        let origin = Origin {
            id: 7,
            peer: "10.0.0.9:5555".parse().unwrap(),
            local: "127.0.0.2:7400".parse().unwrap(),
            since: Duration::from_secs(1_699_999_990),
        };
        Self {
            session: Session::new(origin, limits()),
            node: Node::new(),
            input: Vec::new(),
            asks: Vec::new(),
            out: Vec::new(),
            store: BTreeMap::new(),
            puts: Vec::new(),
            gets: Vec::new(),
        }
    }

    /// As many turns as it takes.
    fn feed(&mut self, bytes: &[u8]) -> Next {
        self.input.extend_from_slice(bytes);
        loop {
            let next = self.turn();
            if next != Next::Yield || self.input.is_empty() {
                return next;
            }
        }
    }

    fn turn(&mut self) -> Next {
        let Taken { consumed, next } = self.session.receive(&self.input, &self.node, &mut self.asks, &mut self.out);
        self.input.drain(..consumed);
        next
    }

    /// Answers the request at this place in line.
    fn answer(&mut self, at: usize, outcome: Outcome) -> After {
        let ask = self.asks.remove(at);
        self.session.answered(ask.ticket, outcome, &mut self.asks, &mut self.out)
    }

    fn outcome(&mut self, operation: &Operation) -> Outcome {
        let context = Bytes::from_static(b"ctx");
        match operation {
            Operation::Get(get) => {
                self.gets.push(get.clone());
                let values = self.store.get(get.key.name()).cloned().unwrap_or_default().into();
                Outcome::Values { context, values, sloppy: false }
            }
            Operation::Put(put) => {
                self.puts.push(put.clone());
                let before = self.store.remove(put.key.name());
                if let Some(value) = &put.value {
                    self.store.insert(put.key.name().to_vec(), vec![value.clone()]);
                }
                Outcome::Written { context, replaced: before.is_some(), sloppy: false }
            }
            Operation::ClusterMap => panic!("not asked by Redis clients"),
        }
    }

    /// Answers all that is asked, the latest first: the order of the replies must not depend on it.
    fn answer_all(&mut self) {
        while let Some(ask) = self.asks.pop() {
            let Task::Request(operation) = &ask.task else { panic!("changes are answered by their tests") };
            let outcome = self.outcome(operation);
            if self.session.answered(ask.ticket, outcome, &mut self.asks, &mut self.out) == After::Resume {
                self.feed(b"");
            }
        }
    }

    /// The reply to one command, given as words; `""` is an empty one.
    fn run(&mut self, line: &str) -> String {
        let words: Vec<&[u8]> =
            line.split(' ').map(|word| if word == "\"\"" { b"".as_slice() } else { word.as_bytes() }).collect();
        self.run_words(&words)
    }

    fn run_words(&mut self, words: &[&[u8]]) -> String {
        let mut bytes = Vec::new();
        write_command(&mut bytes, words);
        self.feed(&bytes);
        self.answer_all();
        let reply = String::from_utf8(std::mem::take(&mut self.out)).unwrap();
        // Whatever the command, exactly one well-formed reply.
        let scanned = ReplyScanner::new(ReplyLimits::default()).scan(reply.as_bytes());
        assert_eq!(scanned, Ok(Some(reply.len())), "{reply:?}");
        reply
    }
}

/// Runs lines in one session and compares each reply.
fn check(lines: &[(&str, &str)]) -> Harness {
    let mut harness = Harness::new();
    for (line, reply) in lines {
        assert_eq!(harness.run(line), format!("{reply}\r\n"), "{line}");
    }
    harness
}

#[test]
fn the_table_is_sorted_and_complete() {
    let names: Vec<_> = command::COMMANDS.iter().map(|spec| spec.name).collect();
    assert!(names.is_sorted(), "{names:?}");
    for name in [
        "ping",
        "echo",
        "hello",
        "auth",
        "select",
        "quit",
        "reset",
        "client",
        "command",
        "info",
        "config",
        "time",
        "dbsize",
        "get",
        "set",
        "del",
        "unlink",
        "exists",
        "mget",
        "mset",
        "strlen",
        "type",
        "cluster",
        "readonly",
        "readwrite",
        "kv.get",
        "kv.put",
        "kv.del",
    ] {
        assert!(command::by_name(name.to_ascii_uppercase().as_bytes()).is_some(), "{name}");
    }
}

#[test]
fn data_commands() {
    check(&[
        ("GET a", "$-1"),
        ("SET a 1", "+OK"),
        ("get a", "$1\r\n1"),
        ("SET a \"\"", "+OK"),
        ("GET a", "$0\r\n"),
        ("MSET b 22 c 333", "+OK"),
        ("MGET a b nope c", "*4\r\n$0\r\n\r\n$2\r\n22\r\n$-1\r\n$3\r\n333"),
        ("EXISTS b b nope c", ":3"),
        ("STRLEN c", ":3"),
        ("STRLEN nope", ":0"),
        ("TYPE c", "+string"),
        ("TYPE nope", "+none"),
        ("MEMORY USAGE c", ":7"),
        ("MEMORY USAGE nope", "$-1"),
        ("DEL b nope c b", ":2"),
        ("UNLINK a", ":1"),
        ("GET a", "$-1"),
    ]);
}

#[test]
fn data_commands_that_are_refused_do_nothing() {
    let harness = check(&[
        ("GET", "-ERR wrong number of arguments for 'get' command"),
        ("GET a b", "-ERR wrong number of arguments for 'get' command"),
        ("SET a", "-ERR wrong number of arguments for 'set' command"),
        ("MSET a", "-ERR wrong number of arguments for 'mset' command"),
        ("MSET a 1 b", "-ERR wrong number of arguments for 'mset' command"),
        ("DEL", "-ERR wrong number of arguments for 'del' command"),
        ("SET a 1 FOO", "-ERR syntax error"),
        ("SET a 1 EX", "-ERR syntax error"),
        ("GET \"\"", "-ERR the key is empty; nothing was done"),
        ("MGET a \"\"", "-ERR the key is empty; nothing was done"),
        ("MEMORY FOO x", "-ERR unknown subcommand 'FOO'. Try MEMORY HELP."),
        ("MEMORY USAGE", "-ERR wrong number of arguments for 'memory|usage' command"),
        ("INCR a", "-ERR unknown command 'INCR', with args beginning with: 'a' "),
    ]);
    assert!(harness.store.is_empty() && harness.gets.is_empty());
    let mut harness = Harness::new();
    for option in ["NX", "xx", "GET", "KEEPTTL", "EX 10", "px 10", "EXAT 10"] {
        let reply = harness.run(&format!("SET a 1 {option}"));
        assert!(reply.contains("is not supported, nothing was written"), "{reply}");
    }
    let long = "v".repeat(101);
    let refused = "-ERR the value has 101 bytes, at most 100 are allowed; nothing was written\r\n";
    assert_eq!(harness.run(&format!("SET a {long}")), refused);
    assert_eq!(harness.run(&format!("MSET a 1 b {long}")), refused);
    assert_eq!(harness.run(&format!("KV.PUT a {long}")), refused);
    let key = "k".repeat(4097);
    let refused = "-ERR the key has 4097 bytes, at most 4096 are allowed; nothing was done\r\n";
    assert_eq!(harness.run(&format!("SET {key} 1")), refused);
    assert!(harness.puts.is_empty());
}

#[test]
fn get_answers_the_winner_and_kv_get_all_siblings() {
    let mut harness = Harness::new();
    harness.store.insert(b"k".to_vec(), vec!["new".into(), "old".into()]);
    assert_eq!(harness.run("GET k"), "$3\r\nnew\r\n");
    assert_eq!(harness.run("STRLEN k"), ":3\r\n");
    assert_eq!(harness.run("KV.GET k"), "*2\r\n$3\r\nctx\r\n*2\r\n$3\r\nnew\r\n$3\r\nold\r\n");
    assert_eq!(harness.run("KV.GET absent"), "*2\r\n$3\r\nctx\r\n*0\r\n");
    assert_eq!(harness.run("KV.PUT k v"), "$3\r\nctx\r\n");
    assert_eq!(harness.run("KV.DEL k"), "$3\r\nctx\r\n");
    assert_eq!(harness.run("GET k"), "$-1\r\n");
}

#[test]
fn options_of_kv_commands_reach_the_coordinator() {
    let mut harness = Harness::new();
    harness.run("KV.GET k r 2 strict");
    let get = harness.gets.pop().unwrap();
    assert_eq!((get.quorum, get.consistency), (2, Consistency::Strict));
    assert_eq!((get.key.bucket(), get.key.name()), (&b"default"[..], &b"k"[..]));
    harness.run("SET k v");
    harness.run("KV.PUT k v");
    let (by_kv, by_set) = (harness.puts.pop().unwrap(), harness.puts.pop().unwrap());
    // They differ in whether somebody wants the context.
    assert!(by_kv.wants_context && !by_set.wants_context);
    assert_eq!(by_kv, Put { wants_context: true, ..by_set.clone() });
    assert!(get.wants_context);
    assert_eq!((by_set.context, by_set.token, by_set.quorum), (None, None, 0));
    harness.run("KV.PUT k v CTX abc W 1 DURABILITY buffered ID try STRICT");
    let put = harness.puts.pop().unwrap();
    assert_eq!((put.context, put.quorum), (Some("abc".into()), 1));
    assert_eq!((put.durability, put.consistency), (Durability::Buffered, Consistency::Strict));
    harness.run("KV.DEL k STRICT ID try");
    let del = harness.puts.pop().unwrap();
    assert_eq!((del.value, del.token), (None, put.token));
    assert!(put.token.is_some());
    // Seen nothing is not the same as nothing said.
    harness.run("KV.PUT k v CTX \"\"");
    assert_eq!(harness.puts.pop().unwrap().context, Some(Bytes::new()));
    for (line, reply) in [
        ("KV.GET k R", "-ERR syntax error"),
        ("KV.GET k R 0", "-ERR R must be a number from 1 to 2; nothing was done"),
        ("KV.GET k R 3", "-ERR R must be a number from 1 to 2; nothing was done"),
        ("KV.PUT k v W x", "-ERR W must be a number from 1 to 2; nothing was done"),
        ("KV.GET k CTX a", "-ERR syntax error"),
        ("KV.PUT k v DURABILITY now", "-ERR DURABILITY must be durable, one or buffered; nothing was done"),
        ("KV.PUT k v ID \"\"", "-ERR ID must have 1 to 256 bytes; nothing was done"),
        ("KV.PUT k v CTX", "-ERR syntax error"),
        ("KV.PUT k", "-ERR wrong number of arguments for 'kv.put' command"),
    ] {
        assert_eq!(harness.run(line), format!("{reply}\r\n"), "{line}");
    }
    let context = vec![b'c'; (64 << 10) + 1];
    let reply = harness.run_words(&[b"KV.PUT", b"k", b"v", b"CTX", &context]);
    assert!(reply.starts_with("-ERR the context has 65537 bytes"), "{reply}");
    assert!(harness.puts.is_empty());
}

#[test]
fn failures_say_what_happened() {
    for (failure, reply) in [
        (Failure::Timeout { acks: 1, needed: 2 }, "-TIMEOUT 1 of 2 replicas answered in time"),
        (Failure::Unavailable { reachable: 1, needed: 2 }, "-UNAVAILABLE 1 of 2 replicas are reachable"),
        (Failure::Overloaded { retry_after_us: 1500 }, "-TRYAGAIN a queue is full, nothing was done: retry after 2 ms"),
        (Failure::DiskFull, "-DISKFULL the disk is full, nothing was written"),
        (Failure::StoreFailed, "-STOREFAILED "),
        (Failure::BadContext, "-BADCONTEXT "),
        (Failure::TooManySiblings { limit: 64 }, "-SIBLINGS the key has 64 siblings"),
        (Failure::Corrupt, "-CORRUPT "),
        (Failure::BadRequest("no such thing".into()), "-ERR no such thing; nothing was done"),
    ] {
        let mut harness = Harness::new();
        harness.feed(b"SET a 1\r\nPING\r\n");
        harness.answer(0, Outcome::Failed(failure));
        let out = String::from_utf8(harness.out).unwrap();
        assert!(out.starts_with(reply) && out.ends_with("\r\n+PONG\r\n"), "{out}");
    }
    // A command of several keys fails as one, and says that others may be written.
    let mut harness = Harness::new();
    harness.feed(b"MSET a 1 b 2\r\n");
    harness.answer(0, Outcome::Failed(Failure::DiskFull));
    assert!(harness.out.is_empty());
    harness.answer_all();
    let out = String::from_utf8(harness.out).unwrap();
    assert!(out.contains("others may have been written") && out.lines().count() == 1, "{out}");
}

#[test]
fn connection_commands() {
    check(&[
        ("PING", "+PONG"),
        ("PING hi", "$2\r\nhi"),
        ("PING a b", "-ERR wrong number of arguments for 'ping' command"),
        ("ECHO hi", "$2\r\nhi"),
        ("SELECT 0", "+OK"),
        ("SELECT 1", "-ERR DB index is out of range"),
        ("SELECT x", "-ERR value is not an integer or out of range"),
        (
            "AUTH pw",
            "-ERR AUTH <password> called without any password configured for the default user. Are you sure your \
             configuration is correct?",
        ),
        ("AUTH default pw", "+OK"),
        ("AUTH eve pw", "-WRONGPASS invalid username-password pair or user is disabled."),
        ("ACL WHOAMI", "$7\r\ndefault"),
        ("READONLY", "+OK"),
        ("READWRITE", "+OK"),
        ("CLIENT ID", ":7"),
        ("CLIENT GETNAME", "$-1"),
        ("CLIENT SETNAME me", "+OK"),
        ("CLIENT GETNAME", "$2\r\nme"),
        ("CLIENT SETNAME a\tb", "-ERR Client names cannot contain spaces, newlines or special characters."),
        ("CLIENT SETINFO LIB-NAME redis-py", "+OK"),
        ("CLIENT SETINFO lib-ver 5.0", "+OK"),
        ("CLIENT SETINFO foo x", "-ERR Unrecognized option 'foo'"),
        ("CLIENT NO-EVICT on", "+OK"),
        ("CLIENT NO-TOUCH off", "+OK"),
        ("CLIENT NO-EVICT maybe", "-ERR syntax error"),
        ("CLIENT", "-ERR wrong number of arguments for 'client' command"),
        ("CLIENT SETNAME", "-ERR wrong number of arguments for 'client|setname' command"),
        ("CLIENT MAINT_NOTIFICATIONS ON", "-ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP."),
        ("RESET", "+RESET"),
        ("CLIENT GETNAME", "$-1"),
        ("foo a b", "-ERR unknown command 'foo', with args beginning with: 'a' 'b' "),
        ("foo", "-ERR unknown command 'foo', with args beginning with: "),
        ("a\r\nb c", "-ERR unknown command 'a  b', with args beginning with: 'c' "),
    ]);
}

#[test]
fn unknown_commands_are_quoted_in_part() {
    let mut harness = Harness::new();
    let long = "x".repeat(200);
    let arguments = format!("'{}' ", "x".repeat(128));
    let name = "x".repeat(128);
    let expected = format!("-ERR unknown command '{name}', with args beginning with: {arguments}\r\n");
    assert_eq!(harness.run(&format!("{long} {long} {long}")), expected);
    let expected = format!("-ERR unknown command 'y', with args beginning with: 'a' '{}' \r\n", "x".repeat(124));
    assert_eq!(harness.run(&format!("y a {long} b")), expected);
}

#[test]
fn client_lines() {
    let mut harness = Harness::new();
    harness.run("CLIENT SETINFO lib-name py");
    let line = harness.run("CLIENT INFO");
    for part in
        ["id=7 addr=10.0.0.9:5555 laddr=127.0.0.2:7400 ", " age=10 ", " cmd=client|info ", " resp=2 lib-name=py "]
    {
        assert!(line.contains(part), "{line}");
    }
    let list = harness.run("CLIENT LIST");
    assert!(list.contains("cmd=client|list") && list.contains("\nid=8 addr=other\n"), "{list}");
}

#[test]
fn hello_chooses_the_protocol() {
    let mut harness = check(&[
        ("HELLO 4", "-NOPROTO unsupported protocol version"),
        ("HELLO x", "-ERR Protocol version is not an integer or out of range"),
        ("HELLO 3 FOO", "-ERR Syntax error in HELLO option 'FOO'"),
        ("HELLO 3 AUTH default", "-ERR Syntax error in HELLO option 'AUTH'"),
        ("HELLO 3 AUTH eve x SETNAME n", "-WRONGPASS invalid username-password pair or user is disabled."),
        ("HELLO 3 SETNAME a\nb", "-ERR Client names cannot contain spaces, newlines or special characters."),
        // None of these changed anything.
        ("GET a", "$-1"),
        ("CLIENT GETNAME", "$-1"),
    ]);
    let reply = harness.run("HELLO 3 AUTH default x SETNAME me");
    let Reply::Map(fields) = Reply::parse(reply.as_bytes()) else { panic!("{reply}") };
    let expected = [
        ("server", Reply::Bulk(b"redis")),
        ("version", Reply::Bulk(REDIS_VERSION.as_bytes())),
        ("proto", Reply::Integer(3)),
        ("id", Reply::Integer(7)),
        ("mode", Reply::Bulk(b"cluster")),
        ("role", Reply::Bulk(b"master")),
        ("modules", Reply::Array(vec![])),
    ];
    assert_eq!(fields, expected.map(|(key, value)| (Reply::Bulk(key.as_bytes()), value)));
    assert_eq!(harness.run("GET a"), "_\r\n");
    assert_eq!(harness.run("CLIENT GETNAME"), "$2\r\nme\r\n");
    assert!(harness.run("HELLO").starts_with("%7\r\n"));
    assert!(harness.run("HELLO 2").starts_with("*14\r\n$6\r\nserver\r\n"));
    assert_eq!(harness.run("GET a"), "$-1\r\n");
    harness.run("HELLO 3");
    assert_eq!(harness.run("RESET"), "+RESET\r\n");
    assert_eq!(harness.run("GET a"), "$-1\r\n");
}

#[test]
fn server_commands() {
    let mut harness = check(&[
        ("TIME", "*2\r\n$10\r\n1700000000\r\n$1\r\n7"),
        ("DBSIZE", ":42"),
        ("ROLE", "*3\r\n$6\r\nmaster\r\n:0\r\n*0"),
        ("SLOWLOG GET", "*0"),
        ("SLOWLOG GET 10", "*0"),
        ("SLOWLOG LEN", ":0"),
        ("SLOWLOG RESET", "+OK"),
        ("SLOWLOG FOO", "-ERR unknown subcommand 'FOO'. Try SLOWLOG HELP."),
        ("LATENCY LATEST", "*0"),
        ("MODULE LIST", "*0"),
        ("CONFIG GET save", "*2\r\n$4\r\nsave\r\n$0\r\n"),
        ("CONFIG GET appendonly", "*2\r\n$10\r\nappendonly\r\n$3\r\nyes"),
        ("CONFIG GET databases port", "*4\r\n$9\r\ndatabases\r\n$1\r\n1\r\n$4\r\nport\r\n$4\r\n7400"),
        ("CONFIG GET nothing*", "*0"),
        ("CONFIG GET", "-ERR wrong number of arguments for 'config|get' command"),
    ]);
    for (line, part) in [
        ("CONFIG SET save x", "edit it, then send the node SIGHUP"),
        ("CONFIG GET *", "maxmemory-policy"),
        ("SCAN 0", "not supported"),
        ("KEYS *", "not supported"),
        ("FLUSHALL", "not supported, nothing was done"),
        ("COMMAND", "kv.put"),
        ("COMMAND DOCS", "summary"),
        ("CLIENT HELP", "SETNAME"),
    ] {
        assert!(harness.run(line).contains(part), "{line}");
    }
}

#[test]
fn info_has_what_clients_look_for() {
    let mut harness = Harness::new();
    let all = harness.run("INFO");
    for line in [
        "# Server\r\nredis_version:7.2.5\r\n",
        "\r\n\r\n# Cluster\r\ncluster_enabled:1\r\n",
        "\r\n# Keyspace\r\ndb0:keys=42,expires=0,avg_ttl=0\r\n",
        "uptime_in_days:1\r\n",
        "\r\nrole:master\r\n",
        "# CPU\r\n",
    ] {
        assert!(all.contains(line), "{line}: {all}");
    }
    assert_eq!(harness.run("INFO everything").len(), all.len());
    let server = harness.run("info SERVER");
    assert!(server.contains("# Server") && !server.contains("# Clients"), "{server}");
    assert_eq!(harness.run("INFO nothing"), "$0\r\n\r\n");
    harness.run("HELLO 3");
    assert!(harness.run("INFO replication").starts_with("="));
}

#[test]
fn command_tells_of_the_table() {
    let count = command::COMMANDS.len() - 2;
    let mut harness = check(&[
        ("COMMAND COUNT", &format!(":{count}")),
        ("COMMAND COUNT x", "-ERR wrong number of arguments for 'command|count' command"),
        ("COMMAND FOO", "-ERR unknown subcommand 'FOO'. Try COMMAND HELP."),
        (
            "COMMAND INFO get nope",
            "*2\r\n*10\r\n$3\r\nget\r\n:2\r\n*2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n*0\r\n*0\r\n*0\r\n*0\r\n*-1",
        ),
        ("COMMAND GETKEYS GET k", "*1\r\n$1\r\nk"),
        ("COMMAND GETKEYS MSET a 1 b 2", "*2\r\n$1\r\na\r\n$1\r\nb"),
        ("COMMAND GETKEYS MEMORY USAGE k", "*1\r\n$1\r\nk"),
        ("COMMAND GETKEYS PING", "-ERR The command has no key arguments"),
        ("COMMAND GETKEYS GET", "-ERR Invalid number of arguments specified for command"),
        ("COMMAND GETKEYS FOO", "-ERR Invalid command specified"),
    ]);
    assert!(harness.run("COMMAND LIST").starts_with(&format!("*{count}\r\n$3\r\nacl\r\n")));
    let docs = harness.run("COMMAND DOCS get nope");
    assert!(docs.starts_with("*2\r\n$3\r\nget\r\n*6\r\n$7\r\nsummary\r\n"), "{docs}");
}

/// The first slot, the last slot, the owners' addresses and ports.
type Range = (i64, i64, Vec<(String, i64)>);

/// What `CLUSTER SLOTS` says.
fn slots(harness: &mut Harness) -> Vec<Range> {
    let reply = harness.run("CLUSTER SLOTS");
    let parsed = Reply::parse(reply.as_bytes());
    parsed
        .as_elements()
        .unwrap()
        .iter()
        .map(|range| {
            let [Reply::Integer(first), Reply::Integer(last), owners @ ..] = range.as_elements().unwrap() else {
                panic!("{range:?}")
            };
            let owners: Vec<_> = owners
                .iter()
                .map(|owner| match owner.as_elements().unwrap() {
                    [Reply::Bulk(address), Reply::Integer(port), Reply::Bulk(id), Reply::Array(_)] => {
                        assert_eq!(id.len(), 40);
                        (String::from_utf8_lossy(address).into_owned(), *port)
                    }
                    other => panic!("{other:?}"),
                })
                .collect();
            (*first, *last, owners)
        })
        .collect()
}

#[test]
fn cluster_commands() {
    let own = "0000000000000abc000000000002000000000001";
    let mut harness = check(&[
        ("CLUSTER KEYSLOT foo", ":12182"),
        ("CLUSTER KEYSLOT {foo}x", ":12182"),
        ("CLUSTER MYID", &format!("$40\r\n{own}")),
        ("CLUSTER FOO", "-ERR unknown subcommand 'FOO'. Try CLUSTER HELP."),
    ]);
    assert!(harness.run("CLUSTER INFO").contains("cluster_state:ok\r\ncluster_slots_assigned:16384\r\n"));

    let at = |address: &str, port| (address.to_owned(), port);
    // The first two partitions have the same owners; the third and the fourth are the second cores'.
    assert_eq!(
        slots(&mut harness),
        [
            (0, 8191, vec![at("127.0.0.1", 7401), at("127.0.0.2", 7401)]),
            (8192, 12287, vec![at("127.0.0.2", 7402), at("127.0.0.1", 7402)]),
            (12288, 16383, vec![at("127.0.0.1", 7402), at("127.0.0.2", 7402)]),
        ]
    );

    let nodes = harness.run("CLUSTER NODES");
    let lines: Vec<_> = nodes.lines().skip(1).filter(|line| !line.is_empty()).collect();
    let id = |node, core| format!("0000000000000abc{node:012x}{core:012x}");
    assert_eq!(
        lines,
        [
            format!("{} 127.0.0.1:7401@0 master - 0 0 1 connected 0-8191", id(1, 0)),
            format!("{} 127.0.0.1:7402@0 master - 0 0 1 connected 12288-16383", id(1, 1)),
            format!("{} 127.0.0.2:7401@0 master - 0 0 1 connected", id(2, 0)),
            format!("{} 127.0.0.2:7402@0 myself,master - 0 0 1 connected 8192-12287", id(2, 1)),
        ]
    );

    harness.run("HELLO 3");
    let reply = harness.run("CLUSTER SHARDS");
    let shards = Reply::parse(reply.as_bytes());
    let Reply::Map(first) = &shards.as_elements().unwrap()[0] else { panic!("{shards:?}") };
    assert_eq!(first[0].1, Reply::Array(vec![Reply::Integer(0), Reply::Integer(8191)]));
    assert_eq!(first[1].1.as_elements().unwrap().len(), 2);
}

#[test]
fn who_is_away_owns_no_slots() {
    let mut harness = Harness::new();
    let first_node = [0, 1].map(|core| Endpoint::new(NodeId(1), CoreId(core)));
    let at = |address: &str, port| (address.to_owned(), port);
    harness.node.away.extend(first_node);
    let left = [(0, 8191, vec![at("127.0.0.2", 7401)]), (8192, 16383, vec![at("127.0.0.2", 7402)])];
    assert_eq!(slots(&mut harness), left);
    let nodes = harness.run("CLUSTER NODES");
    assert!(nodes.contains(" 127.0.0.1:7401@0 master,fail - 0 0 1 disconnected\n"), "{nodes}");
    assert!(nodes.contains(" 127.0.0.2:7402@0 myself,master - 0 0 1 connected 8192-16383\n"), "{nodes}");
    assert!(!harness.run("CLUSTER SHARDS").contains("127.0.0.1"));
    // All are covered, whoever is left.
    Rc::get_mut(&mut harness.node.map).unwrap().replicas = 1;
    assert_eq!(slots(&mut harness), left);
    harness.node.away.push(Endpoint::new(NodeId(2), CoreId(0)));
    assert_eq!(slots(&mut harness)[0], (0, 8191, vec![at("127.0.0.1", 7401)]));
}

#[test]
fn a_refused_transaction_does_nothing() {
    let mut harness = Harness::new();
    harness.feed(b"MULTI\r\nSET a 1\r\nGET a\r\nEXEC\r\nSET b 2\r\n");
    assert_eq!(harness.asks.len(), 1, "only what follows the transaction");
    harness.answer_all();
    let out = String::from_utf8(std::mem::take(&mut harness.out)).unwrap();
    let lines: Vec<_> = out.lines().collect();
    assert!(lines[0].starts_with("-ERR MULTI is not supported") && lines[0].contains("pipeline(transaction=False)"));
    assert!(lines[1].starts_with("-ERR nothing was done") && lines[2].starts_with("-ERR nothing was done"));
    assert!(lines[3].starts_with("-EXECABORT ") && lines[4] == "+OK", "{out}");
    for (line, reply) in [("EXEC", "-ERR EXEC without MULTI\r\n"), ("DISCARD", "-ERR DISCARD without MULTI\r\n")] {
        assert_eq!(harness.run(line), reply);
    }
    harness.run("MULTI");
    assert_eq!(harness.run("DISCARD"), "+OK\r\n");
    assert_eq!(harness.run("SET a 1"), "+OK\r\n");
    // A client that saw the refusal and goes on is served, a moment later.
    harness.run("MULTI");
    assert!(harness.run("GET a").starts_with("-ERR nothing was done"));
    harness.node.now += Duration::from_secs(1);
    assert_eq!(harness.run("GET a"), "$1\r\n1\r\n");
    assert!(harness.run("WATCH a").starts_with("-ERR WATCH is not supported"));
}
