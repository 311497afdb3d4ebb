//! One connection: commands, their replies, transactions, and what the connection proves to be.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use celeryscope_common::{Idle, Kind, Record};
use smallvec::SmallVec;

use super::RedisStats;
use super::command::{self, Meaning};
use crate::broker::BrokerEvent;
use crate::broker::Context;
use crate::broker::Verdict;
use crate::limits::Limits;
use crate::stream::{self, Call, Chunk, Half};
use crate::time::Mono;
use crate::wire::resp::{Command, Item, ReplyDecoder, RequestDecoder, Value};

/// Commands of another kind that prove a connection not to be Celery's. Set-up commands don't count.
const FOREIGN_ENOUGH: u32 = 32;

/// Within this time of its opening, a connection's first command is what it was opened for.
const SET_UP: Duration = Duration::from_secs(1);

/// Calls that prove a connection on which they made no command not to be Redis's.
const UNREAD_ENOUGH: u32 = 64;

/// A client's connection to Redis (or Valkey, or a Sentinel's master: the same protocol).
#[derive(Debug)]
pub struct RedisConnection {
    sent: Half,
    received: Half,
    requests: RequestDecoder,
    replies: ReplyDecoder,
    /// Commands whose reply is to come, in order.
    waiting: VecDeque<Waiting>,
    waiting_cap: usize,
    /// When a reply came that no whole command waited for, while one was half read: the rest of that one is missing.
    answered: Option<Mono>,
    /// An open transaction's events: they hold when it is run.
    transaction: Option<Vec<BrokerEvent>>,
    last_token: u64,
    verdict: Verdict,
    foreign: u32,
    /// Calls that sent something before the first command was read.
    unread_calls: u32,
    subscribed: bool,
    lead: Lead,
    stats: RedisStats,
}

/// What the program did last on the connection that may be the beginning of what it does next.
#[derive(Debug, Default)]
enum Lead {
    #[default]
    None,
    /// It opened the connection, and has sent nothing but set-up commands.
    Opened(Mono),
    /// It looked at the stored result of this task, from this time on.
    Looked(String, Mono),
}

/// Publishes of one command or transaction.
type Tokens = SmallVec<[u64; 2]>;

/// What a reply will answer.
#[derive(Debug)]
enum Waiting {
    /// Publishes, by token.
    Publishes(Tokens),
    Pop,
    Other,
}

impl Waiting {
    fn of(tokens: Tokens) -> Self {
        if tokens.is_empty() {
            Self::Other
        } else {
            Self::Publishes(tokens)
        }
    }
}

impl RedisConnection {
    /// A connection: when it was opened, `None` when it is older than the capture.
    #[must_use]
    pub fn new(limits: &Limits, opened: Option<Mono>) -> Self {
        let midstream = opened.is_none();
        Self {
            sent: Half::new(midstream),
            received: Half::new(midstream),
            requests: RequestDecoder::new(limits),
            replies: ReplyDecoder::new(limits),
            waiting: VecDeque::new(),
            waiting_cap: limits.in_flight,
            answered: None,
            transaction: None,
            last_token: 0,
            verdict: Verdict::Unknown,
            foreign: 0,
            unread_calls: 0,
            subscribed: false,
            lead: opened.map_or(Lead::None, Lead::Opened),
            stats: RedisStats::default(),
        }
    }

    /// Takes a `Send` or `Recv` record; what it tells is appended to `out`.
    pub fn record(&mut self, record: &Record<'_>, context: &Context<'_>, out: &mut Vec<BrokerEvent>) {
        if record.kind == Kind::Send {
            self.send(record, context, out);
        } else {
            self.receive(record, context, out);
        }
    }

