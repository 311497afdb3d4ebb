//! What a complete message tells: one that was published, one that was delivered.

use std::sync::Arc;

use smallvec::SmallVec;

use super::super::content::{Announced, Message};
use super::super::delay::undelayed;
use super::{RabbitConnection, known, name};
use crate::broker::{BrokerEvent, Context, Verdict};
use crate::celery::TaskMessage;
use crate::celery::content::{self, Content as Held, Share};
use crate::stream::Call;
use crate::wire::amqp::ContentHeader;

/// Exchanges of kombu's and Celery's own traffic (`celery/events`, `kombu/pidbox.py`).
const EVENTS: &str = "celeryev";
const CONTROL: &str = "celery.pidbox";

impl RabbitConnection {
    /// All of a message's frames have come.
    pub(super) fn complete(
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
