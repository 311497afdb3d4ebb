//! Programs that are known to talk to brokers over TLS: by executable and first arguments, so that the scripts that one
//! interpreter runs are told apart.

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use crate::host::proc;
use crate::host::tls::Library;

/// Most programs remembered; the oldest is forgotten.
const LIMIT: usize = 256;
/// Arguments that tell one program from another: `-m celery -A`, or a script and what it is to do.
const ARGUMENTS: usize = 3;

/// A program as it was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    executable: PathBuf,
    /// What it was called by: a link to the executable, maybe.
    called: PathBuf,
    arguments: Vec<String>,
}

impl Program {
    /// The names that a new process may have when it begins to run this program: of the executable, or of the script that named
    /// it as its interpreter. `comm` is the name of one that runs.
    pub(super) fn names(&self, comm: &str) -> HashSet<String> {
        let script = self.arguments.first().map(Path::new);
        let files = [Some(self.executable.as_path()), script, Some(&self.called)];
        let names = files.into_iter().flatten().filter_map(Path::file_name);
        let names = names.map(|name| name.to_string_lossy().into_owned());
        names.chain((!comm.is_empty()).then(|| comm.to_owned())).collect()
    }

    /// What the process runs; `None` when it is gone.
    pub(super) fn of(proc_root: &Path, pid: u32) -> Option<Self> {
        let arguments = proc::arguments(proc_root, pid)?;
        Some(Self {
            executable: fs::read_link(proc_root.join(pid.to_string()).join("exe")).ok()?,
            called: arguments.first().map(PathBuf::from).unwrap_or_default(),
            arguments: arguments.into_iter().skip(1).take(ARGUMENTS).collect(),
        })
    }
}

/// What is known of programs: the libraries that they talk through.
#[derive(Debug, Default)]
pub(super) struct Programs(VecDeque<(Program, Vec<Library>)>);

impl Programs {
    /// Remembers the program, in place of what was known of it. True when nothing was.
    pub(super) fn learn(&mut self, program: Program, libraries: Vec<Library>) -> bool {
        let before = self.0.len();
        self.0.retain(|(known, _)| *known != program);
        let is_new = self.0.len() == before;
        if self.0.len() >= LIMIT {
            self.0.pop_front();
        }
        self.0.push_back((program, libraries));
        is_new
    }

    /// The libraries that the program talks through, if it is known.
    pub(super) fn libraries(&self, program: &Program) -> Option<&[Library]> {
        let known = self.0.iter().find(|(known, _)| known == program);
        known.map(|(_, libraries)| &libraries[..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Tree;

    /// Scenario: one interpreter runs two scripts, one of them twice and with other later arguments.
    /// Guarantees: the scripts are two programs; later arguments make no difference.
    #[test]
    fn scripts_are_told_apart() {
        let tree = Tree::new();
        tree.process(10, 1, "python", &["python", "-m", "celery", "-A", "shop"]);
        tree.process(11, 1, "python", &["python", "-m", "celery", "-A", "bank"]);
        tree.process(12, 1, "python", &["python", "client.py"]);
        for pid in [10, 11, 12] {
            tree.link(pid, "exe", "/usr/bin/python3.11");
        }
        let of = |pid| Program::of(tree.root(), pid).unwrap();
        let mut programs = Programs::default();
        assert!(programs.learn(of(10), Vec::new()));
        assert!(!programs.learn(of(11), Vec::new()));
        assert!(programs.libraries(&of(10)).is_some());
        assert!(programs.libraries(&of(12)).is_none());
        assert_eq!(Program::of(tree.root(), 13), None);
        let mut names: Vec<_> = of(12).names("client").into_iter().collect();
        names.sort();
        assert_eq!(names, ["client", "client.py", "python", "python3.11"]);
    }

    /// Scenario: more programs than are remembered.
    /// Guarantees: the oldest is forgotten.
    #[test]
    fn bounded() {
        let program = |n: usize| Program {
            executable: n.to_string().into(),
            called: PathBuf::new(),
            arguments: Vec::new(),
        };
        let mut programs = Programs::default();
        for n in 0..=LIMIT {
            programs.learn(program(n), Vec::new());
        }
        assert!(programs.libraries(&program(0)).is_none());
        assert!(programs.libraries(&program(LIMIT)).is_some());
    }
}
