//! Every attribute name, once (design §7).
//!
//! `messaging.*`, `server.*`, `network.*`, `error.*`, `process.*` and `thread.*` are OpenTelemetry's semantic
//! conventions; `celery.*` are our own; [`contrib`] are those of opentelemetry-instrumentation-celery 0.66.

macro_rules! names {
    ($($name:ident = $value:literal;)+) => { $(pub(crate) const $name: &str = $value;)+ };
}

names! {
    MESSAGING_SYSTEM = "messaging.system";
    MESSAGING_OPERATION_NAME = "messaging.operation.name";
    MESSAGING_OPERATION_TYPE = "messaging.operation.type";
    MESSAGING_DESTINATION_NAME = "messaging.destination.name";
    RABBITMQ_ROUTING_KEY = "messaging.rabbitmq.destination.routing_key";
    RABBITMQ_DELIVERY_TAG = "messaging.rabbitmq.message.delivery_tag";
    MESSAGING_MESSAGE_ID = "messaging.message.id";
    MESSAGING_CONVERSATION_ID = "messaging.message.conversation_id";
    MESSAGING_ENVELOPE_SIZE = "messaging.message.envelope.size";
    MESSAGING_BODY_SIZE = "messaging.message.body.size";
    SERVER_ADDRESS = "server.address";
    SERVER_PORT = "server.port";
    NETWORK_PEER_ADDRESS = "network.peer.address";
    NETWORK_PEER_PORT = "network.peer.port";
    PROCESS_PID = "process.pid";
    THREAD_ID = "thread.id";
    ERROR_TYPE = "error.type";
    EXCEPTION_TYPE = "exception.type";
    EXCEPTION_MESSAGE = "exception.message";
    EXCEPTION_STACKTRACE = "exception.stacktrace";

    TASK_NAME = "celery.task_name";
    TASK_ID = "celery.task_id";
    ROOT_ID = "celery.root_id";
    PARENT_ID = "celery.parent_id";
    GROUP_ID = "celery.group_id";
    RETRY_COUNT = "celery.retry_count";
    ARGS_COUNT = "celery.args_count";
    KWARGS_COUNT = "celery.kwargs_count";
    ARGS = "celery.args";
    KWARGS = "celery.kwargs";
    ETA = "celery.eta";
    EXPIRES = "celery.expires";
    PRIORITY = "celery.priority";
    ORIGIN = "celery.origin";
    REPLY_TO = "celery.reply_to";
    STAMPS = "celery.stamps";
    IGNORE_RESULT = "celery.ignore_result";
    STATE = "celery.state";
    QUEUE_TIME = "celery.queue_time";
    HOSTNAME = "celery.hostname";
    POOL = "celery.pool";
    TIMING = "celery.timing";
    REDELIVERED = "celery.redelivered";
    END = "celery.end";
}

/// Names of the messaging conventions 1.11, which some dashboards still want beside those of today.
pub(crate) mod old {
    names! {
        OPERATION = "messaging.operation";
        DESTINATION = "messaging.destination";
        MESSAGE_ID = "messaging.message_id";
        CONVERSATION_ID = "messaging.conversation_id";
        PEER_NAME = "net.peer.name";
        PEER_PORT = "net.peer.port";
    }
}

/// Names that only `--span-style contrib` uses.
pub(crate) mod contrib {
    names! {
        ACTION = "celery.action";
        DESTINATION = "messaging.destination";
        CONVERSATION_ID = "messaging.conversation_id";
        RETRIES = "celery.retries";
        HOSTNAME = "celery.hostname";
    }
}
