use proptest::prelude::*;

use super::*;
use crate::celery::json::tests::spaced;

fn task(headers: &str) -> TaskMessage {
    let json = format!(r#"{{"headers": {{"task": "t", "id": "1", {headers}}}}}"#);
    match read(&Contiguous::whole(json.as_bytes()), 0, false, &|text| text.into()) {
        Content::Task(message) => *message,
        other => panic!("{other:?}"),
    }
}

/// Scenario: each carrier of trace context, and two at once.
/// Guarantees: the context is found; W3C's comes before B3's.
#[test]
fn carriers_of_context() {
    const TRACE: &str = "80f198ee56343ba864fe8b2a57d3eff7";
    let w3c = format!(r#""traceparent": "00-{TRACE}-e457b5a2e4d86bd1-01""#);
    let single = format!(r#""b3": "{TRACE}-e457b5a2e4d86bd1-1""#);
    let several =
        format!(r#""x-b3-traceid": "{TRACE}", "x-b3-spanid": "e457b5a2e4d86bd1", "x-b3-sampled": "1""#);
    for headers in [&w3c, &single, &several] {
        let context = task(headers).traceparent.expect("a context");
        assert_eq!(
            (context.trace_id.to_string().as_str(), context.sampled),
            (TRACE, true)
        );
    }
    let both = task(&format!(
        r#"{w3c}, "b3": "00000000000000000000000000000001-0000000000000001-0""#
    ));
    assert_eq!(both.traceparent, task(&w3c).traceparent);
    assert_eq!(task(r#""traceparent": "00-0-0-0""#).traceparent, None);
}

/// Scenario: stamps, none, and an empty object as Celery sends it by default.
/// Guarantees: kept as sent where there are any.
#[test]
fn stamps() {
    let stamped = task(r#""stamped_headers": ["tenant"], "stamps": {"tenant": "acme"}"#);
    assert_eq!(stamped.rare().stamps.as_deref(), Some(r#"{"tenant": "acme"}"#));
    assert_eq!(task(r#""stamps": {}"#).rare, None);
}

const ID: &str = "d5706acd-ab86-4109-931d-a5e9e871cd92";

/// An envelope as kombu writes it, with these headers before and behind the usual ones, and this behind the properties.
fn envelope(values: [&str; 8]) -> String {
    let [task, plain, parent, argsrepr, ordinary, more, reply_to, delivery] = values;
    format!(
        concat!(
            r#"{{"body": "W1swLCAwXSwge30sIHsiY2FsbGJhY2tzIjogbnVsbCwgImVycmJhY2tzIjogbnVsbCwgImNoYWluIjogbnVsbCwgImNob3JkIjogbnVsbH1d", "#,
            r#""content-encoding": "utf-8", "content-type": "application/json", "headers": {{"lang": "py", "task": {task}, "#,
            r#""id": "{id}", "shadow": null, "eta": null, "expires": null, "group": null, "group_index": null, "retries": {plain}, "#,
            r#""root_id": "{id}", "parent_id": {parent}, "argsrepr": {argsrepr}, "kwargsrepr": "{{}}", "origin": "gen1@host", "#,
            r#""ignore_result": {ordinary}, "stamped_headers": null, "stamps": {{}}{more}}}, "#,
            r#""properties": {{"correlation_id": "{id}", "reply_to": {reply_to}, "delivery_mode": 2, "#,
            r#""delivery_info": {{"exchange": "", "routing_key": "celery"{delivery}, "#,
            r#""body_encoding": "base64", "delivery_tag": "{id}"}}}}"#
        ),
        id = ID,
        task = task,
        plain = plain,
        parent = parent,
        argsrepr = argsrepr,
        ordinary = ordinary,
        more = more,
        reply_to = reply_to,
        delivery = delivery
    )
}

const ORDINARY: [&str; 8] = [
    r#""app.add""#,
    r#"0, "timelimit": [null, null]"#,
    "null",
    r#""(0, 0)""#,
    r#"false, "replaced_task_nesting": 0"#,
    "",
    r#""6c5d2b59-40b8-3211-9cfa-6df8e77ecb0c""#,
    r#"}, "priority": 0"#,
];

/// Other values than [`ORDINARY`], some of them wrong.
const OTHERS: [&[&str]; 8] = [
    &[r#""\u0061pp.add""#, "null", "1", r#""""#, r#""é""#, r#" "t""#],
    &[
        r#"3, "timelimit": [null, 30]"#,
        r#"0, "timelimit": null"#,
        r#"01, "timelimit": [null, null]"#,
        r#"0, "eta": "2026-01-01", "timelimit": []"#,
    ],
    &[
        r#""5c5d2b59-40b8-3211-9cfa-6df8e77ecb0c""#,
        "nul",
        "nullx",
        r#""p""#,
        "[]",
    ],
    &[r#""('a\"b',)""#, r#""\ud800""#, "null", "{}"],
    &[
        r#"true, "replaced_task_nesting": 2"#,
        r#"null, "replaced_task_nesting": null"#,
        r#"0, "replaced_task_nesting": 0"#,
    ],
    &[
        r#", "traceparent": "00-80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-01""#,
        r#", "traceparent": "00-80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-01", "tracestate": "a=b", "compression": null"#,
        r#", "task": "other", "retries": 4, "eta": "2026-01-01""#,
        r#", "stamps": null, "x": {"y": [1]}"#,
        ",",
    ],
    &["null", "1", r#""a\nb""#],
    &[
        r#", "redelivered": true}, "priority": 0"#,
        r#"}, "priority": 5"#,
        r#"}, "priority": 00"#,
        r#"}, "delivery_info": null, "priority": 0"#,
        r#""#,
    ],
];

/// What is read of an envelope.
fn told(json: &[u8]) -> String {
    format!(
        "{:?}",
        read(&Contiguous::whole(json), 0, true, &|text| text.into())
    )
}

/// Scenario: an ordinary task's envelope, and each of its values another, usual or wrong.
/// Guarantees: the same is read as where nothing is as usual; what is ordinary is all read.
#[test]
fn usual_envelopes() {
    let Content::Task(message) = read(
        &Contiguous::whole(envelope(ORDINARY).as_bytes()),
        7,
        false,
        &|text| text.into(),
    ) else {
        panic!("no task")
    };
    let want = TaskMessage {
        system: Some("redis"),
        id: ID.into(),
        name: "app.add".into(),
        root_id: Some(ID.into()),
        origin: Some("gen1@host".into()),
        reply_to: Some("6c5d2b59-40b8-3211-9cfa-6df8e77ecb0c".into()),
        correlation_id: Some(ID.into()),
        routing_key: "celery".into(),
        delivery_tag: ID.into(),
        envelope_size: 7,
        body_size: Some(81),
        args_count: Some(2),
        kwargs_count: Some(0),
        ..TaskMessage::default()
    };
    assert_eq!(*message, want);
    for (at, others) in OTHERS.iter().enumerate() {
        for other in *others {
            let mut values = ORDINARY;
            values[at] = other;
            let json = envelope(values);
            assert_eq!(told(json.as_bytes()), told(&spaced(json.as_bytes())), "{json}");
        }
    }
}

proptest! {
    /// Scenario: an envelope of ordinary and other values, cut anywhere or with another byte.
    /// Guarantees: the same is read as where nothing is as usual.
    #[test]
    fn broken_envelopes(
        choices in prop::array::uniform8(prop::option::weighted(0.2, any::<prop::sample::Index>())),
        at: prop::sample::Index,
        byte in prop::option::of(prop::sample::select(&b"\"\\,}] 01a\x80n"[..])),
    ) {
        let mut values = ORDINARY;
        for ((value, choice), others) in values.iter_mut().zip(choices).zip(OTHERS) {
            *value = choice.map_or(*value, |choice| others[choice.index(others.len())]);
        }
        let mut json = envelope(values).into_bytes();
        prop_assert_eq!(told(&json), told(&spaced(&json)));
        let at = at.index(json.len());
        match byte {
            Some(byte) => json[at] = byte,
            None => json.truncate(at),
        }
        prop_assert_eq!(told(&json), told(&spaced(&json)));
    }
}
