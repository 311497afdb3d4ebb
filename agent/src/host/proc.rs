//! Processes: which there are, what they run, who made them.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Most bytes that are read of a command line.
const COMMAND_LIMIT: u64 = 64 * 1024;

/// Every process, in no order.
pub(crate) fn pids(proc_root: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(proc_root) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// Is there such a process?
pub(crate) fn exists(proc_root: &Path, pid: u32) -> bool {
    proc_root.join(pid.to_string()).exists()
}

/// The name of the process's main thread.
pub(crate) fn comm(proc_root: &Path, pid: u32) -> Option<String> {
    let comm = fs::read(proc_root.join(pid.to_string()).join("comm")).ok()?;
    Some(String::from_utf8_lossy(&comm).trim_end().to_owned())
}

/// The process's arguments. Empty for kernel threads and zombies.
pub(crate) fn arguments(proc_root: &Path, pid: u32) -> Option<Vec<String>> {
    let file = fs::File::open(proc_root.join(pid.to_string()).join("cmdline")).ok()?;
    let mut bytes = Vec::new();
    file.take(COMMAND_LIMIT).read_to_end(&mut bytes).ok()?;
    let text = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    if text.is_empty() {
        return Some(Vec::new());
    }
    Some(
        text.split(|byte| *byte == 0)
            .map(|argument| String::from_utf8_lossy(argument).into_owned())
            .collect(),
    )
}

/// The process's parent.
pub(crate) fn parent(proc_root: &Path, pid: u32) -> Option<u32> {
    u32::try_from(stat(proc_root, pid, 4)?).ok()
}

/// The network namespace it is in, as a link reads that is the same for all processes in it. Nothing when it is gone.
pub(crate) fn network_namespace(proc_root: &Path, pid: u32) -> Option<PathBuf> {
    fs::read_link(proc_root.join(pid.to_string()).join("ns/net")).ok()
}

/// When the process was started, in the kernel's ticks: with its id it is that process and no later one.
pub(crate) fn started(proc_root: &Path, pid: u32) -> Option<u64> {
    stat(proc_root, pid, 22)
}

/// A field of the process's `stat`, counted from 1 as in proc_pid_stat(5); from the 4th on.
fn stat(proc_root: &Path, pid: u32, field: usize) -> Option<u64> {
    let stat = fs::read(proc_root.join(pid.to_string()).join("stat")).ok()?;
    // pid (comm) state ppid …; comm may hold anything, so count from its last parenthesis.
    let after = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let text = String::from_utf8_lossy(stat.get(after..)?).into_owned();
    text.split_ascii_whitespace()
        .nth(field.checked_sub(3)?)?
        .parse()
        .ok()
}

/// Every live descendant of `roots`; a root that descends from another is one.
pub(crate) fn descendants(proc_root: &Path, roots: &HashSet<u32>) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for pid in pids(proc_root) {
        if let Some(parent) = parent(proc_root, pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut next: Vec<u32> = roots.iter().copied().collect();
    while let Some(pid) = next.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            if seen.insert(child) {
                found.push(child);
                next.push(child);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Tree;

    /// Scenario: a process tree three deep, with a name that holds parentheses and spaces.
    /// Guarantees: parents are read past such a name; descendants of any depth are found, also those that are roots themselves;
    /// strangers and roots of no other are not.
    #[test]
    fn descendants_of_any_depth() {
        let tree = Tree::new();
        tree.process(10, 1, "a) S 99 (b", &["celery"]);
        tree.process(11, 10, "pool", &[]);
        tree.process(12, 11, "uname", &[]);
        tree.process(20, 1, "other", &[]);
        assert_eq!(parent(tree.root(), 10), Some(1));
        let mut found = descendants(tree.root(), &HashSet::from([10]));
        found.sort_unstable();
        assert_eq!(found, [11, 12]);
        let mut found = descendants(tree.root(), &HashSet::from([10, 11, 20]));
        found.sort_unstable();
        assert_eq!(found, [11, 12]);
    }

    /// Scenario: arguments with spaces, an empty argument, a kernel thread without any, a process that is gone.
    /// Guarantees: arguments keep their borders; none is an empty list; gone is `None`.
    #[test]
    fn arguments_keep_their_borders() {
        let tree = Tree::new();
        tree.process(10, 1, "python", &["python", "-c", "print(1, 2)", ""]);
        tree.process(11, 2, "kworker", &[]);
        assert_eq!(
            arguments(tree.root(), 10).unwrap(),
            ["python", "-c", "print(1, 2)", ""]
        );
        assert_eq!(arguments(tree.root(), 11).unwrap(), [""; 0]);
        assert_eq!(arguments(tree.root(), 12), None);
    }

    /// Scenario: this very process, and one that is gone.
    /// Guarantees: when it was started stays what it is, and lies before now; gone is `None`.
    #[test]
    fn processes_are_known_by_their_start() {
        let root = Path::new("/proc");
        let own = started(root, std::process::id()).unwrap();
        let of_init = started(root, 1).unwrap();
        assert!(own > of_init);
        assert_eq!(started(root, std::process::id()), Some(own));
        assert_eq!(started(Tree::new().root(), 10), None);
    }
}
