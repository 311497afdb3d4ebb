//! For tests of a broker's connections: bytes in, a line for each event out.

use celeryscope_common::record::{Header, Idle, Kind, LeftOut, Record, flags};

use super::rabbitmq::RabbitConnection;
use super::redis::RedisConnection;
use super::{BrokerEvent, Context};

/// What reads one connection's records.
pub(super) trait Reads {
    fn record(&mut self, record: &Record<'_>, context: &Context<'_>, out: &mut Vec<BrokerEvent>);
    fn idle(&mut self, idle: &Idle, context: &Context<'_>, out: &mut Vec<BrokerEvent>);
}

impl Reads for RedisConnection {
    fn record(&mut self, record: &Record<'_>, context: &Context<'_>, out: &mut Vec<BrokerEvent>) {
        RedisConnection::record(self, record, context, out);
    }

    fn idle(&mut self, idle: &Idle, context: &Context<'_>, out: &mut Vec<BrokerEvent>) {
        RedisConnection::idle(self, idle, context, out);
    }
}

impl Reads for RabbitConnection {
    fn record(&mut self, record: &Record<'_>, context: &Context<'_>, out: &mut Vec<BrokerEvent>) {
        RabbitConnection::record(self, record, context, out);
    }

    fn idle(&mut self, idle: &Idle, context: &Context<'_>, out: &mut Vec<BrokerEvent>) {
        RabbitConnection::idle(self, idle, context, out);
    }
}

/// A connection, with the offsets and the time that its records need: each call is entered 10 ns after the one before and takes
/// 5 ns.
pub(super) struct Rig<C> {
    pub(super) connection: C,
    pub(super) known_tag: &'static str,
    offsets: [u64; 2],
    now: u64,
}

impl<C: Reads> Rig<C> {
    pub(super) fn with(connection: C) -> Self {
        Self {
            connection,
            known_tag: "",
            offsets: [0; 2],
            now: 0,
        }
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> Vec<String> {
        self.feed(Kind::Send, bytes)
    }

    pub(super) fn recv(&mut self, bytes: &[u8]) -> Vec<String> {
        self.feed(Kind::Recv, bytes)
    }

    /// This many bytes go unseen, of those sent or of those received.
    pub(super) fn lose(&mut self, kind: Kind, bytes: usize) {
        self.offsets[usize::from(kind == Kind::Recv)] += bytes as u64;
    }

    /// So many bytes are left out, of those sent and of those received.
    pub(super) fn idle(&mut self, sent: usize, received: usize) -> Vec<String> {
        let mut left_out = |direction: usize, bytes: usize| {
            let offset: &mut u64 = &mut self.offsets[direction];
            let left_out = LeftOut {
                start: *offset,
                bytes: bytes as u64,
            };
            *offset += left_out.bytes;
            left_out
        };
        let idle = Idle {
            sent: left_out(0, sent),
            received: left_out(1, received),
        };
        let mut out = Vec::new();
        let context = Context {
            capture_args: false,
            knows_tag: &|_| false,
            share: &|text| text.into(),
        };
        self.connection.idle(&idle, &context, &mut out);
        out.iter().map(show).collect()
    }

    /// So many ns pass.
    pub(super) fn sleep(&mut self, time: u64) {
        self.now += time;
    }

    fn feed(&mut self, kind: Kind, bytes: &[u8]) -> Vec<String> {
        let offset = &mut self.offsets[usize::from(kind == Kind::Recv)];
        self.now += 10;
        let header = Header {
            flags: flags::LAST,
            enter: self.now,
            exit: self.now + 5,
            start: *offset,
            total: bytes.len() as u32,
            ..Header::default()
        };
        *offset += bytes.len() as u64;
        let mut out = Vec::new();
        let known = self.known_tag;
        let context = Context {
            capture_args: false,
            knows_tag: &|tag| tag == known,
            share: &|text| text.into(),
        };
        self.connection
            .record(&Record::new(kind, header, bytes), &context, &mut out);
        out.iter().map(show).collect()
    }
}

fn show(event: &BrokerEvent) -> String {
    match event {
        BrokerEvent::Publish {
            token,
            message,
            destination,
            ..
        } => format!("publish {token} {} to {destination}", message.id),
        BrokerEvent::Answered { token, at } => format!("answered {token} at {}", at.0),
        BrokerEvent::Unanswered { token } => format!("unanswered {token}"),
        BrokerEvent::Delivered {
            message, destination, ..
        } => {
            let again = if message.redelivered { " again" } else { "" };
            format!("delivered {} from {destination}{again}", message.id)
        }
        BrokerEvent::Acked { tag, .. } => format!("acked {tag}"),
        BrokerEvent::Requeued { tag, .. } => format!("requeued {tag}"),
        BrokerEvent::Result {
            task_id, meta, first, ..
        } => format!("result {task_id} {:?} from {}", meta.state, first.0),
        BrokerEvent::Told { events, .. } => format!("told {} events", events.len()),
        BrokerEvent::ChordComplete { group, .. } => format!("chord {group}"),
        BrokerEvent::Consumer { .. } => "consumer".to_owned(),
        BrokerEvent::WorkerName { name, .. } => format!("worker {name}"),
    }
}
