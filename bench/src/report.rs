//! The result of a run: for people as a table, for programs as JSON, for plots as histograms.
//!
//! The rule: a figure that was not measured is not shown; what makes the others doubtful (a rate that was not kept, a busy
//! machine, errors) stands beside them.
//!
//! Not here: measuring (`recorder`, `process`), judging (`ledger`).

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    time::{Duration, SystemTime},
};

use hdrhistogram::{
    Histogram,
    serialization::{
        V2DeflateSerializer,
        interval_log::{IntervalLogWriterBuilder, Tag},
    },
};
use serde::Serialize;

use crate::{
    ledger::Verdict,
    process::Used,
    recorder::{ErrorCount, Recorder},
    workload::{KINDS, Kind},
};

/// The result of a run. Times are microseconds where the name says so, else seconds.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was asked for.
    pub setup: Setup,
    /// How long was measured.
    pub seconds: f64,
    /// Operations that succeeded.
    pub operations: u64,
    /// The same per second.
    pub operations_per_second: f64,
    /// Operations that failed.
    pub failed: u64,
    /// Gets that found nothing.
    pub absent: u64,
    /// Gets that found one value, two, three, and more.
    pub versions: [u64; 4],
    /// Operations of an open loop that could not even be begun in time.
    pub missed: u64,
    /// Latencies per kind of operation, those that failed, and how late the generator began.
    pub latencies: Vec<Latency>,
    /// Errors by class; one operation can see several where it went to another server.
    pub errors: BTreeMap<String, ErrorCount>,
    /// What the generator itself used.
    pub generator: Generator,
    /// The machine's load average before and after.
    pub load_average: [f64; 2],
    /// What the servers used, if they were watched.
    pub servers: Option<ServersUsed>,
    /// Second by second, warm-up included (negative seconds).
    pub series: Vec<Second>,
    /// What verification found, if it was asked for.
    pub verdict: Option<Verdict>,
    /// Whether stale reads were allowed.
    pub stale_allowed: bool,
    #[serde(skip)]
    histograms: Vec<(String, Histogram<u64>)>,
}

/// What was asked for.
#[derive(Clone, Debug, Serialize)]
pub struct Setup {
    /// Protocol and commands.
    pub target: String,
    /// The endpoints.
    pub servers: Vec<String>,
    /// The workload and its keys.
    pub workload: String,
    /// Distinct keys at the start.
    pub keys: u64,
    /// Bytes of the smallest and of the largest value.
    pub value_bytes: [u32; 2],
    /// Logical clients.
    pub connections: u64,
    /// Requests under way per client.
    pub pipeline: usize,
    /// Threads.
    pub threads: usize,
    /// Operations per second of an open loop.
    pub rate: Option<f64>,
    /// R, W, durability and the like.
    pub requests: String,
    /// The seed.
    pub seed: u64,
}

/// One row of latencies.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Latency {
    /// What was measured.
    pub name: String,
    /// How many.
    pub count: u64,
    /// Microseconds, as all that follow.
    pub mean_us: f64,
    /// Half are faster.
    pub p50_us: f64,
    /// 90 %
    pub p90_us: f64,
    /// 99 %
    pub p99_us: f64,
    /// 99.9 %
    pub p999_us: f64,
    /// 99.99 %
    pub p9999_us: f64,
    /// The slowest.
    pub max_us: f64,
}

/// What the generator itself used.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Generator {
    /// CPU time, seconds.
    pub cpu_seconds: f64,
    /// The same per operation, microseconds.
    pub cpu_us_per_operation: f64,
}

/// What the servers used.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ServersUsed {
    /// Each of them; one that was started again in between is missing.
    pub each: Vec<Used>,
    /// Those that are missing.
    pub restarted: Vec<String>,
    /// CPU time of all per operation, microseconds; `None` when one is missing.
    pub cpu_us_per_operation: Option<f64>,
    /// Bytes written per put and server; `None` without puts or when one is missing.
    pub written_bytes_per_put: Option<f64>,
}

/// One second of the run.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Second {
    /// 0 is the first measured second.
    pub second: i64,
    /// Operations that succeeded.
    pub operations: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Microseconds.
    pub p50_us: f64,
    /// Microseconds.
    pub p999_us: f64,
    /// Microseconds.
    pub max_us: f64,
}

/// What a report is made of.
pub(crate) struct Parts {
    pub setup: Setup,
    pub seconds: f64,
    pub recorder: Recorder,
    pub generator_cpu: Duration,
    pub load_average: [f64; 2],
    pub servers: Option<Vec<(String, Option<Used>)>>,
    pub series: Vec<Second>,
    pub verdict: Option<Verdict>,
    pub stale_allowed: bool,
}

