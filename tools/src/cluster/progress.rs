//! `quorate cluster status`: how far a change of the ring is, and what is staged for the next; `quorate status` and `quorate
//! ring` tell it too while there is something to tell.
//!
//! The rule: what a core says of itself counts for it alone; cores that do not answer, or do not go by the new tables yet, are
//! told as what is waited for.

use std::{
    thread,
    time::{Duration, Instant},
};

use quorate_bench::Bar;
use quorate_net::client::Client;
use serde_json::{Value, json};

use super::{plan::mean_bytes, view::View};
use crate::{
    failure::{Failure, failed},
    nodes::{Answered, Common, number},
    table::{count, duration, listed, size},
};

/// Over this time the rate is taken that the rest is estimated from.
const RATE_OVER: Duration = Duration::from_secs(1);

/// Between two looks while something is waited for.
const LOOK_PERIOD: Duration = Duration::from_millis(250);

/// `wait_for_end`: whether the progress is shown meanwhile.
pub(super) fn run(common: &Common, wait_for_end: Option<bool>) -> Result<(), Failure> {
    let mut client = common.connect()?;
    if let Some(shown) = wait_for_end {
        let took = wait(&mut client, shown)?;
        if !common.json {
            println!("{}", done(took));
        }
    }
    let progress = look(&mut client)?;
    common.print(|| progress.as_json(), || progress.as_text());
    Ok(())
}

/// How far a change is, if there is one.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Progress {
    term: u64,
    /// Whether it is paused; nothing when no change is under way.
    paused: Option<bool>,
    /// Copies that are to be made.
    moves: u64,
    /// Copies that their new owner has compared with all primaries of now.
    moved: u64,
    /// An estimate.
    bytes: f64,
    bytes_moved: f64,
    /// By node: the partitions that it is to keep and does not yet.
    owners_to_be: Vec<(u64, Vec<u16>)>,
    waits_for: Vec<String>,
    behind: Vec<String>,
    /// Partitions that moved away and are still held by those who had them.
    to_drop: u64,
    staged: Vec<Value>,
    /// What is wrong, in words.
    problems: Vec<String>,
    seconds_left: Option<f64>,
}

impl Progress {
    fn of(view: &View) -> Result<Self, Failure> {
        let (_, _, foremost) = view.foremost()?;
        let (term, change) = (number(foremost, "term"), &foremost["change"]);
        let mut progress = Self { term, ..Self::default() };
        let changing = !change.is_null();
        progress.paused = changing.then(|| change["paused"] == true);
        progress.moves = number(change, "moves");
        progress.owners_to_be = owners(&change["owners_to_be"]);
        progress.waits_for = cores(&change["waits_for"]);
        progress.behind = cores(&foremost["behind"]);
        let mut left = 0;
        for answer in view.answers().filter(|answer| number(answer, "term") == term) {
            let transfer = &answer["transfer"];
            if !changing {
                progress.to_drop += number(transfer, "left");
                continue;
            }
            left += number(transfer, "left");
            progress.moved += number(transfer, "total") - number(transfer, "left").min(number(transfer, "total"));
        }
        let sum = |name: &str| view.answers().map(|answer| number(answer, name)).sum::<u64>();
        let mean = mean_bytes(&json!({"live_bytes": sum("live_bytes"), "keys": sum("keys")}));
        let keys = |name: &str| view.answers().map(|answer| number(&answer["transfer"], name)).sum::<u64>() as f64;
        if changing {
            progress.bytes = keys("given_keys") * mean;
            // Writes that came meanwhile are there as well.
            progress.bytes_moved = (keys("gained_keys") * mean).min(progress.bytes);
            if progress.moved >= progress.moves && left == 0 {
                progress.bytes_moved = progress.bytes;
            }
        }
        let entries = foremost["nodes"].as_array().into_iter().flatten();
        progress.staged = entries.filter(|entry| entry["staged"] == true).cloned().collect();
        progress.problems = problems(view);
        Ok(progress)
    }

