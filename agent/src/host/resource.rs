//! Which service a process belongs to.

use std::path::Path;

/// What is known of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The process that leads its service; its own id where it leads itself.
    pub leader: u32,
    /// Resource attributes.
    pub pairs: Vec<(String, String)>,
}

/// Reads `pid`'s description; `None` when it is gone.
#[must_use]
pub fn describe(proc_root: &Path, pid: u32) -> Option<Description> {
    let comm = super::proc::comm(proc_root, pid)?;
    Some(Description {
        leader: pid,
        pairs: vec![("service.name".to_owned(), comm)],
    })
}
