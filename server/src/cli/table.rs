//! Tables for people: columns as wide as their contents, figures to the right.

use std::fmt::Write as _;

/// How a column's cells are aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// Rows under a heading.
#[derive(Debug)]
pub(super) struct Table<const N: usize> {
    heading: [(&'static str, Align); N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(heading: [(&'static str, Align); N]) -> Self {
        Self {
            heading,
            rows: Vec::new(),
        }
    }

    /// Adds a row. Cells hold names that clients and configurations have chosen. So no character that would move the
    /// cursor reaches the terminal, and a line stays one line.
    pub(super) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| printable(&cell)));
    }

    /// The heading and the rows, each on a line of its own without white space at its end.
    pub(super) fn text(&self) -> String {
        let mut widths = self.heading.map(|(title, _)| title.chars().count());
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        self.line(&mut text, &widths, &self.heading.map(|(title, _)| title));
        for row in &self.rows {
            self.line(&mut text, &widths, row);
        }
        text
    }

    fn line<T: AsRef<str>>(&self, text: &mut String, widths: &[usize; N], cells: &[T; N]) {
        let mut line = String::new();
        for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
            let separator = if index > 0 { "  " } else { "" };
            let cell = cell.as_ref();
            // Writing to a string can't fail.
            let _ = match self.heading[index].1 {
                Align::Left => write!(line, "{separator}{cell:<width$}"),
                Align::Right => write!(line, "{separator}{cell:>width$}"),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

/// `text` with invisible characters and control characters escaped as in Rust and C.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\'' => shown.push(character),
            _ if character.is_alphanumeric() => shown.push(character),
            _ => shown.extend(character.escape_debug()),
        }
    }
    shown
}

/// An export's name. The default export's name is empty, and has to be visible all the same.
pub(super) fn name(name: &str) -> String {
    if name.is_empty() {
        "\"\"".to_owned()
    } else {
        name.to_owned()
    }
}

/// Bytes as a person reads them: three digits and a unit.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["K", "M", "G", "T", "P", "E"];
    if count < 1024 {
        return count.to_string();
    }
    let step = count.ilog2() / 10;
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let value = count as f64 / (1_u64 << (10 * step)) as f64;
    let unit = UNITS[step as usize - 1];
    let digits = usize::from(value < 10.0 && value.fract() != 0.0);
    format!("{value:.digits$}{unit}")
}

/// A share in percent, or nothing where there is no whole.
pub(super) fn percent(part: u64, whole: u64) -> String {
    match (u128::from(part) * 100).checked_div(u128::from(whole)) {
        Some(percent) => format!("{percent}%"),
        None => "-".to_owned(),
    }
}

/// So many of a thing, in good grammar: `1 rule`, `2 rules`.
pub(crate) fn counted(count: impl TryInto<u64>, thing: &str) -> String {
    match count.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {thing}"),
        count => format!("{count} {thing}s"),
    }
}

#[cfg(test)]
mod tests;
