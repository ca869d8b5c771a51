//! The file of limits: a load, its system calls and its instructions per request on a line; `#` starts a comment.

/// What one request of a load may cost.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Limit {
    load: String,
    pub(super) system_calls: f64,
    pub(super) instructions: f64,
}

/// The limits of every load.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Limits(Vec<Limit>);

impl Limits {
    /// Anything that isn't understood is an error: a limit that is skipped would pass for ever.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut limits = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let limit =
                parse_line(line).ok_or_else(|| format!("line {number} of the limits: {line}"))?;
            limits.push(limit);
        }
        Ok(Self(limits))
    }

    pub(super) fn of(&self, load: &str) -> Option<&Limit> {
        self.0.iter().find(|limit| limit.load == load)
    }
}

fn parse_line(line: &str) -> Option<Limit> {
    let [load, system_calls, instructions] = line
        .split_whitespace()
        .collect::<Vec<_>>()
        .try_into()
        .ok()?;
    let number = |text: &str| {
        text.parse()
            .ok()
            .filter(|value: &f64| value.is_finite() && *value >= 0.0)
    };
    Some(Limit {
        load: load.to_owned(),
        system_calls: number(system_calls)?,
        instructions: number(instructions)?,
    })
}
