//! From what is known of a publish or an attempt to its span (design §7).

mod attributes;
mod outcome;

use std::sync::Arc;

use attributes::{Operation, Told};
use outcome::Outcome;

use super::model::{
    Event, Link, Process, Relation, Span, SpanId, SpanKind, SpanStyle, Status, TraceId, Value,
};
use super::{ids, semconv as names};
use crate::broker::Server;
use crate::celery::TaskMessage;
use crate::pipeline::Config;
use crate::stream::Call;
use crate::task::{Attempt, Start, State};
use crate::text::Text;
use crate::time::{ClockPair, Mono, Wall};

/// What a publish span is made of.
#[derive(Debug)]
pub(crate) struct PublishFacts {
    pub(crate) message: Box<TaskMessage>,
    pub(crate) destination: Arc<str>,
    pub(crate) server: Option<Server>,
    pub(crate) trace_id: TraceId,
    pub(crate) span_id: SpanId,
    pub(crate) parent: Option<SpanId>,
    pub(crate) links: Vec<Link>,
    pub(crate) start: Wall,
    /// The call that moved the first byte began.
    pub(crate) first: Mono,
    /// The call that moved the last byte.
    pub(crate) call: Call,
    pub(crate) process: Arc<Process>,
}

/// What a run span is made of.
#[derive(Debug)]
pub(crate) struct RunFacts {
    pub(crate) attempt: Box<Attempt>,
    pub(crate) worker_name: Option<Arc<str>>,
    pub(crate) pool: Option<&'static str>,
    pub(crate) process: Arc<Process>,
    pub(crate) clock: ClockPair,
    pub(crate) now: Mono,
}

/// The trace of a message: its traceparent's, else a function of its root id (its own where it names no root).
pub(crate) fn trace_of(message: &TaskMessage) -> TraceId {
    match &message.traceparent {
        Some(context) => context.trace_id,
        None => ids::trace_id_of_root(message.root_id.as_deref().unwrap_or(&message.id)),
    }
}

/// Whether a message's trace is a function of its own id.
pub(crate) fn is_root(message: &TaskMessage) -> bool {
    message.traceparent.is_none() && message.root_id.as_ref().is_none_or(|root| *root == message.id)
}

/// The span id of the publish of a message.
pub(crate) fn publish_of(message: &TaskMessage) -> SpanId {
    ids::publish_span_id(&message.id, message.retries, &message.name, message.replacements)
}

/// The span of a publish that the broker answered, or of which no answer was seen.
pub(crate) fn publish(facts: PublishFacts, answered: Option<Mono>, config: &Config) -> Box<Span> {
    let message = &facts.message;
    let name = name(config.style, "publish", "apply_async", &message.name);
    let trace_state = trace_state(message);
    let sampled = message.traceparent.map(|context| context.sampled);
    let call = facts.call;
    let caller = [
        (names::PROCESS_PID, Value::Int(i64::from(call.pid))),
        (names::THREAD_ID, Value::Int(i64::from(call.tid))),
    ];
    let attributes = match config.style {
        SpanStyle::Semconv => {
            let told = Told {
                message: *facts.message,
                destination: facts.destination,
                server: facts.server,
            };
            let mut list = told.attributes(Operation::Publish, config);
            list.extend(caller);
            list
        }
        SpanStyle::Contrib => {
            let mut list = attributes::contrib(message, "apply_async");
            list.extend(caller);
            if let Some(origin) = &message.origin {
                list.push((names::contrib::HOSTNAME, Value::from(origin)));
            }
            list
        }
    };
    Box::new(Span {
        kind: SpanKind::Publish,
        trace_id: facts.trace_id,
        span_id: facts.span_id,
        parent: facts.parent,
        trace_state,
        sampled,
        name,
        start: facts.start,
        end: later(facts.start, facts.first, answered.unwrap_or(call.exit)),
        status: Status::Unset,
        attributes,
        events: Vec::new(),
        links: facts.links,
        process: facts.process,
    })
}

