//! Where OpenSSL is in a process: which of the files that it has mapped hold OpenSSL's functions, and where in the file
//! each function begins, so that probes can be put there.
//!
//! A look-up is one reading of the process's maps and a stat for each of its files that may hold TLS: about 0.3 ms for a
//! Python. A file is read once, up to some ms, and remembered. Files are read wherever they are, on a network's file system
//! too, where that may take its time.
//!
//! It does not say whether a process uses what it has mapped, but which of it Python's own module may use: where OpenSSL
//! is built into Python without symbols, a package's own copy may be all that is found. It knows
//! nothing of TLS that is not OpenSSL's interface (GnuTLS, NSS, rustls, Go).

mod cache;
mod elf;
pub(crate) mod functions;
mod maps;
mod process;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use cache::Cache;
pub(crate) use elf::Malformed;
pub(crate) use functions::{Function, Functions};
use maps::Mapped;
pub(crate) use process::TlsProcess;

/// Most files of one process that are looked into.
const FILES: usize = 32;

/// A file mapped by a process that has OpenSSL's functions in it.
#[derive(Clone, Debug)]
pub(crate) struct Library {
    /// By which agent and kernel can open it: in the process's own file system, or the kernel's link to it where no name
    /// leads to it any more. Good for as long as the process has it mapped.
    pub(crate) path: PathBuf,
    /// As the process sees it.
    pub(crate) as_seen: PathBuf,
    /// The same, fit to be shown.
    pub(crate) name: String,
    /// Python's `ssl` module, by which Celery talks, may be the one that calls it. Else it is a package's own: that of
    /// `cryptography`, or what a wheel brings along (`psycopg2.libs/libssl-3e69114b.so.1.1`).
    pub(crate) pythons: bool,
    /// Where in the file each function begins; where Python's `_ssl` is in the process, only of those that it calls.
    pub(crate) functions: Arc<Functions>,
}

/// Why nothing can be read of a process's TLS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotCovered {
    #[error("the process is gone")]
    Gone,
    #[error("its maps can't be read ({0}): the agent needs CAP_SYS_PTRACE")]
    Maps(io::ErrorKind),
    #[error(
        "OpenSSL's functions are only in what packages bundle for themselves; that of Python's ssl module is not loaded, \
         or built in without symbols"
    )]
    Bundled,
    #[error("it has not loaded OpenSSL, or has it built in without symbols")]
    NoOpenSsl,
    #[error("{0} shows no symbols of OpenSSL's functions: it was stripped, or built to hide them")]
    Hidden(String),
    #[error(
        "{0} was deleted or replaced, and the kernel's link to it takes CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE: grant \
         one to the agent, or restart the process"
    )]
    Replaced(String),
    #[error("{0} can't be opened: {1}")]
    Closed(String, io::ErrorKind),
    #[error("{0} can't be read: {1}")]
    Malformed(String, Malformed),
}

/// The files mapped by `pid` that have OpenSSL's functions in them; at least one.
///
/// # Errors
/// Why there is none.
pub(crate) fn libraries(proc_root: &Path, pid: u32, cache: &mut Cache) -> Result<Vec<Library>, NotCovered> {
    Ok(Mapping::of(proc_root, pid)?.search(cache, Part::All)?.libraries)
}

/// Those of them that Python's `ssl` module may use; at least one. The process may be about to use it, so no more is read than it
/// takes: a Python with its symbols is tens of megabytes, and so is what packages bundle.
///
/// # Errors
/// Why there is none.
pub(crate) fn pythons(proc_root: &Path, pid: u32, cache: &mut Cache) -> Result<Vec<Library>, NotCovered> {
    let mapping = Mapping::of(proc_root, pid)?;
    if let Ok(found) = mapping.search(cache, Part::Module)
        && found.module_calls
    {
        return Ok(found.libraries);
    }
    let mut libraries = mapping.search(cache, Part::All)?.libraries;
    libraries.retain(|library| library.pythons);
    if libraries.is_empty() {
        return Err(NotCovered::Bundled);
    }
    Ok(libraries)
}

/// Which of a process's files to look into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Python's module and the libraries that it calls.
    Module,
    /// All that may hold OpenSSL.
    All,
}

/// The files that a process has mapped as code.
struct Mapping<'a> {
    proc_root: &'a Path,
    pid: u32,
    files: Vec<Mapped>,
    program: Option<PathBuf>,
}

/// What was found in them.
struct Found {
    libraries: Vec<Library>,
    /// Python's module is a file of its own that calls OpenSSL in another.
    module_calls: bool,
}

