//! Every key that a configuration may hold, once: what it is, its range, what holds without it, what it is for, and
//! whether a running node takes it over.
//!
//! The rule: the readers take ranges and defaults from here, and refuse to read a key that is not here. So what
//! `quorate config` tells, and the example, is what holds.
//!
//! Not here: how a value is written (`value`), what several keys must be together (`limits`, `members`).

use std::{borrow::Cow, ops::RangeInclusive, time::Duration};

use quorate_net::bounds;

use super::{CORES_MAX, value::Value};
use Fallback::{Else, Is, Required};

/// A table of the file, and its keys.
#[derive(Debug)]
pub struct Table {
    /// As people write it: `[limits]`; `[[core]]` if there may be several.
    pub title: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// Its keys, in the order in which they are told.
    pub keys: &'static [Key],
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// Within its table.
    pub name: &'static str,
    /// What its values are.
    pub kind: Kind,
    /// What holds without it.
    pub fallback: Fallback,
    /// A running node takes it over when it is told to read its file again.
    pub live: bool,
    /// What it does and when to change it.
    pub about: &'static str,
}

/// What the values of a key are, and their range.
#[derive(Clone, PartialEq, Debug)]
pub enum Kind {
    /// Text of a form that is told here.
    Text(&'static str),
    /// Text of so many characters that is not shown.
    Secret(RangeInclusive<usize>),
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// True or false.
    Boolean,
    /// A whole number.
    Integer(RangeInclusive<u64>),
    /// A number that may have a fraction.
    Number(RangeInclusive<f64>),
    /// Bytes, written with a unit.
    Size(RangeInclusive<u64>),
    /// Written with a unit.
    Time(RangeInclusive<Duration>),
}

/// What holds where a key is not given.
#[derive(Clone, PartialEq, Debug)]
pub enum Fallback {
    /// This.
    Is(Value),
    /// What follows from other keys, or nothing: in words; and a value that may stand there.
    Else(&'static str, Value),
    /// It must be given; and a value that may stand there.
    Required(Value),
}

impl Table {
    /// Such as `limits`, or `cluster.node`.
    #[must_use]
    pub fn path(&self) -> &'static str {
        self.title.trim_matches(['[', ']'])
    }

    /// There may be several of it.
    #[must_use]
    pub fn is_repeated(&self) -> bool {
        self.title.starts_with("[[")
    }

