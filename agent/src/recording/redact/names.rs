//! What may stand in a recording in clear: names from Celery's and kombu's message formats, and Redis commands.

/// Keys of an envelope or of a result, at the top of the document.
pub(super) const TOP: [&str; 18] = [
    "body",
    "children",
    "content-encoding",
    "content-type",
    "date_done",
    "group_id",
    "headers",
    "name",
    "parent_id",
    "properties",
    "queue",
    "result",
    "retries",
    "status",
    "task_id",
    "traceback",
    "worker",
    "exc_type",
];

/// Keys that an envelope begins with (`kombu/transport/virtual/base.py: Channel.prepare_message`, in any order).
pub(super) const ENVELOPE_FIRST: [&str; 4] = ["body", "content-encoding", "headers", "properties"];

/// What a result begins with (`celery/backends/base.py: Backend._get_result_meta`, `celery/backends/rpc.py: RPCBackend._to_result`):
/// first and second key. Anything else is another program's.
pub(super) const RESULT_FIRST: [(&str, &str); 2] = [("status", "result"), ("task_id", "status")];

/// Keys of [`TOP`] whose values are harmless.
pub(in super::super) const TOP_CLEAR: [&str; 12] = [
    "children",
    "content-encoding",
    "content-type",
    "date_done",
    "group_id",
    "name",
    "parent_id",
    "queue",
    "retries",
    "status",
    "task_id",
    "worker",
];

/// Keys of an envelope that no argument can forge after a gap.
pub(super) const RESYNC: [&str; 4] = ["content-encoding", "content-type", "headers", "properties"];

/// Message headers whose values are harmless: Celery's own, and carriers of trace context.
pub(in super::super) const HEADERS: [&str; 34] = [
    "b3",
    "clock",
    "compression",
    "elasticapm-traceparent",
    "eta",
    "expires",
    "group",
    "group_index",
    "hostname",
    "id",
    "ignore_result",
    "lang",
    "method",
    "origin",
    "parent_id",
    "periodic_task_name",
    "redelivered",
    "replaced_task_nesting",
    "retries",
    "root_id",
    "sentry-trace",
    "shadow",
    "stamped_headers",
    "task",
    "timelimit",
    "traceparent",
    "tracestate",
    "uber-trace-id",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-spanid",
    "x-b3-traceid",
    "x-datadog-parent-id",
    "x-datadog-trace-id",
];

/// Message properties whose values are harmless, `delivery_info`'s among them.
pub(in super::super) const PROPERTIES: [&str; 12] = [
    "body_encoding",
    "correlation_id",
    "delivery_mode",
    "delivery_tag",
    "exchange",
    "expiration",
    "priority",
    "redelivered",
    "reply_to",
    "routing_key",
    "timestamp",
    "type",
];

/// Redis commands whose arguments are keys, ids and numbers only, as kombu and Celery use them.
pub(super) const KEYS_ONLY: [&str; 41] = [
    "BLPOP",
    "BRPOP",
    "BRPOPLPUSH",
    "CLIENT",
    "DEL",
    "DISCARD",
    "EXEC",
    "EXISTS",
    "EXPIRE",
    "GET",
    "HDEL",
    "HEXISTS",
    "HGET",
    "HLEN",
    "HMGET",
    "INFO",
    "LLEN",
    "LPOP",
    "MGET",
    "MULTI",
    "PERSIST",
    "PEXPIRE",
    "PSUBSCRIBE",
    "PTTL",
    "PUNSUBSCRIBE",
    "QUIT",
    "RPOP",
    "RPOPLPUSH",
    "SELECT",
    "SMEMBERS",
    "SUBSCRIBE",
    "TTL",
    "TYPE",
    "UNLINK",
    "UNSUBSCRIBE",
    "UNWATCH",
    "WATCH",
    "ZCARD",
    "ZCOUNT",
    "ZRANGE",
    "ZREVRANGEBYSCORE",
];

/// Redis commands whose members are harmless in kombu's own sets.
pub(super) const MEMBERS: [&str; 5] = ["SADD", "SISMEMBER", "SREM", "ZADD", "ZREM"];

/// Redis commands whose first argument is a key and whose last is a value.
pub(super) const KEY_AND_VALUE: [&str; 15] = [
    "APPEND", "EVALSHA", "GETSET", "HMSET", "HSET", "HSETNX", "LPUSH", "LPUSHX", "PSETEX", "PUBLISH",
    "RPUSH", "RPUSHX", "SET", "SETEX", "SETNX",
];

/// Redis commands that are answered by a key and a value.
pub(super) const KEY_AND_VALUE_IN_REPLY: [&str; 2] = ["BLPOP", "BRPOP"];

/// What kombu's own keys end with, or hold (`kombu/transport/redis.py: Channel.unacked_key`, `keyprefix_queue`).
pub(super) const UNACKED: [&str; 3] = ["unacked", "unacked_index", "unacked_mutex"];
pub(super) const BINDING: &str = "_kombu.binding.";

/// Commands after which messages come unasked; what answers them looks the same.
pub(super) const SUBSCRIPTIONS: [&str; 4] = ["PSUBSCRIBE", "PUNSUBSCRIBE", "SUBSCRIBE", "UNSUBSCRIBE"];

/// What Redis says of itself in a status.
pub(super) const STATUSES: [&str; 5] = ["CONTINUE", "OK", "PONG", "QUEUED", "RESET"];

/// What errors of Redis begin with (`src/server.c: createSharedObjects`, `src/cluster.c`, `src/acl.c`).
pub(super) const ERRORS: [&str; 25] = [
    "ASK",
    "BUSY",
    "BUSYGROUP",
    "BUSYKEY",
    "CLUSTERDOWN",
    "CROSSSLOT",
    "DENIED",
    "ERR",
    "EXECABORT",
    "INPROG",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOAUTH",
    "NOGOODSLAVE",
    "NOGROUP",
    "NOPERM",
    "NOPROTO",
    "NOREPLICAS",
    "NOSCRIPT",
    "OOM",
    "READONLY",
    "WRONGPASS",
    "WRONGTYPE",
];

/// A short text read byte by byte; what does not fit equals nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    bytes: [u8; Word::ROOM],
    len: usize,
}

impl Default for Word {
    fn default() -> Self {
        Self {
            bytes: [0; Self::ROOM],
            len: 0,
        }
    }
}

impl Word {
    const ROOM: usize = 64;

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    pub(super) fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.len) {
            *slot = byte;
        }
        self.len = self.len.saturating_add(1);
    }

    /// The text, or nothing when it was too long.
    pub(super) fn text(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    pub(super) fn is(&self, name: &str) -> bool {
        self.text() == name.as_bytes()
    }

    pub(super) fn is_in(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.is(name))
    }

    /// Whether one of the names could still become of it.
    pub(super) fn begins_one_of(&self, names: &[&str]) -> bool {
        self.len <= Self::ROOM && names.iter().any(|name| name.as_bytes().starts_with(self.text()))
    }

    pub(super) fn ends_with_one_of(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.text().ends_with(name.as_bytes()))
    }

    pub(super) fn contains(&self, part: &str) -> bool {
        self.text()
            .windows(part.len())
            .any(|window| window == part.as_bytes())
    }
}
