//! `quorate bench paper`: the figures of "Dynamo: Amazon's Highly Available Key-value Store" (SOSP 2007), ours beside them.
//!
//! The rule: shapes are compared, not machines; what differs from the paper's setup is said below each table. What is
//! computed is not called measured.
//!
//! Not here: the ring that ships, which the caller hands in ([`Placement`]); pictures (`plot`); load (`run`).

mod computed;
mod imbalance;
mod measured;
mod report;
mod servers;
#[cfg(test)]
mod shipped;
mod strategy;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use clap::{Parser, ValueEnum};
use serde::Serialize;

use self::servers::Lab;
pub use self::{
    report::{Beside, PaperReport},
    strategy::Placement,
};
use crate::{
    args::{OwnServersArgs, positive},
    bar::Bar,
    process::load_average,
    run::Error,
};

/// The figures of the Dynamo paper, ours beside them.
#[derive(Parser, Clone, Debug)]
pub struct PaperArgs {
    /// The figures. Without one: all.
    #[arg(value_enum)]
    pub figures: Vec<PaperFigure>,
    /// Where the pictures are written.
    #[arg(long, default_value = "paper")]
    pub out: PathBuf,
    /// Seconds of load for each line that is measured on servers.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// Operations per second, sent when they are due (open loop); in figure 4 their mean.
    #[arg(long, default_value = "2000", value_parser = positive)]
    pub rate: f64,
    /// Few operations, few rings: shows that it works, and no more.
    #[arg(long, conflicts_with_all = ["seconds", "rate"])]
    pub quick: bool,

    /// Where it is measured, and what is shown.
    #[command(flatten)]
    pub common: OwnServersArgs,
}

/// A figure of the paper that can be set beside ours, in the order of the paper.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PaperFigure {
    /// Figure 4: average and p99.9 of reads and writes over time.
    Fig4,
    /// Figure 5: buffered and direct writes.
    Fig5,
    /// Figure 6: nodes out of balance, and the load.
    Fig6,
    /// Figure 8: how evenly partitioning strategies spread load.
    Fig8,
    /// Section 6.3: versions that reads returned.
    Versions,
    /// Table 2: client-driven and server-driven coordination.
    Table2,
    /// Section 6.5: background work, held back by how requests fare.
    Admission,
}

impl PaperFigure {
    /// As the command line and the pictures' files have it.
    fn name(self) -> &'static str {
        match self {
            Self::Fig4 => "fig4",
            Self::Fig5 => "fig5",
            Self::Fig6 => "fig6",
            Self::Fig8 => "fig8",
            Self::Versions => "versions",
            Self::Table2 => "table2",
            Self::Admission => "admission",
        }
    }

    /// Lines that are measured on servers, each in as many windows as the plan says.
    fn lines(self) -> u64 {
        match self {
            Self::Fig4 => 1,
            Self::Fig5 | Self::Versions | Self::Table2 => 2,
            Self::Admission => 3,
            Self::Fig6 | Self::Fig8 => 0,
        }
    }
}

/// How much is done.
#[derive(Clone, PartialEq, Debug)]
struct Plan {
    /// Each line is measured in so many windows of that length, after a warm-up each.
    windows: u32,
    window: Duration,
    warmup: Duration,
    rate: f64,
    keys: u64,
    /// Rings that are drawn for figure 8, days for figure 6.
    rings: u32,
    days: u32,
}

impl Plan {
    fn new(args: &PaperArgs) -> Self {
        let full = Self {
            windows: (args.seconds / 2).clamp(4, 30),
            window: Duration::ZERO,
            warmup: Duration::from_millis(250),
            rate: args.rate,
            keys: 10_000,
            rings: 100,
            days: 30,
        };
        if args.quick {
            let window = Duration::from_millis(250);
            return Self { windows: 3, window, warmup: window / 2, rate: 200.0, keys: 200, rings: 5, days: 3 };
        }
        Self { window: Duration::from_secs(args.seconds.into()) / full.windows, ..full }
    }
}

