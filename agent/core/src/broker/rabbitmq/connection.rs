//! One connection: the frames of both directions, and the messages that they are put together to.

mod messages;
mod methods;

use std::sync::Arc;

use celeryscope_common::{Idle, Kind, Record};
use smallvec::SmallVec;

use super::RabbitStats;
use super::channel::{Channel, Channels};
use super::content::{Announced, Content, Message};
use crate::broker::{BrokerEvent, Context, Verdict};
use crate::limits::Limits;
use crate::stream::{self, Call, Chunk, Half, Segment};
use crate::text::Digits;
use crate::wire::amqp::{Frame, FrameDecoder, FrameKind};
use crate::wire::resp::Item;

/// A client's connection to RabbitMQ.
#[derive(Debug)]
pub struct RabbitConnection {
    /// Part of the names of its deliveries.
    id: u64,
    sent: Half,
    received: Half,
    outgoing: FrameDecoder,
    incoming: FrameDecoder,
    channels: Channels,
    /// The last call that moved a delivery: whose what is not acked was.
    consuming: Option<Call>,
    keep: usize,
    last_token: u64,
    verdict: Verdict,
    stats: RabbitStats,
}

impl RabbitConnection {
    /// A connection; `midstream` when it is older than the capture.
    #[must_use]
    pub fn new(id: u64, limits: &Limits, midstream: bool) -> Self {
        Self {
            id,
            sent: Half::new(midstream),
            received: Half::new(midstream),
            outgoing: FrameDecoder::new(limits),
            incoming: FrameDecoder::new(limits),
            channels: Channels::default(),
            consuming: None,
            keep: limits.bulk,
            last_token: 0,
            verdict: Verdict::Unknown,
            stats: RabbitStats::default(),
        }
    }

    /// Takes a `Send` or `Recv` record; what it tells is appended to `out`.
    pub fn record(&mut self, record: &Record<'_>, context: &Context<'_>, out: &mut Vec<BrokerEvent>) {
        let sending = record.kind == Kind::Send;
        let half = if sending {
            &mut self.sent
        } else {
            &mut self.received
        };
        for chunk in half.record(record) {
            match chunk {
                Chunk::Bytes(mut segment) => {
                    while let Some(item) = self.decoder(sending).next(&mut segment) {
                        self.frame(sending, &item, &mut segment, context, out);
                    }
                }
                Chunk::Gap { len } => {
                    if let Some(item) = self.decoder(sending).gap(len) {
                        self.frame(sending, &item, &mut Segment::default(), context, out);
                    }
                }
                Chunk::Break => self.decoder(sending).lose_sync(),
            }
            if sending && !self.outgoing.is_synced() {
                for channel in self.channels.all() {
                    unanswered(channel.lose_count(), out);
                }
            }
        }
    }

    /// Heartbeats were left out: nothing of them is missed in a direction that stands between two frames. Elsewhere they are none,
    /// but bytes that look like one, and a gap like any other.
    pub fn idle(&mut self, idle: &Idle, context: &Context<'_>, out: &mut Vec<BrokerEvent>) {
        for (kind, left_out) in [(Kind::Send, idle.sent), (Kind::Recv, idle.received)] {
            if left_out.bytes == 0 {
                continue;
            }
            self.record(&stream::mark(kind, left_out.start), context, out);
            let end = left_out.start.saturating_add(left_out.bytes);
            let sending = kind == Kind::Send;
            match self.decoder(sending).pending() {
                0 if sending => self.sent.step_over(end),
                0 => self.received.step_over(end),
                _ => self.record(&stream::mark(kind, end), context, out),
            }
        }
    }

    fn decoder(&mut self, sending: bool) -> &mut FrameDecoder {
        if sending {
            &mut self.outgoing
        } else {
            &mut self.incoming
        }
    }

    /// The connection is gone, or nothing more will be heard of it.
    pub fn finish(&mut self, out: &mut Vec<BrokerEvent>) {
        for channel in self.channels.all() {
            unanswered(channel.unconfirmed(), out);
        }
        let unacked = self.channels.given_back();
        self.give_back(unacked, out);
    }

    /// What is not acked when its channel closes goes back to its queue, and comes again under another name.
    fn give_back(&self, unacked: Vec<(u16, u64)>, out: &mut Vec<BrokerEvent>) {
        let Some(call) = self.consuming else { return };
        out.extend(unacked.into_iter().map(|(number, tag)| BrokerEvent::Requeued {
            tag: name(self.id, number, tag),
            call,
        }));
    }

