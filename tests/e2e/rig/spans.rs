//! The agent's OTLP-JSON output, read back as the core's spans: the form in which they are compared.

use std::path::Path;
use std::sync::Arc;

use celeryscope_core::span::{Event, Link, Process};
use celeryscope_core::time::Wall;
use celeryscope_core::{Span, SpanId, SpanKind, Status, TraceId, Value};
use serde_json::Value as Json;

/// Reads a file of one `ExportTraceServiceRequest` a line; a missing file is no spans.
///
/// # Panics
/// On a line that is not what it should be: the agent's output is under test here too.
pub(crate) fn read(path: &Path) -> Vec<Span> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().flat_map(request).collect()
}

/// The same of a file whose writer was killed: what stands in whole lines.
///
/// # Panics
/// As [`read`].
pub(crate) fn read_cut(path: &Path) -> Vec<Span> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().flat_map(request).collect()
}

/// The spans of one OTLP-JSON request.
///
/// # Panics
/// As [`read`].
pub(crate) fn request(line: &str) -> Vec<Span> {
    let request: Json = serde_json::from_str(line).unwrap_or_else(|e| panic!("not OTLP-JSON ({e}): {line}"));
    let mut spans = Vec::new();
    for resource_spans in items(&request["resourceSpans"]) {
        let process = Arc::new(process(&resource_spans["resource"]["attributes"]));
        for scope in items(&resource_spans["scopeSpans"]) {
            spans.extend(items(&scope["spans"]).map(|json| span(json, &process)));
        }
    }
    spans
}

fn span(json: &Json, process: &Arc<Process>) -> Span {
    Span {
        kind: match number(&json["kind"]) {
            4 => SpanKind::Publish,
            5 => SpanKind::Run,
            other => panic!("a span of kind {other}: {json}"),
        },
        trace_id: TraceId(id(&json["traceId"]).unwrap_or_else(|| panic!("no traceId: {json}"))),
        span_id: SpanId(id(&json["spanId"]).unwrap_or_else(|| panic!("no spanId: {json}"))),
        parent: id(&json["parentSpanId"]).map(SpanId),
        trace_state: text(&json["traceState"]).into(),
        sampled: None,
        name: text(&json["name"]).into(),
        start: Wall(number(&json["startTimeUnixNano"])),
        end: Wall(number(&json["endTimeUnixNano"])),
        status: match number(&json["status"]["code"]) {
            0 => Status::Unset,
            1 => Status::Ok,
            _ => Status::Error(text(&json["status"]["message"])),
        },
        attributes: attributes(&json["attributes"]),
        events: items(&json["events"]).map(event).collect(),
        links: items(&json["links"]).filter_map(link).collect(),
        process: Arc::clone(process),
    }
}

fn event(json: &Json) -> Event {
    Event {
        name: interned(&json["name"]),
        at: Wall(number(&json["timeUnixNano"])),
        attributes: attributes(&json["attributes"]),
    }
}

fn link(json: &Json) -> Option<Link> {
    Some(Link {
        trace_id: TraceId(id(&json["traceId"])?),
        span_id: SpanId(id(&json["spanId"])?),
    })
}

fn process(list: &Json) -> Process {
    let resource: Vec<(String, String)> = attributes(list)
        .into_iter()
        .map(|(key, value)| {
            let value = match value {
                Value::Str(text) => text.to_string(),
                Value::Int(n) => n.to_string(),
                Value::Float(n) => n.to_string(),
                Value::Bool(b) => b.to_string(),
            };
            (key.to_owned(), value)
        })
        .collect();
    let pid = resource.iter().find(|(key, _)| key == "process.pid");
    Process {
        pid: pid.and_then(|(_, pid)| pid.parse().ok()).unwrap_or_default(),
        resource,
    }
}

fn attributes(list: &Json) -> Vec<(&'static str, Value)> {
    let pair = |json: &Json| Some((interned(&json["key"]), any_value(&json["value"])?));
    items(list).filter_map(pair).collect()
}

/// OTLP's AnyValue; 64-bit integers are strings in JSON. Arrays and the like are not attributes of ours.
fn any_value(json: &Json) -> Option<Value> {
    let (kind, inner) = json.as_object()?.iter().next()?;
    Some(match kind.as_str() {
        "stringValue" => Value::from(inner.as_str()?.to_owned()),
        "intValue" => Value::Int(inner.as_i64().or_else(|| inner.as_str()?.parse().ok())?),
        "doubleValue" => Value::Float(inner.as_f64()?),
        "boolValue" => Value::Bool(inner.as_bool()?),
        _ => return None,
    })
}

/// The core names attributes by static strings: the few names there are may stay for the test's life.
fn interned(json: &Json) -> &'static str {
    use std::collections::HashSet;
    use std::sync::{LazyLock, Mutex};
    static NAMES: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);
    let mut names = NAMES.lock().expect("no panic while interning");
    let name = json.as_str().unwrap_or_default();
    if let Some(known) = names.get(name) {
        return known;
    }
    let kept: &'static str = name.to_owned().leak();
    names.insert(kept);
    kept
}

fn items(json: &Json) -> impl Iterator<Item = &Json> {
    json.as_array().into_iter().flatten()
}

fn text(json: &Json) -> String {
    json.as_str().unwrap_or_default().to_owned()
}

fn number(json: &Json) -> u64 {
    json.as_u64()
        .or_else(|| json.as_str()?.parse().ok())
        .unwrap_or_default()
}

/// An id in hex; none when absent, empty, or of the wrong length.
fn id<const N: usize>(json: &Json) -> Option<[u8; N]> {
    let hex = json.as_str().filter(|hex| hex.len() == 2 * N)?;
    let mut bytes = [0; N];
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()?;
    }
    Some(bytes)
}