    /// Polls that found nothing were left out, with their answers: nothing of them is missed where both directions stand between
    /// two items and no command waits for its answer. Elsewhere they are gaps like any other, since what is an answer to what
    /// can't be told.
    pub fn idle(&mut self, idle: &Idle, context: &Context<'_>, out: &mut Vec<BrokerEvent>) {
        let both = [(Kind::Send, idle.sent), (Kind::Recv, idle.received)];
        let both = both.iter().filter(|(_, left_out)| left_out.bytes > 0);
        for (kind, left_out) in both.clone() {
            self.record(&stream::mark(*kind, left_out.start), context, out);
        }
        let between = self.requests.pending() == 0 && self.replies.pending() == 0;
        let settled = self.waiting.is_empty() && self.transaction.is_none();
        for (kind, left_out) in both {
            let end = left_out.start.saturating_add(left_out.bytes);
            match kind {
                _ if !between || !settled => self.record(&stream::mark(*kind, end), context, out),
                Kind::Send => self.sent.step_over(end),
                _ => self.received.step_over(end),
            }
        }
    }

    fn send(&mut self, record: &Record<'_>, context: &Context<'_>, out: &mut Vec<BrokerEvent>) {
        for chunk in self.sent.record(record) {
            match chunk {
                Chunk::Bytes(mut segment) => {
                    if segment.begins && self.stats.commands == 0 {
                        self.unread_calls = self.unread_calls.saturating_add(1);
                    }
                    if segment.begins && self.requests.pending() == 0 && !self.subscribed {
                        self.begins_call(out);
                    }
                    while let Some(item) = self.requests.next(&mut segment) {
                        self.answered = None;
                        self.command(&item, context, out);
                    }
                }
                Chunk::Gap { len } => {
                    let answered = self.answered.take();
                    if let Some(item) = self.requests.gap(len) {
                        self.command(&item, context, out);
                        if let Some(at) = answered
                            && let Some(Waiting::Publishes(tokens)) = self.waiting.pop_back()
                        {
                            answer(tokens, at, out);
                        }
                    }
                }
                Chunk::Break => self.requests.lose_sync(),
            }
            if !self.requests.is_synced() {
                self.unpair(out);
            }
        }
    }

    /// A client that alternates has read every reply before it sends again. Replies that are still awaited then were
    /// not captured, and the next one begins with the next call that receives.
    fn begins_call(&mut self, out: &mut Vec<BrokerEvent>) {
        if !self.replies.is_synced() {
            self.unpair(out);
            self.replies.mark_boundary();
        }
    }

    fn receive(&mut self, record: &Record<'_>, context: &Context<'_>, out: &mut Vec<BrokerEvent>) {
        for chunk in self.received.record(record) {
            match chunk {
                Chunk::Bytes(mut segment) => {
                    if segment.begins && !self.replies.is_synced() && begins_push(segment.data) {
                        self.subscribed = true;
                        self.replies.mark_boundary();
                    }
                    loop {
                        if matches!(self.waiting.front(), Some(Waiting::Other))
                            && self.replies.pass(&mut segment)
                        {
                            self.stats.replies += 1;
                            self.waiting.pop_front();
                        } else if let Some(item) = self.replies.next(&mut segment) {
                            self.reply(&item, context, out);
                        } else {
                            break;
                        }
                    }
                }
                Chunk::Gap { len } => {
                    if let Some(item) = self.replies.gap(len) {
                        self.reply(&item, context, out);
                    }
                }
                Chunk::Break => self.replies.lose_sync(),
            }
        }
    }

    /// The connection is gone, or nothing more will be heard of it.
    pub fn finish(&mut self, out: &mut Vec<BrokerEvent>) {
        self.unpair(out);
    }

    /// Bytes of memory behind what is not complete.
    #[must_use]
    pub(crate) fn held(&self) -> u64 {
        let decoders = self.requests.held().saturating_add(self.replies.held()) as u64;
        let transaction = self.transaction.iter().flatten().map(BrokerEvent::weight);
        decoders.saturating_add(transaction.sum())
    }

    /// Drops what is not complete, as if bytes had been missed.
    pub(crate) fn shed(&mut self, out: &mut Vec<BrokerEvent>) {
        self.requests.lose_sync();
        self.replies.lose_sync();
        self.unpair(out);
    }