    /// Bytes of memory behind what is not complete.
    #[must_use]
    pub(crate) fn held(&mut self) -> u64 {
        let decoders = self.outgoing.held().saturating_add(self.incoming.held());
        decoders.saturating_add(self.channels.held()) as u64
    }

    /// Drops what is not complete, as if bytes had been missed.
    pub(crate) fn shed(&mut self, out: &mut Vec<BrokerEvent>) {
        self.outgoing.lose_sync();
        self.incoming.lose_sync();
        for channel in self.channels.all() {
            self.stats.messages_cut += channel.drop_contents();
            unanswered(channel.lose_count(), out);
        }
    }

    /// What the connection has proved to be so far. Programs other than Celery are not told apart by what they don't
    /// send: a queue may carry a task at any time.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Whether it waits for messages: what they are, none may have told yet.
    pub(crate) fn consumes(&self) -> bool {
        self.channels.consume()
    }

    /// The meaning layer's counters.
    #[must_use]
    pub fn stats(&self) -> RabbitStats {
        RabbitStats {
            channels_evicted: self.channels.evicted,
            consumers_evicted: self.channels.consumers_evicted,
            ..self.stats
        }
    }

    /// The layers below, for their counters.
    #[must_use]
    pub fn layers(&self) -> (&Half, &Half, &FrameDecoder, &FrameDecoder) {
        (&self.sent, &self.received, &self.outgoing, &self.incoming)
    }

    /// Takes a frame; `rest` is what follows it, of which the content that it announces may be taken at once.
    fn frame(
        &mut self,
        sending: bool,
        item: &Item<Frame<'_>>,
        rest: &mut Segment<'_>,
        context: &Context<'_>,
        out: &mut Vec<BrokerEvent>,
    ) {
        let number = item.value.channel;
        match item.value.kind {
            FrameKind::Method => {
                if let Some(announced) = self.method(sending, item, out) {
                    self.content(sending, number, announced, rest, context, out);
                }
            }
            FrameKind::Header | FrameKind::Body => {
                let keep = self.keep;
                let Some(slot) = self.channels.known(number).map(|of| of.content(sending)) else {
                    return;
                };
                let Some(mut content) = slot.take() else { return };
                match content.add(item, keep) {
                    Some(true) => {
                        self.complete(sending, number, content.message(), call_of(item), context, out)
                    }
                    Some(false) => *slot = Some(content),
                    None => self.stats.messages_cut += 1,
                }
            }
            FrameKind::Heartbeat => {}
        }
    }

    /// Content is announced. Nearly always all of it comes with the method.
    fn content(
        &mut self,
        sending: bool,
        number: u16,
        announced: Announced<'_>,
        rest: &mut Segment<'_>,
        context: &Context<'_>,
        out: &mut Vec<BrokerEvent>,
    ) {
        let call = rest.call;
        if let Some((header, body)) = self.decoder(sending).content(number, rest) {
            let message = Message::whole(&announced, header, body);
            self.complete(sending, number, message, call, context, out);
        } else if let Some(channel) = self.channels.known(number) {
            *channel.content(sending) = Some(Content::new(announced));
            self.channels.content = true;
        }
    }
}

/// The channel; for a new one the oldest may have to go.
fn known<'c>(channels: &'c mut Channels, number: u16, out: &mut Vec<BrokerEvent>) -> &'c mut Channel {
    let (channel, evicted) = channels.get(number);
    if let Some(mut evicted) = evicted {
        unanswered(evicted.unconfirmed(), out);
    }
    channel
}

/// No answer to these publishes will be seen.
fn unanswered(tokens: Vec<u64>, out: &mut Vec<BrokerEvent>) {
    out.extend(tokens.into_iter().map(|token| BrokerEvent::Unanswered { token }));
}

/// A delivery's name for the worker: tags count per channel.
fn name(connection: u64, channel: u16, tag: u64) -> Arc<str> {
    let connection = Digits::of::<16>(connection);
    let (channel, tag) = (Digits::of::<10>(channel.into()), Digits::of::<10>(tag));
    let parts = [connection.bytes(), b".", channel.bytes(), b".", tag.bytes()];
    // Byte by byte, as they were written just now: to read several of them at once would have to wait for that.
    let name: SmallVec<[u8; 64]> = parts.into_iter().flatten().copied().collect();
    Arc::from(std::str::from_utf8(&name).unwrap_or_default())
}

fn call_of(item: &Item<Frame<'_>>) -> Call {
    Call {
        enter: item.last_enter,
        exit: item.last,
        pid: item.pid,
        tid: item.tid,
    }
}
