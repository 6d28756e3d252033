//! Pictures of measurements, as SVG: lines over a common x axis, and bars.
//!
//! The rule: a picture can be understood alone: it has a title, axes with units, a legend where there is more than one
//! series, and colours that all eyes can tell apart. What was not measured (`NaN`, or nothing positive on a logarithmic
//! axis) is a gap, not a point.
//!
//! Not here: what is measured.

mod axis;
mod bars;
mod lines;
mod svg;
#[cfg(test)]
mod tests;

use serde::Serialize;

pub use self::{
    axis::{Axis, Scale},
    bars::{BarPanel, Bars},
    lines::{Event, Lines, Panel, Series, Style},
};

/// Any picture.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Picture {
    /// Lines over a common x axis.
    Lines(Lines),
    /// Bars in groups.
    Bars(Bars),
}

impl Picture {
    /// The picture as a whole SVG document.
    #[must_use]
    pub fn svg(&self) -> String {
        match self {
            Self::Lines(lines) => lines.svg(),
            Self::Bars(bars) => bars.svg(),
        }
    }
}

/// The colours of series, in turn (Okabe and Ito, 2008: told apart by all kinds of colour vision).
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#24292f"];

fn colour(number: usize) -> &'static str {
    COLOURS[number % COLOURS.len()]
}
