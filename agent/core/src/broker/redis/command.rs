//! What one command says, on its own.

use std::sync::Arc;

use super::RedisStats;
use super::keys::{self, Channel};
use crate::broker::BrokerEvent;
use crate::broker::Context;
use crate::celery::content::{self, Content};
use crate::celery::envelope::Contiguous;
use crate::celery::{ResultMeta, TaskMessage};
use crate::stream::Call;
use crate::wire::resp::{Bulk, Command, Item, Value};

/// No command that is known here has a longer name.
const LONGEST_NAME: usize = 16;

/// A command's part in Celery's use of Redis.
#[derive(Debug)]
pub(super) enum Meaning {
    /// Opens a transaction.
    Multi,
    /// Runs it.
    Exec,
    /// Drops it.
    Discard,
    /// Waits for a delivery; kombu's where the queues show its priority steps or its reply queues.
    Pop {
        /// It is certainly kombu's.
        kombu: bool,
    },
    /// Its answers are pushes.
    Subscribe,
    /// Looks at the stored result of this task, as Celery does before it stores one
    /// (`celery/backends/base.py: KeyValueStoreBackend._store_result`).
    Look(String),
    /// Events that hold as soon as the command is sent. Only Celery sends such a command.
    Celery(Vec<BrokerEvent>),
    /// What a client sends before it uses a connection that it has just opened.
    SetUp,
    /// What any client may send.
    Neutral,
    /// Nothing that Celery would send.
    Foreign,
}

/// Reads a command. Publishes get their tokens from `next_token`.
pub(super) fn read(
    item: &Item<Command<'_>>,
    context: &Context<'_>,
    stats: &mut RedisStats,
    mut next_token: impl FnMut() -> u64,
) -> Meaning {
    let command = &item.value;
    let call = call_of(item);
    let key = command.arg(1).map_or(&[][..], |bulk| bulk.head());
    let mut upper = [0; LONGEST_NAME];
    let Some(name) = upper_case(command.name(), &mut upper) else {
        return Meaning::Foreign;
    };
    match name {
        b"MULTI" => Meaning::Multi,
        b"EXEC" => Meaning::Exec,
        b"DISCARD" => Meaning::Discard,
        b"HELLO" | b"AUTH" | b"CLIENT" | b"SELECT" | b"READONLY" | b"COMMAND" => Meaning::SetUp,
        b"PING" | b"INFO" | b"WATCH" | b"UNWATCH" | b"QUIT" | b"RESET" => Meaning::Neutral,
        b"BRPOP" | b"BLPOP" | b"RPOP" | b"LPOP" => Meaning::Pop {
            kombu: command
                .args
                .iter()
                .skip(1)
                .any(|bulk| keys::is_kombu_queue(bulk.head())),
        },
        b"SUBSCRIBE" | b"PSUBSCRIBE" | b"UNSUBSCRIBE" | b"PUNSUBSCRIBE" => Meaning::Subscribe,
        b"LPUSH" | b"RPUSH" => {
            let mut events = Vec::new();
            for value in command.args.iter().skip(2) {
                match envelope(value, context, stats) {
                    Some(Content::Task(message)) if message.redelivered => {
                        events.push(BrokerEvent::Requeued {
                            tag: message.delivery_tag,
                            call,
                        });
                    }
                    Some(Content::Task(message)) => {
                        let destination = keys::queue(key, &message, context.share);
                        events.push(publish(message, destination, item, next_token()));
                    }
                    Some(Content::Reply { task_id, meta }) => {
                        events.push(BrokerEvent::Result {
                            task_id,
                            meta,
                            first: item.first,
                            call,
                        });
                    }
                    Some(_) => {}
                    None => return Meaning::Foreign,
                }
            }
            Meaning::Celery(events)
        }
        b"SADD" => binding(command, key, 2, call),
        // kombu's script that binds and notes until when: its digest, two keys, then the member.
        b"EVALSHA" => binding(
            command,
            command.arg(3).map_or(&[][..], |bulk| bulk.head()),
            5,
            call,
        ),
        b"PUBLISH" => fanout(item, key, context, stats, next_token),
        b"HSET" if key.ends_with(b"unacked") => {
            stats.unacked_copies += 1;
            Meaning::Celery(unacked_copy(command, call, context, stats).into_iter().collect())
        }
        b"HDEL" if key.ends_with(b"unacked") => {
            let tags = command
                .args
                .iter()
                .skip(2)
                .filter_map(|bulk| std::str::from_utf8(bulk.whole()?).ok());
            Meaning::Celery(
                tags.map(|tag| BrokerEvent::Acked {
                    tag: Arc::from(tag),
                    call,
                })
                .collect(),
            )
        }
        b"ZRANGE" | b"LRANGE" => match keys::chord_parts(key) {
            Some(group) => Meaning::Celery(vec![BrokerEvent::ChordComplete { group, call }]),
            None => other(command),
        },
        b"SETEX" | b"PSETEX" | b"SET" => match keys::result_id(key) {
            Some(task_id) => {
                let at = if name == b"SET" { 2 } else { 3 };
                let meta = command.arg(at).map_or(&[][..], |bulk| bulk.head());
                Meaning::Celery(result(task_id, meta, item, stats).into_iter().collect())
            }
            None => other(command),
        },
        b"GET" => keys::result_id(key).map_or_else(|| other(command), Meaning::Look),
        _ => other(command),
    }
}

