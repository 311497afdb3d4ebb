//! Carries out an attach plan: finds each hook in the running kernel, loads its program, attaches it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::Ebpf;
use aya::programs::{Program, ProgramError};

use super::btf::Btf;
use super::plan::{At, Backend, FIELDS, Hook, Need, READ_RETURNED, Reads};
use super::{kernel_release, preemption, tracefs};

/// Where a kernel says that it has kprobes.
const KPROBES: &str = "/sys/bus/event_source/devices/kprobe/type";
/// What the kernel's lockdown mode can be read from, where securityfs is mounted.
pub(crate) const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
/// ENOTSUPP of the kernel's own, which has no name in user space.
const NOT_SUPPORTED: i32 = 524;

/// What the name of a program's second copy ends with; see `twice!` in the kernel half.
const SECOND: &str = "_2";
/// What lines of a verifier's log begin with that tell nothing of why.
const STATISTICS: [&str; 4] = [
    "processed ",
    "insns processed ",
    "stack depth ",
    "verification time ",
];

/// What came of one row of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The program runs there; for a function, its name in this kernel.
    Attached(String),
    /// This kernel does not have it, and it can be done without.
    Absent,
    /// It belongs to the other way of seeing reads.
    Unused,
}

/// Why a back end cannot work here, where that can be told without trying.
///
/// # Errors
/// The reason.
pub(super) fn precheck(backend: Backend) -> Result<()> {
    if backend.knows_sockets()
        && let Ok(modes) = std::fs::read_to_string(LOCKDOWN)
        && modes.contains("[confidentiality]")
    {
        bail!("the kernel is locked down (confidentiality) and lets no BPF program read its memory");
    }
    if backend == Backend::Kprobe && !Path::new(KPROBES).exists() {
        bail!("the kernel has no kprobes (there is no {KPROBES})");
    }
    Ok(())
}

/// Loads the programs of a back end into the kernel and attaches them; `from_entry`: not those that see reads at their return
/// alone. Gives what came of each row of its plan.
///
/// # Errors
/// When the kernel refuses a program or lacks a required hook.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    backend: Backend,
    types: Option<&Btf>,
    from_entry: bool,
) -> Result<Vec<State>> {
    let tracefs = tracefs::ensure()?;
    check_fields(&tracefs, backend)?;
    // aya's own reading of the same, which takes some tens of megabytes: only now that its loader's is gone.
    let ids = (backend == Backend::Fentry)
        .then(aya::Btf::from_sys_fs)
        .transpose()
        .context("cannot read the kernel's BTF")?;
    let resolve = |hook: &Hook| resolve(&hook.at, types, &tracefs);
    let targets: Vec<Option<Target>> = backend.plan().iter().map(resolve).collect();
    let rows = || backend.plan().iter().zip(&targets);
    let twice = preemption::is_possible(backend);
    let copies: &[&str] = if twice { &["", SECOND] } else { &[""] };
    // A return that is passed over would not be missed; and the program knows the registers of one processor.
    let at_return = backend == Backend::Tracepoint && cfg!(target_arch = "x86_64") && !twice && !from_entry;
    let reads = if at_return { reads(ebpf) } else { Reads::FromEntry };
    let unused = |hook: &Hook| hook.reads.is_some_and(|other| other != reads);
    // That one was, or isn't wanted.
    let mut loaded = HashSet::from([READ_RETURNED]);
    for (hook, target) in rows().filter(|(hook, _)| !unused(hook)) {
        match target {
            Some(target) if loaded.insert(hook.program) => {
                for program in names(ebpf, hook, copies) {
                    load(ebpf, &program, target, ids.as_ref())?;
                }
            }
            Some(_) => {}
            None => {
                let other = |need| rows().any(|(hook, target)| hook.need == need && target.is_some());
                let missing = match hook.need {
                    Need::Required => true,
                    Need::Optional => false,
                    Need::OneOf(_) => !other(hook.need),
                };
                if missing {
                    bail!("this kernel has no {}, which is needed", hook.at);
                }
            }
        }
    }
    rows()
        .map(|(hook, target)| match target {
            _ if unused(hook) => Ok(State::Unused),
            Some(target) => {
                for program in names(ebpf, hook, copies) {
                    attach_one(ebpf, &program, target)?;
                }
                Ok(State::Attached(target.to_string()))
            }
            None => {
                tracing::debug!("this kernel has no {} for {}", hook.at, hook.program);
                Ok(State::Absent)
            }
        })
        .collect()
}