    fn left(&self) -> u64 {
        self.moves.saturating_sub(self.moved)
    }

    /// How long the rest takes if it goes on as it did since an earlier look.
    fn rate(&mut self, before: &Self, over: Duration) {
        let bytes = (self.bytes_moved - before.bytes_moved) / over.as_secs_f64();
        let copies = self.moved.saturating_sub(before.moved) as f64 / over.as_secs_f64();
        let by_bytes = (bytes > 0.0).then(|| (self.bytes - self.bytes_moved) / bytes);
        let by_copies = (copies > 0.0).then(|| self.left() as f64 / copies);
        let same = before.term == self.term && self.paused == Some(false);
        // What goes faster says more: the other may have ended already.
        self.seconds_left = by_bytes.into_iter().chain(by_copies).reduce(f64::max).filter(|_| same);
    }

    /// The nodes that are to keep a partition and do not yet.
    pub(crate) fn owners_to_be(&self, partition: u16) -> Vec<u64> {
        let gains = self.owners_to_be.iter().filter(|(_, partitions)| partitions.contains(&partition));
        gains.map(|(node, _)| *node).collect()
    }

    pub(crate) fn as_json(&self) -> Value {
        let change = self.paused.map(|paused| {
            let owner = |(node, partitions): &(u64, Vec<u16>)| json!({"node": node, "partitions": partitions});
            json!({
                "paused": paused,
                "copies": self.moves,
                "copies_done": self.moved,
                "bytes_estimated": self.bytes.round() as u64,
                "bytes_moved_estimated": self.bytes_moved.round() as u64,
                "seconds_left_estimated": self.seconds_left.map(f64::ceil),
                "owners_to_be": self.owners_to_be.iter().map(owner).collect::<Vec<_>>(),
                "waits_for": self.waits_for,
            })
        });
        json!({
            "term": self.term,
            "change": change,
            "behind": self.behind,
            "partitions_to_drop": self.to_drop,
            "staged": self.staged,
            "problems": self.problems,
        })
    }

    fn as_text(&self) -> String {
        let problems = self.problems.iter().map(|problem| format!("! {problem}\n"));
        self.state() + &problems.collect::<String>()
    }

    /// The same for a listing of something else: nothing when nothing is staged and nothing moves; without what is wrong.
    pub(crate) fn news(&self) -> String {
        let quiet = self.paused.is_none() && self.staged.is_empty() && self.to_drop == 0;
        if quiet { String::new() } else { self.state() }
    }

    fn state(&self) -> String {
        let mut lines = Vec::new();
        match self.paused {
            None => {
                lines.push(format!("No change of the ring is under way (term {}).", self.term));
                if self.to_drop > 0 {
                    let partitions = count(self.to_drop, "partition", "partitions");
                    lines.push(format!("{partitions} moved away and are dropped as soon as all have what is there."));
                }
            }
            Some(paused) => {
                lines.push(self.in_words());
                if paused {
                    lines.push("It is paused: `quorate cluster resume` lets it go on.".to_owned());
                } else if !self.behind.is_empty() {
                    lines.push(format!(
                        "Nothing moves before all cores go by the new tables; these do not yet: {}. One that is gone for good \
                         has to be removed: `quorate cluster abort`, `quorate cluster remove NODE`, then plan again.",
                        self.behind.join(", ")
                    ));
                } else if !self.waits_for.is_empty() {
                    lines.push(format!("It waits for these cores: {}.", self.waits_for.join(", ")));
                }
            }
        }
        let of_change = self.paused.is_some();
        lines.extend(self.staged.iter().map(|node| {
            if of_change { format!("It is for this: {}", staged(node)) } else { format!("Staged: {}", staged(node)) }
        }));
        if self.paused.is_none() && !self.staged.is_empty() {
            lines.push("`quorate cluster plan` shows what a commit would move.".to_owned());
        }
        lines.extend(self.owners_to_be.iter().map(|(node, partitions)| {
            let (number, which) = (partitions.len() as u64, listed(partitions.iter().copied()));
            format!("Node {node} is to keep {} more: {which}.", count(number, "partition", "partitions"))
        }));
        lines.into_iter().map(|line| line + "\n").collect()
    }

