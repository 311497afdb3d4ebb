//! What the core has been told about processes, so that it is told once, before the first record that concerns one.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use celeryscope_common::{Header, Kind, Record};

use super::clock;
use crate::host::{proc, resource};

/// Most processes that are remembered; beyond, all are forgotten and told again.
const LIMIT: usize = 65_536;
/// Most bytes of a key or a value.
const TEXT_LIMIT: usize = 4096;

/// Processes the core knows.
#[derive(Debug, Default)]
pub(super) struct Notes {
    told: HashMap<u32, Arc<Note>>,
    parents: HashMap<u32, u32>,
    /// Forgotten to make room.
    pub(super) dropped: u64,
}

#[derive(Debug)]
struct Note {
    leader: u32,
    payload: Vec<u8>,
}

impl Notes {
    pub(super) const LIMIT: usize = LIMIT;

    /// Passes the record on, with a Process record before it when its process is new to the core.
    pub(super) fn pass(&mut self, proc_root: &Path, record: &Record<'_>, sink: &mut dyn FnMut(&Record<'_>)) {
        let pid = record.header.pid;
        match record.kind {
            Kind::Open | Kind::Send | Kind::Recv | Kind::PipeRead | Kind::PipeWrite
                if !self.told.contains_key(&pid) =>
            {
                let note = self.note(proc_root, pid, record);
                tell(pid, record.header.enter, &note, sink);
            }
            _ => {}
        }
        sink(record);
        match record.kind {
            Kind::Fork => {
                if let Ok(child) = u32::try_from(record.header.conn) {
                    self.forget(child);
                    self.make_room();
                    self.parents.insert(child, pid);
                }
            }
            // Another program: described anew when it is heard of.
            Kind::Exec | Kind::Exit => self.forget(pid),
            _ => {}
        }
    }

    /// How many are remembered.
    pub(super) fn len(&self) -> usize {
        self.told.len() + self.parents.len()
    }

    fn make_room(&mut self) {
        if self.len() >= LIMIT {
            self.dropped += self.told.len() as u64;
            self.told.clear();
            self.parents.clear();
        }
    }

    /// Describes a process that lives and may be gone when it is first heard of: a pool child that was there already.
    pub(super) fn introduce(&mut self, proc_root: &Path, pid: u32, sink: &mut dyn FnMut(&Record<'_>)) {
        if self.told.contains_key(&pid) {
            return;
        }
        if let Some(description) = resource::describe(proc_root, pid) {
            let note = Arc::new(Note {
                leader: description.leader,
                payload: encode(&description.pairs),
            });
            tell(pid, clock::monotonic(), &note, sink);
            self.told.insert(pid, note);
        }
    }

    fn forget(&mut self, pid: u32) {
        self.told.remove(&pid);
        self.parents.remove(&pid);
    }

    fn note(&mut self, proc_root: &Path, pid: u32, record: &Record<'_>) -> Arc<Note> {
        self.make_room();
        let note = if let Some(description) = resource::describe(proc_root, pid) {
            Arc::new(Note {
                leader: description.leader,
                payload: encode(&description.pairs),
            })
        } else if let Some(parent) = self.parents.get(&pid).and_then(|parent| self.told.get(parent)) {
            // A forked child that is gone already was what its parent is.
            Arc::clone(parent)
        } else {
            let endpoint = (record.kind == Kind::Open).then(|| record.endpoint()).flatten();
            let name = endpoint.map(|endpoint| {
                let end = endpoint
                    .comm
                    .iter()
                    .position(|byte| *byte == 0)
                    .unwrap_or(endpoint.comm.len());
                String::from_utf8_lossy(&endpoint.comm[..end]).into_owned()
            });
            let name = name
                .or_else(|| proc::comm(proc_root, pid))
                .unwrap_or_else(|| "unknown".to_owned());
            Arc::new(Note {
                leader: pid,
                payload: encode(&[("service.name".to_owned(), name)]),
            })
        };
        self.told.insert(pid, Arc::clone(&note));
        note
    }
}

