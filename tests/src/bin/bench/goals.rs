//! What Weir is meant to reach, as ratios within a run, and whether it did.
//!
//! A missed goal is printed and doesn't fail the run. On a busy machine a ratio swings, and figures that must not swing
//! are counted instead (`count`).

use std::fmt::Write as _;

use serde::Serialize;

use crate::report::{Spread, ratio};
use crate::rounds::Sample;

/// Which figure of two contenders is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Figure {
    Throughput,
    /// The server's processor time per request.
    Processor,
}

impl Figure {
    pub(crate) fn of(self, sample: &Sample) -> Option<f64> {
        match self {
            // Bytes, because the raw sequential read has larger requests.
            Self::Throughput => Some(sample.bytes_per_second),
            Self::Processor => sample.processor_us_per_request,
        }
    }
}

/// Throughput is to be at least `bound` times the yardstick's, processor time at most.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Goal {
    load: &'static str,
    contender: &'static str,
    figure: Figure,
    yardstick: &'static str,
    bound: f64,
}

const fn throughput(load: &'static str, bound: f64, yardstick: &'static str) -> Goal {
    Goal {
        load,
        contender: "weir",
        figure: Figure::Throughput,
        yardstick,
        bound,
    }
}

const fn processor(load: &'static str, bound: f64, yardstick: &'static str) -> Goal {
    Goal {
        load,
        contender: "weir",
        figure: Figure::Processor,
        yardstick,
        bound,
    }
}

const GOALS: [Goal; 18] = [
    processor("read-qd1", 1.15, "ceiling"),
    throughput("read", 0.80, "ceiling"),
    throughput("read", 2.0, "nbdkit-memory"),
    processor("read", 1.3, "ceiling"),
    throughput("write", 0.75, "ceiling"),
    throughput("write", 2.0, "nbdkit-memory"),
    throughput("mixed", 0.80, "ceiling"),
    throughput("mixed", 2.0, "nbdkit-memory"),
    throughput("read-large", 0.85, "ceiling"),
    throughput("write-large", 0.85, "ceiling"),
    throughput("read-x4", 0.9, "tokio-loop"),
    throughput("read-x4", 0.70, "ceiling"),
    throughput("write-flush", 2.0, "nbdkit-file"),
    throughput("cold-read", 0.85, "raw-uring"),
    throughput("cold-sequential", 0.9, "raw-uring"),
    throughput("overflow", 0.8, "raw-uring"),
    // Armed fault machinery with nothing that matches.
    Goal {
        contender: "weir-armed",
        ..throughput("read", 0.98, "weir")
    },
    Goal {
        contender: "weir-armed",
        ..processor("read", 1.02, "weir")
    },
];

/// A goal and what came of it over one transport.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Verdict {
    transport: String,
    #[serde(flatten)]
    goal: Goal,
    measured: Spread,
    met: bool,
}

/// The verdicts on all goals that `samples` can decide.
pub(crate) fn verdicts(samples: &[Sample]) -> Vec<Verdict> {
    let mut transports: Vec<&str> = samples
        .iter()
        .map(|sample| sample.transport.as_str())
        .collect();
    transports.dedup();
    let mut verdicts = Vec::new();
    for transport in transports {
        for goal in &GOALS {
            let here: Vec<&Sample> = samples
                .iter()
                .filter(|sample| sample.transport == transport && sample.load == goal.load)
                .collect();
            if let Some(measured) = ratio(&here, goal.contender, goal.yardstick, goal.figure) {
                let met = match goal.figure {
                    Figure::Throughput => measured.median >= goal.bound,
                    Figure::Processor => measured.median <= goal.bound,
                };
                verdicts.push(Verdict {
                    transport: transport.to_owned(),
                    goal: *goal,
                    measured,
                    met,
                });
            }
        }
    }
    verdicts
}

/// The verdicts as text; empty if there are none.
pub(crate) fn table(verdicts: &[Verdict]) -> String {
    let mut text = String::new();
    if !verdicts.is_empty() {
        text.push_str("\ngoals\n");
    }
    for Verdict {
        transport,
        goal,
        measured,
        met,
    } in verdicts
    {
        let (figure, side) = match goal.figure {
            Figure::Throughput => ("throughput", ">="),
            Figure::Processor => ("cpu", "<="),
        };
        let _infallible = writeln!(
            text,
            "  {:<6} {transport:<5} {:<11} {:<16} {figure:<10} {:.2} ({:.2}..{:.2}) of {:<14} {side} {:.2}",
            if *met { "met" } else { "MISSED" },
            goal.contender,
            goal.load,
            measured.median,
            measured.least,
            measured.greatest,
            goal.yardstick,
            goal.bound
        );
    }
    text
}

#[cfg(test)]
mod tests;