impl Report {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { setup, seconds, recorder, generator_cpu, load_average, servers, series, verdict, stale_allowed } =
            parts;
        let operations = recorder.operations();
        let done = operations + recorder.failed.len();
        let puts: u64 = KINDS
            .iter()
            .zip(&recorder.latency)
            .filter(|(kind, _)| **kind != Kind::Read)
            .map(|(_, all)| all.len())
            .sum();
        let names = KINDS.iter().map(|kind| kind.name()).chain(["failed", "begun late"]);
        let all = recorder.latency.iter().chain([&recorder.failed, &recorder.late]);
        let named: Vec<(String, Histogram<u64>)> = names
            .zip(all)
            .filter(|(_, histogram)| !histogram.is_empty())
            .map(|(name, histogram)| (name.to_owned(), histogram.clone()))
            .collect();
        // In a closed loop nothing is due before it is begun.
        let histograms: Vec<_> =
            named.into_iter().filter(|(name, _)| setup.rate.is_some() || name != "begun late").collect();
        Self {
            seconds,
            operations,
            operations_per_second: operations as f64 / seconds,
            failed: recorder.failed.len(),
            absent: recorder.absent,
            versions: recorder.versions,
            missed: recorder.missed,
            latencies: histograms.iter().map(|(name, histogram)| Latency::of(name, histogram)).collect(),
            errors: recorder.errors,
            generator: Generator {
                cpu_seconds: generator_cpu.as_secs_f64(),
                cpu_us_per_operation: generator_cpu.as_secs_f64() * 1e6 / done.max(1) as f64,
            },
            load_average,
            servers: servers.map(|servers| ServersUsed::of(servers, done, puts)),
            series,
            verdict,
            stale_allowed,
            histograms,
            setup,
        }
    }

    /// Whether the run did something and nothing that was verified is wrong.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.operations > 0 && self.verdict.as_ref().is_none_or(|verdict| verdict.is_sound(self.stale_allowed))
    }

    /// The row of that name.
    #[must_use]
    pub fn latency(&self, name: &str) -> Option<&Latency> {
        self.latencies.iter().find(|row| row.name == name)
    }

    /// Writes the report as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_json(&self, path: &Path) -> io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        serde_json::to_writer_pretty(&mut file, self)?;
        file.write_all(b"\n")?;
        file.flush()
    }

    /// Writes the histograms (nanoseconds): as percentile tables in microseconds when the name ends in `.hgrm`, else as an
    /// HdrHistogram log with one tagged line per kind.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_histograms(&self, path: &Path) -> io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        if path.extension().is_some_and(|extension| extension == "hgrm") {
            for (name, histogram) in &self.histograms {
                write_percentiles(&mut file, name, histogram)?;
            }
        } else {
            self.write_log(&mut file)?;
        }
        file.flush()
    }

    fn write_log(&self, file: &mut impl Write) -> io::Result<()> {
        let mut serializer = V2DeflateSerializer::new();
        let start = SystemTime::now() - Duration::from_secs_f64(self.seconds);
        let mut log = IntervalLogWriterBuilder::new()
            .add_comment("[Histogram log format version 1.3]")
            .with_start_time(start)
            .with_base_time(start)
            .with_max_value_divisor(1e6)
            .begin_log_with(file, &mut serializer)?;
        for (name, histogram) in &self.histograms {
            let name = name.replace(' ', "-");
            let seconds = Duration::from_secs_f64(self.seconds);
            log.write_histogram(histogram, Duration::ZERO, seconds, Tag::new(&name))
                .map_err(|error| io::Error::other(error.to_string()))?;
        }
        Ok(())
    }
}

/// The form that HdrHistogram's plotters read.
fn write_percentiles(file: &mut impl Write, name: &str, histogram: &Histogram<u64>) -> io::Result<()> {
    writeln!(file, "# {name}, microseconds")?;
    writeln!(file, "{:>12} {:>14} {:>10} {:>14}\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)")?;
    let mut below = 0;
    for value in histogram.iter_quantiles(5) {
        below += value.count_since_last_iteration();
        let (us, quantile) = (value.value_iterated_to() as f64 / 1e3, value.quantile_iterated_to());
        if quantile < 1.0 {
            writeln!(file, "{us:>12.3} {quantile:>14.12} {below:>10} {:>14.2}", 1.0 / (1.0 - quantile))?;
        } else {
            writeln!(file, "{us:>12.3} {quantile:>14.12} {below:>10}")?;
        }
    }
    let (mean, deviation) = (histogram.mean() / 1e3, histogram.stdev() / 1e3);
    writeln!(file, "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]")?;
    writeln!(file, "#[Max     = {:>12.3}, Total count    = {:>12}]\n", histogram.max() as f64 / 1e3, histogram.len())
}

