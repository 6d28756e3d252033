//! The dashboard and the alerts: what they ask Prometheus for is what a node tells, each metric, each label and each value.
//!
//! The rule: a node's own `/metrics` is what counts. Nothing that it tells is left out of the dashboard but by name.
//!
//! Not here: what the figures are (`node`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    cluster::{Cluster, HTTP_PORT},
    harness::{run, wait_for},
    installed::promtool,
    talk::http_get,
};

/// What no panel shows, with the reason.
const NOT_SHOWN: &[&str] = &[];

/// What Prometheus itself adds.
const TARGET: [&str; 2] = ["job", "instance"];

type Labels = BTreeMap<String, BTreeSet<String>>;

/// What a node tells: by the name of a series, the values of each of its labels.
struct Told {
    series: BTreeMap<String, Labels>,
    /// Which of the metrics are what.
    kinds: BTreeMap<String, String>,
    help: BTreeSet<String>,
}

impl Told {
    fn parse(text: &str) -> Self {
        let mut told = Self { series: BTreeMap::new(), kinds: BTreeMap::new(), help: BTreeSet::new() };
        for line in text.lines() {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            match words[..] {
                ["#", "TYPE", name, kind] => drop(told.kinds.insert(name.to_owned(), kind.to_owned())),
                ["#", "HELP", name, help] => assert!(!help.is_empty() && told.help.insert(name.to_owned()), "{line}"),
                _ => {
                    let (series, value) = line.rsplit_once(' ').expect("a series has a value");
                    assert!(value.parse::<f64>().is_ok(), "{line}");
                    let [used] = &metrics(series)[..] else { panic!("no series: {line}") };
                    let labels = told.series.entry(used.name.clone()).or_default();
                    for (label, _, value) in &used.matchers {
                        labels.entry(label.clone()).or_default().insert(value.clone());
                    }
                }
            }
        }
        told
    }

    /// The metric that a series is of: a histogram has three.
    fn metric<'a>(&self, series: &'a str) -> &'a str {
        let parts = ["_bucket", "_sum", "_count"].iter().filter_map(|part| series.strip_suffix(part));
        parts.into_iter().find(|name| self.kinds.contains_key(*name)).unwrap_or(series)
    }

    /// Fails unless this is what the node tells. The names of the metrics.
    fn check(&self, expression: &str, labels: &[String]) -> BTreeSet<String> {
        let mut known: BTreeSet<&str> = TARGET.into();
        let used = metrics(expression);
        assert!(!used.is_empty(), "nothing is asked for in {expression}");
        for metric in used.iter().filter(|metric| metric.name != "up") {
            let Some(has) = self.series.get(&metric.name) else { panic!("no {} for {expression}", metric.name) };
            known.extend(has.keys().map(String::as_str));
            for (label, operator, value) in
                metric.matchers.iter().filter(|(label, ..)| !TARGET.contains(&label.as_str()))
            {
                let values = has.get(label).unwrap_or_else(|| panic!("{} has no {label}: {expression}", metric.name));
                let wanted: Vec<&str> = if operator == "=~" { value.split('|').collect() } else { vec![value] };
                wanted.iter().for_each(|value| assert!(values.contains(*value), "no {label}={value}: {expression}"));
            }
        }
        for label in grouped_by(expression).iter().chain(labels) {
            assert!(known.contains(label.as_str()), "what is asked for has no {label}: {expression}");
        }
        used.into_iter().map(|used| used.name).collect()
    }
}

/// A metric in an expression.
struct Used {
    name: String,
    /// Label, operator, value.
    matchers: Vec<(String, String, String)>,
}

fn word(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
}

fn metrics(expression: &str) -> Vec<Used> {
    let (mut found, mut rest) = (Vec::new(), expression);
    while let Some(next) = rest.chars().next() {
        let length = word(rest);
        if length == 0 {
            // What is quoted is no expression.
            let skipped = if next == '"' { rest[1..].find('"').expect("it is closed") + 2 } else { next.len_utf8() };
            rest = &rest[skipped..];
            continue;
        }
        let (name, after) = rest.split_at(length);
        rest = after;
        if name != "up" && !name.starts_with("quorate_") && !name.starts_with("process_") {
            continue;
        }
        let mut matchers = Vec::new();
        if let Some(braces) = rest.strip_prefix('{') {
            let (inside, after) = braces.split_once('}').expect("it is closed");
            rest = after;
            let mut quoted = inside.split('"');
            while let (Some(label), Some(value)) = (quoted.next(), quoted.next()) {
                let label = label.trim_matches([',', ' ']);
                let (name, operator) = label.split_at(word(label));
                matchers.push((name.to_owned(), operator.to_owned(), value.to_owned()));
            }
        }
        found.push(Used { name: name.to_owned(), matchers });
    }
    found
}

/// The labels in `by (…)` and `on (…)`.
fn grouped_by(expression: &str) -> Vec<String> {
    let lists = ["by (", "on ("].into_iter().flat_map(|start| expression.split(start).skip(1));
    let labels = lists.filter_map(|rest| rest.split_once(')')).flat_map(|(list, _)| list.split(','));
    labels.map(|label| label.trim().to_owned()).collect()
}