fn tell(pid: u32, at: u64, note: &Note, sink: &mut dyn FnMut(&Record<'_>)) {
    let header = Header {
        enter: at,
        exit: at,
        pid,
        tid: pid,
        conn: u64::from(note.leader),
        ..Header::default()
    };
    sink(&Record::new(Kind::Process, header, &note.payload));
}

/// Pairs as [`Record::pairs`] reads them. Text that is too long is cut.
fn encode(pairs: &[(String, String)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for text in pairs.iter().flat_map(|(key, value)| [key, value]) {
        let text = &text[..text.floor_char_boundary(TEXT_LIMIT)];
        let len = u16::try_from(text.len()).unwrap_or(0);
        payload.extend_from_slice(&len.to_ne_bytes());
        payload.extend_from_slice(text.as_bytes());
    }
    payload
}

#[cfg(test)]
mod tests {
    use celeryscope_common::Endpoint;

    use super::*;
    use crate::host::fake::Tree;

    fn record(kind: Kind, pid: u32, conn: u64) -> Record<'static> {
        let header = Header {
            enter: 5,
            exit: 7,
            pid,
            tid: pid,
            conn,
            ..Header::default()
        };
        Record::new(kind, header, b"")
    }

    /// Kind, process and description of a record.
    type Seen = (Kind, u32, Vec<(String, String)>);

    fn passed(notes: &mut Notes, tree: &Tree, record: &Record<'_>) -> Vec<Seen> {
        let mut seen = Vec::new();
        notes.pass(tree.root(), record, &mut |record| {
            let pairs = record
                .pairs()
                .map(|(key, value)| (key.to_owned(), value.to_owned()));
            seen.push((record.kind, record.header.pid, pairs.collect()));
        });
        seen
    }

    /// Scenario: a process sends twice, executes another program, sends, exits; its id is used again.
    /// Guarantees: a description before the first record, after the exec and for the id's next owner; not otherwise.
    #[test]
    fn described_once_for_each_program() {
        let tree = Tree::new();
        tree.process(10, 1, "shop", &["shop"]);
        let mut notes = Notes::default();
        let kinds = |seen: Vec<Seen>| seen.into_iter().map(|(kind, ..)| kind).collect::<Vec<_>>();
        let both = [Kind::Process, Kind::Send];
        assert_eq!(kinds(passed(&mut notes, &tree, &record(Kind::Send, 10, 1))), both);
        assert_eq!(
            kinds(passed(&mut notes, &tree, &record(Kind::Send, 10, 1))),
            [Kind::Send]
        );
        assert_eq!(
            kinds(passed(&mut notes, &tree, &record(Kind::Exec, 10, 0))),
            [Kind::Exec]
        );
        assert_eq!(kinds(passed(&mut notes, &tree, &record(Kind::Send, 10, 1))), both);
        assert_eq!(
            kinds(passed(&mut notes, &tree, &record(Kind::Exit, 10, 0))),
            [Kind::Exit]
        );
        assert_eq!(kinds(passed(&mut notes, &tree, &record(Kind::Send, 10, 1))), both);
    }

    /// Scenario: a child forks from a described process and is gone before its record is read; another process is gone
    /// before its Open is, and one before its pool's frame is.
    /// Guarantees: the child is what its parent was; the other has the name from its Open; the last has none made of its frame.
    #[test]
    fn those_that_are_gone() {
        let tree = Tree::new();
        tree.process(10, 1, "shop", &["shop"]);
        let mut notes = Notes::default();
        passed(&mut notes, &tree, &record(Kind::Send, 10, 1));
        passed(&mut notes, &tree, &record(Kind::Fork, 10, 11));
        let seen = passed(&mut notes, &tree, &record(Kind::Send, 11, 1));
        assert!(
            seen[0]
                .2
                .contains(&("service.name".to_owned(), "shop".to_owned())),
            "{seen:?}"
        );

        let mut comm = [0; 16];
        comm[..4].copy_from_slice(b"gone");
        let endpoint = Endpoint {
            comm,
            ..Endpoint::default()
        }
        .to_bytes();
        let open = Record::new(Kind::Open, record(Kind::Open, 12, 1).header, &endpoint);
        let seen = passed(&mut notes, &tree, &open);
        assert_eq!(seen[0].2, [("service.name".to_owned(), "gone".to_owned())]);

        let frame = [b'x'; Endpoint::SIZE];
        let read = Record::new(Kind::PipeRead, record(Kind::PipeRead, 13, 1).header, &frame);
        let seen = passed(&mut notes, &tree, &read);
        assert_eq!(seen[0].2, [("service.name".to_owned(), "unknown".to_owned())]);
    }

    /// Scenario: a value longer than a record may hold, cut inside a character.
    /// Guarantees: it is cut before the character and the next pair is still read.
    #[test]
    fn long_text_is_cut() {
        let long = "é".repeat(TEXT_LIMIT);
        let payload = encode(&[
            ("a".to_owned(), format!("x{long}")),
            ("b".to_owned(), "c".to_owned()),
        ]);
        let record = Record::new(Kind::Process, Header::default(), &payload);
        let pairs: Vec<_> = record.pairs().collect();
        assert_eq!(pairs.len(), 2);
        assert_eq!(pairs[0].1.len(), TEXT_LIMIT - 1);
        assert_eq!(pairs[1], ("b", "c"));
    }
}
