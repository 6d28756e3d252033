//! Lines over a common x axis, in one panel or in several below each other, with events that happened on the way.
//!
//! The rule: every panel has the same x axis, so that what happened at one time stands in one vertical line.
//!
//! Not here: shapes (`svg`), ranges and marks (`axis`).

use serde::Serialize;

use super::{
    axis::{Axis, Ruler},
    colour,
    svg::{
        AXIS, Anchor, GRID, LEFT, MARGIN, PALE_TEXT, SMALL_SIZE, Svg, TEXT, TEXT_SIZE, TITLE_SIZE, WIDTH, text_width,
    },
};

const LEGEND_HEIGHT: f64 = 22.0;
const EVENT_HEIGHT: f64 = 18.0;
const EVENT_ROWS_MAX: usize = 3;
/// With more points than this, dots would hide the line.
const DOTS_MAX: usize = 40;

/// Panels over a common x axis.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Lines {
    /// What it shows.
    pub title: String,
    /// Under which circumstances. Empty: none are told.
    pub subtitle: String,
    /// The axis that all panels share.
    pub x: Axis,
    /// From above to below.
    pub panels: Vec<Panel>,
    /// What happened on the way, on the x axis.
    pub events: Vec<Event>,
}

/// One panel.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Panel {
    /// Its own axis.
    pub y: Axis,
    /// Its lines, the first behind.
    pub series: Vec<Series>,
    /// Pixels that are drawn in.
    pub height: u32,
}

/// One line.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Series {
    /// As the legend has it.
    pub name: String,
    /// x and y.
    pub points: Vec<(f64, f64)>,
    /// The number of its colour; series of one kind share it.
    pub colour: usize,
    /// How it is drawn.
    pub style: Style,
}

/// How a series is drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Style {
    /// A line.
    Solid,
    /// A broken line.
    Dashed,
    /// Rings without a line.
    Dots,
}

/// Something that happened: a vertical line with a name.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Event {
    /// On the x axis.
    pub at: f64,
    /// A few words.
    pub label: String,
}

impl Series {
    /// A solid line.
    #[must_use]
    pub fn new(name: &str, colour: usize, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.to_owned(), points, colour, style: Style::Solid }
    }

    /// The same, drawn so.
    #[must_use]
    pub fn drawn(self, style: Style) -> Self {
        Self { style, ..self }
    }
}

impl Lines {
    /// The picture as a whole SVG document.
    #[must_use]
    pub fn svg(&self) -> String {
        let Self { title, subtitle, x, panels, events } = self;
        let mut svg = Svg::new(title);
        let points = panels.iter().flat_map(|panel| &panel.series).flat_map(|series| &series.points);
        let across = Across(x.ruler(points.map(|(x, _)| *x), WIDTH - MARGIN - LEFT));
        let mut top = head(&mut svg, title, subtitle);
        let mut first_top = None;
        for panel in panels {
            top += draw_legend(&mut svg, &panel.series, top);
            if first_top.is_none() {
                top += self.draw_event_labels(&mut svg, &across, top);
                first_top = Some(top);
            }
            panel.draw(&mut svg, x, &across, top);
            top += f64::from(panel.height) + MARGIN;
        }
        let bottom = top - MARGIN;
        for event in events.iter().filter(|event| across.contains(event.at)) {
            let x = across.x(event.at);
            svg.dashed_line((x, first_top.unwrap_or(top) - 4.0), (x, bottom), PALE_TEXT);
        }
        for (value, text) in &across.0.marks {
            let x = across.x(*value);
            svg.line((x, bottom), (x, bottom + 5.0), AXIS, 1.0);
            svg.text((x, bottom + 19.0), text, SMALL_SIZE, PALE_TEXT, Anchor::Middle);
        }
        svg.text(((LEFT + WIDTH - MARGIN) / 2.0, bottom + 40.0), &x.label, TEXT_SIZE, TEXT, Anchor::Middle);
        svg.finish(bottom + 56.0)
    }

    /// Writes the events' names, in as many rows as they need; gives the height.
    fn draw_event_labels(&self, svg: &mut Svg, across: &Across, top: f64) -> f64 {
        let mut ends = Vec::<f64>::new();
        let mut events: Vec<&Event> = self.events.iter().filter(|event| across.contains(event.at)).collect();
        events.sort_by(|a, b| a.at.total_cmp(&b.at));
        let mut places = Vec::new();
        for event in &events {
            let half = text_width(&event.label, SMALL_SIZE) / 2.0;
            let x = across.x(event.at).clamp(LEFT + half, WIDTH - MARGIN - half);
            let free = ends.iter().position(|end| *end < x - half);
            let row = free.unwrap_or(ends.len()).min(EVENT_ROWS_MAX - 1);
            if row == ends.len() {
                ends.push(0.0);
            }
            ends[row] = x + half + 8.0;
            places.push((x, row));
        }
        for (event, (x, row)) in events.iter().zip(places) {
            // The first row lies next to what is drawn in.
            let y = top + EVENT_HEIGHT * (ends.len() - row) as f64 - 5.0;
            svg.text((x, y), &event.label, SMALL_SIZE, TEXT, Anchor::Middle);
        }
        EVENT_HEIGHT * ends.len() as f64
    }
}

