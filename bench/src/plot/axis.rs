//! Axes: what range they span, where their marks are, where a value lies on them.
//!
//! The rule: an axis begins and ends at round numbers, and all values lie between.
//!
//! Not here: how it is drawn.

use serde::Serialize;

/// More marks than this are crowded, however long the axis.
const MARKS_MAX: f64 = 6.0;
/// So many pixels apart they are not.
const MARK_PIXELS: f64 = 30.0;

/// How values lie on an axis.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// Equal distances are equal differences.
    Linear,
    /// Equal distances are equal ratios.
    Log,
}

/// One axis.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Axis {
    /// What it shows, with the unit.
    pub label: String,
    /// How values lie on it.
    pub scale: Scale,
    /// Where it begins and ends, if that is not left to the values.
    pub range: Option<(f64, f64)>,
    /// Its marks, if they are not left to the range.
    pub marks: Vec<(f64, String)>,
}

impl Axis {
    /// A linear axis. Values that are all positive are shown above 0.
    #[must_use]
    pub fn linear(label: &str) -> Self {
        Self { label: label.to_owned(), scale: Scale::Linear, range: None, marks: Vec::new() }
    }

    /// A logarithmic axis.
    #[must_use]
    pub fn log(label: &str) -> Self {
        Self { scale: Scale::Log, ..Self::linear(label) }
    }

    /// From `least` to `most`.
    #[must_use]
    pub fn within(self, least: f64, most: f64) -> Self {
        assert!(least < most, "an axis from {least} to {most}");
        Self { range: Some((least, most)), ..self }
    }

    /// With marks there, and nowhere else.
    #[must_use]
    pub fn marked(self, marks: impl IntoIterator<Item = (f64, String)>) -> Self {
        Self { marks: marks.into_iter().collect(), ..self }
    }

    /// Whether the value has a place on the axis.
    pub(super) fn shows(&self, value: f64) -> bool {
        value.is_finite() && (self.scale == Scale::Linear || value > 0.0)
    }

    /// What it looks like with these values on it, over so many pixels.
    pub(super) fn ruler(&self, values: impl Iterator<Item = f64>, pixels: f64) -> Ruler {
        let shown = values.filter(|value| self.shows(*value));
        let (least, most) =
            shown.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, m), value| (l.min(value), m.max(value)));
        let (least, most) = match (self.range, self.scale) {
            (Some(range), _) => range,
            (None, Scale::Linear) if least > most => (0.0, 1.0),
            (None, Scale::Log) if least > most => (1.0, 10.0),
            (None, Scale::Linear) => (least.min(0.0), if most > least.min(0.0) { most } else { least + 1.0 }),
            (None, Scale::Log) => (least, if most > least { most } else { least * 2.0 }),
        };
        let mut ruler = match self.scale {
            Scale::Linear => linear(least, most, self.range.is_some(), (pixels / MARK_PIXELS).clamp(1.0, MARKS_MAX)),
            Scale::Log => log(least, most, self.range.is_some()),
        };
        if !self.marks.is_empty() {
            ruler.marks.clone_from(&self.marks);
            ruler.fine.clear();
        }
        ruler
    }
}

/// An axis that values have been laid on.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Ruler {
    scale: Scale,
    least: f64,
    most: f64,
    pub(super) marks: Vec<(f64, String)>,
    /// Marks without a number.
    pub(super) fine: Vec<f64>,
}

impl Ruler {
    /// Where a value lies: 0 at the beginning, 1 at the end.
    pub(super) fn place(&self, value: f64) -> f64 {
        let Self { scale, least, most, .. } = self;
        match scale {
            Scale::Linear => (value - least) / (most - least),
            Scale::Log => (value / least).ln() / (most / least).ln(),
        }
    }
}

fn linear(least: f64, most: f64, is_fixed: bool, marks_max: f64) -> Ruler {
    let step = round_up((most - least) / marks_max);
    let (first, last) = ((least / step).floor(), (most / step).ceil());
    let (least, most) = if is_fixed { (least, most) } else { (first * step, last * step) };
    let slack = step * 1e-6;
    let marks = (0..=(last - first) as i64).map(|number| (first + number as f64) * step);
    let marks = marks.filter(|mark| (least - slack..=most + slack).contains(mark));
    Ruler {
        scale: Scale::Linear,
        least,
        most,
        marks: marks.map(|mark| (mark, number(mark))).collect(),
        fine: Vec::new(),
    }
}

fn log(least: f64, most: f64, is_fixed: bool) -> Ruler {
    let (first, last) = ((least * 1.000_001).log10().floor() as i32, (most * 0.999_999).log10().floor() as i32);
    let steps: Vec<(u8, f64)> = (first..=last + 1)
        .flat_map(|decade| (1..10).map(move |digit| (digit, f64::from(digit) * 10_f64.powi(decade))))
        .collect();
    let is_round = |digit: u8| matches!(digit, 1 | 2 | 5);
    let (least, most) = if is_fixed {
        (least, most)
    } else {
        let round = || steps.iter().filter(|(digit, _)| is_round(*digit)).map(|(_, value)| *value);
        let below = round().rfind(|value| *value <= least * 1.000_001).unwrap_or(least);
        (below, round().find(|value| *value >= most * 0.999_999).unwrap_or(most))
    };
    let within = |value: f64| (least * 0.999_999..=most * 1.000_001).contains(&value);
    let is_long = most / least > 1000.0;
    let is_marked = |digit: u8| digit == 1 || (!is_long && is_round(digit));
    let all = || steps.iter().filter(|(_, value)| within(*value));
    let marks = all().filter(|(digit, _)| is_marked(*digit)).map(|(_, value)| (*value, number(*value))).collect();
    let fine = all().filter(|(digit, _)| !is_marked(*digit)).map(|(_, value)| *value).collect();
    Ruler { scale: Scale::Log, least, most, marks, fine }
}

/// The next of 1, 2, 2.5, 5, 10 times a power of ten.
fn round_up(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    [1.0, 2.0, 2.5, 5.0]
        .map(|digit| digit * power)
        .into_iter()
        .find(|round| *round >= step * 0.999_999)
        .unwrap_or(10.0 * power)
}

/// A number as people write it: no more digits than it takes, thousands apart.
pub(super) fn number(value: f64) -> String {
    let text = if value.abs() >= 1000.0 { format!("{value:.0}") } else { format!("{value:.6}") };
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    let (sign, text) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let grouped = whole.char_indices().map(|(at, digit)| {
        let comma = at > 0 && (whole.len() - at).is_multiple_of(3);
        if comma { format!(",{digit}") } else { digit.to_string() }
    });
    format!("{sign}{}{rest}", grouped.collect::<String>())
}

/// A number with about three digits.
pub(super) fn short_number(value: f64) -> String {
    let digits = if value.abs() >= 100.0 {
        0
    } else if value.abs() >= 10.0 {
        1
    } else {
        2
    };
    number(format!("{value:.digits$}").parse().expect("it was a number"))
}
