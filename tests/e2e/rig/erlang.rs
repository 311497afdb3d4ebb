//! How RabbitMQ finds its code, made short.
//!
//! Erlang looks for each module in one folder after the other, and each look is a switch between threads: RabbitMQ's start is
//! 50 000 looks for 600 modules, two minutes in an emulated machine. So plug-ins that no test uses are left out, and a
//! folder with links to all modules comes first.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Where Debian has RabbitMQ and Erlang; on other systems nothing is made shorter.
const RABBITMQ: &str = "/usr/lib/rabbitmq/lib";
const ERLANG: &str = "/usr/lib/erlang/lib";

/// The two folders of links, below a folder of the test's.
pub(crate) struct Shortcuts {
    /// In place of RabbitMQ's folder of plug-ins, in which its own parts are as well.
    pub(crate) plugins: PathBuf,
    /// To come first where modules are looked for.
    pub(crate) modules: PathBuf,
}

impl Shortcuts {
    /// Makes them; nothing on a system that keeps its code elsewhere.
    pub(crate) fn make(folder: &Path) -> Option<Self> {
        let server = inside(Path::new(RABBITMQ))
            .into_iter()
            .find(|path| name(path).starts_with("rabbitmq_server-"))?;
        let these = Self {
            plugins: folder.join("needed"),
            modules: folder.join("modules"),
        };
        for made in [&these.plugins, &these.modules] {
            fs::create_dir_all(made).expect("a folder of links");
        }
        let parts = inside(&server.join("plugins"));
        let needed = |path: &PathBuf| {
            name(path).starts_with("rabbitmq_prelaunch-") || !name(path).starts_with("rabbitmq_")
        };
        for part in parts.iter().filter(|part| needed(part)) {
            link(part, &these.plugins);
            // The server's own parts look for other files beside their modules.
            if !name(part).starts_with("rabbit") {
                link_modules(part, &these.modules);
            }
        }
        for library in inside(Path::new(ERLANG)) {
            link_modules(&library, &these.modules);
        }
        Some(these)
    }
}

fn link_modules(part: &Path, folder: &Path) {
    for file in inside(&part.join("ebin")) {
        if file.extension() == Some(OsStr::new("beam")) {
            link(&file, folder);
        }
    }
}

/// Of two with one name, the first stays: the search would have found one only, too.
fn link(file: &Path, folder: &Path) {
    let _ = symlink(file, folder.join(name(file)));
}

fn inside(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(OsStr::to_str).unwrap_or_default()
}