    /// What the connection has proved to be so far.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if self.unread_calls >= UNREAD_ENOUGH {
            Verdict::Ignore
        } else {
            self.verdict
        }
    }

    /// Gives a connection that was ignored another look.
    pub fn reconsider(&mut self) {
        self.verdict = Verdict::Unknown;
        self.foreign = 0;
        self.unread_calls = 0;
    }

    /// The meaning layer's counters.
    #[must_use]
    pub fn stats(&self) -> &RedisStats {
        &self.stats
    }

    /// The layers below, for their counters.
    #[must_use]
    pub fn layers(&self) -> (&Half, &Half, &RequestDecoder, &ReplyDecoder) {
        (&self.sent, &self.received, &self.requests, &self.replies)
    }

    fn command(&mut self, item: &Item<Command<'_>>, context: &Context<'_>, out: &mut Vec<BrokerEvent>) {
        self.stats.commands += 1;
        self.unread_calls = 0;
        if item.resynced {
            self.unpair(out);
            self.lead = Lead::None;
        }
        let last_token = &mut self.last_token;
        let mut meaning = command::read(item, context, &mut self.stats, || {
            *last_token += 1;
            *last_token
        });
        self.judge(&meaning);
        self.follow(item, &mut meaning);
        let waiting = match meaning {
            Meaning::Multi => {
                self.transaction = Some(Vec::new());
                Waiting::Other
            }
            Meaning::Exec => {
                let events = self.transaction.take().unwrap_or_default();
                let tokens = tokens(&events);
                settle(events, out);
                Waiting::of(tokens)
            }
            Meaning::Discard => {
                self.transaction = None;
                Waiting::Other
            }
            Meaning::Subscribe => {
                self.subscribed = true;
                return;
            }
            Meaning::Pop { .. } => {
                let call = Call {
                    enter: item.last_enter,
                    exit: item.last,
                    pid: item.pid,
                    tid: item.tid,
                };
                if self.verdict == Verdict::Celery {
                    out.push(BrokerEvent::Consumer { call });
                }
                Waiting::Pop
            }
            Meaning::Celery(events) => match &mut self.transaction {
                Some(open) => {
                    let room = self.waiting_cap.saturating_sub(open.len());
                    self.stats.transaction_dropped += events.len().saturating_sub(room) as u64;
                    open.extend(events.into_iter().take(room));
                    Waiting::Other
                }
                None => {
                    let tokens = tokens(&events);
                    out.extend(events);
                    Waiting::of(tokens)
                }
            },
            Meaning::Look(_) | Meaning::SetUp | Meaning::Neutral | Meaning::Foreign => Waiting::Other,
        };
        if self.waiting.len() >= self.waiting_cap {
            self.stats.in_flight_dropped += 1;
            self.unpair(out);
        }
        self.waiting.push_back(waiting);
    }

    /// Puts the beginning of a result at what led to it.
    fn follow(&mut self, item: &Item<Command<'_>>, meaning: &mut Meaning) {
        let opened = |lead: &Lead| match lead {
            Lead::Opened(at) if item.first.since(*at) < SET_UP => Some(*at),
            _ => None,
        };
        match meaning {
            Meaning::SetUp | Meaning::Multi => {}
            Meaning::Look(id) => {
                let since = opened(&self.lead).unwrap_or(item.first);
                self.lead = Lead::Looked(id.clone(), since);
            }
            Meaning::Celery(events) => {
                let lead = std::mem::take(&mut self.lead);
                for event in events {
                    if let BrokerEvent::Result { task_id, first, .. } = event {
                        *first = match &lead {
                            Lead::Looked(id, since) if id == task_id => *since,
                            lead => opened(lead).unwrap_or(*first),
                        };
                    }
                }
            }
            _ => self.lead = Lead::None,
        }
    }

    fn reply(&mut self, item: &Item<Value<'_>>, context: &Context<'_>, out: &mut Vec<BrokerEvent>) {
        self.stats.replies += 1;
        if is_push(&item.value, self.subscribed) {
            let event = command::delivery(item, context, &mut self.stats);
            self.deliver(event, out);
            return;
        }
        if item.resynced && self.waiting.len() > 1 {
            // Which of several commands it answers can't be told.
            self.unpair(out);
        }
        match self.waiting.pop_front() {
            Some(Waiting::Publishes(tokens)) => {
                answer(tokens, item.last, out);
            }
            Some(Waiting::Pop) => {
                let event = command::delivery(item, context, &mut self.stats);
                self.deliver(event, out);
            }
            Some(Waiting::Other) => {}
            None => {
                self.stats.replies_unpaired += 1;
                if self.requests.pending() > 0 {
                    self.answered = Some(item.last);
                }
                // The poll was under way before the capture began: its shape tells what it is.
                let event = command::delivery(item, context, &mut self.stats);
                self.deliver(event, out);
            }
        }
    }

    fn deliver(&mut self, event: Option<BrokerEvent>, out: &mut Vec<BrokerEvent>) {
        if let Some(event) = event {
            self.verdict = Verdict::Celery;
            out.push(event);
        }
    }

    /// Gives up pairing what was sent with what will be received.
    fn unpair(&mut self, out: &mut Vec<BrokerEvent>) {
        if let Some(events) = self.transaction.take() {
            // Pipelined, so it was sent whole, though not captured whole.
            let tokens = tokens(&events);
            settle(events, out);
            out.extend(tokens.into_iter().map(|token| BrokerEvent::Unanswered { token }));
        }
        self.stats.commands_unpaired += self.waiting.len() as u64;
        for waiting in self.waiting.drain(..) {
            if let Waiting::Publishes(tokens) = waiting {
                out.extend(tokens.into_iter().map(|token| BrokerEvent::Unanswered { token }));
            }
        }
    }

    fn judge(&mut self, meaning: &Meaning) {
        match meaning {
            Meaning::Celery(_) | Meaning::Look(_) | Meaning::Pop { kombu: true } => {
                self.verdict = Verdict::Celery
            }
            Meaning::Foreign if self.verdict == Verdict::Unknown => {
                self.foreign += 1;
                if self.foreign >= FOREIGN_ENOUGH {
                    self.verdict = Verdict::Ignore;
                }
            }
            _ => {}
        }
    }
}