/// The words that begin right after `start`.
fn words_after(text: &str, start: &str) -> Vec<String> {
    text.split(start).skip(1).map(|rest| rest.trim_start()).map(|rest| rest[..word(rest)].to_owned()).collect()
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// One rule of `alerts.yml`, which keeps its keys in this order.
struct Alert {
    name: String,
    expression: String,
    after: String,
    severity: String,
    summary: String,
    description: String,
}

fn alerts(text: &str) -> Vec<Alert> {
    let rule = |text: &str| {
        let mut rest = text;
        let mut upto = |key: &str| {
            let (before, after) = rest.split_once(key).unwrap_or_else(|| panic!("no {key} in {text}"));
            rest = after;
            before.split_whitespace().filter(|word| *word != ">-").collect::<Vec<_>>().join(" ")
        };
        Alert {
            name: upto("expr:"),
            expression: upto("for:"),
            after: upto("labels:"),
            severity: {
                upto("severity:");
                upto("annotations:")
            },
            summary: {
                upto("summary:");
                upto("description:")
            },
            description: rest.split_whitespace().skip(1).collect::<Vec<_>>().join(" "),
        }
    };
    text.split("- alert: ").skip(1).map(rule).collect()
}

/// Two nodes of two cores tell all that there is to tell.
fn told() -> Told {
    let cluster = Cluster::with_nodes(2);
    for node in [1, 2] {
        cluster.edit(node, "cores = 1", "cores = 2");
    }
    let _nodes = cluster.serve_all();
    let metrics = wait_for("all cores to tell", || {
        let (_, text) = http_get(cluster.address(1, HTTP_PORT), "/metrics");
        let told =
            ["quorate_gets_total{core=\"0\"}", "quorate_gets_total{core=\"1\"}", "quorate_disk_bytes{core=\"1\"}"];
        told.iter().all(|series| text.contains(series)).then_some(text)
    });
    let told = Told::parse(&metrics);
    // No figure is left out, whatever it is called there.
    let (_, figures) = http_get(cluster.address(1, HTTP_PORT), "/v1/figures");
    let figures: Value = serde_json::from_str(&figures).expect("it is JSON");
    let figures = figures[0]["figures"].as_object().expect("figures by name");
    for name in figures.keys() {
        let stem = name.trim_end_matches("_us").trim_end_matches("_total").trim_end_matches("_now");
        let units = ["", "_total", "_seconds_total"];
        assert!(units.iter().any(|unit| told.kinds.contains_key(&format!("quorate_{stem}{unit}"))), "{name}");
    }
    told
}

#[test]
fn metrics_are_as_prometheus_wants_them_and_the_dashboard_and_alerts_ask_for_what_there_is() {
    let told = told();
    for (name, kind) in &told.kinds {
        assert!(name.starts_with("quorate_") || name.starts_with("process_"), "{name}");
        assert!(told.help.contains(name), "{name} says not what it is");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        assert!(!["_us", "_ms", "_kib", "_mib"].iter().any(|unit| name.contains(unit)), "{name} has no base unit");
    }
    for (series, labels) in &told.series {
        assert!(told.kinds.contains_key(told.metric(series)), "{series} has no type");
        for label in labels.keys() {
            let bounded = ["core", "kind", "le", "peer", "request", "version", "work"];
            assert!(bounded.contains(&label.as_str()), "{series} has a label {label}");
        }
    }

    let dashboard: Value = serde_json::from_str(&read("quorate.json")).expect("it is JSON");
    let mut shown = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        assert!(ids.insert(panel["id"].as_u64()), "two panels of one id: {panel}");
        for target in panel["targets"].as_array().unwrap_or(&Vec::new()) {
            let text = |field: &str| target[field].as_str().expect("it is text").to_owned();
            shown.extend(told.check(&text("expr"), &words_after(&text("legendFormat"), "{{")));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        if variable["type"] == "query" {
            told.check(variable["query"]["query"].as_str().expect("it is text"), &[]);
        }
    }
    let shown: BTreeSet<&str> = shown.iter().map(|series| told.metric(series)).collect();
    let left: Vec<&String> = told
        .kinds
        .keys()
        .filter(|name| !shown.contains(name.as_str()) && !NOT_SHOWN.contains(&name.as_str()))
        .collect();
    assert!(left.is_empty(), "no panel shows {left:?}");

    let operations = read("../docs/operations.md");
    let alerts = alerts(&read("alerts.yml"));
    assert!(alerts.len() > 10, "there are alerts");
    for Alert { name, expression, after, severity, summary, description } in &alerts {
        let told_by = format!("{summary} {description}");
        told.check(expression, &words_after(&told_by, "$labels."));
        assert!(name.starts_with("Quorate") && after.ends_with('m') | after.ends_with('h'), "{name} {after}");
        assert!(["critical", "warning"].contains(&severity.as_str()), "{name}: {severity}");
        assert!(!summary.is_empty() && description.ends_with('.'), "{name}: {description}");
        // What it names, there is.
        for metric in metrics(description).iter().filter(|metric| metric.name != "up") {
            assert!(told.series.contains_key(&metric.name), "{name} names {}", metric.name);
        }
        for section in description.split('"').skip(1).step_by(2) {
            assert!(operations.lines().any(|line| line == format!("## {section}")), "{name} points at {section}");
        }
    }
}

#[test]
fn prometheus_takes_the_alerts_and_they_fire_when_they_shall() {
    let Some(mut check) = promtool() else { return };
    run(check.args(["check", "rules"]).arg(file("alerts.yml"))).assert_ok();
    let Some(mut test) = promtool() else { return };
    run(test.args(["test", "rules"]).arg(file("alerts_test.yml"))).assert_ok();
}
