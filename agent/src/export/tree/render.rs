//! One trace as text: a line for each span, children below their parent.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use celeryscope_core::span::Value;
use celeryscope_core::{Span, SpanId, SpanKind, Status};

use super::Trace;
use super::text::{cell, clean, duration, time_of_day};

/// Width and colour of the page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pub(super) width: usize,
    pub(super) colour: bool,
}

const DIM: &str = "2";
const BOLD: &str = "1";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const CYAN: &str = "36";

/// Deeper levels are not indented further.
const DEEPEST: usize = 8;
const DURATION: usize = 7;
const QUEUED: usize = 8;
const TASK_ID: usize = 8;

/// Widths of the columns that grow with the page.
struct Columns {
    name: usize,
    service: usize,
    bar: usize,
    state: usize,
}

impl Columns {
    fn of(width: usize) -> Self {
        let width = width.clamp(72, 240);
        let (service, bar, state) = match width {
            ..100 => (10, 10, 7),
            100..130 => (14, 18, 8),
            _ => (18, 30, 8),
        };
        let gaps = 6;
        Self {
            name: width - service - bar - state - DURATION - QUEUED - TASK_ID - gaps,
            service,
            bar,
            state,
        }
    }
}

/// What a line needs to know besides its span.
struct Line {
    at: usize,
    /// Connectors to the left of the span, one for each level.
    rails: String,
    orphan: Option<&'static str>,
}

impl Style {
    /// What the columns mean, printed once.
    pub(super) fn legend(&self) -> String {
        let columns = Columns::of(self.width);
        let line = format!(
            "{} {} {} {} {} {} STATE",
            cell("→ publish  ▶ run", columns.name),
            cell("SERVICE", columns.service),
            cell("TIME", columns.bar),
            cell("   TOOK", DURATION),
            cell("  QUEUED", QUEUED),
            cell("TASK", TASK_ID),
        );
        format!("{}\n", self.paint(DIM, &line))
    }

    /// A whole trace, or its continuation.
    pub(super) fn trace(&self, trace: &Trace) -> String {
        let spans: Vec<&Span> = trace.spans.iter().map(AsRef::as_ref).collect();
        let start = trace.start();
        let end = spans
            .iter()
            .map(|span| span.end.0)
            .max()
            .unwrap_or(start)
            .max(start);
        let failed = spans
            .iter()
            .filter(|span| matches!(span.status, Status::Error(_)))
            .count();
        let mut page = format!(
            "\n{} {}  {}  {}  {} span{}",
            self.paint(BOLD, "trace"),
            self.paint(BOLD, &trace.id.to_string()),
            time_of_day(start),
            duration(end - start),
            spans.len(),
            if spans.len() == 1 { "" } else { "s" },
        );
        if failed > 0 {
            page.push_str(", ");
            page.push_str(&self.paint(RED, &format!("{failed} failed")));
        }
        if trace.printed.is_some() {
            page.push_str(" (continued)");
        }
        page.push('\n');
        let columns = Columns::of(self.width);
        for line in arrange(&spans, trace.printed.as_ref()) {
            self.line(&mut page, &line, &spans, (start, end), &columns);
        }
        page
    }