    /// The path of one of its keys: `limits.value`.
    #[must_use]
    pub fn path_of(&self, key: &Key) -> String {
        format!("{}.{}", self.path(), key.name)
    }

    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// The table with this path.
pub(super) fn table(path: &str) -> &'static Table {
    TABLES.iter().find(|table| table.path() == path).unwrap_or_else(|| panic!("`{path}` is no table"))
}

const fn text(text: &'static str) -> Value {
    Value::Text(Cow::Borrowed(text))
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

const PORTS: RangeInclusive<u64> = 1..=u16::MAX as u64;
const IDS: RangeInclusive<u64> = 1..=u16::MAX as u64;
const CAPACITIES: RangeInclusive<u64> = 0..=1024 * TIB;
const CACHES: RangeInclusive<u64> = 0..=TIB;

/// All tables, with all keys.
pub static TABLES: &[Table] = &[NODE, CLUSTER, MEMBER, LIMITS, SLO, STORE, CORE];

const NODE: Table = Table {
    title: "[node]",
    about: "This process.",
    keys: &[
        Key {
            name: "id",
            kind: Kind::Integer(IDS),
            fallback: Required(Value::Integer(1)),
            live: false,
            about: "Which of the nodes under [[cluster.node]] this one is.",
        },
        Key {
            name: "data",
            kind: Kind::Text("a path, from the directory that the file lies in"),
            fallback: Is(text("data")),
            live: false,
            about: "The node's directory; each core's store lies in it, unless [[core]] says otherwise. Put it on a \
                    local disk whose writes are durable.",
        },
        Key {
            name: "join",
            kind: Kind::Boolean,
            fallback: Is(Value::Boolean(false)),
            live: false,
            about: "True for a node that is added to a cluster that runs: it asks the others to join, see `quorate \
                    cluster`.",
        },
        Key {
            name: "insecure",
            kind: Kind::Boolean,
            fallback: Is(Value::Boolean(false)),
            live: false,
            about: "True allows addresses that other machines can reach. Nothing is encrypted or authenticated, so \
                    only set it in a network that is trusted.",
        },
        Key {
            name: "cpus",
            kind: Kind::Text("numbers and ranges of CPUs, such as \"0-3,8\""),
            fallback: Else("no core is pinned unless [[core]] `cpu` says so", text("0-3,8")),
            live: false,
            about: "The CPUs that cores are pinned to, in this order, one each; those that a [[core]] `cpu` names are \
                    left out. Set it where nothing else runs on these CPUs: a pinned core is not moved when its CPU is \
                    busy.",
        },
        Key {
            name: "overprovisioned",
            kind: Kind::Boolean,
            fallback: Is(Value::Boolean(false)),
            live: false,
            about: "True where other processes share the CPUs: no core is pinned and none polls, whatever is said \
                    elsewhere. `quorate dev` sets it.",
        },
    ],
};

const CLUSTER: Table = Table {
    title: "[cluster]",
    about: "What all nodes have in common: the same on each of them.",
    keys: &[
        Key {
            name: "name",
            kind: Kind::Text("1 to 64 letters, digits, `-`, `_` or `.`"),
            fallback: Required(text("dev")),
            live: false,
            about: "Keeps nodes of different clusters apart.",
        },
        Key {
            name: "secret",
            kind: Kind::Secret(16..=1024),
            fallback: Required(text("replace-me-with-32-random-characters")),
            live: false,
            about: "Seals the contexts that clients hand back, and tells members from strangers. Draw it at random, \
                    for instance by `openssl rand -base64 24`.",
        },
        Key {
            name: "partitions",
            kind: Kind::Integer(64..=bounds::PARTITIONS_MAX as u64),
            fallback: Is(Value::Integer(1024)),
            live: false,
            about: "Q: a power of two, fixed for the cluster's life. Take some 16 or more for each core that the \
                    cluster may ever have.",
        },
        Key {
            name: "replicas",
            kind: Kind::Integer(1..=7),
            fallback: Is(Value::Integer(3)),
            live: false,
            about: "N: the copies of each key.",
        },
        Key {
            name: "read_quorum",
            kind: Kind::Integer(1..=7),
            fallback: Else("a majority of `replicas`", Value::Integer(2)),
            live: true,
            about: "R: so many copies are read, 1 to N, where a request says nothing else. R + W > N lets a read see \
                    the last write.",
        },
        Key {
            name: "write_quorum",
            kind: Kind::Integer(1..=7),
            fallback: Else("a majority of `replicas`", Value::Integer(2)),
            live: true,
            about: "W: so many copies are written before the answer, 1 to N, where a request says nothing else. A \
                    smaller one is faster and loses more when nodes are lost.",
        },
    ],
};

const MEMBER: Table = Table {
    title: "[[cluster.node]]",
    about: "Each node of the cluster, this one too.",
    keys: &[
        Key {
            name: "id",
            kind: Kind::Integer(IDS),
            fallback: Required(Value::Integer(1)),
            live: false,
            about: "The node's own number. It stays with the node's data, also at another address.",
        },
        Key {
            name: "address",
            kind: Kind::Text("an IP address"),
            fallback: Required(text("127.0.0.1")),
            live: false,
            about: "Where the node listens, and where clients and other nodes reach it.",
        },
        Key {
            name: "cores",
            kind: Kind::Integer(1..=CORES_MAX as u64),
            fallback: Is(Value::Integer(1)),
            live: false,
            about: "How many executors the node runs, each with a store of its own: one for each CPU that it may use. \
                    After a change `quorate rehome` moves the data.",
        },
        Key {
            name: "rack",
            kind: Kind::Text("at most 64 bytes"),
            fallback: Is(text("")),
            live: false,
            about: "What fails together: the copies of a key go to distinct racks first.",
        },
        Key {
            name: "weight",
            kind: Kind::Number(0.01..=100.0),
            fallback: Is(Value::Number(1.0)),
            live: false,
            about: "The node's share of the data beside the others'. Give larger machines more.",
        },
        Key {
            name: "port",
            kind: Kind::Integer(PORTS),
            fallback: Is(Value::Integer(7400)),
            live: false,
            about: "RESP and native clients, on whichever core accepts.",
        },
        Key {
            name: "core_port",
            kind: Kind::Integer(PORTS),
            fallback: Is(Value::Integer(7401)),
            live: false,
            about: "RESP and native clients of core i: this + i.",
        },
        Key {
            name: "peer_port",
            kind: Kind::Integer(PORTS),
            fallback: Is(Value::Integer(7500)),
            live: false,
            about: "Other nodes, to core i: this + i.",
        },
        Key {
            name: "http_port",
            kind: Kind::Integer(PORTS),
            fallback: Is(Value::Integer(7600)),
            live: false,
            about: "HTTP.",
        },
    ],
};

const LIMITS: Table = Table {
    title: "[limits]",
    about: "What clients may ask for.",
    keys: &[
        Key {
            name: "value",
            kind: Kind::Size(1..=bounds::VALUE_BYTES_MAX as u64),
            fallback: Is(Value::Size(MIB)),
            live: true,
            about: "The largest value. A larger one keeps a core and its disk busy longer, so others wait for it; and \
                    `object` must be 1KiB larger at least.",
        },
        Key {
            name: "object",
            kind: Kind::Size(KIB..=bounds::OBJECT_BYTES_MAX as u64),
            fallback: Is(Value::Size(8 * MIB)),
            live: true,
            about: "The most that a key may hold: its clock and all its siblings. [store] `segment` must have room for \
                    three, and [store] `queue` for one.",
        },
        Key {
            name: "siblings",
            kind: Kind::Integer(1..=bounds::SIBLINGS_MAX as u64),
            fallback: Is(Value::Integer(64)),
            live: true,
            about: "How many concurrent values a key may have; a put that would leave more is refused. Many are a sign \
                    of clients that write without a context.",
        },
        Key {
            name: "timeout",
            kind: Kind::Time(Duration::from_millis(10)..=Duration::from_secs(60)),
            fallback: Is(Value::Time(Duration::from_secs(2))),
            live: true,
            about: "How long a request is worked on when it names no time of its own. RESP clients name none.",
        },
        Key {
            name: "connections",
            kind: Kind::Integer(1..=100_000),
            fallback: Is(Value::Integer(10_000)),
            live: false,
            about: "Connections of clients to each port of a core. The process must be allowed as many open files.",
        },
        Key {
            name: "operations",
            kind: Kind::Integer(1..=1_000_000),
            fallback: Is(Value::Integer(16_384)),
            live: true,
            about: "Requests under way on a core; more are refused as overload. Lower it to refuse sooner and answer \
                    the others faster.",
        },
    ],
};

const SLO: Table = Table {
    title: "[slo]",
    about: "What requests are promised.",
    keys: &[
        Key {
            name: "p999",
            kind: Kind::Time(Duration::from_micros(100)..=Duration::from_secs(10)),
            fallback: Is(Value::Time(Duration::from_millis(10))),
            live: true,
            about: "Of a thousand requests one may take longer. Set it to what the disk allows with some room: \
                    `quorate tail` shows what is reached.",
        },
        Key {
            name: "admission",
            kind: Kind::Boolean,
            fallback: Is(Value::Boolean(true)),
            live: true,
            about: "While more requests are slow, background work is held back. False lets a repair go at its full \
                    rate whatever becomes of the requests.",
        },
    ],
};

const STORE: Table = Table {
    title: "[store]",
    about: "The store of each core.",
    keys: &[
        Key {
            name: "capacity",
            kind: Kind::Size(CAPACITIES),
            fallback: Else("as much as the disk allows", Value::Size(100 * GIB)),
            live: false,
            about: "The most bytes on disk, in whole segments, 8 at least. Set it where other things share the disk.",
        },
        Key {
            name: "segment",
            kind: Kind::Size(4 * MIB..=64 * MIB),
            fallback: Is(Value::Size(64 * MIB)),
            live: false,
            about: "One log file, a multiple of 128KiB; a store opens only with the size that it was made with. Smaller \
                    ones suit small capacities.",
        },
        Key {
            name: "cache",
            kind: Kind::Size(CACHES),
            fallback: Is(Value::Size(256 * MIB)),
            live: false,
            about: "Records kept in memory. A get of what is not there reads the disk once.",
        },
        Key {
            name: "commits_in_flight",
            kind: Kind::Integer(1..=4),
            fallback: Is(Value::Integer(1)),
            live: false,
            about: "Commits under way at a time. More suit disks that answer late but take many writes at once.",
        },
        Key {
            name: "commit",
            kind: Kind::Choice(&["dsync", "fdatasync"]),
            fallback: Is(text("dsync")),
            live: false,
            about: "How a commit reaches the disk: one write that returns when it is durable, or a write and then \
                    `fdatasync`. `quorate bench floor` measures both.",
        },
        Key {
            name: "checkpoint_every",
            kind: Kind::Size(MIB..=TIB),
            fallback: Is(Value::Size(512 * MIB)),
            live: false,
            about: "So much log lies between two checkpoints of the index. Less makes a start after a crash faster and \
                    writes more.",
        },
        Key {
            name: "queue",
            kind: Kind::Size(64 * KIB..=GIB),
            fallback: Is(Value::Size(16 * MIB)),
            live: false,
            about: "The most that waits to be written; beyond it puts are refused as overload. More rides out longer \
                    stalls of the disk, and makes those that wait slower.",
        },
        Key {
            name: "scrub",
            kind: Kind::Size(0..=GIB),
            fallback: Is(Value::Size(MIB)),
            live: true,
            about: "So much is read again each second, to find what has rotted; \"0B\": nothing. A pass over the whole store \
                    should not take more than some weeks.",
        },
    ],
};

const CORE: Table = Table {
    title: "[[core]]",
    about: "What differs on one core of this node.",
    keys: &[
        Key {
            name: "id",
            kind: Kind::Integer(0..=CORES_MAX as u64 - 1),
            fallback: Required(Value::Integer(0)),
            live: false,
            about: "Which core: 0 to `cores` - 1.",
        },
        Key {
            name: "cpu",
            kind: Kind::Integer(0..=4095),
            fallback: Else("the next of [node] `cpus`; not pinned if there are none", Value::Integer(3)),
            live: false,
            about: "The CPU that the core is pinned to.",
        },
        Key {
            name: "spin_before_park",
            kind: Kind::Time(Duration::ZERO..=Duration::from_millis(10)),
            fallback: Is(Value::Time(Duration::ZERO)),
            live: false,
            about: "How long the core polls before it sleeps: some 50us spare it the wake-up, and cost a whole CPU. \
                    Only for a core that is pinned to a CPU of its own.",
        },
        Key {
            name: "memory",
            kind: Kind::Size(64 * KIB..=GIB),
            fallback: Is(Value::Size(256 * KIB)),
            live: false,
            about: "Buffers for the disk that are registered with the kernel: locked memory, three times over, which \
                    the limit on it must allow. More helps where many large records are read at once.",
        },
        Key {
            name: "shares",
            kind: Kind::Integer(8..=16_384),
            fallback: Is(Value::Integer(128)),
            live: false,
            about: "Requests that the core works on at a time for clients; those that have some share them evenly, and what \
                    a client sends beyond its share waits in its connection. Fewer keep the times of all even; more suit \
                    disks that take many writes at once.",
        },
        Key {
            name: "cache",
            kind: Kind::Size(CACHES),
            fallback: Else("as [store] `cache`", Value::Size(GIB)),
            live: false,
            about: "Records that this core keeps in memory.",
        },
        Key {
            name: "capacity",
            kind: Kind::Size(CAPACITIES),
            fallback: Else("as [store] `capacity`", Value::Size(50 * GIB)),
            live: false,
            about: "The most bytes on disk of this core's store.",
        },
        Key {
            name: "data",
            kind: Kind::Text("a path, from the directory that the file lies in"),
            fallback: Else("core-ID in [node] `data`", text("/mnt/nvme0/quorate")),
            live: false,
            about: "The directory of this core's store, for a disk of its own.",
        },
    ],
};
