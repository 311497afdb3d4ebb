//! Whose TLS can be read: of the processes that talk to a broker's TLS port, or that the user names.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::{Clients, Finding, Level, SHOWN, list};
use crate::capture::LiveOptions;
use crate::host::proc;
use crate::host::tls::{self, Cache, NotCovered, TlsProcess};

/// A process whose TLS matters.
#[derive(Debug, Serialize)]
pub(super) struct Process {
    pid: u32,
    command: String,
    /// The command as the kernel has it.
    #[serde(skip)]
    comm: String,
    /// Its connections to TLS ports.
    connections: usize,
    /// What Python's ssl module sends and receives can be read.
    covered: bool,
    /// Where OpenSSL is in it.
    libraries: Vec<Library>,
    /// Why it is not covered.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_covered: Option<String>,
}

/// A file with OpenSSL's functions.
#[derive(Debug, Serialize)]
struct Library {
    name: String,
    path: String,
    /// File offsets.
    functions: BTreeMap<&'static str, u64>,
}

/// The processes that have connections to TLS ports, and those that are named.
pub(super) fn processes(proc_root: &Path, options: &LiveOptions, clients: &Clients) -> Vec<Process> {
    let mut wanted: BTreeMap<u32, usize> = clients
        .iter()
        .map(|(pid, held)| {
            let to_tls = held.iter().filter(|peer| options.tls_ports.contains(&peer.port));
            (*pid, to_tls.count())
        })
        .filter(|(_, count)| *count > 0)
        .collect();
    for pid in named(proc_root, &options.tls_processes) {
        wanted.entry(pid).or_insert(0);
    }
    let mut cache = Cache::default();
    wanted
        .into_iter()
        .filter_map(|(pid, connections)| examine(proc_root, pid, connections, &mut cache))
        .collect()
}

/// Ids of the processes that the user names; an id that nobody has is kept, so that it is told.
fn named(proc_root: &Path, named: &[TlsProcess]) -> Vec<u32> {
    let mut pids: Vec<u32> = named
        .iter()
        .filter_map(|process| match process {
            TlsProcess::Pid(pid) => Some(*pid),
            TlsProcess::Named(_) => None,
        })
        .collect();
    if pids.len() < named.len() {
        let is_named = |pid: &u32| {
            proc::comm(proc_root, *pid)
                .is_some_and(|comm| named.iter().any(|process| process.matches(*pid, &comm)))
        };
        pids.extend(proc::pids(proc_root).into_iter().filter(is_named));
    }
    pids
}

/// Nothing where the process has ended since its connections were seen.
fn examine(proc_root: &Path, pid: u32, connections: usize, cache: &mut Cache) -> Option<Process> {
    let (libraries, not_covered) = match tls::libraries(proc_root, pid, cache) {
        Ok(libraries) if libraries.iter().any(|library| library.pythons) => (libraries, None),
        Ok(libraries) => (libraries, Some(NotCovered::Bundled.to_string())),
        Err(NotCovered::Gone) if connections > 0 => return None,
        Err(reason) => (Vec::new(), Some(reason.to_string())),
    };
    let comm = proc::comm(proc_root, pid).unwrap_or_else(|| "?".to_owned());
    Some(Process {
        pid,
        command: tls::shown(&comm),
        comm,
        connections,
        covered: not_covered.is_none(),
        libraries: libraries
            .into_iter()
            .map(|library| Library {
                name: library.name,
                path: library.path.to_string_lossy().into_owned(),
                functions: library
                    .functions
                    .found()
                    .map(|(function, offset)| (function.name(), offset))
                    .collect(),
            })
            .collect(),
        not_covered,
    })
}

/// A line for each command and what came of it: a pool's children have all that their parent has.
pub(super) fn findings(processes: &[Process]) -> Vec<Finding> {
    let mut groups: BTreeMap<(&str, String), (Level, Vec<u32>)> = BTreeMap::new();
    for process in processes {
        let (level, outcome) = match &process.not_covered {
            None => (Level::Ok, process.shown_libraries()),
            Some(reason) if process.libraries.is_empty() => (Level::Note, format!("not covered: {reason}")),
            Some(reason) => (
                Level::Note,
                format!("not covered: {reason}: {}", process.shown_libraries()),
            ),
        };
        groups
            .entry((&process.command, outcome))
            .or_insert((level, Vec::new()))
            .1
            .push(process.pid);
    }
    let mut findings: Vec<Finding> = groups
        .iter()
        .map(|((command, outcome), (level, pids))| {
            let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
            Finding::new(
                "TLS clients",
                *level,
                format!("{command}[{}]: {outcome}", list(&pids)),
            )
        })
        .collect();
    let more = findings.len().saturating_sub(SHOWN);
    if more > 0 {
        // What does not work is worth more than what does.
        findings.sort_by_key(|finding| finding.level == Level::Ok);
        findings.truncate(SHOWN);
        findings.push(Finding::new(
            "TLS clients",
            Level::Note,
            format!("and {more} more: see --json"),
        ));
    }
    findings
}