impl<'a> Mapping<'a> {
    fn of(proc_root: &'a Path, pid: u32) -> Result<Self, NotCovered> {
        let dir = proc_root.join(pid.to_string());
        let files = maps::executables(proc_root, pid).map_err(|error| match error.kind() {
            // ESRCH has no kind of its own.
            kind if kind == io::ErrorKind::NotFound || error.raw_os_error() == Some(ESRCH) => {
                if dir.exists() && kind == io::ErrorKind::NotFound {
                    NotCovered::Maps(kind)
                } else {
                    NotCovered::Gone
                }
            }
            kind => NotCovered::Maps(kind),
        })?;
        Ok(Self {
            proc_root,
            pid,
            files,
            program: fs::read_link(dir.join("exe")).ok(),
        })
    }

    /// At least one library.
    fn search(&self, cache: &mut Cache, part: Part) -> Result<Found, NotCovered> {
        let mut libraries = Vec::new();
        let mut caller: Option<Arc<Functions>> = None;
        let mut reason: Option<(u8, NotCovered)> = None;
        let is_candidate = |file: &&Mapped| match part {
            Part::Module => says_tls(&file.path) > 0 && is_pythons(&file.path),
            Part::All => may_hold_tls(&file.path) || self.is_program(file),
        };
        for file in self.files.iter().filter(is_candidate).take(FILES) {
            let name = shown(&file.path.to_string_lossy());
            let content = file
                .locate(self.proc_root, self.pid)
                .and_then(|(path, metadata)| Ok((cache.content(&path, &metadata)?, path)));
            let refusal = match content {
                Ok((Ok(functions), path)) if functions.suffice() => {
                    libraries.push(Library {
                        path,
                        name,
                        pythons: is_pythons(&file.path) || self.is_program(file),
                        as_seen: file.path.clone(),
                        functions,
                    });
                    continue;
                }
                Ok((Ok(functions), _)) => {
                    if functions.uses_tls() && base_name(&file.path).starts_with(b"_ssl") {
                        caller = Some(functions);
                    }
                    NotCovered::Hidden(name)
                }
                Ok((Err(error), _)) => NotCovered::Malformed(name, error),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => NotCovered::Replaced(name),
                Err(error) => NotCovered::Closed(name, error.kind()),
            };
            let rank = says_tls(&file.path);
            if rank > reason.as_ref().map_or(0, |(rank, _)| *rank) {
                reason = Some((rank, refusal));
            }
        }
        if libraries.is_empty() {
            return Err(reason.map_or(NotCovered::NoOpenSsl, |(_, reason)| reason));
        }
        if let Some(caller) = &caller {
            for library in libraries.iter_mut().filter(|library| library.pythons) {
                library.functions = Arc::new(library.functions.called_by(caller));
            }
        }
        Ok(Found {
            libraries,
            module_calls: caller.is_some(),
        })
    }

    fn is_program(&self, file: &Mapped) -> bool {
        self.program.as_ref() == Some(&file.path)
    }
}

/// The same of a process that is expected to map what another had mapped, under the same names; files that are not there are left
/// out.
pub(crate) fn expected(proc_root: &Path, pid: u32, known: &[Library], cache: &mut Cache) -> Vec<Library> {
    let root = proc_root.join(pid.to_string()).join("root");
    let library = |known: &Library| {
        let path = root.join(known.as_seen.strip_prefix("/").unwrap_or(&known.as_seen));
        let file = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
        let functions = cache.content(&path, &file).ok()?.ok()?.only(&known.functions);
        functions.suffice().then(|| Library {
            path,
            functions: Arc::new(functions),
            ..known.clone()
        })
    };
    known.iter().filter_map(library).collect()
}

/// What reading the maps of a process gives that ends meanwhile.
const ESRCH: i32 = rustix::io::Errno::SRCH.raw_os_error();

/// By its name: libssl (also as Python's wheels rename it), Python's own module and library, and what bundles OpenSSL.
fn may_hold_tls(path: &Path) -> bool {
    let name = base_name(path);
    says_tls(path) > 0
        || name.starts_with(b"libpython")
        || contains(name, b"crypto")
        || contains(name, b"openssl")
        || contains(path.as_os_str().as_bytes(), b"/cryptography/")
}

/// How surely a file of this name has to do with TLS, so that it is worth naming where nothing is found.
fn says_tls(path: &Path) -> u8 {
    let name = base_name(path);
    if contains(name, b"libssl") {
        2
    } else {
        u8::from(name.starts_with(b"_ssl") && contains(name, b".so"))
    }
}

/// Not what packages bundle for themselves.
fn is_pythons(path: &Path) -> bool {
    let name = base_name(path);
    (says_tls(path) > 0 || name.starts_with(b"libpython")) && !contains(name, b"libssl-")
}

fn base_name(path: &Path) -> &[u8] {
    path.file_name().map_or(&[], OsStr::as_bytes)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// The text without anything that a terminal would act on.
pub(crate) fn shown(text: &str) -> String {
    let mut clean = String::new();
    for c in text.chars() {
        if c.is_alphanumeric() || c.is_ascii_graphic() || c == ' ' {
            clean.push(c);
        } else {
            clean.extend(c.escape_default());
        }
    }
    clean
}

#[cfg(test)]
mod tests;
