//! The whole core as one state machine: feed it records, take spans out.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use celeryscope_common::record::{Idle, Kind, Record, flags};

use crate::bounded::Bounded;
use crate::broker::{BrokerEvent, Context, Server, Verdict};
use crate::connection::Connection;
use crate::held::Held;
use crate::limits::Limits;
use crate::span::{Relation, Span, SpanStyle};
use crate::stats::Stats;
use crate::task::Engine;
use crate::text::Text;
use crate::time::{ClockPair, Mono, Wall};

/// How long a connection that was found not to be Celery's is left alone before it is looked at again.
const RECONSIDER: Duration = Duration::from_secs(60);

/// What the user chose.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Caps.
    pub limits: Limits,
    /// How runs refer to their publish.
    pub relation: Relation,
    /// Names of spans and attributes.
    pub style: SpanStyle,
    /// Put task arguments (cut) on spans.
    pub capture_args: bool,
    /// Put the messaging attributes' names of before 1.17 beside those of today
    /// (`OTEL_SEMCONV_STABILITY_OPT_IN=messaging/dup`).
    pub old_names: bool,
}

/// What the core has to say.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// A span is complete.
    Span(Box<Span>),
    /// A connection's verdict changed.
    Verdict {
        /// The connection.
        conn: u64,
        /// What it is now.
        verdict: Verdict,
    },
    /// The process consumes tasks: its children's pool pipes should be watched.
    Worker {
        /// The worker's main process.
        pid: u32,
    },
}

/// The state machine.
///
/// Time is that of the records: [`Self::feed`] moves it to each record's `exit`, [`Self::advance`] where nothing is
/// recorded. After each call, [`Self::poll`] until it returns `None`.
#[derive(Debug)]
pub struct Pipeline {
    config: Arc<Config>,
    connections: Bounded<u64, Connection>,
    /// Bytes that their decoders hold.
    stream_bytes: u64,
    engine: Engine,
    /// Empty; kept for its memory.
    events: Vec<BrokerEvent>,
    /// Counters of connections that are gone, and of the pipeline itself.
    past: Stats,
    now: Mono,
    /// Connections told to be ignored, by time.
    ignored: VecDeque<(Mono, u64)>,
}

impl Default for Pipeline {
    fn default() -> Self {
        Self::new(Config::default())
    }
}

