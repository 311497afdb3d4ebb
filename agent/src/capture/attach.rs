//! Which program goes to which hook: a table, and the loop that carries it out.

use std::collections::HashSet;

use anyhow::{Context as _, Result, bail};
use aya::Ebpf;
use aya::programs::{ProgramError, TracePoint};

use super::tracefs;

/// One hook of the tracepoint back end.
struct Hook {
    program: &'static str,
    category: &'static str,
    name: &'static str,
    /// Without it there is no capture; others are passed over where the kernel does not have them.
    required: bool,
}

const fn hook(program: &'static str, category: &'static str, name: &'static str, required: bool) -> Hook {
    Hook {
        program,
        category,
        name,
        required,
    }
}

/// Returns come before entries, so that no call is left open; `dup2` exists on some architectures only and
/// `close_range` since Linux 5.9.
const TRACEPOINTS: [Hook; 33] = [
    hook("enter_exit_group", "syscalls", "sys_enter_exit_group", false),
    hook("signal_deliver", "signal", "signal_deliver", false),
    hook("exec", "sched", "sched_process_exec", true),
    hook("exit", "sched", "sched_process_exit", true),
    hook("newtask", "task", "task_newtask", true),
    hook("exit_transfer", "syscalls", "sys_exit_sendto", true),
    hook("exit_transfer", "syscalls", "sys_exit_sendmsg", true),
    hook("exit_transfer", "syscalls", "sys_exit_write", true),
    hook("exit_transfer", "syscalls", "sys_exit_writev", true),
    hook("exit_transfer", "syscalls", "sys_exit_recvfrom", true),
    hook("exit_transfer", "syscalls", "sys_exit_recvmsg", true),
    hook("exit_transfer", "syscalls", "sys_exit_read", true),
    hook("exit_transfer", "syscalls", "sys_exit_readv", true),
    hook("exit_connect", "syscalls", "sys_exit_connect", true),
    hook("exit_dup", "syscalls", "sys_exit_dup", true),
    hook("exit_dup", "syscalls", "sys_exit_dup2", false),
    hook("exit_dup", "syscalls", "sys_exit_dup3", true),
    hook("exit_dup", "syscalls", "sys_exit_fcntl", true),
    hook("enter_close", "syscalls", "sys_enter_close", true),
    hook("enter_close_range", "syscalls", "sys_enter_close_range", false),
    hook("enter_dup", "syscalls", "sys_enter_dup", true),
    hook("enter_dup2", "syscalls", "sys_enter_dup2", false),
    hook("enter_dup2", "syscalls", "sys_enter_dup3", true),
    hook("enter_fcntl", "syscalls", "sys_enter_fcntl", true),
    hook("enter_sendto", "syscalls", "sys_enter_sendto", true),
    hook("enter_sendmsg", "syscalls", "sys_enter_sendmsg", true),
    hook("enter_write", "syscalls", "sys_enter_write", true),
    hook("enter_writev", "syscalls", "sys_enter_writev", true),
    hook("enter_recvfrom", "syscalls", "sys_enter_recvfrom", true),
    hook("enter_recvmsg", "syscalls", "sys_enter_recvmsg", true),
    hook("enter_read", "syscalls", "sys_enter_read", true),
    hook("enter_readv", "syscalls", "sys_enter_readv", true),
    hook("enter_connect", "syscalls", "sys_enter_connect", true),
];

/// Fields whose place the programs take for granted.
const FIELDS: [(&str, &str, usize); 5] = [
    ("signal/signal_deliver", "sig", 8),
    ("signal/signal_deliver", "sa_handler", 24),
    ("task/task_newtask", "pid", 8),
    ("task/task_newtask", "clone_flags", 32),
    ("syscalls/sys_enter_read", "buf", 24),
];

/// Loads the tracepoint programs into the kernel and attaches them.
///
/// # Errors
/// When the kernel refuses a program or lacks a required hook.
pub(super) fn tracepoints(ebpf: &mut Ebpf) -> Result<()> {
    let tracefs = tracefs::ensure()?;
    for (event, field, offset) in FIELDS {
        match tracefs::field_offset(&tracefs, event, field) {
            Some(found) if found == offset => {}
            found => bail!(
                "tracepoint {event} has `{field}` at {found:?}, not at {offset}: this kernel needs another build of celeryscope"
            ),
        }
    }
    let mut loaded = HashSet::new();
    for hook in &TRACEPOINTS {
        if loaded.insert(hook.program) {
            program(ebpf, hook.program)?
                .load()
                .map_err(|error| anyhow::anyhow!("{}", refusal(hook.program, &error)))?;
        }
    }
    for Hook {
        program: name,
        category,
        name: event,
        required,
    } in &TRACEPOINTS
    {
        match program(ebpf, name)?.attach(category, event) {
            Ok(_) => {}
            Err(_) if !required && !tracefs.join("events").join(category).join(event).exists() => {
                tracing::debug!("this kernel has no tracepoint {category}:{event}");
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot attach to tracepoint {category}:{event}"));
            }
        }
    }
    Ok(())
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut TracePoint> {
    ebpf.program_mut(name)
        .with_context(|| format!("the BPF object has no program {name}: it does not belong to this build"))?
        .try_into()
        .with_context(|| format!("BPF program {name} is not a tracepoint program"))
}

/// One line, with the verifier's last words instead of all of them.
fn refusal(program: &str, error: &ProgramError) -> String {
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
            .find(|line| !line.is_empty() && !line.starts_with("processed"));
        return format!(
            "the kernel refused BPF program {program}: {io_error} ({})",
            last.unwrap_or("no verifier log")
        );
    }
    format!("cannot load BPF program {program}: {error}")
}
