//! One connection: which protocol it speaks, and the decoder and transport that go with it.

use celeryscope_common::{Idle, Record};

use crate::broker::rabbitmq::RabbitConnection;
use crate::broker::redis::RedisConnection;
use crate::broker::{BrokerEvent, Context, Server, Verdict};
use crate::detect::{Opening, Protocol};
use crate::limits::Limits;
use crate::stats::Stats;
use crate::stream::Half;
use crate::time::Mono;

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) server: Option<Server>,
    /// What the capture side was last told.
    pub(crate) told: Verdict,
    /// When it was opened; `None` when it is older than the capture.
    pub(crate) opened: Option<Mono>,
    /// Bytes of memory behind what is not complete, when that was last looked at.
    pub(crate) held: u64,
    speaker: Speaker,
}

/// Who understands it.
#[derive(Debug)]
enum Speaker {
    /// Nothing has been seen that tells.
    Unknown(Opening),
    Redis(Box<RedisConnection>),
    Rabbit(Box<RabbitConnection>),
}

impl Connection {
    pub(crate) fn new(server: Option<Server>, opened: Option<Mono>) -> Self {
        Self {
            server,
            told: Verdict::Unknown,
            opened,
            held: 0,
            speaker: Speaker::Unknown(Opening::default()),
        }
    }

    /// Takes a `Send` or `Recv` record; what it tells is appended to `out`. Gives what the connection proved to be.
    pub(crate) fn record(
        &mut self,
        record: &Record<'_>,
        limits: &Limits,
        context: &Context<'_>,
        out: &mut Vec<BrokerEvent>,
    ) -> Verdict {
        if let Speaker::Unknown(opening) = &mut self.speaker {
            let midstream = self.opened.is_none();
            let speaker = match opening.judge(record, midstream) {
                Protocol::Unknown | Protocol::More => return self.told,
                Protocol::Resp => Speaker::Redis(Box::new(RedisConnection::new(limits, self.opened))),
                Protocol::Amqp => {
                    let id = record.header.conn;
                    Speaker::Rabbit(Box::new(RabbitConnection::new(id, limits, midstream)))
                }
            };
            let opening = std::mem::take(opening);
            self.speaker = speaker;
            for (kind, header, bytes) in opening.into_held() {
                self.speak(&Record::new(kind, header, &bytes), context, out);
            }
        }
        self.speak(record, context, out)
    }

    fn speak(&mut self, record: &Record<'_>, context: &Context<'_>, out: &mut Vec<BrokerEvent>) -> Verdict {
        match &mut self.speaker {
            Speaker::Unknown(_) => self.told,
            Speaker::Redis(redis) => {
                redis.record(record, context, out);
                redis.verdict()
            }
            Speaker::Rabbit(rabbit) => {
                rabbit.record(record, context, out);
                rabbit.verdict()
            }
        }
    }

    /// Takes an `Idle` record. Of a connection that has said nothing yet it tells nothing.
    pub(crate) fn idle(&mut self, idle: &Idle, context: &Context<'_>, out: &mut Vec<BrokerEvent>) {
        match &mut self.speaker {
            Speaker::Unknown(_) => {}
            Speaker::Redis(redis) => redis.idle(idle, context, out),
            Speaker::Rabbit(rabbit) => rabbit.idle(idle, context, out),
        }
    }

    /// Whether nothing speaks for its being Celery's.
    pub(crate) fn is_stranger(&self) -> bool {
        let consumes = matches!(&self.speaker, Speaker::Rabbit(rabbit) if rabbit.consumes());
        self.told != Verdict::Celery && !consumes
    }

    /// Looks at what is not complete; gives what it was before and what it is now.
    pub(crate) fn weigh(&mut self) -> (u64, u64) {
        let now = match &mut self.speaker {
            Speaker::Unknown(_) => 0,
            Speaker::Redis(redis) => redis.held(),
            Speaker::Rabbit(rabbit) => rabbit.held(),
        };
        (std::mem::replace(&mut self.held, now), now)
    }

    /// Bytes read of what is not complete: of RESP, of AMQP.
    pub(crate) fn pending(&self) -> (u64, u64) {
        match &self.speaker {
            Speaker::Unknown(_) => (0, 0),
            Speaker::Redis(redis) => {
                let (_, _, requests, replies) = redis.layers();
                (requests.pending().saturating_add(replies.pending()), 0)
            }
            Speaker::Rabbit(rabbit) => {
                let (_, _, outgoing, incoming) = rabbit.layers();
                (0, outgoing.pending().saturating_add(incoming.pending()))
            }
        }
    }

