//! The whole core.

use celeryscope_core::common::{Kind, Record};
use celeryscope_core::time::Mono;
use celeryscope_core::{Config, Limits, Output, Pipeline};

use super::invariants::{Put, holds, over};
use super::records::{Step, steps};
use super::tight;

/// Records of all kinds in any order: counters add up and caps are kept after each, every span is sound, none is made of
/// nothing, and the same records say the same again.
pub fn pipeline(data: &[u8]) {
    let steps = steps(data);
    for limits in [tight(), Limits::default()] {
        let said = run(&steps, &limits);
        assert_eq!(run(&steps, &limits), said, "another time, another answer");
    }
}

fn run(steps: &[Step<'_>], limits: &Limits) -> Vec<Output> {
    let mut pipeline = Pipeline::new(Config {
        limits: limits.clone(),
        ..Config::default()
    });
    let mut put = Put::default();
    let mut said = Vec::new();
    // Whether anything was sent, and whether any bytes at all have been seen.
    let (mut sent, mut seen) = (false, false);
    for (at, step) in steps.iter().enumerate() {
        match step {
            Step::Pass(now) => pipeline.advance(Mono(*now)),
            Step::Record(kind, header, payload) => {
                let bytes = !payload.is_empty();
                sent |= bytes && *kind == Kind::Send;
                seen |= bytes && matches!(kind, Kind::Send | Kind::Recv | Kind::PipeRead | Kind::PipeWrite);
                pipeline.feed(&Record::new(*kind, *header, payload));
            }
        }
        said.extend(put.drain(&mut pipeline));
        assert!(
            put.publishes == 0 || sent,
            "a publish that nobody sent: {said:#?}"
        );
        assert!(put.runs == 0 || seen, "a run that nobody told of: {said:#?}");
        holds(
            &pipeline.stats(),
            &pipeline.held(),
            put,
            &format!("after step {at}"),
        );
    }
    pipeline.finish();
    said.extend(put.drain(&mut pipeline));
    over(&pipeline.stats(), &pipeline.held(), put);
    said
}
