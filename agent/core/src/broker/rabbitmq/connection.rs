//! One connection: frames of both directions, channels, messages.

use std::sync::Arc;

use celeryscope_common::{Idle, Kind, Record};
use smallvec::SmallVec;

use super::RabbitStats;
use super::channel::{Announced, Channel, Channels, Content, Message};
use super::delay::undelayed;
use crate::broker::{BrokerEvent, Context, Verdict};
use crate::celery::content::{self, Content as Held, Share};
use crate::celery::{TaskMessage, pidbox};
use crate::limits::Limits;
use crate::stream::{self, Call, Chunk, Half, Segment};
use crate::text::digits;
use crate::wire::amqp::{ContentHeader, Frame, FrameDecoder, FrameKind, Method, Tuning};
use crate::wire::resp::Item;

/// Exchanges of kombu's and Celery's own traffic (`celery/events`, `kombu/pidbox.py`).
const EVENTS: &str = "celeryev";
const CONTROL: &str = "celery.pidbox";

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

    fn complete(
        &mut self,
        sending: bool,
        number: u16,
        message: Message<'_>,
        call: Call,
        context: &Context<'_>,
        out: &mut Vec<BrokerEvent>,
    ) {
        if sending {
            self.published(number, message, call, context, out);
        } else {
            self.delivered(number, message, call, context, out);
        }
    }

    /// Takes a method; gives what it announces.
    fn method<'i>(
        &mut self,
        sending: bool,
        item: &'i Item<Frame<'_>>,
        out: &mut Vec<BrokerEvent>,
    ) -> Option<Announced<'i>> {
        let number = item.value.channel;
        let call = call_of(item);
        let method = item.value.whole().and_then(Method::parse);
        self.stats.methods += u64::from(method.is_some());
        // A method where content should be: its frames were lost.
        let channel = known(&mut self.channels, number, out);
        let open = channel.content(sending).take();
        self.stats.messages_cut += u64::from(open.is_some());
        let Some(method) = method else {
            // It may have been a publish.
            if sending {
                unanswered(channel.lose_count(), out);
            }
            return None;
        };
        match method {
            Method::TuneOk {
                channel_max,
                frame_max,
            } if sending => {
                let tuning = Tuning::new(frame_max, channel_max);
                self.outgoing.tune(tuning);
                self.incoming.tune(tuning);
            }
            Method::ChannelOpen | Method::ChannelClose => {
                if let Some(mut closed) = self.channels.remove(number) {
                    unanswered(closed.unconfirmed(), out);
                    let unacked = closed.recovered().into_iter().map(|tag| (number, tag));
                    self.give_back(unacked.collect(), out);
                }
            }
            Method::ConnectionClose => {
                self.finish(out);
                self.channels.forget();
            }
            Method::ConfirmSelect if sending => channel.select_confirms(),
            Method::Consume { queue, consumer_tag } if sending => {
                self.channels.consumes(number, consumer_tag, queue);
                let name = pidbox::owner(queue).map(str::to_owned);
                out.extend(name.map(|name| BrokerEvent::WorkerName { name, call }));
            }
            Method::ConsumeOk { consumer_tag } if !sending => self.channels.named(number, consumer_tag),
            Method::Get { queue } if sending => channel.getting = Some(queue.to_owned()),
            Method::Publish {
                exchange,
                routing_key,
            } if sending => {
                return Some(Announced {
                    exchange: exchange.into(),
                    routing_key: routing_key.into(),
                    confirm: channel.next_confirm(),
                    delivery: None,
                    first: item.first,
                });
            }
            Method::Deliver {
                consumer_tag,
                delivery_tag,
                redelivered,
                exchange,
                routing_key,
            } if !sending => {
                return Some(Announced {
                    exchange: exchange.into(),
                    routing_key: routing_key.into(),
                    confirm: None,
                    delivery: Some((delivery_tag, redelivered, consumer_tag.into())),
                    first: item.first,
                });
            }
            Method::Ack {
                delivery_tag,
                multiple,
            } if sending => {
                for tag in channel.acked(delivery_tag, multiple) {
                    out.push(BrokerEvent::Acked {
                        tag: name(self.id, number, tag),
                        call,
                    });
                }
            }
            Method::Reject {
                delivery_tag,
                multiple,
                requeue,
            } if sending => {
                for tag in channel.acked(delivery_tag, multiple) {
                    let tag = name(self.id, number, tag);
                    out.push(if requeue {
                        BrokerEvent::Requeued { tag, call }
                    } else {
                        BrokerEvent::Acked { tag, call }
                    });
                }
            }
            Method::Recover if sending => {
                for tag in channel.recovered() {
                    out.push(BrokerEvent::Requeued {
                        tag: name(self.id, number, tag),
                        call,
                    });
                }
            }
            // Its content is passed over.
            Method::Return => self.stats.messages_returned += 1,
            // From the broker: confirms, good or bad.
            Method::Ack {
                delivery_tag,
                multiple,
            }
            | Method::Reject {
                delivery_tag,
                multiple,
                ..
            } => {
                let answered = channel.confirmed(delivery_tag, multiple);
                out.extend(
                    answered
                        .into_iter()
                        .map(|token| BrokerEvent::Answered { token, at: call.exit }),
                );
            }
            _ => {}
        }
        None
    }

    fn published(
        &mut self,
        number: u16,
        message: Message<'_>,
        call: Call,
        context: &Context<'_>,
        out: &mut Vec<BrokerEvent>,
    ) {
        let announced = message.announced;
        if announced.exchange == CONTROL {
            return;
        }
        match self.read(message, context) {
            Held::Task(task) => {
                self.verdict = Verdict::Celery;
                self.last_token += 1;
                let token = self.last_token;
                let destination = destination(announced, None, context.share);
                out.push(BrokerEvent::Publish {
                    token,
                    message: addressed(task, announced, context.share),
                    destination,
                    first: announced.first,
                    call,
                });
                match announced.confirm {
                    Some(confirm) => {
                        if let Some(lost) =
                            known(&mut self.channels, number, out).await_confirm(confirm, token)
                        {
                            out.push(BrokerEvent::Unanswered { token: lost });
                        }
                    }
                    // Nothing will answer: it ends with its last byte.
                    None => out.push(BrokerEvent::Answered { token, at: call.exit }),
                }
            }
            Held::Reply { task_id, meta } => {
                self.verdict = Verdict::Celery;
                out.push(BrokerEvent::Result {
                    task_id,
                    meta,
                    first: announced.first,
                    call,
                });
            }
            Held::Events { hostname, events } if announced.exchange == EVENTS => {
                self.verdict = Verdict::Celery;
                if announced.routing_key != "task.sent" {
                    out.push(BrokerEvent::WorkerName { name: hostname, call });
                    if !events.is_empty() {
                        out.push(BrokerEvent::Told { events, call });
                    }
                }
            }
            Held::Events { .. } | Held::Other | Held::Malformed => {}
        }
    }

    fn delivered(
        &mut self,
        number: u16,
        message: Message<'_>,
        call: Call,
        context: &Context<'_>,
        out: &mut Vec<BrokerEvent>,
    ) {
        let announced = message.announced;
        let Some((tag, redelivered, consumer)) = &announced.delivery else {
            return;
        };
        if announced.exchange == EVENTS || announced.exchange == CONTROL {
            return;
        }
        if let Held::Task(task) = self.read(message, context) {
            self.verdict = Verdict::Celery;
            let evicted = known(&mut self.channels, number, out).await_ack(*tag);
            self.stats.unacked_evicted += u64::from(evicted);
            let queue = self.channels.queue_of(number, consumer);
            let mut task = addressed(task, announced, context.share);
            task.delivery_tag = name(self.id, number, *tag);
            task.redelivered = *redelivered;
            self.consuming = Some(call);
            out.push(BrokerEvent::Consumer { call });
            out.push(BrokerEvent::Delivered {
                message: task,
                destination: destination(announced, queue, context.share),
                call,
            });
        }
    }

    fn read(&mut self, message: Message<'_>, context: &Context<'_>) -> Held {
        let Some(header) = ContentHeader::parse(message.header) else {
            self.stats.messages_malformed += 1;
            return Held::Malformed;
        };
        let size = header.body_size.saturating_add(message.header.len() as u64);
        let held = content::read_amqp(&header, message.body, size, context.capture_args, context.share);
        match held {
            Held::Malformed => self.stats.messages_malformed += 1,
            Held::Other | Held::Events { .. } => self.stats.messages_other += 1,
            Held::Task(_) | Held::Reply { .. } => {}
        }
        held
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
    let mut name = SmallVec::<[u8; 64]>::new();
    let mut put = |digit| name.push(digit);
    digits::<16>(connection, &mut put);
    put(b'.');
    digits::<10>(channel.into(), &mut put);
    put(b'.');
    digits::<10>(tag, &mut put);
    Arc::from(std::str::from_utf8(&name).unwrap_or_default())
}

fn addressed(mut message: Box<TaskMessage>, announced: &Announced<'_>, share: Share<'_>) -> Box<TaskMessage> {
    message.system = Some("rabbitmq");
    message.exchange = share(&announced.exchange);
    message.routing_key = share(&announced.routing_key);
    message
}

/// `messaging.destination.name` by the RabbitMQ conventions: exchange, routing key and (consumers) queue with colons
/// between, each only once and only where there is one. A delay is none: there would be as many names as there are delays.
fn destination(announced: &Announced<'_>, queue: Option<&str>, share: Share<'_>) -> Arc<str> {
    let mut parts = SmallVec::<[&str; 3]>::new();
    for part in [
        &*announced.exchange,
        undelayed(&announced.routing_key),
        queue.unwrap_or_default(),
    ] {
        if !part.is_empty() && parts.last() != Some(&part) {
            parts.push(part);
        }
    }
    match parts[..] {
        [] => share("amq.default"),
        [only] => share(only),
        _ => share(&parts.join(":")),
    }
}

fn call_of(item: &Item<Frame<'_>>) -> Call {
    Call {
        enter: item.last_enter,
        exit: item.last,
        pid: item.pid,
        tid: item.tid,
    }
}