impl Latency {
    /// The row of a histogram of nanoseconds.
    pub(crate) fn of(name: &str, histogram: &Histogram<u64>) -> Self {
        let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            name: name.to_owned(),
            count: histogram.len(),
            mean_us: histogram.mean() / 1e3,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            p9999_us: at(0.9999),
            max_us: histogram.max() as f64 / 1e3,
        }
    }

    /// The heads of the columns that [`Latency`] prints.
    pub(crate) fn head(f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = ["count", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"];
        write!(f, "{:<18}", "latency")?;
        columns.iter().try_for_each(|column| write!(f, "{column:>10}"))?;
        writeln!(f)
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<18}{:>10}", self.name, self.count)?;
        let columns = [self.mean_us, self.p50_us, self.p90_us, self.p99_us, self.p999_us, self.p9999_us, self.max_us];
        columns.iter().try_for_each(|&us| write!(f, "{:>10}", time(us)))
    }
}

impl ServersUsed {
    fn of(servers: Vec<(String, Option<Used>)>, operations: u64, puts: u64) -> Self {
        let (mut each, mut restarted) = (Vec::new(), Vec::new());
        for (name, used) in servers {
            match used {
                Some(used) => each.push(used),
                None => restarted.push(name),
            }
        }
        let whole = restarted.is_empty() && !each.is_empty();
        let cpu: f64 = each.iter().map(|used| used.user_seconds + used.system_seconds).sum();
        let written: u64 = each.iter().map(|used| used.written_bytes).sum();
        let per_put = (whole && puts > 0).then(|| written as f64 / puts as f64 / each.len() as f64);
        Self {
            restarted,
            cpu_us_per_operation: (whole && operations > 0).then(|| cpu * 1e6 / operations as f64),
            written_bytes_per_put: per_put,
            each,
        }
    }
}

/// Microseconds in the unit that shows them best.
pub(crate) fn time(us: f64) -> String {
    match us {
        us if us < 1e3 => format!("{us:.1} µs"),
        us if us < 1e6 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setup { target, servers, workload, keys, value_bytes: [least, most], .. } = &self.setup;
        let value = if least == most { format!("{least} B") } else { format!("{least}-{most} B") };
        writeln!(f, "{target} at {} · {workload} · {keys} keys · {value} values", servers.join(" "))?;
        let Setup { connections, pipeline, threads, rate, requests, .. } = &self.setup;
        let pace = rate.map_or("closed loop".to_owned(), |rate| format!("open loop at {rate}/s"));
        writeln!(f, "{pace} · {connections} clients × {pipeline} · {threads} threads · {requests}")?;
        writeln!(f, "\n{:.0} operations/s over {:.1} s\n", self.operations_per_second, self.seconds)?;
        Latency::head(f)?;
        self.latencies.iter().try_for_each(|row| writeln!(f, "{row}"))?;
        writeln!(f)?;
        self.show_doubts(f)?;
        let [before, after] = self.load_average;
        let Generator { cpu_seconds, cpu_us_per_operation } = self.generator;
        write!(f, "generator: {cpu_us_per_operation:.1} µs CPU an operation ({cpu_seconds:.2} s)")?;
        writeln!(f, " · load average {before:.2} before, {after:.2} after")?;
        if let Some(servers) = &self.servers {
            write!(f, "{servers}")?;
        }
        if let Some(verdict) = &self.verdict {
            write!(f, "{verdict}")?;
            let sound = verdict.is_sound(self.stale_allowed);
            writeln!(f, "{}", if sound { "verified: no acknowledged write lost" } else { "VIOLATED: see above" })?;
        }
        Ok(())
    }
}

impl Report {
    fn show_doubts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.missed > 0 {
            writeln!(f, "the rate was not kept: {} operations were due and never begun", self.missed)?;
        }
        if self.absent > 0 {
            writeln!(f, "{} gets found nothing", self.absent)?;
        }
        for (class, error) in &self.errors {
            writeln!(f, "{} × {class}: {}", error.count, error.sample)?;
        }
        if self.operations == 0 {
            writeln!(f, "no operation succeeded")?;
        }
        Ok(())
    }
}

