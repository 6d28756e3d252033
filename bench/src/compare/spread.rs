//! Figures of several rounds as one: the median, and how far they lie apart.
//!
//! The rule: a ratio is taken round by round, of two runs that stood next to each other in time, and only then are rounds
//! put together: what slowed the machine for a while slowed both.
//!
//! Not here: what the figures are (`report`).

use std::fmt;

use serde::Serialize;

/// Several measurements of one thing.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Spread {
    /// The one in the middle, or the mean of the two that are.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

impl Spread {
    /// `None` if there are none, or if one is no number.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (Some(&least), Some(&most)) = (sorted.first(), sorted.last()) else { return None };
        let middle = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) };
        sorted.iter().all(|value| value.is_finite()).then_some(Self { median, least, most })
    }

    /// The ratios of two series, round by round. `None` if one of them is no number, as where `theirs` is 0.
    pub(crate) fn of_ratios(ours: &[f64], theirs: &[f64]) -> Option<Self> {
        assert_eq!(ours.len(), theirs.len(), "every round has two sides");
        Self::of(&ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect::<Vec<_>>())
    }

    /// With each number in the form that `show` gives it.
    pub(crate) fn shown(&self, show: impl Fn(f64) -> String) -> String {
        let Self { median, least, most } = self;
        format!("{} ({} to {})", show(*median), show(*least), show(*most))
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Small ratios have as many figures as large ones.
        f.write_str(&self.shown(|value| if value < 0.1 { format!("{value:.4}") } else { format!("{value:.2}") }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(values: &[f64]) -> Option<(f64, f64, f64)> {
        Spread::of(values).map(|Spread { median, least, most }| (median, least, most))
    }

    #[test]
    fn the_middle_and_the_ends() {
        assert_eq!(spread(&[3.0, 1.0, 9.0]), Some((3.0, 1.0, 9.0)));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 9.0]), Some((3.0, 1.0, 9.0)));
        assert_eq!(spread(&[5.0]), Some((5.0, 5.0, 5.0)));
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[1.0, f64::NAN]), None);
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        // The machine was half as fast in the second round: the ratio is the same.
        let ratio = Spread::of_ratios(&[200.0, 100.0, 220.0], &[100.0, 50.0, 100.0]).unwrap();
        assert_eq!(ratio, Spread { median: 2.0, least: 2.0, most: 2.2 });
        assert_eq!(Spread::of_ratios(&[1.0, 1.0], &[1.0, 0.0]), None);
        assert_eq!(ratio.to_string(), "2.00 (2.00 to 2.20)");
        assert_eq!(Spread::of(&[0.012]).unwrap().to_string(), "0.0120 (0.0120 to 0.0120)");
    }
}