/// The span of an attempt, with what is known of it. `waiting_since`: published, or due by its ETA, whichever is later.
/// `published`: the span of its publish, where that was seen, and its trace, where it is known.
pub(crate) fn run(
    mut facts: RunFacts,
    waiting_since: Option<Mono>,
    published: Option<(SpanId, Option<TraceId>)>,
    config: &Config,
) -> Box<Span> {
    let attempt = &facts.attempt;
    let message = &attempt.message;
    let (start, end) = interval(&facts);
    let (publish_span, publish_trace) = published.unzip();
    let publish_trace = publish_trace.flatten().unwrap_or_else(|| trace_of(message));
    let publish_span = publish_span.unwrap_or_else(|| publish_of(message));
    let (span_id, own) = attempt.start.map_or_else(
        || {
            let host = super::host_of(&facts.process);
            ids::run_ids(&message.id, message.retries, host, start)
        },
        |start| (start.span_id, start.own_trace),
    );
    let (trace_id, parent, links) = match config.relation {
        Relation::Parent => (publish_trace, Some(publish_span), Vec::new()),
        Relation::Link => (
            own,
            None,
            vec![Link {
                trace_id: publish_trace,
                span_id: publish_span,
            }],
        ),
    };
    let name = name(config.style, "run", "run", &message.name);
    let trace_state = trace_state(message);
    let sampled = message.traceparent.map(|context| context.sampled);
    let status = status(attempt);
    let events = events(attempt, |at| wall(&facts, at), end);
    let outcome = Outcome::of(&mut facts, waiting_since);
    let mut attributes = match config.style {
        SpanStyle::Semconv => {
            let attempt = facts.attempt;
            let told = Told {
                message: attempt.message,
                destination: attempt.destination,
                server: attempt.server,
            };
            told.attributes(Operation::Run, config)
        }
        SpanStyle::Contrib => attributes::contrib(&facts.attempt.message, "run"),
    };
    outcome.join(&mut attributes);
    Box::new(Span {
        kind: SpanKind::Run,
        trace_id,
        span_id,
        parent,
        trace_state,
        sampled,
        name,
        start,
        end,
        status,
        attributes,
        events,
        links,
        process: facts.process,
    })
}

fn trace_state(message: &TaskMessage) -> Text {
    message
        .rare()
        .tracestate
        .as_ref()
        .map_or(Text::Static(""), Text::from)
}

fn name(style: SpanStyle, own: &str, contrib: &str, task: &str) -> Text {
    match style {
        SpanStyle::Semconv => [own, " ", task].concat().into(),
        SpanStyle::Contrib => [contrib, "/", task].concat().into(),
    }
}

/// `start` plus what passed from `from` to `to`, so that a clock that was set in between changes no duration.
fn later(start: Wall, from: Mono, to: Mono) -> Wall {
    Wall(start.0.saturating_add(to.0.saturating_sub(from.0)))
}

fn wall(facts: &RunFacts, at: Mono) -> Wall {
    match &facts.attempt.start {
        Some(start) => start.wall_of(at),
        None => facts.clock.wall_of(at),
    }
}

/// Start and end. An attempt that never began is a point in time; one whose end was not seen lasts until now.
fn interval(facts: &RunFacts) -> (Wall, Wall) {
    let attempt = &facts.attempt;
    let end = attempt.end.map(|end| end.at);
    let start = attempt
        .start
        .map(|start: Start| start.at)
        .or(end)
        .or(attempt.acked)
        .unwrap_or(facts.now);
    let end = end.unwrap_or(if attempt.start.is_some() { facts.now } else { start });
    (wall(facts, start), wall(facts, end.max(start)))
}

fn status(attempt: &Attempt) -> Status {
    match attempt.state {
        Some(State::Success) => Status::Ok,
        Some(State::Failure | State::Lost) => {
            let message = attempt
                .exception
                .as_ref()
                .map(|exception| exception.message.clone());
            let lost = attempt.state == Some(State::Lost);
            let fallback = if lost {
                "the process that ran the task is gone"
            } else {
                ""
            };
            Status::Error(message.unwrap_or_else(|| fallback.to_owned()))
        }
        _ => Status::Unset,
    }
}

fn events(attempt: &Attempt, wall: impl Fn(Mono) -> Wall, end: Wall) -> Vec<Event> {
    let mut events = Vec::with_capacity(2);
    let mut push = |name, at, attributes| events.push(Event { name, at, attributes });
    if let Some(at) = attempt.delivered {
        push("delivered", wall(at), Vec::new());
    }
    if let Some(at) = attempt.acked {
        push("acked", wall(at), Vec::new());
    }
    if let (Some(State::Failure | State::Lost), Some(exception)) = (attempt.state, &attempt.exception) {
        let told = [
            (names::EXCEPTION_TYPE, &exception.class),
            (names::EXCEPTION_MESSAGE, &exception.message),
            (names::EXCEPTION_STACKTRACE, &exception.traceback),
        ];
        let told = told.into_iter().filter(|(_, text)| !text.is_empty());
        let attributes = told.map(|(key, text)| (key, Value::from(text.clone()))).collect();
        push("exception", end, attributes);
    }
    events.sort_by_key(|event| event.at);
    events
}
