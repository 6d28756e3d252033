//! The result: for each figure a table, what differs from the paper's setup, what makes it doubtful, and where its picture is.
//!
//! The rule: a figure of ours never stands without what differs.
//!
//! Not here: how it came about.

use std::{fmt, path::PathBuf};

use serde::Serialize;

use super::PaperFigure;
use crate::plot::Picture;

/// Lines of text are broken after so many letters.
const WIDTH: usize = 120;

/// Ours beside the paper's.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct PaperReport {
    /// The machine's load average before and after.
    pub load_average: [f64; 2],
    /// Too little was done for the figures to mean something.
    pub quick: bool,
    /// In the order of the paper.
    pub figures: Vec<Beside>,
}

/// One figure.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Beside {
    /// Which.
    pub figure: PaperFigure,
    /// What it shows.
    pub title: String,
    /// The heads of the columns.
    pub head: Vec<String>,
    /// A cell for each column.
    pub rows: Vec<Vec<String>>,
    /// What differs from the paper's setup.
    pub notes: Vec<String>,
    /// What makes the figures doubtful.
    pub doubts: Vec<String>,
    /// What the picture shows; none where a table says it all.
    pub picture: Option<Picture>,
    /// The picture's file.
    pub file: Option<PathBuf>,
}

impl Beside {
    pub(super) fn new(figure: PaperFigure, title: &str, head: &[&str]) -> Self {
        Self {
            figure,
            title: title.to_owned(),
            head: head.iter().map(|cell| (*cell).to_owned()).collect(),
            rows: Vec::new(),
            notes: Vec::new(),
            doubts: Vec::new(),
            picture: None,
            file: None,
        }
    }

    /// Adds a row: what is shown, then a cell for each of the other columns.
    pub(super) fn row(&mut self, name: &str, cells: impl IntoIterator<Item = String>) {
        self.rows.push([name.to_owned()].into_iter().chain(cells).collect());
    }
}

impl fmt::Display for PaperReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = env!("CARGO_PKG_VERSION");
        writeln!(f, "Dynamo (DeCandia et al., SOSP 2007), and Quorate {version} beside it")?;
        if self.quick {
            writeln!(f, "QUICK: too few operations for the figures to mean something")?;
        }
        self.figures.iter().try_for_each(|figure| write!(f, "\n{figure}"))?;
        let [before, after] = self.load_average;
        writeln!(f, "\nload average {before:.2} before, {after:.2} after")
    }
}

impl fmt::Display for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}\n", self.figure.name(), self.title)?;
        let lines = || std::iter::once(&self.head).chain(&self.rows);
        let width = |column: usize| lines().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
        for line in lines() {
            for (column, cell) in line.iter().enumerate() {
                let width = width(column).unwrap_or(0);
                if column == 0 { write!(f, "{cell:<width$}")? } else { write!(f, "   {cell:>width$}")? }
            }
            writeln!(f)?;
        }
        for note in &self.notes {
            writeln!(f)?;
            wrapped(note).iter().try_for_each(|line| writeln!(f, "{line}"))?;
        }
        if self.doubts.is_empty() && self.file.is_none() {
            return Ok(());
        }
        writeln!(f)?;
        self.doubts.iter().try_for_each(|doubt| writeln!(f, "DOUBTFUL: {doubt}"))?;
        self.file.iter().try_for_each(|file| writeln!(f, "picture: {}", file.display()))
    }
}

/// The text in lines.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beside() -> Beside {
        let text = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        Beside {
            rows: vec![text(&["p99.9 of reads", "200 ms", "1.5 ms (µ)"]), text(&["x", "", "12345678901"])],
            notes: vec!["word ".repeat(60)],
            doubts: vec!["window 3: 7 failed".to_owned()],
            file: Some("paper/fig4.svg".into()),
            ..Beside::new(PaperFigure::Fig4, "latencies", &["what", "paper", "ours"])
        }
    }

    #[test]
    fn columns_stand_below_each_other() {
        let text = beside().to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "fig4: latencies");
        assert_eq!(lines[2], "what              paper          ours");
        assert_eq!(lines[3], "p99.9 of reads   200 ms    1.5 ms (µ)");
        assert_eq!(lines[4], "x                         12345678901");
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.contains("DOUBTFUL: window 3: 7 failed\npicture: paper/fig4.svg\n"), "{text}");
    }

    #[test]
    fn programs_get_the_same() {
        let report = PaperReport { load_average: [1.0, 2.0], quick: true, figures: vec![beside()] };
        let value: serde_json::Value = serde_json::to_value(&report).unwrap();
        assert_eq!(value["figures"][0]["figure"], "fig4");
        assert_eq!(value["figures"][0]["rows"][0][2], "1.5 ms (µ)");
        let text = report.to_string();
        assert!(text.contains("QUICK") && text.contains("load average 1.00 before"), "{text}");
    }
}