impl Pipeline {
    /// An empty state machine.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let config = Arc::new(config);
        Self {
            connections: Bounded::new(config.limits.connections),
            stream_bytes: 0,
            engine: Engine::new(Arc::clone(&config)),
            events: Vec::new(),
            past: Stats::default(),
            now: Mono::default(),
            ignored: VecDeque::new(),
            config,
        }
    }

    /// Takes one record. Time advances to the record's `exit`.
    pub fn feed(&mut self, record: &Record<'_>) {
        self.past.records += 1;
        self.advance(Mono(record.header.exit));
        match record.kind {
            Kind::Send | Kind::Recv => {
                self.past.records_transfer += 1;
                self.transfer(record);
            }
            Kind::PipeRead | Kind::PipeWrite => {
                self.past.records_pipe += 1;
                self.engine.pipe(record);
            }
            Kind::Fork | Kind::Exec | Kind::Exit | Kind::Process => {
                self.past.records_process += 1;
                self.engine.process_record(record);
            }
            Kind::Open => match record.endpoint() {
                Some(endpoint) => {
                    self.past.records_control += 1;
                    let address = Ipv6Addr::from(endpoint.addr);
                    let address = address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4);
                    let server = Arc::new((Text::from(address.to_string()), endpoint.port));
                    let older = record.header.flags & flags::MIDSTREAM != 0;
                    let opened = (!older).then_some(Mono(record.header.enter));
                    // Of what a TLS session carries that nobody knows a socket of, the broker's address is not known.
                    let server = (endpoint.port != 0).then_some(server);
                    self.open(record.header.conn, server, opened);
                }
                None => self.past.records_rejected += 1,
            },
            Kind::Close => {
                self.past.records_control += 1;
                if let Some(connection) = self.connections.remove(&record.header.conn) {
                    self.past.connections_closed += 1;
                    self.retire(record.header.conn, connection);
                }
            }
            Kind::Tls => {
                self.past.records_control += 1;
                self.past.connections_tls += 1;
                self.unsealed(record.header.conn, record.header.flags & flags::MIDSTREAM != 0);
            }
            Kind::Idle => match record.idle() {
                Some(idle) => {
                    self.past.records_idle += 1;
                    self.idle(record.header.pid, record.header.conn, &idle);
                }
                None => self.past.records_rejected += 1,
            },
            Kind::Clock => {
                self.past.records_control += 1;
                let pair = ClockPair {
                    mono: Mono(record.header.exit),
                    wall: Wall(record.header.conn),
                };
                self.engine.set_clock(pair);
            }
            Kind::Lost => {
                self.past.records_control += 1;
                self.past.records_lost = self.past.records_lost.saturating_add(record.header.conn);
            }
        }
    }

    /// Lets time pass: what waited long enough is put out. Time never goes back.
    pub fn advance(&mut self, now: Mono) {
        self.now = self.now.max(now);
        self.engine.advance(self.now);
        while let Some((since, conn)) = self.ignored.front().copied() {
            if self.now.since(since) < RECONSIDER {
                break;
            }
            self.ignored.pop_front();
            self.reconsider(conn);
        }
    }

    /// The input has ended: everything held is put out with what is known.
    pub fn finish(&mut self) {
        for conn in self.connections.keys_by_age() {
            if let Some(connection) = self.connections.remove(&conn) {
                self.past.connections_closed += 1;
                self.retire(conn, connection);
            }
        }
        self.engine.finish();
    }

    /// The next thing to say, if any.
    pub fn poll(&mut self) -> Option<Output> {
        self.engine.poll()
    }

    /// Counters so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut sum = self.past;
        sum += *self.engine.stats();
        for (_, connection) in self.connections.iter() {
            sum += connection.stats();
        }
        sum
    }

    /// What is held now.
    #[must_use]
    pub fn held(&self) -> Held {
        let limits = &self.config.limits;
        let pending = self
            .connections
            .iter()
            .map(|(_, connection)| connection.pending());
        let (resp, amqp) = pending.fold((0, 0), |sum, (resp, amqp)| (sum.0 + resp, sum.1 + amqp));
        Held {
            resp_pending_bytes: resp,
            amqp_pending_bytes: amqp,
            connections_held: self.connections.len() as u64,
            connections_limit: limits.connections as u64,
            stream_bytes_held: self.stream_bytes,
            stream_bytes_limit: limits.stream_bytes,
            ..self.engine.held()
        }
    }

    /// What it was made with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn open(&mut self, conn: u64, server: Option<Server>, opened: Option<Mono>) {
        self.past.connections += 1;
        // A connection that is opened again under its id was closed unseen.
        if let Some(old) = self.connections.remove(&conn) {
            self.past.connections_closed += 1;
            self.retire(conn, old);
        }
        self.insert(conn, Connection::new(server, opened));
    }

    /// What comes now is what is inside TLS; what came before was sealed and told nothing.
    fn unsealed(&mut self, conn: u64, midstream: bool) {
        let Some(sealed) = self.connections.remove(&conn) else {
            return self.open(conn, None, None);
        };
        let opened = sealed.opened.filter(|_| !midstream);
        let connection = Connection::new(sealed.server.clone(), opened);
        self.retire(conn, sealed);
        self.insert(conn, connection);
    }

    /// Where there is no room, a connection that has not proved to be Celery's goes before one that has: whoever opens
    /// connections to a broker's port by the thousand must not cost those that are there a span.
    fn insert(&mut self, conn: u64, connection: Connection) {
        let gone = if self.connections.is_full() {
            self.connections.pop_oldest_that(Connection::is_stranger)
        } else {
            None
        };
        let oldest = self.connections.insert(conn, connection);
        for (old, connection) in gone.into_iter().chain(oldest) {
            self.past.connections_evicted += 1;
            self.retire(old, connection);
        }
    }

    fn transfer(&mut self, record: &Record<'_>) {
        let conn = record.header.conn;
        let told = self.told(conn, record).or_else(|| {
            // Its Open record was lost: what it is connected to is not known, what it says still is.
            self.open(conn, None, None);
            self.told(conn, record)
        });
        if let Some((before, verdict)) = told
            && verdict != before
        {
            if verdict == Verdict::Ignore {
                self.past.connections_ignored += 1;
                // Stale entries of closed connections count too, so the queue is capped like the table.
                if self.ignored.len() >= self.config.limits.connections {
                    self.ignored.pop_front();
                }
                self.ignored.push_back((self.now, conn));
            }
            self.engine.say(Output::Verdict { conn, verdict });
        }
        self.shed();
    }

    /// Has a connection, if it is known, take a transfer; gives the verdict of before and that of now.
    fn told(&mut self, conn: u64, record: &Record<'_>) -> Option<(Verdict, Verdict)> {
        self.hear(conn, record.header.pid, |connection, limits, context, events| {
            let verdict = connection.record(record, limits, context, events);
            (std::mem::replace(&mut connection.told, verdict), verdict)
        })
    }

    /// Bytes were left out of a connection. One that is not known tells nothing by that: the next record is where it begins.
    fn idle(&mut self, pid: u32, conn: u64, idle: &Idle) {
        self.hear(conn, pid, |connection, _, context, events| {
            connection.idle(idle, context, events);
        });
    }

    /// Has a connection, if it is known, take what it is given, and passes on what that tells.
    fn hear<T>(
        &mut self,
        conn: u64,
        pid: u32,
        take: impl FnOnce(&mut Connection, &Limits, &Context<'_>, &mut Vec<BrokerEvent>) -> T,
    ) -> Option<T> {
        let connection = self.connections.get_mut(&conn)?;
        let mut events = std::mem::take(&mut self.events);
        let engine = &self.engine;
        let context = Context {
            capture_args: self.config.capture_args,
            knows_tag: &|tag| engine.knows_tag(pid, tag),
            share: &|text| engine.share(text),
        };
        let taken = take(connection, &self.config.limits, &context, &mut events);
        let (before, now) = connection.weigh();
        self.stream_bytes = self.stream_bytes.saturating_sub(before).saturating_add(now);
        for event in events.drain(..) {
            self.engine.broker(conn, connection.server.as_ref(), event);
        }
        self.events = events;
        Some(taken)
    }

    /// Makes room where decoders hold too much: the connection that holds most drops what it has of messages that are not
    /// complete, and finds its sync again as after a gap.
    fn shed(&mut self) {
        while self.stream_bytes > self.config.limits.stream_bytes {
            // Of several that hold as much the youngest, so that a replay does the same.
            let most = self
                .connections
                .iter_mut()
                .max_by_key(|(conn, c)| (c.held, **conn));
            let Some((conn, connection)) = most else {
                return;
            };
            let mut events = Vec::new();
            connection.shed(&mut events);
            let (before, now) = connection.weigh();
            let freed = before.saturating_sub(now);
            self.past.streams_shed += 1;
            self.past.streams_shed_bytes += freed;
            self.stream_bytes = self.stream_bytes.saturating_sub(freed);
            for event in events {
                self.engine.broker(*conn, connection.server.as_ref(), event);
            }
            // The little that every decoder keeps.
            if freed == 0 {
                return;
            }
        }
    }

    /// Gives an ignored connection another look: a program may have used it for something else first.
    fn reconsider(&mut self, conn: u64) {
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        if connection.told == Verdict::Ignore {
            connection.reconsider();
            connection.told = Verdict::Unknown;
            self.engine.say(Output::Verdict {
                conn,
                verdict: Verdict::Unknown,
            });
        }
    }

    /// A connection is gone: what it still waited for will not come.
    fn retire(&mut self, conn: u64, mut connection: Connection) {
        let mut events = Vec::new();
        connection.finish(&mut events);
        self.stream_bytes = self.stream_bytes.saturating_sub(connection.held);
        for event in events {
            self.engine.broker(conn, connection.server.as_ref(), event);
        }
        let (resp, amqp) = connection.pending();
        self.past.resp_unfinished_bytes += resp;
        self.past.amqp_unfinished_bytes += amqp;
        self.past += connection.stats();
    }
}
