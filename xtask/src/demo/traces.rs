//! The spans the agent wrote, read back to count them and to check that each order is one whole trace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

const PRODUCER: u64 = 4;
const CONSUMER: u64 = 5;

struct Span {
    trace: String,
    id: String,
    parent: String,
    kind: u64,
    task: String,
    task_id: String,
    state: String,
}

/// All spans of one run of the agent.
pub(super) struct Traces(Vec<Span>);

impl Traces {
    /// Reads a file of `ExportTraceServiceRequest`s, one a line. A last line that is still being written is left out,
    /// a file that is not there yet is empty.
    pub(super) fn read(file: &Path) -> Result<Self> {
        let text = match fs::read_to_string(file) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            other => other.with_context(|| format!("cannot read {}", file.display()))?,
        };
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let requests = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut spans = Vec::new();
        for request in requests {
            for span in children(&request, "resourceSpans")
                .flat_map(|resource| children(resource, "scopeSpans"))
                .flat_map(|scope| children(scope, "spans"))
            {
                spans.push(Span::parse(span));
            }
        }
        Self(spans)
    }

    /// How many spans there are.
    pub(super) fn spans(&self) -> usize {
        self.0.len()
    }

    /// How many traces they make.
    pub(super) fn traces(&self) -> usize {
        self.0
            .iter()
            .map(|span| &span.trace)
            .collect::<BTreeSet<_>>()
            .len()
    }

    /// How many tasks they tell of.
    pub(super) fn tasks(&self) -> usize {
        self.0
            .iter()
            .map(|span| &span.task_id)
            .filter(|id| !id.is_empty())
            .collect::<BTreeSet<_>>()
            .len()
    }

    /// What is not there of the expected (task, state, count), and of as many publishes of each task.
    pub(super) fn missing(&self, expected: &[(&str, &str, usize)]) -> Vec<String> {
        let mut missing = Vec::new();
        let mut publishes = BTreeMap::new();
        let mut note = |have: usize, want: usize, what: String| {
            if have < want {
                missing.push(format!("{what} ({have} of {want})"));
            }
        };
        for &(task, state, want) in expected {
            *publishes.entry(task).or_insert(0) += want;
            let have = self
                .0
                .iter()
                .filter(|s| s.kind == CONSUMER && s.task == task && s.state == state)
                .count();
            note(have, want, format!("run {task} {state}"));
        }
        for (task, want) in publishes {
            let have = self
                .0
                .iter()
                .filter(|s| s.kind == PRODUCER && s.task == task)
                .count();
            note(have, want, format!("publish {task}"));
        }
        missing
    }

    /// Checks that the order published as `task_id` is one trace: publish and run of `process_order`, and in the run
    /// publish and run of `send_confirmation_email`.
    pub(super) fn check_order(&self, task_id: &str) -> Result<()> {
        let first = self.0.iter().find(|s| s.kind == PRODUCER && s.task_id == task_id);
        let mut above = first.with_context(|| format!("order {task_id}: no publish span"))?;
        for (kind, what, task) in [
            (CONSUMER, "run", "process_order"),
            (PRODUCER, "publish", "send_confirmation_email"),
            (CONSUMER, "run", "send_confirmation_email"),
        ] {
            above = self
                .0
                .iter()
                .find(|s| s.kind == kind && s.task == task && s.parent == above.id && s.trace == above.trace)
                .with_context(|| format!("order {task_id}: no `{what} {task}` in its place of the trace"))?;
        }
        Ok(())
    }
}

impl Span {
    fn parse(span: &Value) -> Self {
        let text = |name: &str| {
            span.get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let attribute = |name: &str| {
            children(span, "attributes")
                .find(|attribute| attribute.get("key").and_then(Value::as_str) == Some(name))
                .and_then(|attribute| attribute.pointer("/value/stringValue")?.as_str())
                .unwrap_or_default()
                .to_owned()
        };
        Self {
            trace: text("traceId"),
            id: text("spanId"),
            parent: text("parentSpanId"),
            kind: span.get("kind").and_then(Value::as_u64).unwrap_or_default(),
            task: attribute("celery.task_name"),
            task_id: attribute("celery.task_id"),
            state: attribute("celery.state"),
        }
    }
}

fn children<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn span(id: &str, parent: &str, kind: u64, task: &str, task_id: &str) -> Value {
        let attribute = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
        json!({
            "traceId": "t1", "spanId": id, "parentSpanId": parent, "kind": kind,
            "attributes": [
                attribute("celery.task_name", task),
                attribute("celery.task_id", task_id),
                attribute("celery.state", if kind == CONSUMER { "SUCCESS" } else { "" }),
            ],
        })
    }

    fn line(spans: &[Value]) -> String {
        format!(
            "{}\n",
            json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]})
        )
    }

    fn order() -> Vec<Value> {
        vec![
            span("a", "", PRODUCER, "process_order", "1"),
            span("b", "a", CONSUMER, "process_order", "1"),
            span("c", "b", PRODUCER, "send_confirmation_email", "2"),
            span("d", "c", CONSUMER, "send_confirmation_email", "2"),
        ]
    }

    /// Scenario: the four spans of an order, in two lines, and a third line that is cut.
    /// Guarantees: spans, tasks and traces are counted once each, and the order is found whole.
    #[test]
    fn whole_order_is_accepted() {
        let spans = order();
        let text = line(&spans[..1]) + &line(&spans[1..]) + "{\"resourceSp";
        let traces = Traces::parse(&text);
        assert_eq!((traces.spans(), traces.tasks(), traces.traces()), (4, 2, 1));
        traces.check_order("1").expect("the order is whole");
        assert_eq!(traces.missing(&[("process_order", "SUCCESS", 1)]), [""; 0]);
    }

    /// Scenario: the same order, the e-mail's publish hanging under no span of it.
    /// Guarantees: the order is refused and the message names the span that is not in its place.
    #[test]
    fn broken_parent_is_refused() {
        let mut spans = order();
        spans[2] = span("c", "elsewhere", PRODUCER, "send_confirmation_email", "2");
        let error = Traces::parse(&line(&spans))
            .check_order("1")
            .unwrap_err()
            .to_string();
        assert!(error.contains("publish send_confirmation_email"), "{error}");
    }

    /// Scenario: one run is expected to be there twice, another task not seen at all.
    /// Guarantees: what is missing is listed with have and want, publishes too.
    #[test]
    fn missing_spans_are_listed() {
        let traces = Traces::parse(&line(&order()));
        let missing = traces.missing(&[("process_order", "SUCCESS", 2), ("sum_stock", "SUCCESS", 1)]);
        let expected = [
            "run process_order SUCCESS (1 of 2)",
            "run sum_stock SUCCESS (0 of 1)",
            "publish process_order (1 of 2)",
            "publish sum_stock (0 of 1)",
        ];
        assert_eq!(missing, expected);
    }
}
