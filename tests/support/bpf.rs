//! What agents put into the kernel, and whether it is gone after them.
//!
//! Other programs of the host load BPF programs too, and other agents may run. What an agent has is known by its descriptors;
//! what nobody holds a descriptor of and has a name like that (a pinned map, say) counts as left behind as well.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use aya::maps::loaded_maps;
use aya::programs::{loaded_links, loaded_programs};

/// Where programs, maps and links are pinned.
const PINS: &str = "/sys/fs/bpf";
/// Where tracefs is, or may be.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
/// What aya and we ourselves would name a probe event, an instance or a pin.
const OURS: [&str; 2] = ["aya_", "celeryscope"];

/// A BPF object: `prog`, `map` or `link` as in fdinfo, and its id, which is never used again.
type Object = (&'static str, u32);

/// What there was at first, and what the agents had that came since.
#[derive(Debug)]
pub struct Leftovers {
    objects: BTreeSet<Object>,
    files: BTreeSet<String>,
    had: BTreeSet<Object>,
    names: BTreeSet<String>,
}

impl Leftovers {
    /// To be called before any agent starts.
    pub fn watch() -> Self {
        Self {
            objects: loaded().into_keys().collect(),
            files: files(),
            had: BTreeSet::new(),
            names: BTreeSet::new(),
        }
    }

    /// To be called while an agent is at work.
    ///
    /// # Panics
    /// When it holds no program, map or link.
    pub fn of(&mut self, pid: u32) {
        let held = held_by(Path::new(&format!("/proc/{pid}")));
        let loaded = loaded();
        for kind in ["prog", "map", "link"] {
            let mut of_kind = held.iter().filter(|(other, _)| *other == kind);
            assert!(
                of_kind.any(|object| loaded.contains_key(object)),
                "process {pid} holds no BPF {kind}: {held:?}"
            );
        }
        let names = held.iter().filter_map(|object| loaded.get(object).cloned());
        self.names.extend(names.filter(|name| !name.is_empty()));
        self.had.extend(held);
    }

    /// How many objects the agents had.
    pub fn count(&self) -> usize {
        self.had.len()
    }

    /// What is there that should not be, in words.
    pub fn found(&self) -> Vec<String> {
        let mut new = loaded();
        new.retain(|object, name| {
            !self.objects.contains(object) && (self.had.contains(object) || self.names.contains(name))
        });
        // Those that some process holds and our agents never had are another agent's.
        if new.keys().any(|object| !self.had.contains(object)) {
            let held: BTreeSet<Object> = processes().flat_map(|process| held_by(&process)).collect();
            new.retain(|object, _| self.had.contains(object) || !held.contains(object));
        }
        let objects = new
            .into_iter()
            .map(|((kind, id), name)| format!("BPF {kind} {id} {name}"));
        let is_ours = |file: &&String| {
            let name = file.rsplit('/').next().unwrap_or_default();
            self.names.contains(name) || OURS.iter().any(|ours| file.contains(ours))
        };
        let files = files();
        let files = files.difference(&self.files).filter(is_ours).cloned();
        objects.chain(files).collect()
    }
}

/// Every object that is loaded, with its name; a link has its program's. One that goes while it is looked at is gone.
fn loaded() -> BTreeMap<Object, String> {
    let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    let programs = loaded_programs().flatten();
    let mut objects: BTreeMap<Object, String> = programs
        .map(|program| (("prog", program.id()), text(program.name())))
        .collect();
    let links: Vec<(Object, String)> = loaded_links()
        .flatten()
        .map(|link| {
            let program = objects.get(&("prog", link.program_id()));
            (("link", link.id()), program.cloned().unwrap_or_default())
        })
        .collect();
    let maps = loaded_maps().flatten();
    objects.extend(maps.map(|map| (("map", map.id()), text(map.name()))));
    objects.extend(links);
    objects
}

/// What a process holds descriptors of; nothing once it has ended.
fn held_by(process: &Path) -> BTreeSet<Object> {
    let descriptors = fs::read_dir(process.join("fdinfo"))
        .into_iter()
        .flatten()
        .flatten();
    let mut held = BTreeSet::new();
    for descriptor in descriptors {
        let info = fs::read_to_string(descriptor.path()).unwrap_or_default();
        for line in info.lines() {
            let Some((key, id)) = line.split_once(":\t") else {
                continue;
            };
            let kind = ["prog", "map", "link"]
                .into_iter()
                .find(|kind| key.strip_suffix("_id") == Some(kind));
            held.extend(kind.zip(id.trim().parse().ok()));
        }
    }
    held
}

fn processes() -> impl Iterator<Item = std::path::PathBuf> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

/// Pinned files, and the probe events and instances of tracefs: what outlives a process without a descriptor.
fn files() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    pins(Path::new(PINS), &mut found);
    for root in TRACEFS.map(Path::new) {
        for list in ["kprobe_events", "uprobe_events"] {
            let events = fs::read_to_string(root.join(list)).unwrap_or_default();
            found.extend(events.lines().map(|event| format!("{list}: {event}")));
        }
        let instances = fs::read_dir(root.join("instances"))
            .into_iter()
            .flatten()
            .flatten();
        found.extend(instances.map(|entry| entry.path().display().to_string()));
    }
    found
}

fn pins(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        found.insert(entry.path().display().to_string());
        pins(&entry.path(), found);
    }
}
