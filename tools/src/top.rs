//! `quorate top keys`: the keys that are asked for most.
//!
//! The rule: a key is coordinated by several cores, so what they count is added up; the counts are about the last seconds, of a
//! sample.
//!
//! Not here: the counting (`node/recorder`).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    failure::Failure,
    nodes::{Common, inquire_all},
    table::aligned,
};

/// Show what is asked for most
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate top keys               # the ten hottest keys
  quorate top keys --count 100   # more of them")]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Show the keys that are asked for most, with how often, about, in a second
    #[command(after_help = "\
Examples:
  quorate top keys                      # the ten hottest
  quorate top keys --count 1 --json     # the hottest, for a program")]
    Keys {
        /// How many
        #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
        count: u16,
    },
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let What::Keys { count } = args.what;
    let client = args.common.connect()?;
    let cores = inquire_all(client.map(), "KEYS", "its keys")?;
    let keys: Vec<Value> = hottest(&cores).into_iter().take(count.into()).collect();
    args.common.print(|| json!({"keys": keys}), || as_table(&keys));
    Ok(())
}

/// The keys of all cores, the hottest first.
fn hottest(cores: &[Value]) -> Vec<Value> {
    let mut keys: BTreeMap<(&str, &str), [f64; 3]> = BTreeMap::new();
    for key in cores.iter().flat_map(|core| core["keys"].as_array().into_iter().flatten()) {
        let name = |part: &str| key[part].as_str().unwrap_or_default();
        let counts = keys.entry((name("bucket"), name("key"))).or_default();
        for (count, part) in counts.iter_mut().zip(["gets", "puts", "error"]) {
            *count += key[part].as_f64().unwrap_or(0.0);
        }
    }
    let mut keys: Vec<_> = keys.into_iter().collect();
    // What may be another key's does not make a key hot.
    keys.sort_by(|(_, a), (_, b)| (b[0] + b[1]).total_cmp(&(a[0] + a[1])));
    let told = |((bucket, key), [gets, puts, error]): ((&str, &str), [f64; 3])| json!({"bucket": bucket, "key": key, "gets": gets, "puts": puts, "error": error});
    keys.into_iter().map(told).collect()
}

fn as_table(keys: &[Value]) -> String {
    let mut rows = vec![["bucket", "key", "gets/s", "puts/s", "at most"].map(str::to_owned).to_vec()];
    for key in keys {
        let [gets, puts, error] = ["gets", "puts", "error"].map(|part| key[part].as_f64().unwrap_or(0.0));
        let name = |part: &str| key[part].as_str().unwrap_or_default().to_owned();
        let counts = [gets, puts, gets + puts + error].map(|count| format!("{count:.0}"));
        rows.push([name("bucket"), name("key")].into_iter().chain(counts).collect());
    }
    if keys.is_empty() {
        rows.push(vec!["none: nobody asked for anything in the last seconds".to_owned()]);
    }
    aligned(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_cores_count_is_added_up() {
        let key =
            |key: &str, gets: f64| json!({"bucket": "default", "key": key, "gets": gets, "puts": 1.0, "error": 2.0});
        let (one, other) = (json!({"keys": [key("a", 5.0), key("b", 9.0)]}), json!({"keys": [key("a", 7.0)]}));
        let keys = hottest(&[one, other]);
        let wanted = "\
bucket   key  gets/s  puts/s  at most
default  a    12      2       18
default  b    9       1       12
";
        assert_eq!(as_table(&keys), wanted);
        assert!(as_table(&[]).contains("nobody"));
    }
}