/// The names for which there is no process.
pub(super) fn unmatched(named: &[TlsProcess], processes: &[Process]) -> Option<Finding> {
    let absent: Vec<String> = named
        .iter()
        .filter(|named| {
            !processes
                .iter()
                .any(|process| named.matches(process.pid, &process.comm))
        })
        .map(|named| tls::shown(&named.to_string()))
        .collect();
    if absent.is_empty() {
        return None;
    }
    let found = format!("no process is named {}", list(&absent));
    let advice = "--tls-process takes an id, or what `ps -o comm` shows";
    Some(Finding::new("TLS clients", Level::Note, found).advice(advice))
}

impl Process {
    fn shown_libraries(&self) -> String {
        let libraries: Vec<String> = self
            .libraries
            .iter()
            .map(|library| {
                let functions: Vec<&str> = library.functions.keys().copied().collect();
                format!("{} ({})", library.name, functions.join(", "))
            })
            .collect();
        libraries.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CaptureArgs;
    use crate::host::fake::Tree;
    use crate::host::sockets::Peer;

    fn options(named: &[&str]) -> LiveOptions {
        CaptureArgs {
            tls_process: Some(named.iter().map(|text| text.parse().unwrap()).collect()),
            ..CaptureArgs::default()
        }
        .options()
    }

    fn held(ports: &[u16]) -> Vec<Peer> {
        let addr = [0; 16];
        ports.iter().map(|port| Peer { addr, port: *port }).collect()
    }

    /// Scenario: processes that talk to a plain port, to a TLS port and to both; one that is named by its name, one by an
    /// id that nobody has; one that has ended since.
    /// Guarantees: those with TLS and those that are named are told, with their connections and the reason, and
    /// never their arguments; names that nobody has are told.
    #[test]
    fn who_is_told() {
        let tree = Tree::new();
        for (pid, comm) in [(10, "plain"), (11, "celery\x1b"), (12, "web"), (13, "beat")] {
            tree.process(pid, 1, comm, &["celery", "--broker", "rediss://:secret@host"]);
            tree.file(pid, "maps", "");
        }
        let clients = Clients::from([
            (10, held(&[6379])),
            (11, held(&[6380, 6379, 5671])),
            (12, held(&[5671])),
            (14, held(&[5671])),
        ]);
        let found = processes(tree.root(), &options(&["beat", "99"]), &clients);
        let shown: Vec<_> = found
            .iter()
            .map(|process| (process.pid, process.command.as_str(), process.connections))
            .collect();
        assert_eq!(
            shown,
            [
                (11, "celery\\u{1b}", 2),
                (12, "web", 1),
                (13, "beat", 0),
                (99, "?", 0)
            ]
        );
        let absent = |names: &[&str]| unmatched(&options(names).tls_processes, &found);
        assert!(absent(&["beat", "99"]).is_none());
        assert_eq!(
            absent(&["beat", "flower", "beet"]).unwrap().found,
            "no process is named flower, beet"
        );
        let json = serde_json::to_string(&found).unwrap();
        assert!(!json.contains("secret"), "{json}");
        let findings = findings(&found);
        let lines: Vec<&str> = findings.iter().map(|finding| finding.found.as_str()).collect();
        assert_eq!(lines[0], "?[99]: not covered: the process is gone");
        assert!(
            lines[1].starts_with("beat[13]: not covered: it has not loaded OpenSSL"),
            "{lines:?}"
        );
    }

    /// Scenario: a pool of covered processes, and more commands that are not than fit.
    /// Guarantees: one line for each command; those that are not covered come first, the rest is counted.
    #[test]
    fn alike_processes_share_a_line() {
        let process = |pid: u32, command: &str, covered: bool| Process {
            pid,
            command: command.to_owned(),
            comm: command.to_owned(),
            connections: 1,
            covered,
            libraries: vec![Library {
                name: "/usr/lib/libssl.so.3".to_owned(),
                path: "/proc/1/root/usr/lib/libssl.so.3".to_owned(),
                functions: BTreeMap::from([("SSL_write", 1), ("SSL_read", 2)]),
            }],
            not_covered: (!covered).then(|| "no".to_owned()),
        };
        let mut processes = vec![process(1, "celery", true), process(2, "celery", true)];
        let told = findings(&processes);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].level, Level::Ok);
        assert_eq!(
            told[0].found,
            "celery[1, 2]: /usr/lib/libssl.so.3 (SSL_read, SSL_write)"
        );
        processes.extend((10..18).map(|pid| process(pid, &format!("x{pid}"), false)));
        let told = findings(&processes);
        assert_eq!(told.len(), SHOWN + 1);
        assert!(told.iter().all(|finding| finding.level == Level::Note));
        assert_eq!(told[SHOWN].found, "and 1 more: see --json");
    }
}
