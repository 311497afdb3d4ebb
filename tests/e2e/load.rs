//! Two thousand publishes a second: nothing missing, and what the agent takes for it.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use celeryscope_core::SpanKind;

use crate::check;
use crate::rig::report::table;
use crate::rig::{Agent, Publisher, Scene};
use crate::support::compare::text;

const PUBLISHERS: usize = 4;
const EACH: usize = 5000;
const RATE_EACH: usize = 500;

/// Scenario: four clients publish 20,000 messages at 2,000 a second.
/// Guarantees: a publish span for each, none twice, nothing lost; the table shows the agent's time and memory.
#[test]
fn two_thousand_publishes_a_second() {
    let Some(scene) = Scene::set("load", "hiredis") else {
        return;
    };
    let agent = Agent::start(scene.folder(), "agent", &[scene.port()], &["--stats"]);
    let names: Vec<String> = (1..=PUBLISHERS).map(|n| format!("p{n}")).collect();
    let mut publishers: Vec<Publisher> = names.iter().map(|name| Publisher::start(&scene, name)).collect();
    let command = format!("load {EACH} {RATE_EACH}");
    let begin = (agent.usage(), scene.redis().usage(), Instant::now());
    for publisher in &mut publishers {
        publisher.begin(&command);
    }
    for publisher in &mut publishers {
        publisher.finish(&command);
    }
    let took = begin.2.elapsed().as_secs_f64();
    let (agent_cpu, redis_cpu) = (
        agent.usage().cpu - begin.0.cpu,
        scene.redis().usage().cpu - begin.1.cpu,
    );
    // The agent waits that long for an answer to a publish before it lets the span go.
    std::thread::sleep(Duration::from_secs(2));
    let left = agent.stop();

    let count = PUBLISHERS * EACH;
    let row = vec![
        count.to_string(),
        format!("{:.0}", count as f64 / took),
        format!("{agent_cpu:.2}"),
        format!("{:.1}", agent_cpu / took * 100.0),
        format!("{:.0}", agent_cpu / count as f64 * 1e6),
        format!("{:.0}", left.usage.peak_rss),
        format!("{redis_cpu:.2}"),
    ];
    let head = [
        "publishes",
        "a second",
        "agent CPU s",
        "% of a core",
        "us a publish",
        "agent peak MiB",
        "Redis CPU s",
    ];
    table("Publishes under load", &head, &[row]);

    check::nothing_lost(&left);
    let sent = scene.truth().published_ids();
    let told: HashSet<String> = left
        .spans
        .iter()
        .filter_map(|span| text(span, "messaging.message.id").map(str::to_owned))
        .collect();
    assert_eq!(sent.len(), count, "messages in the truth");
    let missing = sent.difference(&told).count();
    let invented = told.difference(&sent).count();
    assert_eq!(
        (missing, invented),
        (0, 0),
        "publishes without a span, spans without a publish"
    );
    assert!(
        left.spans
            .iter()
            .all(|span| span.kind == SpanKind::Publish && span.name == "publish app.noop")
    );
    assert_eq!(left.spans.len(), count, "spans told twice");
    assert!(
        took < 12.0,
        "20,000 publishes took {took:.1} s: the load was not 2,000 a second"
    );
}