/// Pushes answer no command. RESP2 has no type of its own for them: on a subscribed connection they are arrays that say
/// what they are.
fn is_push(value: &Value<'_>, subscribed: bool) -> bool {
    match value {
        Value::Push(_) => true,
        Value::Array(elements) if subscribed => elements.first().and_then(Value::text).is_some_and(|kind| {
            matches!(
                kind,
                b"message" | b"pmessage" | b"subscribe" | b"psubscribe" | b"unsubscribe" | b"punsubscribe"
            )
        }),
        _ => false,
    }
}

/// A transfer that begins with a whole published message's head, in RESP3 or RESP2: a boundary on a subscribed connection,
/// which never sends and so has no other.
fn begins_push(data: &[u8]) -> bool {
    const HEADS: [&[u8]; 4] = [
        b">3\r\n$7\r\nmessage\r\n",
        b">4\r\n$8\r\npmessage\r\n",
        b"*3\r\n$7\r\nmessage\r\n",
        b"*4\r\n$8\r\npmessage\r\n",
    ];
    HEADS.iter().any(|head| data.starts_with(head))
}

fn answer(tokens: Tokens, at: Mono, out: &mut Vec<BrokerEvent>) {
    out.extend(
        tokens
            .into_iter()
            .map(|token| BrokerEvent::Answered { token, at }),
    );
}

fn tokens(events: &[BrokerEvent]) -> Tokens {
    let token = |event: &BrokerEvent| match event {
        BrokerEvent::Publish { token, .. } => Some(*token),
        _ => None,
    };
    events.iter().filter_map(token).collect()
}

/// A transaction that both removes a message from the unacked set and puts it into its queue acknowledges nothing.
fn settle(events: Vec<BrokerEvent>, out: &mut Vec<BrokerEvent>) {
    if !events
        .iter()
        .any(|event| matches!(event, BrokerEvent::Requeued { .. }))
    {
        out.extend(events);
        return;
    }
    let requeued = |tag: &Arc<str>| {
        events
            .iter()
            .any(|event| matches!(event, BrokerEvent::Requeued { tag: back, .. } if back == tag))
    };
    let keep: Vec<bool> = events
        .iter()
        .map(|event| !matches!(event, BrokerEvent::Acked { tag, .. } if requeued(tag)))
        .collect();
    out.extend(
        events
            .into_iter()
            .zip(keep)
            .filter(|(_, keep)| *keep)
            .map(|(event, _)| event),
    );
}

#[cfg(test)]
mod tests;
