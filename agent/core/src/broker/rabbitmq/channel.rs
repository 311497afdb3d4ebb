//! One channel: the content that is under way in each direction, and the numbers of what is unconfirmed and unacked.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::time::Mono;
use crate::wire::amqp::{Frame, FrameKind};
use crate::wire::resp::Item;

/// Numbers remembered of one channel; beyond it the oldest are forgotten.
const KEPT: usize = 65_536;
/// Consumers remembered of one connection.
const CONSUMERS: usize = 1024;

/// What a method announced, until its content is complete.
#[derive(Clone, Debug)]
pub(super) struct Announced {
    pub(super) exchange: String,
    pub(super) routing_key: String,
    /// Deliveries: number, whether it was delivered before, and from which consumer.
    pub(super) delivery: Option<(u64, bool, String)>,
}

/// A message whose frames are coming in.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) announced: Announced,
    /// When the call that moved its first byte began.
    pub(super) first: Mono,
    /// Payload of the header frame; empty until it came.
    pub(super) header: Vec<u8>,
    /// The body so far, unless it is larger than what is kept.
    pub(super) body: Option<Vec<u8>>,
    /// Bytes of body still to come; unknown before the header.
    left: Option<u64>,
}

impl Content {
    pub(super) fn new(announced: Announced, first: Mono) -> Self {
        Self {
            announced,
            first,
            header: Vec::new(),
            body: None,
            left: None,
        }
    }

    /// Takes a header or body frame. `Some(true)`: the message is complete; `None`: the frame does not belong.
    pub(super) fn add(&mut self, item: &Item<Frame>, keep: usize) -> Option<bool> {
        let frame = &item.value;
        match (frame.kind, self.left) {
            (FrameKind::Header, None) => {
                let header = frame.whole()?;
                let size = u64::from_be_bytes(header.get(4..12)?.try_into().ok()?);
                self.header = header.to_vec();
                self.left = Some(size);
                self.body = (size <= keep as u64).then(Vec::new);
                Some(size == 0)
            }
            (FrameKind::Body, Some(left)) => {
                let left = left.checked_sub(u64::from(frame.len))?;
                self.left = Some(left);
                self.body = match (self.body.take(), frame.whole()) {
                    (Some(mut body), Some(more)) => {
                        body.extend_from_slice(more);
                        Some(body)
                    }
                    _ => None,
                };
                Some(left == 0)
            }
            _ => None,
        }
    }
}

/// A channel.
#[derive(Debug, Default)]
pub(super) struct Channel {
    pub(super) sending: Option<Content>,
    pub(super) receiving: Option<Content>,
    /// Confirms are on: the number of the last publish.
    pub(super) confirms: Option<u64>,
    /// Publishes that wait for their confirm: number to token.
    unconfirmed: BTreeMap<u64, u64>,
    /// Deliveries that wait for their ack.
    unacked: BTreeSet<u64>,
}

impl Channel {
    pub(super) fn await_confirm(&mut self, number: u64, token: u64) {
        self.unconfirmed.insert(number, token);
        if self.unconfirmed.len() > KEPT {
            self.unconfirmed.pop_first();
        }
    }

    /// Tokens of the publishes that a confirm answers.
    pub(super) fn confirmed(&mut self, number: u64, multiple: bool) -> Vec<u64> {
        let numbers: Vec<u64> = if multiple {
            let last = if number == 0 { u64::MAX } else { number };
            self.unconfirmed
                .range(..=last)
                .map(|(number, _)| *number)
                .collect()
        } else {
            vec![number]
        };
        numbers
            .iter()
            .filter_map(|number| self.unconfirmed.remove(number))
            .collect()
    }

    /// Tokens of all publishes that no confirm will answer any more.
    pub(super) fn unconfirmed(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.unconfirmed).into_values().collect()
    }

    pub(super) fn await_ack(&mut self, number: u64) {
        self.unacked.insert(number);
        if self.unacked.len() > KEPT {
            self.unacked.pop_first();
        }
    }

    /// Numbers of the deliveries that an ack or reject is about.
    pub(super) fn acked(&mut self, number: u64, multiple: bool) -> Vec<u64> {
        let numbers: Vec<u64> = if multiple {
            let last = if number == 0 { u64::MAX } else { number };
            self.unacked.range(..=last).copied().collect()
        } else {
            vec![number]
        };
        for number in &numbers {
            self.unacked.remove(number);
        }
        numbers
    }
}

/// The channels of a connection, capped.
#[derive(Debug, Default)]
pub(super) struct Channels {
    open: HashMap<u16, Channel>,
    /// Queue of each consumer tag; at most [`CONSUMERS`].
    consumers: HashMap<String, String>,
}

impl Channels {
    pub(super) fn get(&mut self, number: u16) -> &mut Channel {
        self.open.entry(number).or_default()
    }

    pub(super) fn remove(&mut self, number: u16) -> Option<Channel> {
        self.open.remove(&number)
    }

    /// The client consumes from a queue under this tag.
    pub(super) fn consumes(&mut self, consumer_tag: &str, queue: &str) {
        if self.consumers.len() < CONSUMERS {
            self.consumers.insert(consumer_tag.to_owned(), queue.to_owned());
        }
    }

    pub(super) fn queue_of(&self, consumer_tag: &str) -> Option<&str> {
        self.consumers.get(consumer_tag).map(String::as_str)
    }

    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut Channel> {
        self.open.values_mut()
    }
}
