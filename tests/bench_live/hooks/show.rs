//! The tables.

use super::BACK_ENDS;
use super::measure::Measured;
use crate::rig::report::{say, table};

/// The situation in which bytes are copied; in all others none are.
pub(super) const MATCHED: &str = "a watched connection";

/// The hook that returns at once: one look at an argument tells that nothing is to be done.
const FLOOR: (&str, &str) = ("fcntl F_GETFD", "enter_fcntl");

/// ns that a send or a receive may cost, entry and return together.
fn target(of: &Measured) -> Option<f64> {
    if !of.call.starts_with("TCP") {
        return None;
    }
    match (of.situation, of.back_end) {
        (MATCHED, _) => Some(1000.0),
        (_, "fentry") => Some(60.0),
        (_, "tracepoint") => Some(120.0),
        _ => None,
    }
}

/// ns of the hook that returns at once, where a back end that has it was measured.
fn floor(measured: &[Measured]) -> Option<f64> {
    let (call, hook) = FLOOR;
    let of_call = measured.iter().find(|of| of.call == call)?;
    let mut hooks = of_call.hooks.iter();
    hooks.find(|(name, _)| name == hook).map(|(_, time)| *time)
}

/// What each hook takes, and each call.
pub(super) fn times(measured: &[Measured]) {
    let mut rows = Vec::new();
    for of in measured {
        let row = |(hook, time): &(String, f64)| {
            let texts = [of.back_end, of.situation, of.call, hook].map(str::to_owned);
            [&texts[..], &[of.events.to_string(), format!("{time:.0}")]].concat()
        };
        rows.extend(of.hooks.iter().map(row));
    }
    let head = ["back end", "who calls", "call", "hook", "events", "ns"];
    table("What each hook costs (medians of batches)", &head, &rows);

    let floor = floor(measured);
    let rows: Vec<_> = measured.iter().map(|of| of_call(of, floor)).collect();
    let head = [
        "back end",
        "who calls",
        "call of 1 KiB",
        "ns, all hooks",
        "less a floor for each",
        "target",
    ];
    table("What a call costs, entry and return together", &head, &rows);
    if let Some(floor) = floor {
        say(&format!(
            "  floor: {floor:.0} ns, what {} takes, which returns at once: nearly all of it is the measuring",
            FLOOR.1
        ));
    }
}

fn of_call(of: &Measured, floor: Option<f64>) -> Vec<String> {
    let less = floor.map(|floor| of.sum - floor * of.hooks.len() as f64);
    let target = target(of).map_or_else(String::new, |target| {
        let met = if of.sum <= target {
            "met"
        } else if less.is_some_and(|less| less <= target) {
            "met less the floor"
        } else {
            "MISSED"
        };
        format!("{target:.0}: {met}")
    });
    vec![
        of.back_end.to_owned(),
        of.situation.to_owned(),
        of.call.to_owned(),
        format!("{:.0}", of.sum),
        less.map_or_else(|| "-".to_owned(), |less| format!("{less:.0}")),
        target,
    ]
}

/// How the back ends stand to each other, where times mean nothing.
pub(super) fn ratios(measured: &[Measured]) {
    let of_last = measured.iter().filter(|of| of.back_end == BACK_ENDS[2]);
    let row = |last: &Measured| {
        let of = |back_end: &&str| {
            let is_it = |of: &&Measured| {
                (of.back_end, of.situation, of.call) == (*back_end, last.situation, last.call)
            };
            let found = measured.iter().find(is_it);
            found.map_or_else(|| "-".to_owned(), |of| format!("{:.2}", of.sum / last.sum))
        };
        let floor =
            floor(measured).map_or_else(|| "-".to_owned(), |floor| format!("{:.2}", floor / last.sum));
        let ratios = BACK_ENDS.iter().map(of);
        let texts = [last.situation.to_owned(), last.call.to_owned()];
        texts.into_iter().chain(ratios).chain([floor]).collect()
    };
    let rows: Vec<Vec<String>> = of_last.map(row).collect();
    let head = [
        &["who calls", "call of 1 KiB"][..],
        &BACK_ENDS,
        &["floor of a hook"],
    ];
    table(
        "What a call costs by each back end, as a ratio to the tracepoint back end (-: no hook runs)",
        &head.concat(),
        &rows,
    );
}
