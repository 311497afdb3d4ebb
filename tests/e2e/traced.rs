//! Messages that carry a trace context: the agent's spans join the application's own trace.

use std::collections::HashSet;
use std::time::Duration;

use celeryscope_core::SpanKind;

use crate::check;
use crate::on_brokers::on_brokers;
use crate::rig::agent::Left;
use crate::rig::worker::Options;
use crate::rig::{Agent, Broker, Publisher, Scene, Worker};

/// Ids of trace and span of all that the application exported itself.
fn application_spans(scene: &Scene) -> HashSet<(String, String)> {
    let mut found = HashSet::new();
    for entry in std::fs::read_dir(scene.folder()).expect("the test's folder") {
        let path = entry.expect("a file of the test").path();
        let ours = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("app-spans-"));
        if !ours {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("the application's spans");
        for line in text.lines() {
            let span: serde_json::Value = serde_json::from_str(line).expect("a span of the application");
            let id = |key: &str| span[key].as_str().expect("an id").to_owned();
            found.insert((id("trace"), id("span")));
        }
    }
    found
}

fn run(broker: Broker, name: &str, producer: bool, worker_too: bool) {
    let Some(scene) = Scene::set_on(broker, name, "otel") else {
        return;
    };
    let agent = Agent::start(scene.folder(), "agent", &scene.ports(), &["--stats"]);
    let options = Options {
        include: if worker_too {
            vec!["lives", "tracing"]
        } else {
            vec!["lives"]
        },
        ..Options::default()
    };
    let worker = Worker::start(&scene, "w1", &options);
    let module = if producer { "traced_publisher" } else { "publisher" };
    let mut publisher = Publisher::start_module(&scene, "publisher", module);
    for scenario in [
        "simple 3",
        "chained",
        "retries",
        "nesting 2",
        "chords 2",
        "failures 1",
    ] {
        publisher.publish(scenario);
    }
    scene.settle(Duration::from_secs(30));
    drop(worker);
    let left = agent.stop();
    check::all_is_told(&scene, &left, &check::few_runs());
    let application = application_spans(&scene);
    let own: HashSet<_> = left.spans.iter().map(|span| span.span_id).collect();
    let mut joined = 0;
    for span in left.spans.iter().filter(|span| span.kind == SpanKind::Publish) {
        let Some(parent) = span.parent.filter(|parent| !own.contains(parent)) else {
            continue;
        };
        joined += 1;
        let parent = (span.trace_id.to_string(), parent.to_string());
        assert!(
            application.contains(&parent),
            "a parent that nobody exported: {span:?}"
        );
    }
    assert!(
        joined >= 8,
        "{joined} publishes have a span of the application as their parent"
    );
}

/// Scenario: only the client is instrumented by OpenTelemetry.
/// Guarantees: each publish of the client is in the client's trace under its span; what tasks send hangs on their runs.
fn producer_instrumented(broker: Broker) {
    run(broker, "otel-producer", true, false);
}
on_brokers!(producer_instrumented: redis, rabbitmq);

/// Scenario: only the worker is instrumented.
/// Guarantees: what tasks send is in the application's trace, under its span.
fn worker_instrumented(broker: Broker) {
    run(broker, "otel-worker", false, true);
}
on_brokers!(worker_instrumented: redis, rabbitmq);

/// Scenario: both sides are instrumented.
/// Guarantees: all spans of the agent are in the application's traces.
fn both_instrumented(broker: Broker) {
    run(broker, "otel-both", true, true);
}
on_brokers!(both_instrumented: redis, rabbitmq);

/// Scenario: clients that send trace contexts by hand: traceparent with tracestate and baggage, B3's single header, B3's
/// several headers; half of the tasks retry and carry a stale one.
/// Guarantees: spans join the named traces; a stale context does not hide the run that asked for the retry; neither
/// tracestate nor baggage is an attribute.
fn contexts_sent_by_hand(broker: Broker) {
    let Some((scene, left)) = by_hand(broker, "contexts", &["contexts"]) else {
        return;
    };
    check::all_is_told(&scene, &left, &check::few_runs());
    for span in &left.spans {
        assert!(!format!("{:?}", span.attributes).contains("hidden"), "{span:?}");
    }
}
on_brokers!(contexts_sent_by_hand: redis, rabbitmq);

/// Scenario: one call whose traceparent says that it is not sampled, one call with none.
/// Guarantees: only the second is exported.
fn unsampled_context(broker: Broker) {
    let Some((_scene, left)) = by_hand(broker, "unsampled", &["unsampled", "simple 1"]) else {
        return;
    };
    assert_eq!(left.spans.len(), 2, "{:?}", left.spans);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    assert!(left.spans.iter().all(|span| span.trace_id.to_string() != trace));
}
on_brokers!(unsampled_context: redis, rabbitmq);

fn by_hand(broker: Broker, name: &str, scenarios: &[&str]) -> Option<(Scene, Left)> {
    let scene = Scene::set_on(broker, name, "celery57")?;
    let agent = Agent::start(scene.folder(), "agent", &scene.ports(), &["--stats"]);
    let worker = Worker::start(&scene, "w1", &Options::default());
    let mut publisher = Publisher::start(&scene, "publisher");
    for scenario in scenarios {
        publisher.publish(scenario);
    }
    scene.settle(Duration::from_secs(20));
    drop(worker);
    let left = agent.stop();
    Some((scene, left))
}