    /// Drops what is not complete, to make room.
    pub(crate) fn shed(&mut self, out: &mut Vec<BrokerEvent>) {
        match &mut self.speaker {
            Speaker::Unknown(_) => {}
            Speaker::Redis(redis) => redis.shed(out),
            Speaker::Rabbit(rabbit) => rabbit.shed(out),
        }
    }

    /// Gives a connection that was ignored another look.
    pub(crate) fn reconsider(&mut self) {
        if let Speaker::Redis(redis) = &mut self.speaker {
            redis.reconsider();
        }
    }

    /// Nothing more will be heard of it.
    pub(crate) fn finish(&mut self, out: &mut Vec<BrokerEvent>) {
        match &mut self.speaker {
            Speaker::Unknown(_) => {}
            Speaker::Redis(redis) => redis.finish(out),
            Speaker::Rabbit(rabbit) => rabbit.finish(out),
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        match &self.speaker {
            Speaker::Unknown(_) => Stats::default(),
            Speaker::Redis(redis) => redis_stats(redis),
            Speaker::Rabbit(rabbit) => rabbit_stats(rabbit),
        }
    }
}

fn halves(sent: &Half, received: &Half) -> Stats {
    let mut sum = Stats::default();
    for half in [sent.stats(), received.stats()] {
        sum += Stats {
            stream_bytes: half.bytes,
            stream_gaps: half.gaps,
            stream_gap_bytes: half.gap_bytes,
            stream_overlap_bytes: half.overlap_bytes,
            stream_idle_bytes: half.idle_bytes,
            stream_rejected: half.rejected,
            ..Stats::default()
        };
    }
    sum
}

fn rabbit_stats(rabbit: &RabbitConnection) -> Stats {
    let own = rabbit.stats();
    let (sent, received, outgoing, incoming) = rabbit.layers();
    let mut sum = halves(sent, received);
    sum += Stats {
        connections_amqp: 1,
        amqp_methods: own.methods,
        amqp_channels_evicted: own.channels_evicted,
        amqp_consumers_evicted: own.consumers_evicted,
        amqp_unacked_evicted: own.unacked_evicted,
        messages_returned: own.messages_returned,
        messages_malformed: own.messages_malformed,
        messages_other: own.messages_other,
        messages_cut: own.messages_cut,
        ..Stats::default()
    };
    for decoder in [outgoing.stats(), incoming.stats()] {
        sum += Stats {
            amqp_bytes: decoder.bytes,
            amqp_gap_bytes: decoder.gap_bytes,
            amqp_frame_bytes: decoder.frame_bytes,
            amqp_skipped_bytes: decoder.skipped_bytes,
            amqp_frames: decoder.frames,
            amqp_degraded: decoder.degraded,
            amqp_sync_losses: decoder.sync_losses,
            amqp_resyncs: decoder.resyncs,
            amqp_protocol_errors: decoder.protocol_errors,
            ..Stats::default()
        };
    }
    sum
}

fn redis_stats(redis: &RedisConnection) -> Stats {
    let own = redis.stats();
    let (sent, received, requests, replies) = redis.layers();
    let mut sum = Stats {
        commands: own.commands,
        replies: own.replies,
        replies_unpaired: own.replies_unpaired,
        commands_unpaired: own.commands_unpaired,
        in_flight_dropped: own.in_flight_dropped,
        transaction_dropped: own.transaction_dropped,
        messages_malformed: own.messages_malformed,
        messages_other: own.messages_other,
        messages_cut: own.messages_cut,
        unacked_copies: own.unacked_copies,
        results_malformed: own.results_malformed,
        ..Stats::default()
    };
    sum += halves(sent, received);
    for decoder in [requests.stats(), replies.stats()] {
        sum += Stats {
            resp_bytes: decoder.bytes,
            resp_gap_bytes: decoder.gap_bytes,
            resp_item_bytes: decoder.item_bytes,
            resp_skipped_bytes: decoder.skipped_bytes,
            resp_degraded: decoder.degraded,
            resp_truncated: decoder.truncated,
            resp_sync_losses: decoder.sync_losses,
            resp_resyncs: decoder.resyncs,
            resp_protocol_errors: decoder.protocol_errors,
            ..Stats::default()
        };
    }
    sum
}