    fn line(&self, page: &mut String, line: &Line, spans: &[&Span], trace: (u64, u64), columns: &Columns) {
        let span = spans[line.at];
        let (symbol, colour) = match span.kind {
            SpanKind::Publish => ("→", CYAN),
            SpanKind::Run => ("▶", BOLD),
        };
        let room = columns.name.saturating_sub(line.rails.chars().count() + 2);
        let state = state(span);
        let paint = match state.as_str() {
            "SUCCESS" => GREEN,
            "" => DIM,
            _ if matches!(span.status, Status::Error(_)) => RED,
            _ => YELLOW,
        };
        let queued = queue_time(span).map_or_else(String::new, duration);
        let id = text(span, "messaging.message.id")
            .or_else(|| text(span, "celery.task_id"))
            .unwrap_or_default();
        let id = id.char_indices().nth(TASK_ID).map_or(id, |(end, _)| &id[..end]);
        let _ = write!(
            page,
            "{}{} {} {} {} {:>DURATION$} {:>QUEUED$} {} {}",
            self.paint(DIM, &line.rails),
            self.paint(colour, symbol),
            cell(task_name(span), room),
            cell(span.process.service(), columns.service),
            self.paint(paint, &bar(span, trace, columns.bar)),
            duration(span.end.0.saturating_sub(span.start.0)),
            queued,
            self.paint(DIM, &cell(id, TASK_ID)),
            self.paint(paint, &clean(&state, columns.state)),
        );
        while page.ends_with(' ') {
            page.pop();
        }
        if let Some(orphan) = line.orphan {
            let _ = write!(page, " {}", self.paint(DIM, orphan));
        }
        page.push('\n');
        let below = rails_below(&line.rails);
        if let Some(error) = error(span) {
            let room = self
                .width
                .clamp(72, 240)
                .saturating_sub(below.chars().count() + 4);
            let _ = writeln!(
                page,
                "{}  {} {}",
                self.paint(DIM, &below),
                self.paint(RED, "✗"),
                clean(&error, room)
            );
        }
        for link in span.links.iter().take(3) {
            let target = match spans.iter().find(|other| other.span_id == link.span_id) {
                Some(other) => clean(&other.name, columns.name),
                None => format!("{}/{}", link.trace_id, link.span_id),
            };
            let _ = writeln!(page, "{}  ↪ {target}", self.paint(DIM, &below));
        }
        if span.links.len() > 3 {
            let _ = writeln!(
                page,
                "{}  ↪ {} more",
                self.paint(DIM, &below),
                span.links.len() - 3
            );
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// The order of the lines: depth first, siblings by start. Parents may be missing or, in hostile input, form a ring:
/// every span is listed exactly once all the same.
fn arrange(spans: &[&Span], printed: Option<&HashSet<SpanId>>) -> Vec<Line> {
    let known: HashSet<SpanId> = spans.iter().map(|span| span.span_id).collect();
    let mut order: Vec<usize> = (0..spans.len()).collect();
    order.sort_by_key(|&at| (spans[at].start, spans[at].kind == SpanKind::Run, at));
    let mut children: HashMap<SpanId, Vec<usize>> = HashMap::new();
    let mut roots = Vec::new();
    for &at in &order {
        match spans[at].parent {
            Some(parent) if known.contains(&parent) => children.entry(parent).or_default().push(at),
            _ => roots.push(at),
        }
    }
    let mut lines = Vec::with_capacity(spans.len());
    let mut listed = vec![false; spans.len()];
    // The order itself comes last: it starts the rings that no root leads to.
    for &root in roots.iter().chain(&order) {
        let mut stack = vec![(root, String::new())];
        while let Some((at, rails)) = stack.pop() {
            if std::mem::replace(&mut listed[at], true) {
                continue;
            }
            let below = children.remove(&spans[at].span_id).unwrap_or_default();
            let rails_of_children = rails_below(&rails);
            let deep = rails.chars().count() >= 2 * DEEPEST;
            for (n, &child) in below.iter().enumerate().rev() {
                let connector = if n + 1 == below.len() { "└ " } else { "├ " };
                let rails = if deep {
                    rails.clone()
                } else {
                    format!("{rails_of_children}{connector}")
                };
                stack.push((child, rails));
            }
            let orphan = spans[at].parent.filter(|_| rails.is_empty()).map(|parent| {
                if printed.is_some_and(|printed| printed.contains(&parent)) {
                    "(parent above)"
                } else {
                    "(parent not seen)"
                }
            });
            lines.push(Line { at, rails, orphan });
        }
    }
    lines
}

/// The connectors below a line with these rails.
fn rails_below(rails: &str) -> String {
    rails.replace('└', " ").replace('├', "│")
}

/// The name without the verb that the symbol already shows.
fn task_name(span: &Span) -> &str {
    ["publish ", "run ", "apply_async/", "run/"]
        .into_iter()
        .find_map(|verb| span.name.strip_prefix(verb))
        .unwrap_or(&span.name)
}

fn text<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    match span.attribute(key) {
        Some(Value::Str(text)) => Some(text),
        _ => None,
    }
}

fn state(span: &Span) -> String {
    match (text(span, "celery.state"), &span.status) {
        (Some(state), _) => state.to_owned(),
        (None, Status::Error(_)) => "ERROR".to_owned(),
        (None, Status::Ok | Status::Unset) => String::new(),
    }
}

/// Class and message of what went wrong.
fn error(span: &Span) -> Option<String> {
    let Status::Error(message) = &span.status else {
        return None;
    };
    match (text(span, "error.type"), message.as_str()) {
        (None, "") => None,
        (None, message) => Some(message.to_owned()),
        (Some(class), message) if message.is_empty() || message == class => Some(class.to_owned()),
        (Some(class), message) => Some(format!("{class}: {message}")),
    }
}

/// `celery.queue_time` in ns.
fn queue_time(span: &Span) -> Option<u64> {
    match span.attribute("celery.queue_time") {
        Some(Value::Float(seconds)) if (0.0..1e9).contains(seconds) => Some((seconds * 1e9) as u64),
        _ => None,
    }
}

/// Where in the trace the span lies; the time in the queue before it is shaded.
fn bar(span: &Span, (start, end): (u64, u64), cells: usize) -> String {
    let total = (end - start).max(1) as f64;
    let place = |at: u64| at.saturating_sub(start) as f64 / total * cells as f64;
    let from = (place(span.start.0) as usize).min(cells - 1);
    let to = (place(span.end.0).ceil() as usize).clamp(from + 1, cells);
    let queued_from = queue_time(span).map_or(from, |queued| {
        (place(span.start.0.saturating_sub(queued)) as usize).min(from)
    });
    (0..cells)
        .map(|cell| match cell {
            _ if cell < queued_from || cell >= to => ' ',
            _ if cell < from => '░',
            _ => '█',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    use celeryscope_core::{Link, Process, TraceId};

    fn span(kind: SpanKind, id: u8, parent: Option<u8>, name: &str, from: u64, to: u64) -> Span {
        let mut span = Span::new(kind, TraceId([1; 16]), SpanId([1; 8]), name.to_owned());
        span.span_id = SpanId([id; 8]);
        span.parent = parent.map(|id| SpanId([id; 8]));
        span.start.0 = from * 1_000_000;
        span.end.0 = to * 1_000_000;
        span.attributes
            .push(("messaging.message.id", "d5706acd-8a3c".into()));
        span
    }

    fn page(spans: Vec<Span>, printed: Option<HashSet<SpanId>>) -> String {
        let trace = Trace {
            id: TraceId([1; 16]),
            spans: spans.into_iter().map(Arc::new).collect(),
            printed,
            first: 0,
            last: Duration::ZERO,
        };
        let style = Style {
            width: 80,
            colour: false,
        };
        style.trace(&trace)
    }

    /// Scenario: a task that publishes another, which fails; spans come in reverse.
    /// Guarantees: the page, line by line: order, indentation, bar, times, states, service.
    #[test]
    fn a_trace_reads_as_a_tree() {
        let mut run = span(SpanKind::Run, 2, Some(1), "run shop.order", 20, 100);
        run.attributes.push(("celery.state", "SUCCESS".into()));
        run.attributes.push(("celery.queue_time", 0.018.into()));
        run.process = Arc::new(Process {
            pid: 7,
            resource: vec![("service.name".to_owned(), "worker".to_owned())],
        });
        let mut failed = span(SpanKind::Run, 4, Some(3), "run shop.pay", 50, 60);
        failed.attributes.push(("celery.state", "FAILURE".into()));
        failed.attributes.push(("error.type", "CardError".into()));
        failed.status = Status::Error("no \u{1b}[2J".to_owned());
        failed.links.push(Link {
            trace_id: TraceId([9; 16]),
            span_id: SpanId([8; 8]),
        });
        let spans = vec![
            failed,
            span(SpanKind::Publish, 3, Some(2), "publish shop.pay", 40, 42),
            run,
            span(SpanKind::Publish, 1, None, "publish shop.order", 0, 2),
        ];
        let expected = "
trace 01010101010101010101010101010101  00:00:00.000  100 ms  4 spans, 1 failed
→ shop.order                        █          2.00 ms          d5706acd
└ ▶ shop.order           worker     ░░████████ 80.0 ms  18.0 ms d5706acd SUCCESS
  └ → shop.pay                          █      2.00 ms          d5706acd
    └ ▶ shop.pay                         █     10.0 ms          d5706acd FAILURE
        ✗ CardError: no \\u{1b}[2J
        ↪ 09090909090909090909090909090909/0808080808080808
";
        assert_eq!(page(spans, None), expected);
    }

    /// Scenario: a span whose parent never came, one whose parent was printed before, and two that are each other's
    /// parents.
    /// Guarantees: each is listed once; the first two say why they stand alone.
    #[test]
    fn orphans_and_rings_are_listed_once() {
        let spans = vec![
            span(SpanKind::Run, 1, Some(50), "run lost", 0, 1),
            span(SpanKind::Run, 2, Some(60), "run late", 0, 1),
            span(SpanKind::Run, 3, Some(4), "run ring_a", 0, 1),
            span(SpanKind::Run, 4, Some(3), "run ring_b", 0, 1),
        ];
        let page = page(spans, Some(HashSet::from([SpanId([60; 8])])));
        for name in ["lost", "late", "ring_a", "ring_b"] {
            assert_eq!(page.matches(name).count(), 1, "{page}");
        }
        let line = |name: &str| page.lines().find(|line| line.contains(name)).unwrap().to_owned();
        assert!(line("lost").ends_with("(parent not seen)"));
        assert!(line("late").ends_with("(parent above)"));
        assert!(page.contains("(continued)"));
    }

    /// Scenario: a chain deeper than the page is wide, and a task name full of escapes.
    /// Guarantees: no line is wider than the page by more than the orphan's remark, none holds a control character.
    #[test]
    fn deep_and_hostile_traces_keep_the_width() {
        let mut spans: Vec<_> = (1..200)
            .map(|n| {
                span(
                    SpanKind::Run,
                    n,
                    n.checked_sub(1),
                    "run \u{1b}[31mevil\u{7}\r\n",
                    0,
                    u64::from(n),
                )
            })
            .collect();
        spans[0].parent = None;
        let page = page(spans, None);
        assert_eq!(page.lines().count(), 2 + 199);
        assert!(page.lines().all(|line| line.chars().count() <= 80));
        assert!(!page.chars().any(|c| c.is_control() && c != '\n'));
    }
}
