//! `quorate config check`: whether a file is sound, and what it would run.
//!
//! Not here: whether this machine can run it, which `serve` looks at.

use std::path::Path;

use quorate_node::config::{Config, Core, Value};
use serde_json::json;

use crate::{
    config_file,
    failure::Failure,
    table::{count, listed, size},
};

pub(super) fn run(file: &Path, json: bool) -> Result<(), Failure> {
    let config = config_file::load(file)?;
    if json {
        println!("{}", as_json(&config));
    } else {
        print!("{} is sound.\n{}", file.display(), summary(&config));
    }
    Ok(())
}

fn as_json(config: &Config) -> serde_json::Value {
    let (cluster, member) = (&config.cluster, config.member());
    let core = |core: &Core| {
        json!({
            "data": core.data,
            "cpu": core.cpu,
            "capacity": core.store.capacity,
            "cache": core.store.cache,
            "memory": core.memory,
        })
    };
    json!({
        "node": config.node.0,
        "joins": config.join,
        "cluster": {
            "name": cluster.name,
            "nodes": cluster.members.len(),
            "partitions": cluster.partitions,
            "replicas": cluster.replicas,
            "read_quorum": cluster.read_quorum,
            "write_quorum": cluster.write_quorum,
        },
        "address": member.address,
        "port": member.port,
        "core_port": member.core_port,
        "peer_port": member.peer_port,
        "http_port": member.http_port,
        "cores": config.cores.iter().map(core).collect::<Vec<_>>(),
    })
}

fn summary(config: &Config) -> String {
    let (cluster, member, limits) = (&config.cluster, config.member(), &config.limits);
    let range = |first: u16| match member.cores {
        1 => first.to_string(),
        cores => format!("{first} to {}", first + cores - 1),
    };
    let store = &config.cores[0].store;
    let cache: u64 = config.cores.iter().map(|core| core.store.cache).sum();
    let capacity: Option<u64> = config.cores.iter().map(|core| core.store.capacity).sum();
    let mut data: Vec<_> = config.cores.iter().map(|core| core.data.parent().unwrap_or(&core.data)).collect();
    data.dedup();
    let data: Vec<String> = data.iter().map(|path| path.display().to_string()).collect();
    let lines = [
        (
            "node",
            format!(
                "{}{} of {} in cluster \"{}\": {} partitions, N = {}, R = {}, W = {}",
                config.node,
                if config.join { ", which joins," } else { "" },
                count(cluster.members.len() as u64, "node", "nodes"),
                cluster.name,
                cluster.partitions,
                cluster.replicas,
                cluster.read_quorum,
                cluster.write_quorum
            ),
        ),
        ("cores", format!("{}, {}", member.cores, pinned(config))),
        (
            "listens",
            format!(
                "at {}: clients {}, of one core {}, peers {}, HTTP {}",
                member.address,
                member.port,
                range(member.core_port),
                range(member.peer_port),
                member.http_port
            ),
        ),
        ("data", data.join(", ")),
        ("disk", capacity.map_or("as much as it allows".to_owned(), |bytes| format!("at most {}", size(bytes)))),
        ("memory", format!("{} of cache, {} of buffers", size(cache), size(memory(config)))),
        (
            "limits",
            format!(
                "values of {}, objects of {}, {} siblings, {} to wait",
                size(limits.value.into()),
                size(limits.object.into()),
                limits.siblings,
                Value::Time(limits.timeout).to_string().trim_matches('"')
            ),
        ),
        ("commits", format!("by {:?}, {} in flight", store.commit, store.commits_in_flight).to_lowercase()),
    ];
    lines.iter().map(|(name, text)| format!("  {name:<8}  {text}\n")).collect()
}

/// Which CPUs the cores have for themselves.
fn pinned(config: &Config) -> String {
    let cpus: Vec<u16> = config.cores.iter().filter_map(|core| core.cpu).map(|cpu| cpu as u16).collect();
    match cpus.len() {
        0 => "not pinned".to_owned(),
        some if some == config.cores.len() => format!("pinned to CPU {}", listed(cpus)),
        some => format!("{some} of them pinned to CPU {}", listed(cpus)),
    }
}

fn memory(config: &Config) -> u64 {
    config.cores.iter().map(|core| core.memory as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_run_is_told() {
        let text = "[node]\nid = 2\ncpus = \"0-3\"\n[cluster]\nname = \"test\"\nsecret = \"0123456789abcdef\"\n\
                    [[cluster.node]]\nid = 1\naddress = \"127.0.0.1\"\n\
                    [[cluster.node]]\nid = 2\naddress = \"127.0.0.2\"\ncores = 3\n\
                    [[core]]\nid = 1\ncpu = 9\ncache = \"1GiB\"\n";
        let told = summary(&Config::parse(text).unwrap().relative_to(Path::new("/srv")));
        let json = as_json(&Config::parse(text).unwrap().relative_to(Path::new("/srv")));
        assert_eq!((&json["cluster"]["partitions"], &json["port"]), (&json!(1024), &json!(7400)));
        assert_eq!((&json["cores"][1]["cpu"], &json["cores"][1]["cache"]), (&json!(9), &json!(1_u64 << 30)));
        for words in [
            "node      2 of 2 nodes in cluster \"test\": 1024 partitions, N = 3, R = 2, W = 2\n",
            "cores     3, pinned to CPU 0, 9, 1\n",
            "at 127.0.0.2: clients 7400, of one core 7401 to 7403, peers 7500 to 7502, HTTP 7600\n",
            "data      /srv/data\n",
            "disk      as much as it allows\n",
            "memory    1.5 GiB of cache, 768.0 KiB of buffers\n",
            "limits    values of 1.0 MiB, objects of 8.0 MiB, 64 siblings, 2s to wait\n",
            "commits   by dsync, 1 in flight\n",
        ] {
            assert!(told.contains(words), "{words} is not in\n{told}");
        }
    }
}
