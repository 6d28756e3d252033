//! Bits that rot in the files of a stopped node, one at a time, in all kinds of files: the node starts, or says why it does
//! not, and nobody is ever given a wrong value.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use rustix::process::Signal;

use super::{
    cluster::{Cluster, Feature},
    filesystem::files_below,
    harness::{Process, times, wait_for},
    talk::{get_all, put_all},
};

/// What is not blank is looked at in pieces of so many bytes.
const BLOCK: usize = 4096;

/// How flips in one kind of file ended.
#[derive(Default, Debug)]
struct Ends {
    /// The node did not start, and said why.
    refused: usize,
    /// It started, and told of damage in its log or in INFO.
    told: usize,
    /// It started, and told nothing: what was flipped was not needed any more, or was taken from elsewhere.
    untold: usize,
}

#[test]
fn flipped_bits_are_never_served() {
    let flips = times("QUORATE_FLIPS", 12);
    let cluster = Cluster::new();
    scrub_fast(&cluster);
    let mut nodes = cluster.serve_all();
    let all: BTreeMap<String, String> =
        (0..500).map(|number| (format!("key-{number}"), format!("{number:0>700}"))).collect();
    put_all(cluster.clients(1), &all);
    let names: Vec<&str> = all.keys().map(String::as_str).collect();
    wait_for("all copies", || (cluster.info(3)["store_keys"] == 500).then_some(()));
    assert_eq!(stop(&mut nodes[2]), Some(0));
    let data = cluster.node_directory(3).join("data");
    let sound = cluster.node_directory(3).join("sound");
    copy(&data, &sound);

    let heals = cluster.can(Feature::AntiEntropy, "what was flipped is repaired");
    let mut by_kind: BTreeMap<String, Ends> = BTreeMap::new();
    for number in 0..flips {
        let what = flip(&data, number);
        let ends = by_kind.entry(what.kind.clone()).or_default();
        let logged = fs::metadata(cluster.log(3)).unwrap().len();
        nodes[2] = cluster.begin_serve(3);
        let started = wait_for("node 3 to start, or to say why not", || {
            if !nodes[2].is_running() {
                return Some(false);
            }
            super::talk::is_up(cluster.clients(3)).then_some(true)
        });
        if started {
            cluster.wait_until_joined();
            // A checkpoint that is not needed at the start is found by the scrub.
            let found = || {
                let info = cluster.info(3);
                let counts = ["store_damaged", "store_checkpoints_bad", "hints_damaged", "hints_checkpoints_bad"];
                counts.iter().any(|&count| info[count] > 0) || fs::metadata(cluster.log(3)).unwrap().len() > logged
            };
            if ["checkpoint", "hints.checkpoint", "actor.blob"].contains(&what.kind.as_str()) {
                wait_for("what was flipped to be found", || found().then_some(()));
            }
            // Reads repair what they find, so every other flip must be repaired without any.
            if heals && number % 2 == 0 {
                cluster.wait_until_settled();
                cluster.assert_equal(&all);
            }
            // Its own copy, if it gives it alone; the quorum's in any case.
            for quorum in [1, 2] {
                for (read, (name, value)) in get_all(cluster.clients(3), &names, quorum).into_iter().zip(&all) {
                    match read {
                        Ok(values) if quorum == 2 => assert_eq!(values, [value.as_str()], "{name}: {what:?}"),
                        Ok(values) => assert!(values.iter().all(|read| read == value), "{name}: {what:?}: {values:?}"),
                        Err(failure) => assert_eq!(quorum, 1, "{name}: {what:?}: {failure}"),
                    }
                }
            }
            *(if found() { &mut ends.told } else { &mut ends.untold }) += 1;
            let code = stop(&mut nodes[2]);
            assert_eq!(code, Some(0), "{what:?}: {}", fs::read_to_string(cluster.log(3)).unwrap());
        } else {
            ends.refused += 1;
            let log = fs::read_to_string(cluster.log(3)).unwrap();
            let said = log.lines().last().unwrap_or_default();
            assert!(said.contains(data.to_str().unwrap()), "{what:?}: {said}");
        }
        fs::remove_dir_all(&data).unwrap();
        copy(&sound, &data);
    }
    println!("{flips} flips, none served: {by_kind:?}");
    // What lies in a segment may have died.
    let untold = by_kind.iter().find(|(kind, ends)| !kind.ends_with("segment") && ends.untold > 0);
    assert!(untold.is_none(), "{untold:?}: not found");
    let kinds: BTreeSet<String> =
        files_below(&sound).iter().filter(|path| !is_blank(path)).map(|path| kind(path)).collect();
    assert!(flips < kinds.len() || by_kind.len() == kinds.len(), "{kinds:?} are there, {by_kind:?}");
}

