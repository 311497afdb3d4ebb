//! What goes wrong on a host: programs are killed, the agent is, the ring buffer overflows, processes come and go by the thousand,
//! descriptors and ports are used again. What the agent tells then is right, and what it can't tell is counted.

pub(crate) mod killed;
mod many;
mod overflow;

use std::collections::HashSet;
use std::time::Duration;

use celeryscope_core::{Span, SpanKind};

use crate::rig::Scene;
use crate::rig::process::Process;
use crate::support::compare::{int, publish_id, span_label, text, trace_id};
use crate::support::truth::Truth;

/// For all messages to be dealt with.
const LIMIT: Duration = Duration::from_secs(60);
/// How far a run's start and end may be from the truth where the best evidence of it may be among what was lost.
const NEAR: f64 = 0.1;

/// Runs a program of the workload to its good end.
fn run_to_its_end(scene: &Scene, module: &str, arguments: &[&str]) {
    let mut command = scene.python();
    command.args(["-m", module]).args(arguments);
    let mut process = Process::spawn(module, &command, scene.folder(), None);
    let status = process.wait(LIMIT);
    assert!(
        status.is_some_and(|status| status.success()),
        "{module}'s end: {status:?}: {}",
        process.log()
    );
}

/// Whatever is missing, each span is of a publish or of a run that took place: by its process where that is said, in its trace, under its parent, in its
/// time, with its outcome or none; and none is there twice.
fn nothing_is_wrong(spans: &[Span], truth: &Truth) {
    let mut seen = HashSet::new();
    let wrong: Vec<String> = spans
        .iter()
        .filter(|span| !seen.insert(span.span_id) || !is_true(span, truth))
        .map(span_label)
        .collect();
    assert!(wrong.is_empty(), "{} spans are wrong: {wrong:#?}", wrong.len());
}

fn is_true(span: &Span, truth: &Truth) -> bool {
    let id = text(span, "messaging.message.id");
    let retries = int(span, "celery.retry_count");
    let pid = int(span, "process.pid");
    let (start, end) = (span.start.0 as f64 / 1e9, span.end.0 as f64 / 1e9);
    let mut sent = truth
        .publishes()
        .filter(|(task, publish)| Some(task.id.as_str()) == id && Some(publish.retries) == retries);
    let mut ran = truth.runs().filter(|(task, run)| {
        Some(task.id.as_str()) == id
            && Some(run.retries) == retries
            && pid.is_none_or(|pid| pid == i64::from(run.pid))
    });
    sent.any(|(task, publish)| {
        let its = (span.trace_id, publish_id(task, publish));
        let at = (trace_id(publish), span.span_id);
        match span.kind {
            SpanKind::Publish => {
                at == its
                    && pid == Some(i64::from(publish.pid))
                    && start >= publish.before - NEAR
                    && end <= publish.after + NEAR
            }
            SpanKind::Run => {
                at.0 == its.0
                    && span.parent == Some(its.1)
                    && ran.any(|(_, run)| {
                        let state = text(span, "celery.state");
                        let until = run.end.unwrap_or(f64::INFINITY) + NEAR;
                        start >= run.start - NEAR
                            && start <= until
                            && (state.is_none() || (state == run.state.as_deref() && end <= until))
                    })
            }
        }
    })
}
