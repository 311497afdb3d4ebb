//! `celeryscope doctor`: what this kernel and host allow, tried rather than guessed, and what to do where it is not
//! enough.

mod plan;
mod tls;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use clap::builder::BoolishValueParser;
use serde::{Deserialize, Serialize};

use super::ConfigArgs;
use crate::capture::attach::LOCKDOWN;
use crate::capture::{self, Live, LiveOptions, kernel_release, tracefs};
use crate::config::CaptureArgs;
use crate::host::sockets::{Peer, Tables};
use crate::host::{celery, proc, resource};
use crate::lock_down::{self, Mode};

/// Most names in one line.
const SHOWN: usize = 8;

/// Say what this kernel and host allow, what is missing and how to get it
#[derive(Args, Debug)]
pub struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    capture: CaptureArgs,
    #[command(flatten)]
    report: ReportArgs,
}

/// How it is told.
#[derive(Args, Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct ReportArgs {
    /// Print the findings as JSON
    #[arg(long, env = "CELERYSCOPE_JSON", hide_env = true, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    json: Option<bool>,
    /// Add every hook of every back end, and what came of it here
    #[arg(short, long, env = "CELERYSCOPE_VERBOSE", hide_env = true, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    verbose: Option<bool>,
}

/// Looks and tells. Exit code 0 when `run` would work.
///
/// # Errors
/// When the settings are wrong or nothing can be printed.
pub fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let file = args.config.read()?;
    let mut options = args.capture.clone().or_file(&file)?.options();
    // What follows looks at more than an agent does.
    let wanted_lock = std::mem::replace(&mut options.lock_down, Mode::Off);
    let wanted = file.group::<ReportArgs>()?;
    let json = args.report.json.or(wanted.json);
    let verbose = args.report.verbose.or(wanted.verbose).unwrap_or(false);
    let mut report = examine(&options, wanted_lock);
    report.plan.take_if(|_| !verbose);
    let mut out = std::io::stdout().lock();
    if json.unwrap_or(false) {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        write!(out, "{}", report.to_table())?;
    }
    Ok(if report.works {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Ok,
    /// Works, but worth knowing.
    Note,
    /// `run` would not work.
    Fail,
}

#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    level: Level,
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Finding {
    fn new(name: &'static str, level: Level, found: impl Into<String>) -> Self {
        Self {
            name,
            level,
            found: found.into(),
            advice: None,
        }
    }

    fn advice(self, advice: impl Into<String>) -> Self {
        Self {
            advice: Some(advice.into()),
            ..self
        }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    works: bool,
    findings: Vec<Finding>,
    /// Processes that speak TLS to a broker, or are named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tls: Vec<tls::Process>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<Vec<plan::Row>>,
}

impl Report {
    fn new(findings: Vec<Finding>) -> Self {
        Self {
            works: findings.iter().all(|finding| finding.level != Level::Fail),
            findings,
            tls: Vec::new(),
            plan: None,
        }
    }

    fn to_table(&self) -> String {
        let width = self
            .findings
            .iter()
            .map(|finding| finding.name.len())
            .max()
            .unwrap_or(0);
        let mut text = String::new();
        for Finding {
            name,
            level,
            found,
            advice,
        } in &self.findings
        {
            let level = match level {
                Level::Ok => "ok",
                Level::Note => "note",
                Level::Fail => "FAIL",
            };
            text += &format!("{level:<4}  {name:<width$}  {found}\n");
            if let Some(advice) = advice {
                text += &format!("{:<4}  {:<width$}  -> {advice}\n", "", "");
            }
        }
        if let Some(rows) = &self.plan {
            text += "\n";
            text += &plan::to_table(rows);
            text += "\n";
        }
        text += if self.works {
            "celeryscope run works here.\n"
        } else {
            "celeryscope run does not work here: see FAIL.\n"
        };
        text
    }
}

fn examine(options: &LiveOptions, lock_down: Mode) -> Report {
    let proc_root = Path::new("/proc");
    // First: it may mount tracefs.
    let (tried, rows) = try_capture(options);
    let mut findings = vec![
        kernel(&rustix::system::uname().release().to_string_lossy()),
        lockdown(fs::read_to_string(LOCKDOWN).ok().as_deref()),
        btf(),
        capabilities(&capture::missing_privileges()),
        locking_down(lock_down, lock_down::prospect(capture::needs(options))),
        tracing(),
        object(),
    ];
    findings.extend(tried);
    let clients = clients(proc_root, options);
    findings.push(connections(proc_root, &clients));
    let tls = tls::processes(proc_root, options, &clients);
    findings.extend(tls::findings(&tls));
    findings.extend(tls::unmatched(&options.tls_processes, &tls));
    findings.push(workers(proc_root));
    Report {
        tls,
        plan: Some(rows),
        ..Report::new(findings)
    }
}

fn kernel(release: &str) -> Finding {
    let Some(version) = kernel_release::parse(release) else {
        return Finding::new("kernel", Level::Note, format!("{release}, which is no version"));
    };
    if let Some(advice) = kernel_release::too_old(version) {
        return Finding::new("kernel", Level::Fail, release).advice(advice);
    }
    Finding::new(
        "kernel",
        Level::Ok,
        format!("{release} {}", std::env::consts::ARCH),
    )
}

/// `none integrity [confidentiality]`
fn lockdown(modes: Option<&str>) -> Finding {
    let mode = modes.map(|modes| {
        let chosen = modes
            .split_whitespace()
            .find_map(|mode| mode.strip_prefix('[')?.strip_suffix(']'));
        chosen.unwrap_or("none")
    });
    match mode {
        None => Finding::new("lockdown", Level::Ok, "not told (securityfs is not mounted)"),
        Some("confidentiality") => Finding::new(
            "lockdown",
            Level::Note,
            "confidentiality: no reading of kernel memory, so the tracepoint back end only",
        ),
        Some(mode) => Finding::new("lockdown", Level::Ok, mode),
    }
}

fn btf() -> Finding {
    if Path::new(capture::BTF).exists() {
        Finding::new("BTF", Level::Ok, capture::BTF)
    } else {
        Finding::new("BTF", Level::Note, "none: the tracepoint back end does without")
    }
}

fn capabilities(missing: &[&str]) -> Finding {
    if missing.is_empty() {
        return Finding::new("capabilities", Level::Ok, "all that are needed");
    }
    let named = missing.join(" ");
    Finding::new("capabilities", Level::Fail, format!("missing {named}")).advice(format!(
        "start it as root, set AmbientCapabilities={named} in the systemd unit, or add them to \
         securityContext.capabilities of the pod"
    ))
}

/// What `run` gives up after attaching, and what it can't.
fn locking_down(mode: Mode, (done, lacking): (String, Vec<&str>)) -> Finding {
    let name = "lock-down";
    if mode == Mode::Off {
        return Finding::new(name, Level::Note, "off: the agent keeps all its privileges")
            .advice(format!("--lock-down on would do: {done}"));
    }
    if lacking.is_empty() {
        return Finding::new(name, Level::Ok, format!("after attaching: {done}"));
    }
    let found = format!("after attaching: {done}; but {}", lacking.join("; "));
    match mode {
        Mode::Strict => {
            Finding::new(name, Level::Fail, found).advice("--lock-down on does what can be done here")
        }
        Mode::Off | Mode::On => Finding::new(name, Level::Note, found),
    }
}

fn tracing() -> Finding {
    if let Some(root) = tracefs::find() {
        return Finding::new("tracefs", Level::Ok, root.display().to_string());
    }
    Finding::new("tracefs", Level::Note, "not mounted, or not readable")
        .advice("mount -t tracefs tracefs /sys/kernel/tracing on the host; root does it when capture starts")
}

fn object() -> Finding {
    let sum = &capture::SHA256[..16];
    Finding::new(
        "BPF object",
        Level::Ok,
        format!("sha256 {sum}…, {}", capture::ORIGIN),
    )
}

/// Loads, attaches and scans as `run` does, then lets go.
fn try_capture(options: &LiveOptions) -> (Vec<Finding>, Vec<plan::Row>) {
    let live = match Live::start(options) {
        Ok(live) => live,
        Err(error) => {
            let failure = Finding::new("BPF programs", Level::Fail, format!("{error:#}"))
                .advice("mend the lines above first; CELERYSCOPE_LOG=debug shows the verifier's log");
            return (vec![failure], plan::rows(None));
        }
    };
    let attached = live.attached();
    let ports: Vec<String> = attached.ports.iter().map(u16::to_string).collect();
    let mut findings = vec![
        Finding::new(
            "BPF programs",
            Level::Ok,
            "loaded and attached, ring buffer mapped",
        ),
        Finding::new(
            "back end",
            Level::Ok,
            format!("{}, ports {}", attached.backend.name(), ports.join(", ")),
        ),
    ];
    for (backend, reason) in &attached.passed_over {
        let found = format!("{} cannot be used: {reason}", backend.name());
        findings.push(Finding::new("back end", Level::Note, found));
    }
    (findings, plan::rows(Some((attached.backend, &attached.hooks))))
}

/// The processes with connections to watched ports, and the far ends of these.
type Clients = BTreeMap<u32, Vec<Peer>>;

fn clients(proc_root: &Path, options: &LiveOptions) -> Clients {
    let ports: HashSet<u16> = options.ports.iter().copied().collect();
    let mut tables = Tables::new(proc_root, &ports);
    let held = proc::pids(proc_root)
        .into_iter()
        .flat_map(|pid| tables.held_by(pid));
    let mut clients = Clients::new();
    for held in held {
        clients.entry(held.pid).or_default().push(held.peer);
    }
    clients
}

fn connections(proc_root: &Path, clients: &Clients) -> Finding {
    let holders: Vec<String> = clients
        .iter()
        .map(|(pid, held)| format!("{} ({} open)", name(proc_root, *pid), held.len()))
        .collect();
    if holders.is_empty() {
        return Finding::new(
            "broker clients",
            Level::Note,
            "no process has an open connection to a watched port",
        )
        .advice("start one, or name the broker's port with --broker-port or --tls-port");
    }
    Finding::new("broker clients", Level::Ok, list(&holders))
}

fn workers(proc_root: &Path) -> Finding {
    let mut pids = proc::pids(proc_root);
    pids.sort_unstable();
    let is_worker =
        |pid: u32| proc::arguments(proc_root, pid).is_some_and(|arguments| celery::is_worker(&arguments));
    let mains: Vec<String> = pids
        .into_iter()
        .filter(|pid| is_worker(*pid))
        // A pool's children have their parent's command line.
        .filter(|pid| !proc::parent(proc_root, *pid).is_some_and(is_worker))
        .map(|pid| name(proc_root, pid))
        .collect();
    if mains.is_empty() {
        return Finding::new("Celery workers", Level::Note, "none known by its command line");
    }
    Finding::new("Celery workers", Level::Ok, list(&mains))
}

/// `service[pid]`
fn name(proc_root: &Path, pid: u32) -> String {
    let service = resource::describe(proc_root, pid).and_then(|description| {
        let service = description
            .pairs
            .into_iter()
            .find(|(key, _)| key == "service.name");
        service.map(|(_, value)| value)
    });
    format!("{}[{pid}]", service.unwrap_or_else(|| "?".to_owned()))
}

fn list(names: &[String]) -> String {
    let shown = names[..names.len().min(SHOWN)].join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: kernel releases, too old, just new enough, new, and no version at all.
    /// Guarantees: only the too old fails, and says what to do.
    #[test]
    fn kernels() {
        assert_eq!(kernel("5.7.19-generic").level, Level::Fail);
        assert!(kernel("4.19.0").advice.is_some());
        assert_eq!(kernel("5.8.0").level, Level::Ok);
        assert_eq!(kernel("5.10.0-28-amd64").level, Level::Ok);
        assert_eq!(kernel("6.18.44").level, Level::Ok);
        assert_eq!(kernel("next").level, Level::Note);
    }

    /// Scenario: lockdown off, on, and not told.
    /// Guarantees: none of them stops `run`; confidentiality is noted.
    #[test]
    fn lockdown_modes() {
        assert_eq!(lockdown(Some("[none] integrity confidentiality\n")).found, "none");
        assert_eq!(
            lockdown(Some("none integrity [confidentiality]\n")).level,
            Level::Note
        );
        assert_eq!(lockdown(None).level, Level::Ok);
    }

    /// Scenario: all can be given up, something can't, under each `--lock-down`.
    /// Guarantees: what would be done is told; a lack stops `run` only where the user is strict; off is noted.
    #[test]
    fn lock_down_is_told() {
        let told =
            |mode, lacking: &[&'static str]| locking_down(mode, ("seccomp".to_owned(), lacking.to_vec()));
        assert_eq!(told(Mode::On, &[]).level, Level::Ok);
        assert!(told(Mode::On, &[]).found.contains("seccomp"));
        assert_eq!(told(Mode::On, &["no Landlock"]).level, Level::Note);
        assert!(
            told(Mode::On, &["no Landlock"])
                .found
                .ends_with("but no Landlock")
        );
        assert_eq!(told(Mode::Strict, &[]).level, Level::Ok);
        assert_eq!(told(Mode::Strict, &["no Landlock"]).level, Level::Fail);
        let off = told(Mode::Off, &[]);
        assert_eq!(off.level, Level::Note);
        assert!(off.advice.unwrap().contains("seccomp"));
    }

    /// Scenario: capabilities are missing.
    /// Guarantees: the report names them, says how to get them, and that `run` does not work.
    #[test]
    fn a_failure_is_named() {
        let report = Report::new(vec![kernel("6.1.0"), capabilities(&["CAP_BPF", "CAP_PERFMON"])]);
        assert!(!report.works);
        let table = report.to_table();
        assert!(
            table.contains("FAIL  capabilities  missing CAP_BPF CAP_PERFMON"),
            "{table}"
        );
        assert!(
            table.contains("AmbientCapabilities=CAP_BPF CAP_PERFMON"),
            "{table}"
        );
        assert!(table.ends_with("does not work here: see FAIL.\n"), "{table}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["works"], false);
        assert_eq!(json["findings"][1]["level"], "fail");
    }

    /// Scenario: more names than fit a line.
    /// Guarantees: the rest is counted.
    #[test]
    fn long_lists_are_counted() {
        let names: Vec<String> = (0..SHOWN + 3).map(|n| n.to_string()).collect();
        assert!(list(&names).ends_with(", 7 and 3 more"), "{}", list(&names));
        assert_eq!(list(&names[..2]), "0, 1");
    }
}
