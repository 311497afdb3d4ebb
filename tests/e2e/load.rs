//! Two thousand publishes a second: nothing missing, and what the agent takes for it.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use celeryscope_core::{Span, SpanKind};

use crate::check;
use crate::rig::process::usage;
use crate::rig::report::table;
use crate::rig::{Agent, Publisher, Scene};
use crate::support::compare::text;

const PUBLISHERS: usize = 4;
const EACH: usize = 5000;
const RATE_EACH: usize = 500;

/// Scenario: four clients publish 4,000 messages at 2,000 a second, an agent comes, and they publish 20,000 more.
/// Guarantees: a publish span for each of these, none twice, nothing lost. The table shows the clients' pace, the agent's time
/// and memory; what they may be is for the benches, since other work on the machine slows the clients down as well.
#[test]
fn two_thousand_publishes_a_second() {
    let Some(scene) = Scene::set("load", "hiredis") else {
        return;
    };
    let names: Vec<String> = (1..=PUBLISHERS).map(|n| format!("p{n}")).collect();
    let mut publishers: Vec<Publisher> = names.iter().map(|name| Publisher::start(&scene, name)).collect();
    // What this machine can do just now, other work on it included.
    let alone = publish(&mut publishers, EACH / 5);
    scene.truth().forget_tasks();

    let agent = Agent::start(scene.folder(), "agent", &scene.ports(), &["--stats"]);
    let begin = (agent.usage().cpu, usage(scene.redis().pid()).cpu);
    let rate = publish(&mut publishers, EACH);
    let (agent_cpu, redis_cpu) = (
        agent.usage().cpu - begin.0,
        usage(scene.redis().pid()).cpu - begin.1,
    );
    // The agent waits that long for an answer to a publish before it lets the span go.
    std::thread::sleep(Duration::from_secs(2));
    let left = agent.stop();

    let count = PUBLISHERS * EACH;
    let row = vec![
        count.to_string(),
        format!("{alone:.0}"),
        format!("{rate:.0}"),
        format!("{agent_cpu:.2}"),
        format!("{:.1}", agent_cpu / (count as f64 / rate) * 100.0),
        format!("{:.0}", agent_cpu / count as f64 * 1e6),
        format!("{:.0}", left.usage.peak_rss),
        format!("{redis_cpu:.2}"),
    ];
    let head = [
        "publishes",
        "a second without",
        "with agent",
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
    let publish = |span: &Span| span.kind == SpanKind::Publish && *span.name == *"publish app.noop";
    assert!(left.spans.iter().all(publish), "a span of another kind");
    assert_eq!(left.spans.len(), count, "spans told twice");
}

/// Lets each publish `each` messages; gives the rate of all together.
fn publish(publishers: &mut [Publisher], each: usize) -> f64 {
    let command = format!("load {each} {RATE_EACH}");
    let begin = Instant::now();
    for publisher in &mut *publishers {
        publisher.begin(&command);
    }
    for publisher in &mut *publishers {
        publisher.finish(&command);
    }
    (each * publishers.len()) as f64 / begin.elapsed().as_secs_f64()
}
