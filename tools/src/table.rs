//! What listings for people are made of: columns, sizes, durations, counts.
//!
//! Not here: JSON, which has the bare numbers.

/// In columns; the last cell of a row that has too few goes on over the columns that it lacks.
pub(crate) fn aligned(table: &[Vec<String>]) -> String {
    let columns = table[0].len();
    let width = |column: usize| {
        let rows = table.iter().filter(|row| row.len() == columns || column + 1 < row.len());
        rows.map(|row| row[column].chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in table {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// `text` in lines of at most `width` characters, each after `indent`.
pub(crate) fn wrapped(text: &str, width: usize, indent: &str) -> String {
    let (mut lines, mut line) = (String::new(), indent.to_owned());
    for word in text.split_whitespace() {
        let is_first = line == indent;
        if !is_first && line.chars().count() + 1 + word.chars().count() > width {
            lines += &format!("{line}\n");
            line = indent.to_owned() + word;
        } else {
            line = if is_first { line + word } else { line + " " + word };
        }
    }
    lines + &line + "\n"
}

pub(crate) fn size(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) => format!("{:.1} {unit}", bytes as f64 / (1_u64 << shift) as f64),
        None => format!("{bytes} B"),
    }
}

pub(crate) fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// A short time, given in microseconds.
pub(crate) fn micros(micros: u64) -> String {
    match micros {
        0..1000 => format!("{micros} µs"),
        1000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => format!("{:.1} s", micros as f64 / 1e6),
    }
}

/// "1 hint", "2 hints".
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Numbers in a row: the first few, then how many more there are.
pub(crate) fn listed(numbers: impl IntoIterator<Item = u16>) -> String {
    const SHOWN: usize = 8;
    let numbers: Vec<String> = numbers.into_iter().map(|number| number.to_string()).collect();
    let shown = numbers.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if numbers.len() > SHOWN { format!("{shown} and {} more", numbers.len() - SHOWN) } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_row_goes_on_over_the_columns_that_it_lacks() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        let table = [row(&["node", "keys", "disk"]), row(&["1", "12", "4 KiB"]), row(&["", "core 0 does not answer"])];
        assert_eq!(aligned(&table), "node  keys  disk\n1     12    4 KiB\n      core 0 does not answer\n");
    }

    #[test]
    fn long_text_is_broken_between_words() {
        assert_eq!(wrapped("one two three", 9, "# "), "# one two\n# three\n");
        assert_eq!(wrapped("incomprehensible", 9, "  "), "  incomprehensible\n");
        assert_eq!(wrapped("a\n b", 9, ""), "a b\n");
    }

    #[test]
    fn numbers_are_told_with_their_units() {
        assert_eq!([size(0), size(1023), size(1 << 10), size(3 << 29)], ["0 B", "1023 B", "1.0 KiB", "1.5 GiB"]);
        assert_eq!([duration(59), duration(3700), duration(90_000)], ["59s", "1h 1m", "1d 1h"]);
        assert_eq!([count(1, "hint", "hints"), count(0, "hint", "hints")], ["1 hint", "0 hints"]);
        assert_eq!([listed([1, 2]), listed(0..10)], ["1, 2", "0, 1, 2, 3, 4, 5, 6, 7 and 2 more"]);
    }
}
