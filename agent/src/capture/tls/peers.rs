//! Which brokers speak TLS: those at ports of which the user says so, and those with whom somebody was seen to. Who connects to one of
//! them is covered at once, and not only after the first bytes.

use std::collections::{HashSet, VecDeque};

use celeryscope_common::Endpoint;

/// Most brokers known to speak TLS; the oldest makes room.
const KNOWN: usize = 256;
/// Most connections of which it is not known yet what they speak; the oldest makes room.
const FRESH: usize = 256;

/// See the module.
pub(super) struct Peers {
    ports: HashSet<u16>,
    known: VecDeque<Endpoint>,
    fresh: VecDeque<(u64, Endpoint)>,
}

impl Peers {
    pub(super) fn new(ports: &[u16]) -> Self {
        Self {
            ports: ports.iter().copied().collect(),
            known: VecDeque::new(),
            fresh: VecDeque::new(),
        }
    }

    /// Do brokers speak TLS on this port?
    pub(super) fn is_tls(&self, port: u16) -> bool {
        self.ports.contains(&port)
    }

    /// A connection is made. Will it speak TLS, as far as is known?
    pub(super) fn opened(&mut self, conn: u64, endpoint: Endpoint) -> bool {
        let endpoint = Endpoint {
            comm: [0; 16],
            ..endpoint
        };
        if self.is_tls(endpoint.port) || self.known.contains(&endpoint) {
            return true;
        }
        push(&mut self.fresh, (conn, endpoint), FRESH);
        false
    }

    /// A connection speaks TLS.
    pub(super) fn sealed(&mut self, conn: u64) {
        if let Some(at) = self.fresh.iter().rposition(|(fresh, _)| *fresh == conn)
            && let Some((_, endpoint)) = self.fresh.remove(at)
            && !self.known.contains(&endpoint)
        {
            push(&mut self.known, endpoint, KNOWN);
        }
    }
}

fn push<T>(queue: &mut VecDeque<T>, element: T, most: usize) {
    if queue.len() == most {
        queue.pop_front();
    }
    queue.push_back(element);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16, comm: u8) -> Endpoint {
        Endpoint {
            port,
            comm: [comm; 16],
            ..Endpoint::default()
        }
    }

    /// Scenario: one program's connection turns out to speak TLS, another's does not; then both brokers are connected to again, by others.
    /// Guarantees: only the first broker is expected to speak TLS, and that of a port given from the start.
    #[test]
    fn a_broker_that_spoke_tls_will_again() {
        let mut peers = Peers::new(&[5671]);
        assert!(!peers.opened(1, at(7000, 1)));
        assert!(!peers.opened(2, at(7001, 1)));
        assert!(peers.opened(3, at(5671, 1)));
        peers.sealed(1);
        peers.sealed(3);
        assert!(peers.opened(4, at(7000, 2)));
        assert!(!peers.opened(5, at(7001, 2)));
    }

    /// Scenario: a hundred thousand connections to as many places, every other one of TLS.
    /// Guarantees: what is remembered is bounded, and the youngest is among it.
    #[test]
    fn what_is_remembered_is_bounded() {
        let mut peers = Peers::new(&[]);
        for conn in 0..100_000_u64 {
            let endpoint = Endpoint {
                addr: u128::from(conn).to_be_bytes(),
                ..Endpoint::default()
            };
            peers.opened(conn, endpoint);
            if conn % 2 == 1 {
                peers.sealed(conn);
                assert!(peers.opened(conn, endpoint));
            }
        }
        assert!(peers.known.len() <= KNOWN && peers.fresh.len() <= FRESH);
    }
}