/// A name in upper case, in which clients write it; case does not matter to Redis. `None`: longer than any that is known here.
fn upper_case<'n>(name: &'n [u8], room: &'n mut [u8; LONGEST_NAME]) -> Option<&'n [u8]> {
    let room = room.get_mut(..name.len())?;
    if !name.iter().any(u8::is_ascii_lowercase) {
        return Some(name);
    }
    room.copy_from_slice(name);
    room.make_ascii_uppercase();
    Some(room)
}

/// A queue is bound to an exchange: the argument numbered `member` of the set `key`.
fn binding(command: &Command<'_>, key: &[u8], member: usize, call: Call) -> Meaning {
    if !keys::is_celery(key) {
        return other(command);
    }
    let name = command
        .arg(member)
        .and_then(|member| keys::mailbox(member.head()));
    Meaning::Celery(
        name.map(|name| BrokerEvent::WorkerName { name, call })
            .into_iter()
            .collect(),
    )
}

/// A command without meaning for tasks: Celery's own where a key says so.
fn other(command: &Command<'_>) -> Meaning {
    // EVALSHA and its like have their keys further back.
    if command
        .args
        .iter()
        .skip(1)
        .take(8)
        .any(|bulk| bulk.len() <= 512 && keys::is_celery(bulk.head()))
    {
        Meaning::Celery(Vec::new())
    } else {
        Meaning::Foreign
    }
}

fn fanout(
    item: &Item<Command<'_>>,
    channel: &[u8],
    context: &Context<'_>,
    stats: &mut RedisStats,
    next_token: impl FnOnce() -> u64,
) -> Meaning {
    let call = call_of(item);
    let Some(payload) = item.value.arg(2) else {
        return Meaning::Foreign;
    };
    let kind = keys::channel(channel);
    if matches!(kind, Channel::Control | Channel::Result) {
        return Meaning::Celery(Vec::new());
    }
    let (exchange, content) = (
        keys::exchange(channel, context.share),
        envelope(payload, context, stats),
    );
    match (kind, content) {
        (Channel::Events, Some(Content::Events { hostname, events })) => {
            let mut all = vec![BrokerEvent::WorkerName { name: hostname, call }];
            if !events.is_empty() {
                all.push(BrokerEvent::Told { events, call });
            }
            Meaning::Celery(all)
        }
        (_, Some(Content::Task(message))) => {
            let destination = exchange.unwrap_or_else(|| Arc::clone(&message.exchange));
            Meaning::Celery(vec![publish(message, destination, item, next_token())])
        }
        (_, Some(_)) => Meaning::Celery(Vec::new()),
        (_, None) => Meaning::Foreign,
    }
}