    fn in_words(&self) -> String {
        let left = match self.seconds_left {
            Some(seconds) => format!("about {} left", duration(seconds.ceil() as u64)),
            None => "time left unknown".to_owned(),
        };
        format!(
            "The ring is changing (term {}): {} of {} done, about {} of {} moved, {left}.",
            self.term,
            self.moved,
            count(self.moves, "copy of a partition", "copies of partitions"),
            size(self.bytes_moved.round() as u64),
            size(self.bytes.round() as u64)
        )
    }
}

/// Two looks a moment apart, while something moves.
pub(crate) fn look(client: &mut Client) -> Result<Progress, Failure> {
    let before = Progress::of(&View::look(client))?;
    if before.paused != Some(false) {
        return Ok(before);
    }
    let started = Instant::now();
    thread::sleep(RATE_OVER);
    let mut progress = Progress::of(&View::look(client))?;
    progress.rate(&before, started.elapsed());
    Ok(progress)
}

/// Until no change is under way; how long that took.
pub(super) fn wait(client: &mut Client, shown: bool) -> Result<Duration, Failure> {
    let started = Instant::now();
    let bar = Bar::new("moving", shown);
    loop {
        let progress = Progress::of(&View::look(client))?;
        match progress.paused {
            None => return Ok(started.elapsed()),
            Some(true) => return Err(failed("the change is paused: `quorate cluster resume` lets it go on")),
            Some(false) => {}
        }
        let (bytes_moved, bytes) = (size(progress.bytes_moved.round() as u64), size(progress.bytes.round() as u64));
        let (moved, moves) = (progress.moved, progress.moves);
        let news = format!("{moved} of {moves} copies of partitions, about {bytes_moved} of {bytes}");
        bar.show(moved, moves, &news);
        thread::sleep(LOOK_PERIOD);
    }
}

pub(super) fn done(took: Duration) -> String {
    format!("No change of the ring is under way any more, after {:.1} s.", took.as_secs_f64())
}

/// Cores of an answer, as "node.core".
fn cores(listed: &Value) -> Vec<String> {
    let name = |at: &Value| format!("{}.{}", number(at, "node"), number(at, "core"));
    listed.as_array().into_iter().flatten().map(name).collect()
}

/// The owners to be of an answer.
fn owners(listed: &Value) -> Vec<(u64, Vec<u16>)> {
    let partitions = |of: &Value| -> Vec<u16> {
        let listed = of["partitions"].as_array().into_iter().flatten();
        listed.filter_map(|partition| u16::try_from(partition.as_u64()?).ok()).collect()
    };
    listed.as_array().into_iter().flatten().map(|of| (number(of, "node"), partitions(of))).collect()
}

fn staged(node: &Value) -> String {
    let (id, address) = (number(node, "id"), node["address"].as_str().unwrap_or_default());
    let what = match node["status"].as_str() {
        Some("joining") => match node["replaces"].as_u64() {
            Some(old) => format!("joins in the place of node {old}"),
            None => "joins".to_owned(),
        },
        Some("leaving") => "leaves".to_owned(),
        Some("removing") => "is given up".to_owned(),
        _ => "is staged".to_owned(),
    };
    format!("node {id} ({address}) {what}.")
}

