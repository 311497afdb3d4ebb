//! Which processes are this host's, where several agents share one kernel: those of the agent's own network namespace.
//!
//! A process belongs where it was when it last opened a connection or executed a program (which is how programs get into
//! a namespace), its forked children with it. One that is gone before it could be asked belongs to nobody: two agents
//! that both tell of it would be worse than none.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use celeryscope_common::{Kind, Record};

use crate::host::proc;

/// Most processes that are remembered; beyond, all are forgotten and asked again.
const LIMIT: usize = 65_536;

/// Tells processes of other network namespaces from ours.
#[derive(Debug)]
pub(super) struct Netns {
    proc_root: PathBuf,
    own: PathBuf,
    foreign: HashMap<u32, bool>,
    left_out: u64,
}

impl Netns {
    /// Ours is that of `pid`, a name in /proc: `self`.
    ///
    /// # Errors
    /// It can't be read.
    pub(super) fn of(proc_root: &Path, pid: &str) -> Result<Self> {
        let link = proc_root.join(pid).join("ns/net");
        let own = fs::read_link(&link).with_context(|| {
            format!(
                "cannot read {}: mount /proc, or leave out --netns own",
                link.display()
            )
        })?;
        Ok(Self {
            proc_root: proc_root.to_owned(),
            own,
            foreign: HashMap::new(),
            left_out: 0,
        })
    }

    /// Is the process in ours at this moment? Not remembered: it may not be watched, and go elsewhere unseen.
    pub(super) fn holds(&self, pid: u32) -> bool {
        self.ask(pid) == Some(false)
    }

    /// Is this watched process in another namespace?
    pub(super) fn is_foreign(&mut self, pid: u32) -> bool {
        if let Some(foreign) = self.foreign.get(&pid) {
            return *foreign;
        }
        let foreign = self.ask(pid).unwrap_or(true);
        self.remember(pid, foreign);
        foreign
    }

    fn ask(&self, pid: u32) -> Option<bool> {
        let namespace = proc::network_namespace(&self.proc_root, pid)?;
        Some(namespace != self.own)
    }

    fn remember(&mut self, pid: u32, foreign: bool) {
        if self.foreign.len() >= LIMIT {
            self.foreign.clear();
        }
        self.foreign.insert(pid, foreign);
    }

    /// Is the record about a process in another namespace? Then it is counted. Records come in the kernel's order.
    pub(super) fn leaves_out(&mut self, record: &Record<'_>) -> bool {
        let pid = record.header.pid;
        // What was remembered may be of a process whose end was not heard of.
        if record.kind == Kind::Open
            && let Some(foreign) = self.ask(pid)
        {
            self.remember(pid, foreign);
        }
        let foreign = self.is_foreign(pid);
        match record.kind {
            Kind::Fork => {
                if let Ok(child) = u32::try_from(record.header.conn) {
                    self.remember(child, foreign);
                }
            }
            Kind::Exec | Kind::Exit => _ = self.foreign.remove(&pid),
            _ => {}
        }
        self.left_out += u64::from(foreign);
        foreign
    }

    /// Records of others so far.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out
    }
}

#[cfg(test)]
mod tests {
    use celeryscope_common::Header;

    use super::*;
    use crate::host::fake::Tree;

    fn record(kind: Kind, pid: u32, conn: u64) -> Record<'static> {
        let header = Header {
            pid,
            conn,
            ..Header::default()
        };
        Record::new(kind, header, b"")
    }

    /// Scenario: the agent in one namespace, programs in it and in another; some fork, execute, exit, some are gone.
    /// Guarantees: exactly the records of the agent's own namespace pass; a child is where its parent was, even when it
    /// is gone; an exec, a new connection and the reuse of a process's id ask anew; what is left out is counted.
    #[test]
    fn only_the_own_namespace() {
        let tree = Tree::new();
        tree.link(1, "ns/net", "net:[1]");
        tree.link(10, "ns/net", "net:[1]");
        tree.link(20, "ns/net", "net:[2]");
        let mut netns = Netns::of(tree.root(), "1").unwrap();
        assert!(!netns.leaves_out(&record(Kind::Open, 10, 7)));
        assert!(netns.leaves_out(&record(Kind::Open, 20, 8)));
        assert!(netns.leaves_out(&record(Kind::Open, 30, 9)), "gone, never known");

        assert!(!netns.leaves_out(&record(Kind::Fork, 10, 11)));
        assert!(
            !netns.leaves_out(&record(Kind::Send, 11, 7)),
            "gone, its parent known"
        );
        assert!(netns.leaves_out(&record(Kind::Fork, 20, 21)));
        assert!(netns.leaves_out(&record(Kind::PipeRead, 21, 3)));

        tree.link(21, "ns/net", "net:[1]");
        assert!(netns.leaves_out(&record(Kind::Exec, 21, 0)));
        assert!(
            !netns.leaves_out(&record(Kind::Open, 21, 10)),
            "moved before the exec"
        );
        assert!(!netns.leaves_out(&record(Kind::Exit, 21, 0)));
        tree.unlink(21, "ns/net");
        tree.link(21, "ns/net", "net:[2]");
        assert!(
            netns.leaves_out(&record(Kind::Open, 21, 11)),
            "another process by now"
        );
        assert_eq!(netns.left_out(), 6);

        assert!(netns.holds(10));
        tree.unlink(10, "ns/net");
        tree.link(10, "ns/net", "net:[2]");
        assert!(!netns.holds(10));
        assert!(
            !netns.leaves_out(&record(Kind::Send, 10, 7)),
            "on a connection made in ours"
        );
        assert!(netns.leaves_out(&record(Kind::Open, 10, 12)), "made elsewhere");
    }
}
