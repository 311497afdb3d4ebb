//! Loopback addresses and free ports: where servers of a test listen.

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
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

/// Where ports of servers come from: below those that the kernel gives to clients, one of which would else be gone before its server
/// listens.
const SERVERS: std::ops::Range<u32> = 20_000..32_768;

/// A port that nobody listened on a moment ago. Each is given once, and test processes beside each other begin at different places.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(7919);
    let tries = SERVERS.len();
    let mut ports = std::iter::repeat_with(|| {
        let at = begin.wrapping_add(NEXT.fetch_add(1, Relaxed)) as usize % tries;
        u16::try_from(SERVERS.start as usize + at).expect("a port's number")
    });
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    ports.by_ref().take(tries).find(free).expect("a free port")
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
