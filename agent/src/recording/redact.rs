//! Masks secrets in records before they reach the disk, byte for byte: lengths and offsets stay.
//!
//! What may pass is listed ([`names`]); everything else is overwritten. In detail:
//!
//! - **Redis** ([`resp`]): protocol framing, command names, and the keys, ids and numbers that kombu's and Celery's own
//!   commands take. Arguments of `AUTH` and of `HELLO … AUTH`, and values that are not JSON, are masked.
//! - **JSON in it** ([`json`]): of Celery's envelopes the listed headers and properties, of results the status, ids and
//!   the exception's class. `body`, `argsrepr`, `kwargsrepr`, results, tracebacks, exception messages, custom headers'
//!   values and baggage are masked; documents of other programs are masked whole but for their punctuation.
//! - **RabbitMQ** ([`amqp`]): framing, the methods that number and name messages, of content headers the same headers
//!   and properties as of envelopes, of custom headers their names. The answers of SASL, other methods' arguments and
//!   bodies are masked; of bodies that are JSON objects the same is shown as of JSON in Redis.
//! - **Pool pipes** ([`pickle`]): of `TASK` the listed headers, of `READY` outcome, exception class and runtime.
//! - **Anything else** (sealed by TLS, a stream entered in the middle): all of it, until it is proven to be
//!   one of the above.
//!
//! Values may be cut anywhere and bytes may be missing, so the machines work byte by byte and decide on what came
//! before alone. After a gap they mask until a place that can't lie inside a value.

mod amqp;
mod json;
pub(super) mod names;
mod pickle;
mod resp;

use std::collections::HashMap;

use celeryscope_common::{Idle, Kind, LeftOut, Record, flags};
use celeryscope_core::detect::{Opening, Protocol};

/// Put in place of a masked byte; keeps base64 and JSON strings what they are.
const MASK: u8 = b'x';

/// Connections followed at once; those beyond are masked whole.
const CONNECTIONS: usize = 16_384;

/// Masks one capture's records, in their order.
#[derive(Debug, Default)]
pub struct Redactor {
    conversations: HashMap<u64, Conversation>,
    masked: Vec<u8>,
}

impl Redactor {
    /// The record with its secrets overwritten.
    pub fn mask<'a>(&'a mut self, record: &'a Record<'_>) -> Record<'a> {
        let conn = record.header.conn;
        self.masked.clear();
        match record.kind {
            Kind::Send | Kind::Recv => self.transfer(record),
            Kind::PipeRead => {
                self.masked.extend_from_slice(record.payload);
                pickle::mask_task(&mut self.masked, record.header.at == 0);
            }
            Kind::PipeWrite => {
                self.masked.extend_from_slice(record.payload);
                let ends = record.header.flags & flags::LAST != 0;
                pickle::mask_answer(&mut self.masked, record.header.at == 0, ends);
            }
            Kind::Open | Kind::Close | Kind::Tls => {
                // A new generation, or what is inside TLS: nothing that was known of the id holds.
                self.conversations.remove(&conn);
                if record.kind != Kind::Close && self.conversations.len() < CONNECTIONS {
                    let fresh = record.header.flags & flags::MIDSTREAM == 0;
                    self.conversations.insert(conn, Conversation::new(fresh));
                }
                return *record;
            }
            Kind::Idle => {
                if let Some(conversation) = self.conversations.get_mut(&conn)
                    && let Some(idle) = record.idle()
                {
                    conversation.idle(&idle);
                }
                return *record;
            }
            Kind::Fork | Kind::Exec | Kind::Exit | Kind::Process | Kind::Clock | Kind::Lost => {
                return *record;
            }
        }
        Record {
            payload: &self.masked,
            ..*record
        }
    }

    fn transfer(&mut self, record: &Record<'_>) {
        let room = self.conversations.len() < CONNECTIONS;
        let conversation = match self.conversations.get_mut(&record.header.conn) {
            Some(conversation) => Some(conversation),
            None if room => Some(
                self.conversations
                    .entry(record.header.conn)
                    .or_insert_with(|| Conversation::new(false)),
            ),
            None => None,
        };
        match conversation {
            Some(conversation) => conversation.mask(record, &mut self.masked),
            None => self.masked.resize(record.payload.len(), MASK),
        }
    }
}

/// A connection.
#[derive(Debug)]
struct Conversation {
    /// Both streams are seen from their first byte.
    fresh: bool,
    speaker: Speaker,
}

/// The protocol it speaks.
#[derive(Debug)]
enum Speaker {
    /// Nothing has been seen that tells.
    Unknown(Opening),
    Redis(Box<resp::Conversation>),
    RabbitMq(Box<amqp::Conversation>),
}

impl Conversation {
    fn new(fresh: bool) -> Self {
        Self {
            fresh,
            speaker: Speaker::Unknown(Opening::default()),
        }
    }

    /// Appends the record's payload to `out`, masked.
    fn mask(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        if let Speaker::Unknown(opening) = &mut self.speaker {
            let speaker = match opening.judge(record, !self.fresh) {
                Protocol::Unknown => {
                    out.resize(record.payload.len(), MASK);
                    return;
                }
                // Part of a name or of a frame's head: no secret.
                Protocol::More => {
                    out.extend_from_slice(record.payload);
                    return;
                }
                Protocol::Resp => Speaker::Redis(Box::new(resp::Conversation::new(self.fresh))),
                Protocol::Amqp => Speaker::RabbitMq(Box::new(amqp::Conversation::new(self.fresh))),
            };
            let opening = std::mem::take(opening);
            self.speaker = speaker;
            for (kind, header, bytes) in opening.into_held() {
                self.speak(&Record::new(kind, header, &bytes), &mut Vec::new());
            }
        }
        self.speak(record, out);
    }

    /// Bytes were left out. They are secrets to nobody; where they are not what they should be, the next record shows a gap.
    fn idle(&mut self, idle: &Idle) {
        match &mut self.speaker {
            Speaker::Unknown(_) => {}
            Speaker::Redis(redis) => redis.idle(idle),
            Speaker::RabbitMq(rabbitmq) => rabbitmq.idle(idle),
        }
    }

    fn speak(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        match &mut self.speaker {
            Speaker::Unknown(_) => out.resize(record.payload.len(), MASK),
            Speaker::Redis(redis) => redis.mask(record, out),
            Speaker::RabbitMq(rabbitmq) => rabbitmq.mask(record, out),
        }
    }
}

/// Moves a direction's next offset over what was left out, if that follows.
fn step_over(next: &mut Option<u64>, left_out: &LeftOut) {
    if *next == Some(left_out.start) {
        *next = left_out.start.checked_add(left_out.bytes);
    }
}

#[cfg(test)]
mod tests;
