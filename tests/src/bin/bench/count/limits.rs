//! The file of limits: a load, its system calls, instructions and allocations per request on a line; `#` starts a
//! comment.

use std::collections::HashMap;

use super::Cost;

/// The limits of every load.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Limits(HashMap<String, Cost>);

impl Limits {
    /// Anything that isn't understood is an error: a limit that is skipped would pass for ever.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut limits = HashMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let (load, limit) =
                parse_line(line).ok_or_else(|| format!("line {number} of the limits: {line}"))?;
            if limits.insert(load.to_owned(), limit).is_some() {
                return Err(format!("line {number} of the limits: {load} again"));
            }
        }
        Ok(Self(limits))
    }

    pub(super) fn of(&self, load: &str) -> Option<Cost> {
        self.0.get(load).copied()
    }
}

fn parse_line(line: &str) -> Option<(&str, Cost)> {
    let (load, figures) = line.split_once(char::is_whitespace)?;
    let figures: Vec<f64> = figures
        .split_whitespace()
        .map(|text| text.parse().ok())
        .collect::<Option<_>>()?;
    let [system_calls, instructions, allocations] = figures.try_into().ok()?;
    let limit = Cost {
        system_calls,
        instructions,
        allocations,
    };
    limit
        .figures()
        .iter()
        .all(|figure| figure.is_finite() && *figure >= 0.0)
        .then_some((load, limit))
}