/// The title and what stands below it; gives where the rest begins.
pub(super) fn head(svg: &mut Svg, title: &str, subtitle: &str) -> f64 {
    svg.bold_text((MARGIN, 34.0), title, TITLE_SIZE);
    if subtitle.is_empty() {
        return 50.0;
    }
    svg.text((MARGIN, 55.0), subtitle, SMALL_SIZE, PALE_TEXT, Anchor::Start);
    74.0
}

/// The x axis on the picture.
struct Across(Ruler);

impl Across {
    fn x(&self, value: f64) -> f64 {
        LEFT + self.0.place(value) * (WIDTH - MARGIN - LEFT)
    }

    fn contains(&self, value: f64) -> bool {
        (-1e-6..=1.0 + 1e-6).contains(&self.0.place(value))
    }
}

impl Panel {
    fn draw(&self, svg: &mut Svg, x: &Axis, across: &Across, top: f64) {
        let (right, height) = (WIDTH - MARGIN, f64::from(self.height));
        let bottom = top + height;
        let values = self.series.iter().flat_map(|series| &series.points).map(|(_, y)| *y);
        let ruler = self.y.ruler(values, height);
        let down = |value: f64| bottom - ruler.place(value) * height;
        for value in &ruler.fine {
            svg.line((LEFT, down(*value)), (right, down(*value)), GRID, 0.5);
        }
        for (value, text) in &ruler.marks {
            let y = down(*value);
            svg.line((LEFT, y), (right, y), GRID, 1.0);
            svg.text((LEFT - 8.0, y + 4.0), text, SMALL_SIZE, PALE_TEXT, Anchor::End);
        }
        for (value, _) in &across.0.marks {
            let x = across.x(*value);
            svg.line((x, top), (x, bottom), GRID, 1.0);
        }
        svg.line((LEFT, bottom), (right, bottom), AXIS, 1.0);
        svg.upward_text((20.0, f64::midpoint(top, bottom)), &self.y.label, TEXT_SIZE, TEXT);
        for series in &self.series {
            let shown = |(a, b): &(f64, f64)| {
                (x.shows(*a) && self.y.shows(*b) && across.contains(*a))
                    .then(|| (across.x(*a), down(*b).clamp(top, bottom)))
            };
            let places: Vec<Option<(f64, f64)>> = series.points.iter().map(shown).collect();
            series.draw(svg, &places);
        }
    }
}

impl Series {
    /// `places`: of the points, as far as they are shown.
    fn draw(&self, svg: &mut Svg, places: &[Option<(f64, f64)>]) {
        let colour = colour(self.colour);
        if self.style != Style::Dots {
            for run in places.split(Option::is_none).filter(|run| run.len() > 1) {
                let run: Vec<(f64, f64)> = run.iter().flatten().copied().collect();
                svg.polyline(&run, colour, self.style == Style::Dashed);
            }
        }
        let is_alone = |at: usize| {
            let is_gap = |at: Option<usize>| at.and_then(|at| places.get(at)).is_none_or(Option::is_none);
            is_gap(at.checked_sub(1)) && is_gap(Some(at + 1))
        };
        for (at, place) in places.iter().enumerate() {
            let Some(place) = place else { continue };
            if self.style == Style::Dots {
                svg.dot(*place, 4.0, colour, true);
            } else if places.len() <= DOTS_MAX || is_alone(at) {
                svg.dot(*place, 2.6, colour, false);
            }
        }
    }
}

const SAMPLE_WIDTH: f64 = 24.0;

/// Where each name of a legend stands: x and row.
fn legend_places(series: &[Series]) -> Vec<(f64, usize)> {
    let (mut x, mut row) = (LEFT, 0);
    let place = |series: &Series| {
        let width = SAMPLE_WIDTH + 6.0 + text_width(&series.name, SMALL_SIZE) + 18.0;
        if x > LEFT && x + width > WIDTH - MARGIN {
            (x, row) = (LEFT, row + 1);
        }
        x += width;
        (x - width, row)
    };
    series.iter().map(place).collect()
}

/// Names the series, if there are several; gives the height.
fn draw_legend(svg: &mut Svg, series: &[Series], top: f64) -> f64 {
    if series.len() < 2 {
        return 0.0;
    }
    let mut rows = 0;
    for (series, (x, row)) in series.iter().zip(legend_places(series)) {
        let y = top + LEGEND_HEIGHT * row as f64 + 4.0;
        let (from, to) = ((x, y), (x + SAMPLE_WIDTH, y));
        if series.style == Style::Dots {
            series.draw(svg, &[Some((x + SAMPLE_WIDTH / 2.0, y))]);
        } else {
            svg.polyline(&[from, to], colour(series.colour), series.style == Style::Dashed);
        }
        svg.text((x + SAMPLE_WIDTH + 6.0, y + 4.0), &series.name, SMALL_SIZE, TEXT, Anchor::Start);
        rows = row + 1;
    }
    LEGEND_HEIGHT * rows as f64
}
