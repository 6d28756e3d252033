//! Bars in groups, in panels beside each other that each have an axis of their own.
//!
//! The rule: bars begin at 0, and their values stand above them: panels whose axes differ are compared by shape.
//!
//! Not here: shapes (`svg`), ranges and marks (`axis`).

use serde::Serialize;

use super::{
    axis::{Axis, short_number},
    colour,
    lines::head,
    svg::{AXIS, Anchor, GRID, LEFT, MARGIN, PALE_TEXT, SMALL_SIZE, Svg, TEXT, TEXT_SIZE, WIDTH, text_width},
};

const HEIGHT: f64 = 260.0;
/// Of the width of a group, what its bars take.
const FILLED: f64 = 0.72;

/// Panels of bars.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Bars {
    /// What it shows.
    pub title: String,
    /// Under which circumstances. Empty: none are told.
    pub subtitle: String,
    /// What all y axes show, with the unit.
    pub y: String,
    /// The bars of each group, as the legend has them.
    pub series: Vec<String>,
    /// From left to right.
    pub panels: Vec<BarPanel>,
}

/// One panel of bars.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct BarPanel {
    /// What is shown here.
    pub title: String,
    /// Each group's name, which may have several lines, and its values in the order of the series.
    pub groups: Vec<(String, Vec<f64>)>,
}

impl Bars {
    /// The picture as a whole SVG document.
    #[must_use]
    pub fn svg(&self) -> String {
        let Self { title, subtitle, y, series, panels } = self;
        let mut svg = Svg::new(title);
        let mut top = head(&mut svg, title, subtitle);
        let mut x = LEFT;
        for (number, name) in series.iter().enumerate() {
            svg.rectangle((x, top - 2.0), (14.0, 14.0), colour(number));
            svg.text((x + 20.0, top + 9.5), name, SMALL_SIZE, TEXT, Anchor::Start);
            x += 20.0 + text_width(name, SMALL_SIZE) + 24.0;
        }
        top += 54.0;
        let width = (WIDTH - MARGIN - LEFT + 56.0) / panels.len().max(1) as f64;
        for (number, panel) in panels.iter().enumerate() {
            panel.draw(&mut svg, (LEFT + number as f64 * width, top), width - 56.0);
        }
        svg.upward_text((20.0, top + HEIGHT / 2.0), y, TEXT_SIZE, TEXT);
        svg.finish(top + HEIGHT + 56.0)
    }
}

impl BarPanel {
    fn draw(&self, svg: &mut Svg, (left, top): (f64, f64), width: f64) {
        let bottom = top + HEIGHT;
        let ruler = Axis::linear("").ruler(self.groups.iter().flat_map(|(_, values)| values.iter().copied()), HEIGHT);
        let up = |value: f64| bottom - ruler.place(value) * HEIGHT;
        svg.bold_text((left, top - 20.0), &self.title, TEXT_SIZE);
        for (value, text) in &ruler.marks {
            svg.line((left, up(*value)), (left + width, up(*value)), GRID, 1.0);
            svg.text((left - 8.0, up(*value) + 4.0), text, SMALL_SIZE, PALE_TEXT, Anchor::End);
        }
        let group_width = width / self.groups.len().max(1) as f64;
        for (number, (name, values)) in self.groups.iter().enumerate() {
            let middle = left + (number as f64 + 0.5) * group_width;
            let bar = group_width * FILLED / values.len().max(1) as f64;
            for (series, value) in values.iter().enumerate().filter(|(_, value)| value.is_finite()) {
                let x = middle - group_width * FILLED / 2.0 + series as f64 * bar;
                svg.rectangle((x + 1.0, up(*value)), (bar - 2.0, bottom - up(*value)), colour(series));
                let text = short_number(*value);
                svg.text((x + bar / 2.0, up(*value) - 5.0), &text, SMALL_SIZE, TEXT, Anchor::Middle);
            }
            for (row, line) in name.lines().enumerate() {
                svg.text((middle, bottom + 19.0 + 16.0 * row as f64), line, SMALL_SIZE, TEXT, Anchor::Middle);
            }
        }
        svg.line((left, bottom), (left + width, bottom), AXIS, 1.0);
    }
}