/// Where calls that read are seen: at their return, if the kernel takes the program for that.
fn reads(ebpf: &mut Ebpf) -> Reads {
    match load(
        ebpf,
        READ_RETURNED,
        &Target::Tracepoint("syscalls", "sys_exit_read"),
        None,
    ) {
        Ok(()) => Reads::AtReturn,
        Err(why) => {
            tracing::debug!("reads are seen from their entry on: {why:#}");
            Reads::FromEntry
        }
    }
}

/// A hook's programs: with its second copy where there is one.
fn names(ebpf: &Ebpf, hook: &Hook, copies: &[&str]) -> Vec<String> {
    let named = copies.iter().map(|copy| format!("{}{copy}", hook.program));
    named
        .filter(|name| name == hook.program || ebpf.program(name).is_some())
        .collect()
}

/// A hook as this kernel has it.
enum Target {
    Tracepoint(&'static str, &'static str),
    Function(&'static str),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tracepoint(category, name) => write!(f, "{category}:{name}"),
            Self::Function(name) => f.write_str(name),
        }
    }
}

fn resolve(at: &At, types: Option<&Btf>, tracefs: &Path) -> Option<Target> {
    let parameters = |function| types?.parameters(function);
    match *at {
        At::Tracepoint(category, name) => {
            let event: PathBuf = tracefs.join("events").join(category).join(name);
            event.exists().then_some(Target::Tracepoint(category, name))
        }
        At::Function(names, count) => {
            let found = names.iter().find(|name| parameters(name).is_some())?;
            (parameters(found)?.len() == count).then_some(Target::Function(found))
        }
    }
}

fn load(ebpf: &mut Ebpf, name: &str, target: &Target, ids: Option<&aya::Btf>) -> Result<()> {
    let program = program(ebpf, name)?;
    let result = match (program, target, ids) {
        (Program::TracePoint(program), ..) => program.load(),
        (Program::KProbe(program), ..) => program.load(),
        (Program::FEntry(program), Target::Function(at), Some(ids)) => program.load(at, ids),
        (Program::FExit(program), Target::Function(at), Some(ids)) => program.load(at, ids),
        _ => bail!("BPF program {name} cannot go to {target}"),
    };
    result.map_err(|error| anyhow!("{}", refusal(name, &error)))
}

fn attach_one(ebpf: &mut Ebpf, name: &str, target: &Target) -> Result<()> {
    let result = match (program(ebpf, name)?, target) {
        (Program::TracePoint(program), Target::Tracepoint(category, event)) => {
            program.attach(category, event).map(drop)
        }
        (Program::KProbe(program), Target::Function(at)) => program.attach(at, 0).map(drop),
        (Program::FEntry(program), _) => program.attach().map(drop),
        (Program::FExit(program), _) => program.attach().map(drop),
        _ => bail!("BPF program {name} cannot go to {target}"),
    };
    result.map_err(|error| anyhow!("cannot attach to {target}: {}", attach_refusal(&error)))
}

/// # Errors
/// A tracepoint's field is not where the programs look.
fn check_fields(tracefs: &Path, backend: Backend) -> Result<()> {
    for (event, field, offset) in FIELDS {
        let used = |hook: &Hook| matches!(hook.at, At::Tracepoint(category, name) if event == format!("{category}/{name}"));
        if !backend.plan().iter().any(used) {
            continue;
        }
        match tracefs::field_offset(tracefs, event, field) {
            Some(found) if found == offset => {}
            found => bail!(
                "tracepoint {event} has `{field}` at {found:?}, not at {offset}: this kernel needs another build of celeryscope"
            ),
        }
    }
    Ok(())
}

pub(super) fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program> {
    ebpf.program_mut(name)
        .with_context(|| format!("the BPF object has no program {name}: it does not belong to this build"))
}

