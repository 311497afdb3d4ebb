//! Spans to send, and what they must have become when they arrive.

use std::sync::Arc;

use celeryscope_core::{Event, Link, Process, Span, SpanId, SpanKind, Status, TraceId};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;

pub(crate) fn numbered(n: u64) -> Arc<Span> {
    let mut span = Span::new(
        SpanKind::Publish,
        TraceId([1; 16]),
        SpanId([1; 8]),
        "publish shop.add",
    );
    span.span_id = SpanId((n + 1).to_be_bytes());
    Arc::new(span)
}

pub(crate) fn process(pid: u32, service: &str) -> Arc<Process> {
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    Arc::new(Process {
        pid,
        resource: vec![
            pair("service.name", service),
            pair("process.pid", &pid.to_string()),
        ],
    })
}

/// A publish and the failed run of it, of two services.
pub(crate) fn pair_of_spans() -> [Arc<Span>; 2] {
    let mut publish = Span::new(
        SpanKind::Publish,
        TraceId([1; 16]),
        SpanId([1; 8]),
        "publish shop.pay",
    );
    publish.span_id = SpanId([2; 8]);
    publish.start.0 = 1_795_186_876_000_000_001;
    publish.end.0 = 1_795_186_876_000_000_999;
    publish.process = process(7, "web");
    let mut run = Span::new(SpanKind::Run, TraceId([1; 16]), SpanId([1; 8]), "run shop.pay");
    run.span_id = SpanId([3; 8]);
    run.parent = Some(SpanId([2; 8]));
    run.trace_state = "vendor=x".into();
    run.start.0 = 1_795_186_877_000_000_000;
    run.end.0 = 1_795_186_878_000_000_000;
    run.status = Status::Error("ValueError".to_owned());
    run.attributes = vec![
        ("celery.task_name", "shop.pay".into()),
        ("celery.retry_count", 2.into()),
        ("celery.queue_time", 0.25.into()),
        ("celery.redelivered", true.into()),
    ];
    run.events.push(Event {
        name: "exception",
        at: run.end,
        attributes: vec![("exception.type", "ValueError".into())],
    });
    run.links.push(Link {
        trace_id: TraceId([9; 16]),
        span_id: SpanId([8; 8]),
    });
    run.process = process(8, "worker");
    [Arc::new(publish), Arc::new(run)]
}

pub(crate) fn value(pairs: &[KeyValue], key: &str) -> Option<Value> {
    pairs.iter().find(|pair| pair.key == key)?.value.clone()?.value
}

/// What must have arrived of [`pair_of_spans`], whatever the way.
pub(crate) fn assert_pair(requests: &[ExportTraceServiceRequest]) {
    let groups: Vec<_> = requests
        .iter()
        .flat_map(|request| &request.resource_spans)
        .collect();
    assert_eq!(groups.len(), 2, "one resource for each process");
    let by_service = |name: &str| {
        let group = groups.iter().find(|group| {
            let attributes = &group.resource.as_ref().unwrap().attributes;
            value(attributes, "service.name") == Some(Value::StringValue(name.to_owned()))
        });
        let group = group.unwrap_or_else(|| panic!("no resource of {name}"));
        let scope = &group.scope_spans[0];
        assert_eq!(scope.scope.as_ref().unwrap().name, "celeryscope");
        assert_eq!(scope.spans.len(), 1);
        (group.resource.clone().unwrap().attributes, scope.spans[0].clone())
    };
    let (resource, publish) = by_service("web");
    assert_eq!(value(&resource, "process.pid"), Some(Value::IntValue(7)));
    assert_eq!(
        (publish.kind, publish.parent_span_id.len()),
        (4, 0),
        "a producer without parent"
    );
    assert_eq!((publish.trace_id, publish.span_id), (vec![1; 16], vec![2; 8]));
    assert_eq!(publish.start_time_unix_nano, 1_795_186_876_000_000_001);
    assert_eq!(publish.end_time_unix_nano, 1_795_186_876_000_000_999);

    let (_, run) = by_service("worker");
    assert_eq!(
        (run.kind, run.parent_span_id),
        (5, vec![2; 8]),
        "a consumer below the publish"
    );
    assert_eq!(
        (run.name.as_str(), run.trace_state.as_str()),
        ("run shop.pay", "vendor=x")
    );
    assert_eq!(run.flags & 0x301, 0x301, "sampled, parent elsewhere");
    let status = run.status.unwrap();
    assert_eq!((status.code, status.message.as_str()), (2, "ValueError"));
    assert_eq!(
        value(&run.attributes, "celery.retry_count"),
        Some(Value::IntValue(2))
    );
    assert_eq!(
        value(&run.attributes, "celery.queue_time"),
        Some(Value::DoubleValue(0.25))
    );
    assert_eq!(
        value(&run.attributes, "celery.redelivered"),
        Some(Value::BoolValue(true))
    );
    assert_eq!(run.events[0].name, "exception");
    assert_eq!(run.events[0].time_unix_nano, 1_795_186_878_000_000_000);
    assert_eq!(
        (&run.links[0].trace_id, &run.links[0].span_id),
        (&vec![9; 16], &vec![8; 8])
    );
}
