//! What the user's options change about spans, on a recorded run with a retry.

mod support;

use std::collections::HashSet;

use celeryscope_core::{Config, Relation, Span, SpanKind, SpanStyle, Value};
use support::fixture::Fixture;
use support::{replay, replay_as};

fn spans(config: Config) -> Vec<Span> {
    replay_as(&Fixture::load("redis-retry").records, config).spans
}

fn text<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    match span.attribute(key) {
        Some(Value::Str(text)) => Some(text),
        _ => None,
    }
}

/// Scenario: `--relation link`.
/// Guarantees: each run is the root of a trace of its own and links to the publish that is its parent otherwise; no
/// span has a parent in another trace.
#[test]
fn link_instead_of_parent() {
    let usual = replay(&Fixture::load("redis-retry").records).spans;
    let linked = spans(Config {
        relation: Relation::Link,
        ..Config::default()
    });
    assert_eq!(usual.len(), linked.len());
    let mut traces = HashSet::new();
    for run in linked.iter().filter(|span| span.kind == SpanKind::Run) {
        let before = usual
            .iter()
            .find(|span| span.span_id == run.span_id)
            .expect("same ids");
        assert_eq!(run.parent, None);
        assert_eq!(
            (run.links[0].trace_id, Some(run.links[0].span_id)),
            (before.trace_id, before.parent)
        );
        assert!(traces.insert(run.trace_id), "a trace of its own");
    }
    for publish in linked.iter().filter(|span| span.kind == SpanKind::Publish) {
        assert!(!traces.contains(&publish.trace_id));
        assert_eq!(publish.parent, None);
        let asked_for = publish.attribute("celery.retry_count") != Some(&Value::Int(0));
        assert_eq!(
            publish.links.iter().any(|link| traces.contains(&link.trace_id)),
            asked_for
        );
    }
}

/// Scenario: `--span-style contrib`.
/// Guarantees: names and attributes of opentelemetry-instrumentation-celery; ids and times stay.
#[test]
fn names_of_the_instrumentation() {
    for span in spans(Config {
        style: SpanStyle::Contrib,
        ..Config::default()
    }) {
        let task = text(&span, "celery.task_name")
            .expect("the task's name")
            .to_owned();
        let action = if span.kind == SpanKind::Publish {
            "apply_async"
        } else {
            "run"
        };
        assert_eq!(*span.name, format!("{action}/{task}"));
        assert_eq!(text(&span, "celery.action"), Some(action));
        assert_eq!(text(&span, "messaging.destination"), Some("celery"));
        assert!(text(&span, "messaging.message.id").is_some());
        assert_eq!(span.attribute("messaging.system"), None);
    }
}

/// Scenario: `OTEL_SEMCONV_STABILITY_OPT_IN=messaging/dup`.
/// Guarantees: the old names stand beside today's, with the same values.
#[test]
fn old_and_new_names() {
    for span in spans(Config {
        old_names: true,
        ..Config::default()
    }) {
        assert_eq!(
            text(&span, "messaging.message_id"),
            text(&span, "messaging.message.id")
        );
        assert_eq!(
            text(&span, "messaging.destination"),
            text(&span, "messaging.destination.name")
        );
        assert_eq!(span.attribute("net.peer.port"), span.attribute("server.port"));
    }
}

/// Scenario: arguments are wanted, and not wanted.
/// Guarantees: shown, cut at 256 characters, only on request; never without.
#[test]
fn arguments_on_request() {
    let shown = replay_as(
        &Fixture::load("redis-bigbody").records,
        Config {
            capture_args: true,
            ..Config::default()
        },
    );
    let args: Vec<&str> = shown
        .spans
        .iter()
        .filter_map(|span| text(span, "celery.args"))
        .collect();
    assert_eq!(args.len(), shown.spans.len());
    assert!(args.iter().all(|args| args.chars().count() <= 257), "{args:?}");
    assert!(args.iter().any(|args| args.ends_with('…')));
    let secret: String = args
        .iter()
        .max_by_key(|args| args.len())
        .map_or("", |args| args)
        .chars()
        .take(40)
        .collect();
    let hidden = replay(&Fixture::load("redis-bigbody").records);
    assert!(
        hidden
            .spans
            .iter()
            .all(|span| !format!("{span:?}").contains(&secret)),
        "arguments leak"
    );
}
