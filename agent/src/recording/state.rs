//! What still holds at the end of one part of a recording, said again at the start of the next, so that the next can be
//! replayed alone: the clocks, the processes, the open connections.

use std::collections::BTreeMap;

use celeryscope_common::{Header, Kind, Record, flags};
use celeryscope_core::Limits;

/// What holds.
#[derive(Debug, Default)]
pub(super) struct State {
    clock: Option<Stored>,
    /// By number, so that they are said again in the order in which they were heard of.
    processes: Table<u32, Stored>,
    connections: Table<u64, Connection>,
    now: u64,
}

/// A record kept.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    kind: Kind,
    header: Header,
    payload: Box<[u8]>,
}

impl Stored {
    fn of(record: &Record<'_>) -> Self {
        Self {
            kind: record.kind,
            header: record.header,
            payload: record.payload.into(),
        }
    }

    pub(super) fn record(&self) -> Record<'_> {
        Record::new(self.kind, self.header, &self.payload)
    }

    /// The same as of now.
    fn at(&self, now: u64, flags: u16) -> Self {
        let header = Header {
            enter: now,
            exit: now,
            flags,
            ..self.header
        };
        Self {
            header,
            ..self.clone()
        }
    }
}

#[derive(Debug, Default)]
struct Connection {
    open: Option<Stored>,
    tls: Option<Stored>,
    /// Bytes have passed: its streams go on in the middle.
    used: bool,
}

impl State {
    /// Takes a record that was written.
    pub(super) fn see(&mut self, record: &Record<'_>) {
        let Header { pid, conn, exit, .. } = record.header;
        self.now = self.now.max(exit);
        match record.kind {
            Kind::Clock => self.clock = Some(Stored::of(record)),
            Kind::Process => self.processes.insert(pid, Stored::of(record), limits().processes),
            Kind::Exec | Kind::Exit => self.processes.remove(&pid),
            Kind::Open => {
                let connection = Connection {
                    open: Some(Stored::of(record)),
                    ..Connection::default()
                };
                self.connections.insert(conn, connection, limits().connections);
            }
            Kind::Tls => {
                let open = self.connections.take(&conn).and_then(|old| old.open);
                let connection = Connection {
                    open,
                    tls: Some(Stored::of(record)),
                    used: true,
                };
                self.connections.insert(conn, connection, limits().connections);
            }
            Kind::Close => self.connections.remove(&conn),
            Kind::Send | Kind::Recv | Kind::Idle => {
                if let Some(connection) = self.connections.get_mut(&conn) {
                    connection.used = true;
                }
            }
            Kind::PipeRead | Kind::PipeWrite | Kind::Fork | Kind::Lost => {}
        }
    }

    /// What the next part begins with.
    pub(super) fn records(&self) -> Vec<Stored> {
        let processes = self.processes.values().map(|process| process.at(self.now, 0));
        let connections = self.connections.values().flat_map(|connection| {
            let older = |stored: &Stored| stored.at(self.now, stored.header.flags | flags::MIDSTREAM);
            let open = connection.open.as_ref().map(|open| match connection.used {
                true => older(open),
                false => open.clone(),
            });
            open.into_iter().chain(connection.tls.as_ref().map(older))
        });
        self.clock
            .iter()
            .cloned()
            .chain(processes)
            .chain(connections)
            .collect()
    }
}

/// As many as the core would hold.
fn limits() -> Limits {
    Limits::default()
}

/// A map that drops the oldest entry at its cap.
#[derive(Debug)]
struct Table<K, V> {
    numbers: BTreeMap<K, u64>,
    values: BTreeMap<u64, (K, V)>,
    next: u64,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self {
            numbers: BTreeMap::new(),
            values: BTreeMap::new(),
            next: 0,
        }
    }
}

impl<K: Ord + Copy, V> Table<K, V> {
    fn insert(&mut self, key: K, value: V, cap: usize) {
        self.remove(&key);
        if self.values.len() >= cap
            && let Some((_, (oldest, _))) = self.values.pop_first()
        {
            self.numbers.remove(&oldest);
        }
        self.numbers.insert(key, self.next);
        self.values.insert(self.next, (key, value));
        self.next += 1;
    }

    fn take(&mut self, key: &K) -> Option<V> {
        let number = self.numbers.remove(key)?;
        self.values.remove(&number).map(|(_, value)| value)
    }

    fn remove(&mut self, key: &K) {
        self.take(key);
    }

    fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let number = self.numbers.get(key)?;
        self.values.get_mut(number).map(|(_, value)| value)
    }

    fn values(&self) -> impl Iterator<Item = &V> {
        self.values.values().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(state: &State) -> Vec<(Kind, u64, bool, u64)> {
        let records = state.records();
        let tell = |stored: &Stored| {
            let header = stored.record().header;
            let id = header.conn.max(u64::from(header.pid));
            (stored.kind, id, header.flags & flags::MIDSTREAM != 0, header.exit)
        };
        records.iter().map(tell).collect()
    }

    fn see(state: &mut State, kind: Kind, pid: u32, conn: u64, exit: u64) {
        let header = Header {
            pid,
            conn,
            exit,
            ..Header::default()
        };
        state.see(&Record::new(kind, header, b""));
    }

    /// Scenario: two clocks, processes that come, execute and go, connections that are used, unused, sealed and closed.
    /// Guarantees: the last clock as it was read; who is alive, as of now; open connections, those that were used as of now and in
    /// mid-stream, unused ones as they were opened.
    #[test]
    fn what_holds_is_said_again() {
        let mut state = State::default();
        see(&mut state, Kind::Clock, 0, 500, 1);
        see(&mut state, Kind::Clock, 0, 600, 2);
        for pid in [10, 11, 12] {
            see(&mut state, Kind::Process, pid, 0, 3);
        }
        see(&mut state, Kind::Exit, 11, 0, 4);
        see(&mut state, Kind::Exec, 12, 0, 4);
        for conn in [1001, 1002, 1003, 1004] {
            see(&mut state, Kind::Open, 0, conn, 5);
        }
        see(&mut state, Kind::Recv, 0, 1002, 6);
        see(&mut state, Kind::Close, 0, 1003, 7);
        see(&mut state, Kind::Tls, 0, 1004, 8);
        see(&mut state, Kind::Lost, 0, 3, 9);
        assert_eq!(
            told(&state),
            [
                (Kind::Clock, 600, false, 2),
                (Kind::Process, 10, false, 9),
                (Kind::Open, 1001, false, 5),
                (Kind::Open, 1002, true, 9),
                (Kind::Open, 1004, true, 9),
                (Kind::Tls, 1004, true, 9),
            ]
        );
    }

    /// Scenario: more processes than the core would hold.
    /// Guarantees: the oldest are left out.
    #[test]
    fn no_more_than_the_core_holds() {
        let mut state = State::default();
        let most = limits().processes as u32;
        for pid in 1..=most + 2 {
            see(&mut state, Kind::Process, pid, 0, 1);
        }
        let told = told(&state);
        assert_eq!((told.len(), told[0].1), (most as usize, 3));
    }
}