/// What a reply or a push delivers.
pub(super) fn delivery(
    item: &Item<Value<'_>>,
    context: &Context<'_>,
    stats: &mut RedisStats,
) -> Option<BrokerEvent> {
    let elements = item.value.elements()?;
    let (source, payload, from_channel) = match elements {
        [Value::Bulk(key), Value::Bulk(payload)] => (key, payload, false),
        [kind, Value::Bulk(channel), Value::Bulk(payload)] if kind.text() == Some(b"message") => {
            (channel, payload, true)
        }
        [kind, _, Value::Bulk(channel), Value::Bulk(payload)] if kind.text() == Some(b"pmessage") => {
            (channel, payload, true)
        }
        _ => return None,
    };
    if from_channel && keys::channel(source.head()) != Channel::Other {
        return None;
    }
    let Some(Content::Task(message)) = envelope(payload, context, stats) else {
        return None;
    };
    let destination = if from_channel {
        keys::exchange(source.head(), context.share).unwrap_or_else(|| Arc::clone(&message.exchange))
    } else {
        keys::queue(source.head(), &message, context.share)
    };
    Some(BrokerEvent::Delivered {
        message,
        destination,
        call: call_of(item),
    })
}

/// The copy of a delivery that was missed tells what was delivered; of one that was seen it tells nothing new.
fn unacked_copy(
    command: &Command<'_>,
    call: Call,
    context: &Context<'_>,
    stats: &mut RedisStats,
) -> Option<BrokerEvent> {
    let tag = std::str::from_utf8(command.arg(2)?.whole()?).ok()?;
    if (context.knows_tag)(tag) {
        return None;
    }
    let list = command.arg(3)?.whole()?;
    let (envelope, _exchange, key): (&serde_json::value::RawValue, &str, &str) =
        serde_json::from_slice(list).ok()?;
    let json = envelope.get().as_bytes();
    match count(
        content::read(
            &Contiguous::whole(json),
            json.len() as u64,
            context.capture_args,
            context.share,
        ),
        stats,
    ) {
        Content::Task(message) => {
            let destination = keys::queue(key.as_bytes(), &message, context.share);
            Some(BrokerEvent::Delivered {
                message,
                destination,
                call,
            })
        }
        _ => None,
    }
}

fn publish(
    message: Box<TaskMessage>,
    destination: Arc<str>,
    item: &Item<Command<'_>>,
    token: u64,
) -> BrokerEvent {
    BrokerEvent::Publish {
        token,
        message,
        destination,
        first: item.first,
        call: call_of(item),
    }
}

fn result(
    task_id: String,
    meta: &[u8],
    item: &Item<Command<'_>>,
    stats: &mut RedisStats,
) -> Option<BrokerEvent> {
    match ResultMeta::parse(meta) {
        Some(meta) => Some(BrokerEvent::Result {
            task_id,
            meta: Box::new(meta),
            first: item.first,
            call: call_of(item),
        }),
        None => {
            stats.results_malformed += 1;
            None
        }
    }
}

/// What an envelope holds; `None` when it is clearly something else.
fn envelope(payload: &Bulk<'_>, context: &Context<'_>, stats: &mut RedisStats) -> Option<Content> {
    if !payload.head().starts_with(b"{") {
        return None;
    }
    let captured = match payload.whole() {
        Some(json) => Contiguous::whole(json),
        None => match Contiguous::with_hole(payload.head(), payload.tail(), payload.len()) {
            Ok(captured) => captured,
            Err(_) => {
                stats.messages_cut += 1;
                return Some(Content::Other);
            }
        },
    };
    let content = content::read(&captured, payload.len(), context.capture_args, context.share);
    let content = count(content, stats);
    match content {
        Content::Malformed => None,
        content => Some(content),
    }
}

fn count(content: Content, stats: &mut RedisStats) -> Content {
    match content {
        Content::Malformed => stats.messages_malformed += 1,
        Content::Other | Content::Events { .. } => stats.messages_other += 1,
        Content::Task(_) | Content::Reply { .. } => {}
    }
    content
}

fn call_of<T>(item: &Item<T>) -> Call {
    Call {
        enter: item.last_enter,
        exit: item.last,
        pid: item.pid,
        tid: item.tid,
    }
}
