//! Which processes hold connections to a broker, from /proc: descriptor → socket inode → TCP table of its network
//! namespace. Each namespace's tables are read once.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use celeryscope_common::Addr;

use super::proc;

/// `st` of an established connection in /proc/net/tcp.
const ESTABLISHED: &str = "01";
/// Most rows that are read of one table.
const ROW_LIMIT: usize = 1_000_000;

/// The far end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) addr: Addr,
    pub(crate) port: u16,
}

/// A descriptor that refers to a connection to a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) pid: u32,
    pub(crate) fd: u32,
    /// The socket's inode: the same for every descriptor that refers to it.
    pub(crate) inode: u64,
    pub(crate) peer: Peer,
}

/// The TCP tables of the network namespaces met so far.
pub(crate) struct Tables<'a> {
    proc_root: &'a Path,
    ports: &'a HashSet<u16>,
    read: HashMap<PathBuf, HashMap<u64, Peer>>,
}

impl<'a> Tables<'a> {
    pub(crate) fn new(proc_root: &'a Path, ports: &'a HashSet<u16>) -> Self {
        Self {
            proc_root,
            ports,
            read: HashMap::new(),
        }
    }

    /// The descriptors of `pid` that refer to established connections to one of the ports. Nothing for processes
    /// that are gone or may not be looked at.
    pub(crate) fn held_by(&mut self, pid: u32) -> Vec<Held> {
        let sockets = sockets(&self.proc_root.join(pid.to_string()));
        if sockets.is_empty() {
            return Vec::new();
        }
        let Some(namespace) = proc::network_namespace(self.proc_root, pid) else {
            return Vec::new();
        };
        let peers = match self.read.entry(namespace) {
            Entry::Occupied(read) => read.into_mut(),
            Entry::Vacant(unread) => match table(self.proc_root, pid, unread.key(), self.ports) {
                Some(peers) => unread.insert(peers),
                None => return Vec::new(),
            },
        };
        sockets
            .into_iter()
            .filter_map(|(fd, inode)| {
                let peer = *peers.get(&inode)?;
                Some(Held { pid, fd, inode, peer })
            })
            .collect()
    }
}

/// The process's descriptors that are sockets, with their inodes. The standard streams are left out: they are often
/// sockets (of a log daemon), never a broker's, and would make each helper program cost a reading of the tables.
fn sockets(dir: &Path) -> Vec<(u32, u64)> {
    let Ok(entries) = fs::read_dir(dir.join("fd")) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let fd = entry.file_name().to_str()?.parse().ok().filter(|fd| *fd > 2)?;
            Some((fd, socket_inode(&fs::read_link(entry.path()).ok()?)?))
        })
        .collect()
}

/// Does the descriptor still refer to that socket?
pub(crate) fn still_held(proc_root: &Path, held: &Held) -> bool {
    let link = proc_root
        .join(held.pid.to_string())
        .join("fd")
        .join(held.fd.to_string());
    fs::read_link(link).is_ok_and(|target| socket_inode(&target) == Some(held.inode))
}

