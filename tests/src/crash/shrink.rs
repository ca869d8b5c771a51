//! Makes a failing plan small: takes out everything that it also fails without.

use std::time::{Duration, Instant};

use super::plan::{Action, Plan, Step};
use super::run::{Failure, run};

/// How long it tries. A run that waits for ever takes longer than most.
const TIME_MAX: Duration = Duration::from_secs(60);

/// How the plan fails, for people: with the seed to play it again, and made smaller if possible.
#[must_use]
pub fn report(plan: &Plan, failure: Failure) -> String {
    let replay = format!(
        "WEIR_CRASH_SEED={} fails: {failure}\n(WEIR_CRASH_SEED={} cargo test -p weir-tests --test crash plays it again)",
        plan.seed, plan.seed
    );
    match failure {
        // Each attempt would take that long, and leave a busy thread behind.
        Failure::Hangs => format!("{replay}\n{}", describe(plan)),
        Failure::Broken(error) => {
            let (smallest, error) = shrink(plan, error);
            format!(
                "{replay}\n\nmade smaller:\n{}\n{error}",
                describe(&smallest)
            )
        }
    }
}

/// The smallest failing plan found, and how it fails; `error` says how `plan` fails.
fn shrink(plan: &Plan, error: String) -> (Plan, String) {
    let mut smallest = (plan.clone(), error);
    let begun = Instant::now();
    loop {
        let before = size(&smallest.0);
        let mut chunk = smallest.0.steps().max(1);
        while chunk > 0 {
            let mut at = 0;
            while at < size(&smallest.0) {
                if begun.elapsed() > TIME_MAX {
                    return smallest;
                }
                let candidate = without(&smallest.0, at..at + chunk);
                match run(&candidate) {
                    Err(Failure::Broken(error)) => smallest = (candidate, error),
                    Ok(_) | Err(Failure::Hangs) => at += chunk,
                }
            }
            chunk /= 2;
        }
        if size(&smallest.0) == before {
            return smallest;
        }
    }
}

/// Everything that can be taken out: steps, rules, points.
fn size(plan: &Plan) -> usize {
    let faults = plan
        .phases
        .iter()
        .map(|phase| phase.rules.len() + phase.points.len());
    plan.steps() + faults.sum::<usize>()
}

fn without(plan: &Plan, gone: std::ops::Range<usize>) -> Plan {
    let mut plan = plan.clone();
    let mut number = 0..;
    let mut kept = || !gone.contains(&number.next().expect("endless"));
    for phase in &mut plan.phases {
        for client in &mut phase.clients {
            client.retain(|_| kept());
        }
        phase.rules.retain(|_| kept());
        phase.points.retain(|_| kept());
    }
    plan
}

/// A plan for people to read.
#[must_use]
pub fn describe(plan: &Plan) -> String {
    use std::fmt::Write as _;
    let mut text = format!(
        "seed {}, {} bytes, cache {} bytes, {:?}, direct from {:?}\n",
        plan.seed, plan.size, plan.cache_bytes, plan.mode, plan.direct_threshold
    );
    for (number, phase) in plan.phases.iter().enumerate() {
        let end = phase.cut.map_or("in peace".to_owned(), |cut| {
            format!(
                "with a cut after {:?}, {}, let go: {}",
                cut.after, cut.options, cut.let_go
            )
        });
        writeln!(text, "phase {number}, ends {end}").expect("a string takes all");
        for fault in phase.rules.iter().chain(&phase.points) {
            writeln!(text, "  fault: {fault}").expect("a string takes all");
        }
        for (client, steps) in phase.clients.iter().enumerate() {
            for step in steps {
                writeln!(text, "  client {client}: {}", of_step(step)).expect("a string takes all");
            }
        }
    }
    text
}

fn of_step(step: &Step) -> String {
    let Step {
        pause,
        action,
        patience,
    } = step;
    let patience = patience.map_or(String::new(), |time| format!(", gives up after {time:?}"));
    let action = match action {
        Action::Write { range, direct, fua } => {
            let (direct, fua) = (
                if *direct { " direct" } else { "" },
                if *fua { " FUA" } else { "" },
            );
            format!("Write{direct}{fua} {range:?}")
        }
        other => format!("{other:?}"),
    };
    format!("after {pause:?} {action}{patience}")
}