/// Under trees that do not change, while nobody reads: only the scrub looks there.
#[test]
fn what_rots_in_a_running_node_is_found_by_its_scrub_and_repaired() {
    let cluster = Cluster::new();
    scrub_fast(&cluster);
    let _nodes = cluster.serve_all();
    let all: BTreeMap<String, String> =
        (0..100).map(|number| (format!("key-{number}"), format!("{number:a>3000}"))).collect();
    put_all(cluster.clients(1), &all);
    wait_for("all copies", || (cluster.info(3)["store_keys"] == 100).then_some(()));
    cluster.wait_until_settled();
    let segments =
        || files_below(&cluster.node_directory(3).join("data")).into_iter().filter(|path| kind(path) == "segment");
    let mut rotten = 0;
    for value in all.values().take(10) {
        for path in segments() {
            let bytes = fs::read(&path).expect("it can be read");
            if let Some(at) = bytes.windows(value.len()).position(|found| found == value.as_bytes()) {
                let file = fs::OpenOptions::new().write(true).open(&path).expect("it can be written");
                file.write_all_at(b"rot", at as u64 + 7).and_then(|()| file.sync_all()).expect("it can be written");
                rotten += 1;
            }
        }
    }
    assert!(rotten >= 10, "{rotten} records were found in the files");
    wait_for("the scrub", || (cluster.info(3)["store_scrub_damaged"] >= 10).then_some(()));
    wait_for("the repair", || (cluster.info(3)["store_lost"] == 0).then_some(()));
    cluster.wait_until_settled();
    cluster.assert_equal(&all);
}

fn scrub_fast(cluster: &Cluster) {
    (1..=3).for_each(|node| cluster.edit(node, "[store]\n", "[store]\nscrub = \"64MiB\"\n"));
}

/// The exit code; none when a signal ended it.
fn stop(node: &mut Process) -> Option<i32> {
    node.signal(Signal::TERM);
    node.wait().code()
}

/// Where a bit was flipped.
#[derive(Debug)]
#[expect(dead_code, reason = "a failed test prints it")]
struct Flip {
    number: usize,
    kind: String,
    path: PathBuf,
    at: usize,
    bit: u8,
}

/// Flips one bit: of the kinds of files in turn, and in what was written, since a blank block may hold anything.
fn flip(directory: &Path, number: usize) -> Flip {
    let mut by_kind: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for path in files_below(directory) {
        if !is_blank(&path) {
            by_kind.entry(kind(&path)).or_default().push(path);
        }
    }
    let draw = |of: usize, salt: u64| (mix(number as u64 * 16 + salt) % of as u64) as usize;
    let kinds = by_kind.len();
    let (kind, paths) = by_kind.into_iter().nth(number % kinds).expect("one of them");
    let written = |path: &PathBuf| -> Vec<(PathBuf, usize)> {
        let bytes = fs::read(path).expect("it can be read");
        let blocks = bytes.chunks(BLOCK).enumerate().filter(|(_, block)| block.iter().any(|byte| *byte != 0));
        blocks.map(|(block, _)| (path.clone(), block)).collect()
    };
    let blocks: Vec<_> = paths.iter().flat_map(written).collect();
    assert!(!blocks.is_empty(), "no {kind} holds anything");
    let (path, block) = blocks[draw(blocks.len(), 1)].clone();
    let mut bytes = fs::read(&path).expect("it can be read");
    let end = bytes.len().min((block + 1) * BLOCK);
    // In what comes before the padding.
    let used = bytes[block * BLOCK..end].iter().rposition(|byte| *byte != 0).expect("it is not blank") + 1;
    let (at, bit) = (block * BLOCK + draw(used, 2), draw(8, 3) as u8);
    bytes[at] ^= 1 << bit;
    fs::write(&path, bytes).expect("it can be written");
    Flip { number, kind, path, at, bit }
}

/// Whether no bit in it means anything.
fn is_blank(path: &Path) -> bool {
    fs::read(path).expect("it can be read").iter().all(|byte| *byte == 0)
}

/// A file's name without its number.
fn kind(path: &Path) -> String {
    let name = path.file_name().and_then(|name| name.to_str()).expect("names are text");
    name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-').to_owned()
}

fn copy(from: &Path, to: &Path) {
    for path in files_below(from) {
        let target = to.join(path.strip_prefix(from).expect("it lies below"));
        fs::create_dir_all(target.parent().expect("it lies below")).expect("it can be made");
        fs::copy(&path, target).expect("it can be copied");
    }
}

/// SplitMix64: numbers without a pattern that are the same in each run.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
