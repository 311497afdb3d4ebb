//! What a method tells.

use super::super::content::Announced;
use super::{RabbitConnection, call_of, known, name, unanswered};
use crate::broker::BrokerEvent;
use crate::celery::pidbox;
use crate::wire::amqp::{Frame, Method, Tuning};
use crate::wire::resp::Item;

impl RabbitConnection {
    /// Takes a method; gives what it announces.
    pub(super) fn method<'i>(
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
}