/// Measures, computes, writes the pictures.
///
/// # Errors
/// When servers cannot be started or end on the way, or a picture cannot be written.
pub fn paper(args: &PaperArgs, placement: Placement, stop: &Arc<AtomicBool>) -> Result<PaperReport, Error> {
    let plan = Plan::new(args);
    // Before anything is measured: what cannot be written in the end is known now.
    fs::create_dir_all(&args.out).map_err(|error| cannot_write(&args.out, &error))?;
    let before = load_average();
    let asked = |figure: &PaperFigure| args.figures.is_empty() || args.figures.contains(figure);
    let asked: Vec<PaperFigure> = PaperFigure::value_variants().iter().copied().filter(asked).collect();
    let all = asked.iter().map(|figure| figure.lines()).sum::<u64>() * u64::from(plan.windows);
    let windows = AtomicU64::new(0);
    let look = || {
        let done = windows.load(Ordering::Relaxed);
        (done, all, format!("{done} of {all} windows"))
    };
    let figures = Bar::during("paper", !args.common.output.is_quiet(), look, |bar| {
        draw(args, &asked, placement, Lab::new(args, &plan, stop, &windows), bar)
    })?;
    Ok(PaperReport { load_average: [before, load_average()], quick: args.quick, figures })
}

fn draw(
    args: &PaperArgs,
    asked: &[PaperFigure],
    placement: Placement,
    mut lab: Lab<'_>,
    bar: &Bar,
) -> Result<Vec<Beside>, Error> {
    let plan = lab.plan();
    let mut figures = Vec::new();
    for &figure in asked {
        if !args.common.output.is_quiet() {
            bar.beside(|| eprintln!("{} …", figure.name()));
        }
        let mut beside = match figure {
            PaperFigure::Fig4 => measured::latencies(lab.three()?)?,
            PaperFigure::Fig5 => measured::buffered_writes(lab.three()?)?,
            PaperFigure::Fig6 => computed::imbalance(placement, plan),
            PaperFigure::Fig8 => computed::strategies(placement, plan),
            PaperFigure::Versions => measured::versions(lab.three()?)?,
            PaperFigure::Table2 => measured::coordination(lab.six()?)?,
            PaperFigure::Admission => measured::admission(&mut lab)?,
        };
        if let Some(picture) = &beside.picture {
            let path = args.out.join(format!("{}.svg", figure.name()));
            fs::write(&path, picture.svg()).map_err(|error| cannot_write(&path, &error))?;
            beside.file = Some(path);
        }
        figures.push(beside);
    }
    Ok(figures)
}

fn cannot_write(path: &Path, error: &io::Error) -> Error {
    Error::Machine(format!("cannot write {}: {error}; name another place by --out", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<PaperArgs, String> {
        PaperArgs::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_cannot_be_shown_is_refused_with_what_can() {
        for (line, expected) in [
            ("paper fig7", "fig8"),
            ("paper --seconds 0", "1..=86400"),
            ("paper --seconds soon", "soon"),
            ("paper --rate 0", "above 0"),
            ("paper --quick --seconds 5", "--seconds"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
        let args = parse("paper fig8 table2 --out there --json").unwrap();
        assert_eq!((args.figures, args.common.output.json), (vec![PaperFigure::Fig8, PaperFigure::Table2], true));
    }

    #[test]
    fn figures_are_called_as_they_are_asked_for() {
        for figure in PaperFigure::value_variants() {
            assert_eq!(figure.to_possible_value().unwrap().get_name(), figure.name());
        }
    }

    #[test]
    fn windows_share_the_time() {
        let plan = |line| Plan::new(&parse(line).unwrap());
        for (line, windows, window_ms) in
            [("paper", 30, 2000), ("paper --seconds 10", 5, 2000), ("paper --seconds 1", 4, 250)]
        {
            let plan = plan(line);
            assert_eq!((plan.windows, plan.window), (windows, Duration::from_millis(window_ms)), "{line}");
        }
        assert!(plan("paper --quick").rings < 10);
    }

    #[test]
    fn rings_alone_need_no_servers() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("pictures");
        let args = parse(&format!("paper fig6 fig8 --quick --quiet --out {}", out.display())).unwrap();
        let report = paper(&args, shipped::placement, &Arc::default()).unwrap();
        let names: Vec<_> = report.figures.iter().map(|figure| figure.figure).collect();
        assert_eq!(names, [PaperFigure::Fig6, PaperFigure::Fig8]);
        for name in ["fig6.svg", "fig8.svg"] {
            let picture = fs::read_to_string(out.join(name)).unwrap();
            assert!(picture.starts_with("<svg") && picture.contains("<polyline"), "{name}");
        }
        let text = report.to_string();
        assert!(text.contains("computed") && text.contains("strategy 3") && text.contains("fig8.svg"), "{text}");
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let args = PaperArgs { out: file, ..args };
        assert!(
            matches!(paper(&args, shipped::placement, &Arc::default()), Err(Error::Machine(text)) if text.contains("cannot write"))
        );
    }
}
