//! Masks secrets in records before they reach the disk, byte for byte: lengths and offsets stay.
//!
//! What may pass is listed ([`names`]); everything else is overwritten. In detail:
//!
//! - **Redis** ([`resp`]): protocol framing, command names, and the keys, ids and numbers that kombu's and Celery's own
//!   commands take. Arguments of `AUTH` and of `HELLO … AUTH`, and values that are not JSON, are masked.
//! - **JSON in it** ([`json`]): of Celery's envelopes the listed headers and properties, of results the status, ids and
//!   the exception's class. `body`, `argsrepr`, `kwargsrepr`, results, tracebacks, exception messages, custom headers'
//!   values and baggage are masked; documents of other programs are masked whole but for their punctuation.
//! - **Pool pipes** ([`pickle`]): of `TASK` the listed headers, of `READY` outcome, exception class and runtime.
//! - **Anything else** (AMQP, TLS without its keys, a stream entered in the middle): all of it, until it is proven to be
//!   one of the above.
//!
//! Values may be cut anywhere and bytes may be missing, so the machines work byte by byte and decide on what came
//! before alone. After a gap they mask until a place that can't lie inside a value.

mod json;
mod names;
mod pickle;
mod resp;

use std::collections::HashMap;

use celeryscope_common::{Kind, Record, flags};

use resp::Conversation;

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
            Kind::Open | Kind::Close => {
                // A new generation: nothing that was known of the id holds.
                self.conversations.remove(&conn);
                if record.kind == Kind::Open && self.conversations.len() < CONNECTIONS {
                    let fresh = record.header.flags & flags::MIDSTREAM == 0;
                    self.conversations.insert(conn, Conversation::new(fresh));
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

#[cfg(test)]
mod tests;
