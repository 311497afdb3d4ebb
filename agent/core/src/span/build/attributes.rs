//! Attributes of spans (design §7).
//!
//! A message is used up by its span: its texts move to the attributes, since each clone of a shared text, and each drop, is
//! an atomic operation.

use std::iter;
use std::sync::Arc;

use super::super::model::{Attributes, Value};
use super::super::semconv as names;
use crate::broker::Server;
use crate::celery::{Rare, TaskMessage};
use crate::pipeline::Config;
use crate::text::Text;

/// Longest argument representation on a span, in characters; what is cut ends in `…`.
const ARGUMENTS_SHOWN: usize = 256;

/// What a span is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Publish,
    Run,
}

impl Operation {
    /// Operation and type as they are named today, and the operation as it was named before 1.17.
    fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Publish => ("publish", "send", "publish"),
            Self::Run => ("run", "process", "process"),
        }
    }

    /// Attributes that few of its spans have more of.
    fn many(self) -> usize {
        match self {
            Self::Publish => 25,
            Self::Run => 32,
        }
    }
}

/// What a broker connection told of a message.
pub(super) struct Told {
    pub(super) message: TaskMessage,
    pub(super) destination: Arc<str>,
    pub(super) server: Option<Server>,
}

impl Told {
    /// As attributes, in celeryscope's own style.
    pub(super) fn attributes(self, operation: Operation, config: &Config) -> Attributes {
        let arguments = arguments(&self.message, config.capture_args);
        let tag = match operation {
            Operation::Publish => None,
            Operation::Run => rabbitmq_tag(&self.message),
        };
        let old = if config.old_names {
            self.old_names(operation)
        } else {
            Vec::new()
        };
        let mut list = self.common(operation);
        list.extend(arguments);
        if let Some(tag) = tag {
            int(&mut list, names::RABBITMQ_DELIVERY_TAG, tag);
        }
        list.extend(old);
        list
    }

    fn common(self, operation: Operation) -> Attributes {
        let Self {
            message,
            destination,
            server,
        } = self;
        let (name, kind, _) = operation.names();
        let mut list: Attributes = Vec::with_capacity(operation.many());
        word(&mut list, names::MESSAGING_SYSTEM, message.system);
        word(&mut list, names::MESSAGING_OPERATION_NAME, Some(name));
        word(&mut list, names::MESSAGING_OPERATION_TYPE, Some(kind));
        shared(&mut list, names::MESSAGING_DESTINATION_NAME, Some(destination));
        if message.system == Some("rabbitmq") {
            shared(&mut list, names::RABBITMQ_ROUTING_KEY, Some(message.routing_key));
        }
        text(&mut list, names::MESSAGING_MESSAGE_ID, Some(&message.id));
        shared(
            &mut list,
            names::MESSAGING_CONVERSATION_ID,
            message.correlation_id,
        );
        count(
            &mut list,
            names::MESSAGING_ENVELOPE_SIZE,
            Some(message.envelope_size).filter(|size| *size > 0),
        );
        count(&mut list, names::MESSAGING_BODY_SIZE, message.body_size);
        if let Some((address, port)) = server.as_deref() {
            copy(&mut list, names::SERVER_ADDRESS, address);
            int(&mut list, names::SERVER_PORT, *port);
            copy(&mut list, names::NETWORK_PEER_ADDRESS, address);
            int(&mut list, names::NETWORK_PEER_PORT, *port);
        }
        shared(&mut list, names::TASK_NAME, Some(message.name));
        shared(&mut list, names::TASK_ID, Some(message.id));
        shared(&mut list, names::ROOT_ID, message.root_id);
        shared(&mut list, names::PARENT_ID, message.parent_id);
        shared(&mut list, names::GROUP_ID, message.group);
        int(&mut list, names::RETRY_COUNT, message.retries);
        count(&mut list, names::ARGS_COUNT, message.args_count);
        count(&mut list, names::KWARGS_COUNT, message.kwargs_count);
        let (eta, expires, stamps) = match message.rare.map(|rare| *rare) {
            Some(Rare {
                eta, expires, stamps, ..
            }) => (eta, expires, stamps),
            None => (None, None, None),
        };
        shared(&mut list, names::ETA, eta);
        shared(&mut list, names::EXPIRES, expires);
        if let Some(priority) = message.priority {
            int(&mut list, names::PRIORITY, priority);
        }
        shared(&mut list, names::ORIGIN, message.origin);
        shared(&mut list, names::REPLY_TO, message.reply_to);
        shared(&mut list, names::STAMPS, stamps);
        if message.ignore_result {
            flag(&mut list, names::IGNORE_RESULT, true);
        }
        list
    }