/// `socket:[12345]`
fn socket_inode(target: &Path) -> Option<u64> {
    target
        .to_str()?
        .strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

/// The tables of the process's namespace; nothing when the process ended meanwhile: then they would be cut short, and another of the
/// namespace must be asked.
fn table(proc_root: &Path, pid: u32, of: &Path, ports: &HashSet<u16>) -> Option<HashMap<u64, Peer>> {
    let dir = proc_root.join(pid.to_string());
    let rows = |name| -> Option<Vec<_>> {
        let text = fs::read_to_string(dir.join(name)).ok()?;
        let rows = text.lines().skip(1).take(ROW_LIMIT);
        Some(rows.filter_map(|row| parse_row(row, ports)).collect())
    };
    let mut peers: HashMap<_, _> = rows("net/tcp")?.into_iter().collect();
    // Not there where the kernel has no IPv6.
    peers.extend(rows("net/tcp6").unwrap_or_default());
    (proc::network_namespace(proc_root, pid)? == of).then_some(peers)
}

/// `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …`. A broker's own sockets have the
/// port on their near end and are not a client's.
fn parse_row(row: &str, ports: &HashSet<u16>) -> Option<(u64, Peer)> {
    let mut columns = row.split_ascii_whitespace().skip(1);
    let (_, near) = columns.next()?.split_once(':')?;
    let (addr, far) = columns.next()?.split_once(':')?;
    if columns.next()? != ESTABLISHED {
        return None;
    }
    let inode = columns.nth(5)?.parse().ok()?;
    let near = u16::from_str_radix(near, 16).ok()?;
    let port = u16::from_str_radix(far, 16).ok()?;
    if !ports.contains(&port) || ports.contains(&near) {
        return None;
    }
    Some((
        inode,
        Peer {
            addr: parse_addr(addr)?,
            port,
        },
    ))
}

/// The kernel prints each 32-bit word of an address, which is in network order, as a number of the host's.
fn parse_addr(text: &str) -> Option<Addr> {
    let word = |at: usize| -> Option<[u8; 4]> {
        Some(u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?.to_ne_bytes())
    };
    let mut addr = [0; 16];
    match text.len() {
        8 => {
            addr[10..12].fill(0xff);
            addr[12..].copy_from_slice(&word(0)?);
        }
        32 => {
            for (i, bytes) in addr.chunks_exact_mut(4).enumerate() {
                bytes.copy_from_slice(&word(i * 8)?);
            }
        }
        _ => return None,
    }
    Some(addr)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use crate::host::fake::Tree;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn row(near: &str, far: &str, state: &str, inode: u64) -> String {
        format!(
            "   0: {near} {far} {state} 00000000:00000000 00:00000000 00000000  1000        0 {inode} 1 0 20\n"
        )
    }

    /// Scenario: two namespaces; connections by IPv4, IPv6 and a mapped address; one that is closing, one to another
    /// port, the broker's own end, and a file.
    /// Guarantees: exactly the established clients' ends are held, each with its peer; tables of one namespace are
    /// not asked about another's sockets.
    #[test]
    fn clients_ends_are_found() {
        if cfg!(target_endian = "big") {
            return;
        }
        let tree = Tree::new();
        tree.process(10, 1, "python", &[]);
        tree.process(20, 1, "redis", &[]);
        tree.process(30, 1, "python", &[]);
        for (pid, net) in [(10, 1), (20, 1), (30, 2)] {
            tree.link(pid, "ns/net", &format!("net:[{net}]"));
        }
        let port = "18EB"; // 6379
        let v4 = [
            row("0100007F:D431", &format!("0100007F:{port}"), "01", 100),
            row(&format!("0100007F:{port}"), "0100007F:D431", "01", 101),
            row("0100007F:D432", &format!("0100007F:{port}"), "08", 102),
            row("0100007F:D433", "0100007F:0050", "01", 103),
        ];
        let v6 = [
            row(
                "00000000000000000000000001000000:D434",
                &format!("00000000000000000000000001000000:{port}"),
                "01",
                104,
            ),
            row(
                "0000000000000000FFFF00000100007F:D435",
                &format!("0000000000000000FFFF00000100007F:{port}"),
                "01",
                105,
            ),
        ];
        tree.file(10, "net/tcp", &format!("{HEAD}{}", v4.concat()));
        tree.file(10, "net/tcp6", &format!("{HEAD}{}", v6.concat()));
        tree.file(30, "net/tcp", HEAD);
        for (fd, inode) in (3..).zip(100..=105) {
            tree.link(10, &format!("fd/{fd}"), &format!("socket:[{inode}]"));
        }
        tree.link(10, "fd/1", "/dev/null");
        tree.link(20, "fd/7", "socket:[101]");
        tree.link(20, "fd/8", "socket:[100]");
        tree.link(30, "fd/5", "socket:[100]");

        let ports = HashSet::from([6379]);
        let mut tables = Tables::new(tree.root(), &ports);
        let mut held = tables.held_by(10);
        held.sort_by_key(|held| held.fd);
        let shown: Vec<_> = held
            .iter()
            .map(|held| {
                (
                    held.fd,
                    held.inode,
                    Ipv6Addr::from(held.peer.addr).to_string(),
                    held.peer.port,
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                (3, 100, "::ffff:127.0.0.1".to_owned(), 6379),
                (7, 104, "::1".to_owned(), 6379),
                (8, 105, "::ffff:127.0.0.1".to_owned(), 6379),
            ]
        );
        assert!(still_held(tree.root(), &held[0]));
        assert!(!still_held(tree.root(), &Held { fd: 1, ..held[0] }));
        // Shared by another process of the same namespace.
        let shared = tables.held_by(20);
        assert_eq!(
            shared
                .iter()
                .map(|held| (held.fd, held.inode))
                .collect::<Vec<_>>(),
            [(8, 100)]
        );
        assert_eq!(tables.held_by(30), []);
        assert_eq!(tables.held_by(99), []);
    }

    /// Scenario: the first process of a namespace ends after its descriptors were read, or as its tables are.
    /// Guarantees: the next is asked, and its connections are found.
    #[test]
    fn ended_meanwhile() {
        let tree = Tree::new();
        for pid in [10, 20, 30] {
            tree.process(pid, 1, "python", &[]);
            tree.link(pid, "ns/net", "net:[1]");
            tree.link(pid, "fd/3", "socket:[100]");
        }
        let rows = format!("{HEAD}{}", row("0100007F:D431", "0100007F:18EB", "01", 100));
        tree.file(30, "net/tcp", &rows);
        let ports = HashSet::from([6379]);
        let mut tables = Tables::new(tree.root(), &ports);
        assert_eq!(tables.held_by(10), []);
        // What is left of the second is no longer of that namespace.
        tree.file(20, "net/tcp", HEAD);
        assert!(table(tree.root(), 20, Path::new("net:[2]"), &ports).is_none());
        assert_eq!(tables.held_by(30).len(), 1);
    }

    /// Scenario: rows that are cut, or hold something else.
    /// Guarantees: they are passed over.
    #[test]
    fn odd_rows_are_passed_over() {
        let ports = HashSet::from([6379]);
        let whole = row("0100007F:D431", "0100007F:18EB", "01", 100);
        assert!(parse_row(&whole, &ports).is_some());
        for end in 0..whole.find("100 1").unwrap() {
            assert_eq!(parse_row(&whole[..end], &ports), None);
        }
        assert_eq!(parse_row(&row("x:D431", "0100007:18EB", "01", 1), &ports), None);
        assert_eq!(parse_row(&row("x:D431", "€€€:18EB", "01", 1), &ports), None);
    }
}
