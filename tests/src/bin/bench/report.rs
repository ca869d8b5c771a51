//! Medians over rounds, ratios within rounds, and the table that shows them.

use std::fmt::Write as _;

use serde::Serialize;

use crate::goals::Figure;
use crate::load::{Load, Temperature};
use crate::rounds::Sample;

/// A median and how far the rounds lie apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

impl Spread {
    /// Of at least one value.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let middle = values.len() / 2;
        let (least, greatest) = (*values.first()?, *values.last()?);
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self {
            median,
            least,
            greatest,
        })
    }
}

/// A contender's line under one load.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) contender: &'static str,
    pub(crate) requests_per_second: Spread,
    pub(crate) megabytes_per_second: f64,
    pub(crate) processor_us_per_request: Option<f64>,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Throughput as a share of each yardstick's in the same round.
    pub(crate) ratios: Vec<Option<Spread>>,
    /// Processor time per request over that of the first yardstick.
    pub(crate) processor_ratio: Option<Spread>,
}

/// All contenders under one load over one transport.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Group {
    pub(crate) transport: String,
    pub(crate) load: &'static str,
    pub(crate) title: &'static str,
    pub(crate) yardsticks: Vec<&'static str>,
    pub(crate) rows: Vec<Row>,
}

/// The contenders that a load is measured against.
const fn yardsticks(load: &Load) -> [&'static str; 5] {
    match load.temperature {
        Temperature::Hot => ["ceiling", "tokio-loop", "nbdkit-memory", "baseline", "weir"],
        _ => [
            "raw-uring",
            "raw-threads",
            "nbdkit-file",
            "baseline",
            "weir",
        ],
    }
}

/// One group for each transport and load that has samples, in the order of `loads`.
pub(crate) fn groups(samples: &[Sample], loads: &[&'static Load]) -> Vec<Group> {
    let mut transports: Vec<&str> = samples
        .iter()
        .map(|sample| sample.transport.as_str())
        .collect();
    transports.dedup();
    let mut groups = Vec::new();
    for transport in transports {
        for load in loads {
            let here: Vec<&Sample> = samples
                .iter()
                .filter(|sample| sample.transport == transport && sample.load == load.name)
                .collect();
            if !here.is_empty() {
                groups.push(group(transport, load, &here));
            }
        }
    }
    groups
}

fn group(transport: &str, load: &'static Load, samples: &[&Sample]) -> Group {
    let mut contenders: Vec<&'static str> = Vec::new();
    for sample in samples {
        if !contenders.contains(&sample.contender) {
            contenders.push(sample.contender);
        }
    }
    // The first round's order is the order of the contenders.
    let yardsticks: Vec<&'static str> = yardsticks(load)
        .into_iter()
        .filter(|name| contenders.contains(name))
        // Weir is a yardstick for itself with the fault machinery armed only.
        .filter(|name| *name != "weir" || contenders.contains(&"weir-armed"))
        .collect();
    let rows = contenders
        .iter()
        .map(|contender| row(contender, samples, &yardsticks))
        .collect();
    Group {
        transport: transport.to_owned(),
        load: load.name,
        title: load.title,
        yardsticks,
        rows,
    }
}

fn row(contender: &'static str, samples: &[&Sample], yardsticks: &[&'static str]) -> Row {
    let mine: Vec<&&Sample> = samples
        .iter()
        .filter(|sample| sample.contender == contender)
        .collect();
    let median = |figure: &dyn Fn(&Sample) -> f64| {
        Spread::of(mine.iter().map(|sample| figure(sample)))
            .map_or(f64::NAN, |spread| spread.median)
    };
    Row {
        contender,
        requests_per_second: Spread::of(mine.iter().map(|sample| sample.requests_per_second))
            .expect("has samples"),
        megabytes_per_second: median(&|sample| sample.bytes_per_second / 1e6),
        processor_us_per_request: Spread::of(
            mine.iter()
                .filter_map(|sample| sample.processor_us_per_request),
        )
        .map(|spread| spread.median),
        p50_us: median(&|sample| sample.p50_us),
        p99_us: median(&|sample| sample.p99_us),
        ratios: yardsticks
            .iter()
            .map(|yardstick| ratio(samples, contender, yardstick, Figure::Throughput))
            .collect(),
        processor_ratio: yardsticks
            .first()
            .and_then(|yardstick| ratio(samples, contender, yardstick, Figure::Processor)),
    }
}

/// A contender's figure over a yardstick's, round by round; none if they share no round.
pub(crate) fn ratio(
    samples: &[&Sample],
    contender: &str,
    yardstick: &str,
    figure: Figure,
) -> Option<Spread> {
    let of = |name: &str, round: u32| {
        let sample = samples
            .iter()
            .find(|sample| sample.contender == name && sample.round == round)?;
        figure.of(sample)
    };
    Spread::of(
        samples
            .iter()
            .filter(|sample| sample.contender == contender)
            .filter_map(|sample| Some(figure.of(sample)? / of(yardstick, sample.round)?)),
    )
}

/// Whole microseconds; a raw reference that another program measured has none.
fn latency(microseconds: f64) -> String {
    if microseconds > 0.0 {
        format!("{microseconds:.0}")
    } else {
        "-".into()
    }
}

/// The groups as text.
pub(crate) fn table(groups: &[Group]) -> String {
    let mut text = String::new();
    for group in groups {
        let _infallible = write!(
            text,
            "\n{}, {}\n{:<16}{:>11}{:>9}{:>9}{:>7}{:>9}{:>9}",
            group.title,
            group.transport,
            "",
            "requests/s",
            "MB/s",
            "cpu us",
            "ratio",
            "p50 us",
            "p99 us"
        );
        for yardstick in &group.yardsticks {
            let _infallible = write!(text, "{:>20}", format!("of {yardstick}"));
        }
        text.push('\n');
        for row in &group.rows {
            let processor = row
                .processor_us_per_request
                .map_or_else(|| "-".into(), |figure| format!("{figure:.2}"));
            let processor_ratio = row
                .processor_ratio
                .map_or_else(|| "-".into(), |ratio| format!("{:.2}", ratio.median));
            let _infallible = write!(
                text,
                "{:<16}{:>11.0}{:>9.0}{processor:>9}{processor_ratio:>7}{:>9}{:>9}",
                row.contender,
                row.requests_per_second.median,
                row.megabytes_per_second,
                latency(row.p50_us),
                latency(row.p99_us)
            );
            for ratio in &row.ratios {
                let cell = ratio.map_or_else(
                    || "-".into(),
                    |ratio| {
                        format!(
                            "{:.2} ({:.2}..{:.2})",
                            ratio.median, ratio.least, ratio.greatest
                        )
                    },
                );
                let _infallible = write!(text, "{cell:>20}");
            }
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests;