/// One line, with the verifier's last words instead of all of them.
pub(super) fn refusal(program: &str, error: &ProgramError) -> String {
    if let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = error
    {
        let log = verifier_log.to_string();
        tracing::debug!("verifier log of {program}:\n{log}");
        let last = log
            .lines()
            .rev()
            .find(|line| !line.is_empty() && !STATISTICS.iter().any(|start| line.starts_with(start)));
        let why = last.map_or_else(|| hint(io_error), |last| Some(format!(" ({last})")));
        return format!(
            "the kernel refused BPF program {program}: {io_error}{}",
            why.unwrap_or_default()
        );
    }
    format!("cannot load BPF program {program}: {error}")
}

/// What the kernel's error number means where it gives no log.
fn hint(error: &std::io::Error) -> Option<String> {
    let meaning = match error.raw_os_error()? {
        // With the capabilities that were checked before, nothing else refuses without a word.
        1 => "the kernel is locked down, most likely",
        NOT_SUPPORTED => "it has no BPF trampolines",
        _ => return None,
    };
    Some(format!(" ({meaning})"))
}

pub(super) fn attach_refusal(error: &ProgramError) -> String {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return format!("{io}{}", hint(io).unwrap_or_default());
        }
        source = error.source();
    }
    error.to_string()
}

/// # Errors
/// The kernel is older than the oldest that can work.
pub(super) fn check_kernel() -> Result<()> {
    let Some(version) = kernel_release::current() else {
        return Ok(());
    };
    match kernel_release::too_old(version) {
        Some(advice) => bail!("this is Linux {}.{}: {advice}", version.0, version.1),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::btf::tests::Builder;

    /// Scenario: kernels with pipes' functions of before and after 6.15, and `tcp_recvmsg` of before 5.19, before 7.2 and after.
    /// Guarantees: each row of a plan finds the function of its kernel, and of the forms of one function exactly one is there.
    #[test]
    fn rows_find_their_functions() {
        let kernel = |pipe_read: &str, recvmsg: &[&str]| {
            let mut builder = Builder::default();
            builder.function("pipe_read", &["iocb", "to"]);
            builder.function(pipe_read, &["iocb", "to"]);
            builder.function("tcp_recvmsg", recvmsg);
            builder.btf()
        };
        let kernels = [
            kernel("other", &["sk", "msg", "len", "nonblock", "flags", "addr_len"]),
            kernel("other", &["sk", "msg", "len", "flags", "addr_len"]),
            kernel("anon_pipe_read", &["sk", "msg", "len", "flags"]),
        ];
        let there = |btf: &Btf, want: &str| -> Vec<(&str, String)> {
            let rows = Backend::Fentry
                .plan()
                .iter()
                .filter(|hook| hook.program.starts_with(want));
            rows.filter_map(|hook| {
                Some((
                    hook.program,
                    resolve(&hook.at, Some(btf), Path::new("/"))?.to_string(),
                ))
            })
            .collect()
        };
        let [old, newer, newest] = &kernels;
        let recvmsg = |program| vec![(program, "tcp_recvmsg".to_owned())];
        assert_eq!(there(old, "fexit_recv"), recvmsg("fexit_recvmsg_6"));
        assert_eq!(there(old, "fentry_recv"), recvmsg("fentry_recvmsg_nonblock"));
        assert_eq!(there(newer, "fexit_recv"), recvmsg("fexit_recvmsg_5"));
        assert_eq!(there(newer, "fentry_recv"), recvmsg("fentry_recvmsg"));
        assert_eq!(there(newest, "fexit_recv"), recvmsg("fexit_recvmsg_4"));
        assert_eq!(there(newest, "fentry_recv"), recvmsg("fentry_recvmsg"));
        let pipe = |name: &str| vec![("fentry_pipe_read", name.to_owned())];
        assert_eq!(there(newer, "fentry_pipe_read"), pipe("pipe_read"));
        assert_eq!(there(newest, "fentry_pipe_read"), pipe("anon_pipe_read"));
        assert_eq!(there(old, "fentry_connect"), []);
    }
}
