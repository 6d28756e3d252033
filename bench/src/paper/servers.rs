//! Local clusters under load, in windows: a few seconds each, so that two ways of doing a thing take turns.
//!
//! The rule: what is set side by side is measured on the same servers, window by window in turn, so that what slows the
//! machine for a while slows both.
//!
//! Not here: what is asked of them (`measured`), processes (`compare`).

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use clap::Parser;
use tempfile::TempDir;

use super::{PaperArgs, Plan};
use crate::{
    args::{LoadArgs, OutputArgs, TargetKind},
    compare::{self, Run, Side},
    protocol::Durability,
    report::Report,
    run::{self, Error},
    workload::Workload,
};

/// The servers that figures are measured on, each cluster started when it is first needed.
pub(super) struct Lab<'a> {
    args: &'a PaperArgs,
    plan: &'a Plan,
    stop: &'a Arc<AtomicBool>,
    /// Windows that were measured, in all.
    windows: &'a AtomicU64,
    place: Option<TempDir>,
    servers: Option<(u16, Servers<'a>)>,
}

impl<'a> Lab<'a> {
    pub(super) fn new(args: &'a PaperArgs, plan: &'a Plan, stop: &'a Arc<AtomicBool>, windows: &'a AtomicU64) -> Self {
        Self { args, plan, stop, windows, place: None, servers: None }
    }

    pub(super) fn plan(&self) -> &'a Plan {
        self.plan
    }

    /// Three nodes: each keeps all keys.
    pub(super) fn three(&mut self) -> Result<&mut Servers<'a>, Error> {
        self.cluster(3)
    }

    /// Three nodes of their own, with this TOML in their configuration.
    pub(super) fn tuned(&mut self, tune: &str) -> Result<Servers<'a>, Error> {
        self.servers = None;
        self.start(3, Some(tune))
    }

    /// Six nodes: each keeps half of the keys.
    pub(super) fn six(&mut self) -> Result<&mut Servers<'a>, Error> {
        self.cluster(6)
    }

    fn cluster(&mut self, nodes: u16) -> Result<&mut Servers<'a>, Error> {
        if self.servers.as_ref().is_none_or(|(there, _)| *there != nodes) {
            // Two clusters at once would disturb each other.
            self.servers = None;
            self.servers = Some((nodes, self.start(nodes, None)?));
        }
        Ok(self.servers.as_mut().map(|(_, servers)| servers).expect("just started"))
    }

    fn start(&mut self, nodes: u16, tune: Option<&str>) -> Result<Servers<'a>, Error> {
        let (plan, stop, windows) = (self.plan, self.stop, self.windows);
        // Each cluster has addresses of its own: those of one that has just ended may still be taken.
        let first = compare::own_address(32 + 8 * nodes as u8);
        let side = Side::quorate(self.place()?.path(), first, (nodes, 1), TargetKind::Native, tune)?;
        let mut servers = Servers { side, plan, nodes, stop, windows, seed: 1, doubts: Vec::new() };
        let load = servers.load();
        compare::put_all_keys(&mut servers.side, &load, stop)?;
        Ok(servers)
    }

    fn place(&mut self) -> Result<&TempDir, Error> {
        if self.place.is_none() {
            self.place = Some(compare::place(self.args.common.dir.as_deref())?);
        }
        Ok(self.place.as_ref().expect("just made"))
    }
}

/// One cluster.
pub(super) struct Servers<'a> {
    side: Side,
    pub(super) plan: &'a Plan,
    nodes: u16,
    stop: &'a Arc<AtomicBool>,
    windows: &'a AtomicU64,
    /// The next window's.
    seed: u64,
    doubts: Vec<String>,
}

impl Servers<'_> {
    /// What all windows have in common: half gets, half durable puts of 1 KiB, uniform over the keys.
    pub(super) fn load(&self) -> LoadArgs {
        LoadArgs {
            target: TargetKind::Native,
            servers: self.side.addresses.clone(),
            workload: Workload::Mix,
            rate: Some(self.plan.rate),
            keys: self.plan.keys,
            durability: Some(Durability::Durable),
            duration: Some(self.plan.window),
            warmup: Some(self.plan.warmup),
            output: OutputArgs::QUIET,
            ..LoadArgs::parse_from(["bench"])
        }
    }

    /// One window of load. What makes it doubtful is kept for [`Servers::take_doubts`].
    pub(super) fn window(&mut self, name: &str, load: LoadArgs) -> Result<Report, Error> {
        self.side.check_running()?;
        let lasts = load.measured_duration().unwrap_or(self.plan.window);
        let report = run::run(&LoadArgs { seed: self.seed, ..load }, self.stop)?;
        self.seed += 1;
        // One may be as long as several.
        let windows = lasts.as_secs_f64() / self.plan.window.as_secs_f64();
        self.windows.fetch_add(windows.round() as u64, Ordering::Relaxed);
        self.doubts.extend(Run::of(&report).doubts().map(|doubts| format!("{name}: {doubts}")));
        if report.operations == 0 {
            return Err(Error::Servers(format!("no operation succeeded: {}", self.doubts.join("; "))));
        }
        Ok(report)
    }

    /// What was doubtful since this was last asked.
    pub(super) fn take_doubts(&mut self) -> Vec<String> {
        std::mem::take(&mut self.doubts)
    }

    /// For the line below titles.
    pub(super) fn describe(&self) -> String {
        let Self { nodes, plan: Plan { rate, .. }, .. } = self;
        format!("{nodes} nodes of one core on one machine · N=3 R=2 W=2 · 1 KiB · {rate} operations/s, half reads")
    }
}
