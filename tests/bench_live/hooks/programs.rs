//! The agent's programs, and what the kernel has counted of each.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use aya::programs::loaded_programs;

/// What the kernel knows of a program at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reading {
    pub(super) runs: u64,
    pub(super) nanoseconds: u64,
}

/// The programs of one process, each by its name and the file that tells of it.
#[derive(Debug)]
pub(super) struct Programs(Vec<(String, File)>);

impl Programs {
    /// Those that the process holds descriptors of.
    pub(super) fn of(pid: u32) -> Self {
        let names: BTreeMap<u64, String> = loaded_programs()
            .flatten()
            .map(|program| {
                (
                    u64::from(program.id()),
                    String::from_utf8_lossy(program.name()).into_owned(),
                )
            })
            .collect();
        let folder = format!("/proc/{pid}/fdinfo");
        let descriptors = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{folder}: {e}"));
        let mut programs = BTreeMap::new();
        for descriptor in descriptors.flatten() {
            let Ok(file) = File::open(descriptor.path()) else {
                continue;
            };
            let text = text(&file);
            // A link's text names a program too.
            if field(&text, "run_cnt").is_some()
                && let Some(id) = field(&text, "prog_id")
            {
                programs.insert(id, file);
            }
        }
        let name = |id: u64| names.get(&id).cloned().unwrap_or_else(|| format!("program {id}"));
        let programs: Vec<_> = programs.into_iter().map(|(id, file)| (name(id), file)).collect();
        assert!(!programs.is_empty(), "process {pid} has no BPF programs");
        Self(programs)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| &**name)
    }

    /// What is counted now, in the order of the names. By pread(2) from files that stay open: no hook is on that, while
    /// getting, asking and closing a program's descriptor would be calls that are counted.
    pub(super) fn read(&self) -> Vec<Reading> {
        let read = |file: &File| {
            let text = text(file);
            let field = |key| field(&text, key).unwrap_or_else(|| panic!("no {key}: {text}"));
            Reading {
                runs: field("run_cnt"),
                nanoseconds: field("run_time_ns"),
            }
        };
        self.0.iter().map(|(_, file)| read(file)).collect()
    }
}

fn text(file: &File) -> String {
    let mut bytes = [0; 1024];
    let len = file.read_at(&mut bytes, 0).unwrap_or_default();
    String::from_utf8_lossy(&bytes[..len]).into_owned()
}

fn field(text: &str, key: &str) -> Option<u64> {
    let value = |line: &str| line.strip_prefix(key)?.strip_prefix(":\t")?.parse().ok();
    text.lines().find_map(value)
}