    fn old_names(&self, operation: Operation) -> Attributes {
        use names::old;
        let (_, _, name) = operation.names();
        let mut list = vec![(old::OPERATION, Value::from(name))];
        text(&mut list, old::DESTINATION, Some(&self.destination));
        text(&mut list, old::MESSAGE_ID, Some(&self.message.id));
        text(
            &mut list,
            old::CONVERSATION_ID,
            self.message.correlation_id.as_ref(),
        );
        if let Some((address, port)) = self.server.as_deref() {
            list.push((old::PEER_NAME, Value::Str(address.clone())));
            int(&mut list, old::PEER_PORT, *port);
        }
        list
    }
}

/// The attributes of opentelemetry-instrumentation-celery (`utils.py: set_attributes_from_context`).
pub(super) fn contrib(message: &TaskMessage, action: &'static str) -> Attributes {
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
        int(&mut list, names::PRIORITY, priority);
    }
    if message.retries > 0 {
        list.push((names::contrib::RETRIES, Value::Int(i64::from(message.retries))));
    }
    list
}

/// The arguments' own representations, only when the user asked for them, cut and marked.
fn arguments(message: &TaskMessage, wanted: bool) -> Attributes {
    let Some((args, kwargs)) = message.rare().reprs.as_ref().filter(|_| wanted) else {
        return Vec::new();
    };
    let mut list = Vec::with_capacity(2);
    for (key, value) in [(names::ARGS, args), (names::KWARGS, kwargs)] {
        let mut shown: String = value.chars().take(ARGUMENTS_SHOWN).collect();
        if shown.len() < value.len() {
            shown.push('…');
        }
        list.push((key, Value::from(shown)));
    }
    list
}

/// The delivery's number on its channel, which is the last part of the name that the broker's model gives it.
fn rabbitmq_tag(message: &TaskMessage) -> Option<i64> {
    let name = Some(&message.delivery_tag).filter(|_| message.system == Some("rabbitmq"))?;
    name.rsplit('.').next()?.parse().ok()
}

/// Adds an attribute. There is room for it before it is made: it is written once, where it stays.
#[inline]
pub(super) fn put(list: &mut Attributes, key: &'static str, value: impl FnOnce() -> Value) {
    list.extend(iter::once_with(|| (key, value())));
}

fn text(list: &mut Attributes, key: &'static str, value: Option<&Arc<str>>) {
    if let Some(value) = value
        && !value.is_empty()
    {
        put(list, key, || Value::Str(Text::Shared(Arc::clone(value))));
    }
}

pub(super) fn shared(list: &mut Attributes, key: &'static str, value: Option<Arc<str>>) {
    if let Some(value) = value
        && !value.is_empty()
    {
        put(list, key, || Value::Str(Text::Shared(value)));
    }
}

pub(super) fn word(list: &mut Attributes, key: &'static str, value: Option<&'static str>) {
    if let Some(value) = value {
        put(list, key, || Value::Str(Text::Static(value)));
    }
}

pub(super) fn copy(list: &mut Attributes, key: &'static str, value: &Text) {
    match value {
        Text::Static(value) => word(list, key, Some(value)),
        Text::Shared(value) => put(list, key, || Value::Str(Text::Shared(Arc::clone(value)))),
    }
}

pub(super) fn int(list: &mut Attributes, key: &'static str, value: impl Into<i64>) {
    let value = value.into();
    put(list, key, || Value::Int(value));
}

pub(super) fn flag(list: &mut Attributes, key: &'static str, value: bool) {
    put(list, key, || Value::Bool(value));
}

fn count(list: &mut Attributes, key: &'static str, value: Option<u64>) {
    if let Some(value) = value {
        int(list, key, i64::try_from(value).unwrap_or(i64::MAX));
    }
}
