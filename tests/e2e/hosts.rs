//! A worker and a client on different hosts, an agent on each: what the two tell apart fits together.

use std::collections::HashSet;
use std::time::Duration;

use celeryscope_core::{Span, SpanKind};

use crate::check;
use crate::rig::agent::Left;
use crate::rig::hosts::Hosts;
use crate::rig::redis::Redis;
use crate::rig::worker::Options;
use crate::rig::{Agent, Publisher, Scene, Worker, report};
use crate::support::compare::{Expect, int, text};

/// Task, attempt and name of a message.
fn message(span: &Span) -> (String, i64, String) {
    (
        text(span, "messaging.message.id")
            .expect("a message's id")
            .to_owned(),
        int(span, "celery.retry_count").expect("an attempt's number"),
        text(span, "celery.task_name").expect("a task's name").to_owned(),
    )
}

fn publishes(spans: &[Span]) -> impl Iterator<Item = &Span> {
    spans.iter().filter(|span| span.kind == SpanKind::Publish)
}

/// Scenario: two network namespaces with addresses of their own; worker and Redis in one, the client in the other; in each an
/// agent that watches its own host alone. Calls, chain, group, chord, nested calls, retries and failures.
/// Guarantees: the client's agent tells exactly the client's publishes and no run; the worker's agent tells all runs, and of
/// publishes exactly those that tasks sent; together they are the whole truth, each span once: every run that the client
/// asked for has the publish span of the other agent as its parent, in the same trace, though the agents never met.
#[test]
fn two_hosts_make_one_tree() {
    let Some(scene) = Scene::set("hosts", "celery57") else {
        return;
    };
    let hosts = Hosts::set();
    let redis = Redis::start_on_host(scene.folder(), &hosts.worker);
    let mut scene = scene.with_redis(redis);
    let port = scene.port();
    scene.go_to(&hosts.worker);
    let worker = Worker::start(&scene, "w1", &Options::default());
    // Both find the worker and its connections there; the client comes later.
    let worker_agent = Agent::start_on(&hosts.worker, scene.folder(), "agent-worker", port, &["--stats"]);
    let client_agent = Agent::start_on(
        &hosts.publisher,
        scene.folder(),
        "agent-client",
        port,
        &["--stats"],
    );
    scene.go_to(&hosts.publisher);
    let mut publisher = Publisher::start(&scene, "publisher");
    for scenario in [
        "simple 5",
        "chained",
        "grouped 4",
        "chorded 3",
        "nesting 3",
        "retries",
        "failures 2",
        "paced 20",
    ] {
        publisher.publish(scenario);
    }
    scene.settle(Duration::from_secs(30));
    drop((publisher, worker));
    let (client, worker) = (client_agent.stop(), worker_agent.stop());
    for left in [&client, &worker] {
        check::nothing_lost(left);
        let counters = check::counters(&left.log);
        let (foreign, not_copied) = (counters["captured_foreign"], counters["ignored"]);
        report::say(&format!(
            "{foreign} records of the other host, {not_copied} transfers not copied"
        ));
        assert!(
            foreign > 0,
            "nothing left out: the other host was not seen at all"
        );
        assert!(foreign < not_copied, "bytes of the other host go on being copied");
    }

    let truth = scene.whole_truth();
    let ran: HashSet<u32> = truth.runs().map(|(_, run)| run.pid).collect();
    let (mut by_tasks, mut by_client) = (HashSet::new(), HashSet::new());
    for (task, publish) in truth.publishes() {
        let sent = if ran.contains(&publish.pid) {
            &mut by_tasks
        } else {
            &mut by_client
        };
        sent.insert((task.id.clone(), publish.retries, publish.name.clone()));
    }
    assert!(
        by_client.len() > 30 && by_tasks.len() > 8,
        "the truth is too small"
    );
    assert_eq!(
        publishes(&client.spans).map(message).collect::<HashSet<_>>(),
        by_client
    );
    assert_eq!(
        publishes(&worker.spans).map(message).collect::<HashSet<_>>(),
        by_tasks
    );
    assert_eq!(
        publishes(&client.spans).count(),
        client.spans.len(),
        "no run here"
    );

    let sent: HashSet<_> = client
        .spans
        .iter()
        .map(|span| (span.trace_id, span.span_id))
        .collect();
    let joined = worker.spans.iter().filter(|span| span.kind == SpanKind::Run);
    let joined = joined
        .filter_map(|span| {
            span.parent
                .filter(|parent| sent.contains(&(span.trace_id, *parent)))
        })
        .collect::<HashSet<_>>();
    assert_eq!(
        joined.len(),
        sent.len(),
        "every publish of one host has its run on the other"
    );

    let union = Left {
        spans: [client.spans, worker.spans].concat(),
        ..worker
    };
    let expect = Expect {
        clients_apart: true,
        ..check::few_runs()
    };
    check::spans_equal(&scene, &union, &expect);
}
