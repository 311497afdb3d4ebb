//! From what is known of a publish or an attempt to its span (design §7).

use std::sync::Arc;

use super::model::{
    Attributes, Event, Link, Process, Relation, Span, SpanId, SpanKind, SpanStyle, Status, TraceId, Value,
};
use super::{ids, semconv as names};
use crate::broker::Server;
use crate::celery::TaskMessage;
use crate::pipeline::Config;
use crate::stream::Call;
use crate::task::{Attempt, Start, State};
use crate::text::Text;
use crate::time::{ClockPair, Mono, Wall};

/// Attributes that few spans have more of.
const MANY: usize = 32;

/// Longest argument representation on a span, in characters; what is cut ends in `…`.
const ARGUMENTS_SHOWN: usize = 256;

/// What a publish span is made of.
#[derive(Debug)]
pub(crate) struct PublishFacts {
    pub(crate) message: TaskMessage,
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
pub(crate) fn publish(facts: PublishFacts, answered: Option<Mono>, config: &Config) -> Span {
    let message = &facts.message;
    let mut attributes = match config.style {
        SpanStyle::Semconv => {
            let mut list = common(
                message,
                &facts.destination,
                facts.server.as_ref(),
                "publish",
                "send",
            );
            arguments(&mut list, message, config.capture_args);
            if config.old_names {
                old_names(
                    &mut list,
                    message,
                    &facts.destination,
                    facts.server.as_ref(),
                    "publish",
                );
            }
            list
        }
        SpanStyle::Contrib => contrib(message, "apply_async"),
    };
    attributes.push((names::PROCESS_PID, Value::Int(i64::from(facts.call.pid))));
    attributes.push((names::THREAD_ID, Value::Int(i64::from(facts.call.tid))));
    if let (SpanStyle::Contrib, Some(origin)) = (config.style, &message.origin) {
        attributes.push((names::contrib::HOSTNAME, Value::from(origin)));
    }
    Span {
        kind: SpanKind::Publish,
        trace_id: facts.trace_id,
        span_id: facts.span_id,
        parent: facts.parent,
        trace_state: trace_state(message),
        sampled: message.traceparent.map(|context| context.sampled),
        name: name(config.style, "publish", "apply_async", &message.name),
        start: facts.start,
        end: later(facts.start, facts.first, answered.unwrap_or(facts.call.exit)),
        status: Status::Unset,
        attributes,
        events: Vec::new(),
        links: facts.links,
        process: facts.process,
    }
}

/// The delivery's number on its channel, which is the last part of the name that the broker's model gives it.
fn rabbitmq_tag(message: &TaskMessage) -> Option<i64> {
    let name = Some(&message.delivery_tag).filter(|_| message.system == Some("rabbitmq"))?;
    name.rsplit('.').next()?.parse().ok()
}

/// The span of an attempt, with what is known of it. `waiting_since`: published, or due by its ETA, whichever is later.
/// `published`: the span of its publish, where that was seen, and its trace, where it is known.
pub(crate) fn run(
    facts: RunFacts,
    waiting_since: Option<Mono>,
    published: Option<(SpanId, Option<TraceId>)>,
    config: &Config,
) -> Span {
    let attempt = &facts.attempt;
    let message = &attempt.message;
    let (start, end) = interval(&facts);
    let mut attributes = match config.style {
        SpanStyle::Semconv => {
            let mut list = common(
                message,
                &attempt.destination,
                attempt.server.as_ref(),
                "run",
                "process",
            );
            arguments(&mut list, message, config.capture_args);
            if let Some(tag) = rabbitmq_tag(message) {
                list.push((names::RABBITMQ_DELIVERY_TAG, Value::Int(tag)));
            }
            if config.old_names {
                old_names(
                    &mut list,
                    message,
                    &attempt.destination,
                    attempt.server.as_ref(),
                    "process",
                );
            }
            list
        }
        SpanStyle::Contrib => contrib(message, "run"),
    };
    outcome(&mut attributes, &facts, waiting_since);
    let (publish_span, publish_trace) = published.unzip();
    let publish_trace = publish_trace.flatten().unwrap_or_else(|| trace_of(message));
    let publish_span = publish_span.unwrap_or_else(|| publish_of(message));
    let host = super::host_of(&facts.process);
    let (span_id, own) = attempt.start.map_or_else(
        || ids::run_ids(&message.id, message.retries, host, start),
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
    Span {
        kind: SpanKind::Run,
        trace_id,
        span_id,
        parent,
        trace_state: trace_state(message),
        sampled: message.traceparent.map(|context| context.sampled),
        name: name(config.style, "run", "run", &message.name),
        start,
        end,
        status: status(attempt),
        attributes,
        events: events(attempt, |at| wall(&facts, at), end),
        links,
        process: Arc::clone(&facts.process),
    }
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

fn text(list: &mut Attributes, key: &'static str, value: Option<impl Into<Text>>) {
    if let Some(value) = value.map(Into::into).filter(|value| !value.is_empty()) {
        list.push((key, Value::Str(value)));
    }
}

fn count(list: &mut Attributes, key: &'static str, value: Option<u64>) {
    if let Some(value) = value {
        list.push((key, Value::Int(i64::try_from(value).unwrap_or(i64::MAX))));
    }
}

/// What publish and run have in common.
fn common(
    message: &TaskMessage,
    destination: &Arc<str>,
    server: Option<&Server>,
    operation: &'static str,
    operation_type: &'static str,
) -> Attributes {
    let mut list: Attributes = Vec::with_capacity(MANY);
    text(&mut list, names::MESSAGING_SYSTEM, message.system);
    list.push((names::MESSAGING_OPERATION_NAME, Value::from(operation)));
    list.push((names::MESSAGING_OPERATION_TYPE, Value::from(operation_type)));
    text(&mut list, names::MESSAGING_DESTINATION_NAME, Some(destination));
    if message.system == Some("rabbitmq") {
        text(&mut list, names::RABBITMQ_ROUTING_KEY, Some(&message.routing_key));
    }
    text(&mut list, names::MESSAGING_MESSAGE_ID, Some(&message.id));
    text(
        &mut list,
        names::MESSAGING_CONVERSATION_ID,
        message.correlation_id.as_ref(),
    );
    count(
        &mut list,
        names::MESSAGING_ENVELOPE_SIZE,
        Some(message.envelope_size).filter(|size| *size > 0),
    );
    count(&mut list, names::MESSAGING_BODY_SIZE, message.body_size);
    if let Some((address, port)) = server.map(|server| &**server) {
        list.push((names::SERVER_ADDRESS, Value::Str(address.clone())));
        list.push((names::SERVER_PORT, Value::Int(i64::from(*port))));
        list.push((names::NETWORK_PEER_ADDRESS, Value::Str(address.clone())));
        list.push((names::NETWORK_PEER_PORT, Value::Int(i64::from(*port))));
    }
    text(&mut list, names::TASK_NAME, Some(&message.name));
    text(&mut list, names::TASK_ID, Some(&message.id));
    text(&mut list, names::ROOT_ID, message.root_id.as_ref());
    text(&mut list, names::PARENT_ID, message.parent_id.as_ref());
    text(&mut list, names::GROUP_ID, message.group.as_ref());
    list.push((names::RETRY_COUNT, Value::Int(i64::from(message.retries))));
    count(&mut list, names::ARGS_COUNT, message.args_count);
    count(&mut list, names::KWARGS_COUNT, message.kwargs_count);
    text(&mut list, names::ETA, message.rare().eta.as_ref());
    text(&mut list, names::EXPIRES, message.rare().expires.as_ref());
    if let Some(priority) = message.priority {
        list.push((names::PRIORITY, Value::Int(priority)));
    }
    text(&mut list, names::ORIGIN, message.origin.as_ref());
    text(&mut list, names::REPLY_TO, message.reply_to.as_ref());
    text(&mut list, names::STAMPS, message.rare().stamps.as_ref());
    if message.ignore_result {
        list.push((names::IGNORE_RESULT, Value::Bool(true)));
    }
    list
}

fn old_names(
    list: &mut Attributes,
    message: &TaskMessage,
    destination: &Arc<str>,
    server: Option<&Server>,
    operation: &'static str,
) {
    use names::old;
    list.push((old::OPERATION, Value::from(operation)));
    text(list, old::DESTINATION, Some(destination));
    text(list, old::MESSAGE_ID, Some(&message.id));
    text(list, old::CONVERSATION_ID, message.correlation_id.as_ref());
    if let Some((address, port)) = server.map(|server| &**server) {
        list.push((old::PEER_NAME, Value::Str(address.clone())));
        list.push((old::PEER_PORT, Value::Int(i64::from(*port))));
    }
}

/// The arguments' own representations, only when the user asked for them, cut and marked.
fn arguments(list: &mut Attributes, message: &TaskMessage, wanted: bool) {
    let Some((args, kwargs)) = message.rare().reprs.as_ref().filter(|_| wanted) else {
        return;
    };
    for (key, value) in [(names::ARGS, args), (names::KWARGS, kwargs)] {
        let mut shown: String = value.chars().take(ARGUMENTS_SHOWN).collect();
        if shown.len() < value.len() {
            shown.push('…');
        }
        list.push((key, Value::from(shown)));
    }
}

/// The attributes of opentelemetry-instrumentation-celery (`utils.py: set_attributes_from_context`).
fn contrib(message: &TaskMessage, action: &'static str) -> Attributes {
    let mut list: Attributes = vec![(names::contrib::ACTION, Value::from(action))];
    text(&mut list, names::MESSAGING_MESSAGE_ID, Some(&message.id));
    text(&mut list, names::TASK_NAME, Some(&message.name));
    text(
        &mut list,
        names::contrib::CONVERSATION_ID,
        message.correlation_id.as_ref(),
    );
    text(&mut list, names::contrib::DESTINATION, Some(&message.routing_key));
    text(&mut list, names::ETA, message.rare().eta.as_ref());
    text(&mut list, names::EXPIRES, message.rare().expires.as_ref());
    text(&mut list, names::REPLY_TO, message.reply_to.as_ref());
    if let Some(priority) = message.priority {
        list.push((names::PRIORITY, Value::Int(priority)));
    }
    if message.retries > 0 {
        list.push((names::contrib::RETRIES, Value::Int(i64::from(message.retries))));
    }
    list
}

/// What only a run has.
fn outcome(list: &mut Attributes, facts: &RunFacts, waiting_since: Option<Mono>) {
    let attempt = &facts.attempt;
    if let Some(state) = attempt.state {
        list.push((names::STATE, Value::from(state.as_str())));
    }
    if attempt.end.is_none() {
        list.push((names::END, Value::from("unknown")));
    }
    if let (Some(start), Some(since)) = (&attempt.start, waiting_since) {
        list.push((
            names::QUEUE_TIME,
            Value::Float(start.at.since(since).as_secs_f64()),
        ));
    }
    text(list, names::HOSTNAME, facts.worker_name.as_ref());
    text(list, names::POOL, facts.pool);
    list.push((names::TIMING, Value::Str(timing(attempt))));
    list.push((names::REDELIVERED, Value::Bool(attempt.message.redelivered)));
    if let Some((pid, tid)) = attempt.runner {
        list.push((names::PROCESS_PID, Value::Int(i64::from(pid))));
        list.push((names::THREAD_ID, Value::Int(i64::from(tid))));
    } else if attempt.began.is_some() {
        // Which of the worker's threads is not known.
        list.push((names::PROCESS_PID, Value::Int(i64::from(attempt.leader))));
    }
    if let Some(error) = error_type(attempt) {
        list.push((names::ERROR_TYPE, Value::Str(error)));
    }
}

/// The evidence for start and end: one word where it is the same, else both.
fn timing(attempt: &Attempt) -> Text {
    let start = attempt.start.map(|start| start.timing);
    let end = attempt.end.map(|end| end.timing);
    match (start, end) {
        (Some(start), Some(end)) if start != end => format!("{},{}", start.as_str(), end.as_str()).into(),
        (Some(one), _) | (None, Some(one)) => one.as_str().into(),
        (None, None) => "ack".into(),
    }
}

fn error_type(attempt: &Attempt) -> Option<Text> {
    let class = attempt
        .exception
        .as_ref()
        .map(|exception| Text::from(exception.class.clone()));
    match attempt.state? {
        State::Failure => Some(class.unwrap_or("_OTHER".into())),
        State::Lost => Some(class.unwrap_or("billiard.exceptions.WorkerLostError".into())),
        _ => None,
    }
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
        let mut attributes = Vec::new();
        text(
            &mut attributes,
            names::EXCEPTION_TYPE,
            Some(exception.class.clone()),
        );
        text(
            &mut attributes,
            names::EXCEPTION_MESSAGE,
            Some(exception.message.clone()),
        );
        text(
            &mut attributes,
            names::EXCEPTION_STACKTRACE,
            Some(exception.traceback.clone()),
        );
        push("exception", end, attributes);
    }
    events.sort_by_key(|event| event.at);
    events
}
