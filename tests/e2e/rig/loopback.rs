//! Loopback addresses and free ports: where servers of a test listen.

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::patience::patient;
use super::tls::{Duplex, Identity};

/// The loopback address by which programs reach a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn address(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::LOCALHOST.into(),
            Self::V6 => Ipv6Addr::LOCALHOST.into(),
        }
    }

    /// As it stands in a URL.
    pub(crate) fn host(self) -> &'static str {
        match self {
            Self::V4 => "127.0.0.1",
            Self::V6 => "[::1]",
        }
    }

    /// Whether this host has it.
    pub(crate) fn is_there(self) -> bool {
        TcpListener::bind((self.address(), 0)).is_ok()
    }
}

/// A port that nobody listened on a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("the port of a listener").port()
}

/// Asks the server on 127.0.0.1 and `port`, over TLS where it has an identity, and compares the beginning of its answer.
pub(crate) fn answers(
    port: u16,
    identity: Option<&Identity>,
    question: &[u8],
    answer: &[u8],
) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    stream.set_read_timeout(Some(patient(Duration::from_secs(1))))?;
    let exchange = |stream: &mut dyn Duplex| {
        stream.write_all(question)?;
        let mut got = vec![0; answer.len()];
        stream.read_exact(&mut got)?;
        if got == answer {
            Ok(())
        } else {
            Err(Error::from(ErrorKind::InvalidData))
        }
    };
    match identity {
        Some(identity) => identity.within(stream, exchange),
        None => exchange(&mut stream),
    }
}