/// Who is refused, and who does not answer.
fn problems(view: &View) -> Vec<String> {
    let mut problems = Vec::new();
    for node in &view.cores {
        let silent = |(core, error): (usize, &str)| format!("core {}.{core} does not answer: {error}", node.node.id);
        problems.extend(node.silent().map(silent));
        for answer in Answered::answers(node) {
            if let Some(refused) = answer["refused"].as_str() {
                problems.push(format!("node {}: {refused}", node.node.id));
            }
            for refusal in answer["refusals"].as_array().into_iter().flatten() {
                let (at, reason) = (refusal["address"].as_str(), refusal["reason"].as_str());
                let (at, reason) = (at.unwrap_or_default(), reason.unwrap_or_default());
                let who = refusal["node"].as_u64().map_or("somebody".to_owned(), |node| format!("node {node}"));
                let core = format!("core {}.{}", node.node.id, number(answer, "core"));
                problems.push(format!("{core} hung up on {who} at {at}: {reason}"));
            }
        }
    }
    problems
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Node 4 takes the place of node 3, and has a quarter of that.
    pub(crate) fn changing() -> Progress {
        Progress {
            term: 4,
            paused: Some(false),
            moves: 48,
            moved: 12,
            bytes: f64::from(4 << 20),
            bytes_moved: f64::from(1 << 20),
            owners_to_be: owners(&json!([{"node": 4, "partitions": [1, 2]}])),
            waits_for: vec!["4.0".to_owned()],
            staged: vec![json!({"id": 4, "address": "127.0.0.4", "status": "joining", "replaces": 3})],
            ..Progress::default()
        }
    }

    #[test]
    fn a_change_is_told_with_what_is_left() {
        let mut progress = changing();
        let before = Progress { moved: 0, bytes_moved: 0.0, ..changing() };
        progress.rate(&before, Duration::from_secs(2));
        let wanted = "\
The ring is changing (term 4): 12 of 48 copies of partitions done, about 1.0 MiB of 4.0 MiB moved, about 6s left.
It waits for these cores: 4.0.
It is for this: node 4 (127.0.0.4) joins in the place of node 3.
Node 4 is to keep 2 partitions more: 1, 2.
";
        assert_eq!((progress.as_text().as_str(), progress.news().as_str()), (wanted, wanted));
        let change = &progress.as_json()["change"];
        assert_eq!(change["owners_to_be"], json!([{"node": 4, "partitions": [1, 2]}]));
        assert_eq!((progress.owners_to_be(2), progress.owners_to_be(3)), (vec![4], vec![]));
        assert_eq!((&change["copies_done"], &change["seconds_left_estimated"]), (&json!(12), &json!(6.0)));

        progress.paused = Some(true);
        progress.rate(&before, Duration::from_secs(2));
        assert!(progress.as_text().contains("It is paused: `quorate cluster resume`"), "{}", progress.as_text());
        assert_eq!(progress.seconds_left, None);
        let behind = Progress { behind: vec!["2.1".to_owned()], ..changing() }.as_text();
        assert!(behind.contains("these do not yet: 2.1"), "{behind}");
    }

    #[test]
    fn without_a_change_what_is_staged_is_told() {
        let unpaused = Progress { paused: None, owners_to_be: Vec::new(), ..changing() };
        let progress = Progress { term: 5, to_drop: 3, ..unpaused.clone() };
        let wanted = "\
No change of the ring is under way (term 5).
3 partitions moved away and are dropped as soon as all have what is there.
Staged: node 4 (127.0.0.4) joins in the place of node 3.
`quorate cluster plan` shows what a commit would move.
";
        assert_eq!(progress.as_text(), wanted);
        assert_eq!(progress.as_json()["change"], Value::Null);
        assert_eq!(progress.news(), wanted);
        // What is wrong is told by who is asked for it, and nothing else is told of nothing.
        let problems = vec!["p".to_owned()];
        let quiet = Progress { staged: Vec::new(), problems, ..unpaused };
        let said = "No change of the ring is under way (term 4).\n! p\n";
        assert_eq!((quiet.as_text().as_str(), quiet.news().as_str()), (said, ""));
    }
}