impl fmt::Display for ServersUsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(cpu) = self.cpu_us_per_operation {
            write!(f, "servers: {cpu:.1} µs CPU an operation, all together")?;
            if let Some(written) = self.written_bytes_per_put {
                write!(f, " · {written:.0} B written a put and server")?;
            }
            writeln!(f)?;
        }
        for used in &self.each {
            let Used { name, user_seconds, system_seconds, written_bytes, memory_bytes_max } = used;
            write!(f, "  {name}: {user_seconds:.2} s user, {system_seconds:.2} s system")?;
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            writeln!(
                f,
                " · {:.1} MiB written · {:.1} MiB memory at most",
                mib(*written_bytes),
                mib(*memory_bytes_max)
            )?;
        }
        self.restarted
            .iter()
            .try_for_each(|name| writeln!(f, "  {name}: not the same process all the time, not counted"))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reads, acknowledged, unknown, surfaced, keys, stale_reads, lost_writes, .. } = self;
        let Self { damaged_values, never_sent, unread_keys, violations, .. } = self;
        writeln!(f, "writes: {acknowledged} acknowledged, {unknown} unknown (of which reads showed {surfaced})")?;
        write!(f, "reads: {reads} checked, {stale_reads} stale, {damaged_values} damaged, {never_sent} never sent")?;
        writeln!(f, " · {keys} keys read at the end: {lost_writes} lost, {unread_keys} unread")?;
        violations.iter().try_for_each(|violation| writeln!(f, "  {violation}"))
    }
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;

    fn report(verdict: Option<Verdict>) -> Report {
        let mut recorder = Recorder::new();
        for us in 1..=1000_u64 {
            recorder.completed(Kind::Read, us * 1000, 0, true);
        }
        recorder.completed(Kind::Update, 5_000_000, 0, true);
        recorder.error("timeout", "no answer within 2s", Some(2_000_000_000), 0, true);
        let used = |name: &str, written_bytes| {
            let used = Used {
                name: name.to_owned(),
                user_seconds: 0.02,
                system_seconds: 0.01,
                written_bytes,
                memory_bytes_max: 1 << 20,
            };
            (name.to_owned(), Some(used))
        };
        let setup = Setup {
            target: "resp".to_owned(),
            servers: vec!["127.0.0.1:7400".to_owned()],
            workload: "A".to_owned(),
            keys: 10,
            value_bytes: [100, 100],
            connections: 1,
            pipeline: 1,
            threads: 1,
            rate: None,
            requests: "defaults".to_owned(),
            seed: 1,
        };
        Report::new(Parts {
            setup,
            seconds: 2.0,
            recorder,
            generator_cpu: Duration::from_millis(10),
            load_average: [0.0, 0.0],
            servers: Some(vec![used("node-1", 3000), used("node-2", 1000)]),
            series: Vec::new(),
            verdict,
            stale_allowed: false,
        })
    }

    #[test]
    fn figures_are_right() {
        let report = report(None);
        assert_eq!((report.operations, report.failed), (1001, 1));
        let read = report.latency("read").unwrap();
        assert!((499.0..502.0).contains(&read.p50_us) && (989.0..992.0).contains(&read.p99_us), "{read:?}");
        let servers = report.servers.as_ref().unwrap();
        assert_eq!(servers.written_bytes_per_put, Some(2000.0));
        assert!((servers.cpu_us_per_operation.unwrap() - 0.06 * 1e6 / 1002.0).abs() < 1e-9);
        let text = report.to_string();
        assert!(text.contains("1 × timeout") && text.contains("update") && !text.contains("insert"), "{text}");
        assert!(report.passed());
        assert!(serde_json::to_value(&report).unwrap()["latencies"][0]["p999_us"].is_number());
    }

    #[test]
    fn histograms_are_written_in_both_forms() {
        let dir = std::env::temp_dir();
        let (log, table) =
            (dir.join(format!("q-{}.hlog", std::process::id())), dir.join(format!("q-{}.hgrm", std::process::id())));
        let report = report(None);
        report.write_histograms(&log).unwrap();
        report.write_histograms(&table).unwrap();
        let bytes = std::fs::read(&log).unwrap();
        let tags: Vec<_> = IntervalLogIterator::new(&bytes)
            .filter_map(|entry| match entry.unwrap() {
                LogEntry::Interval(interval) => interval.tag().map(|tag| tag.as_str().to_owned()),
                _ => None,
            })
            .collect();
        assert_eq!(tags, ["read", "update", "failed"]);
        assert!(std::fs::read_to_string(&table).unwrap().contains("1/(1-Percentile)"));
        std::fs::remove_file(log).unwrap();
        std::fs::remove_file(table).unwrap();
    }
}
