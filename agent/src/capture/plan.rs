//! The attach plans: for each back end which program goes to which hook, on which kernels, and whether it can do without.
//! Nothing but data; [`attach`](super::attach) carries it out and `doctor --verbose` prints it.

/// The back ends, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// Trampolines at TCP's own functions.
    Fentry,
    /// Breakpoints at the same.
    Kprobe,
    /// System call tracepoints: no kernel memory is read.
    Tracepoint,
}

/// One row of a plan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hook {
    /// The program in the BPF object.
    pub(crate) program: &'static str,
    /// Where it goes.
    pub(crate) at: At,
    /// What its absence means.
    pub(crate) need: Need,
    /// Which way of seeing reads it belongs to; nothing where it serves both.
    pub(crate) reads: Option<Reads>,
    /// Kernels that have it, for those who read the plan; what decides is the kernel's own word.
    pub(crate) kernels: &'static str,
}

/// Where the tracepoint back end sees calls that read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reads {
    /// At their return alone, which costs half as much. The kernel must let a program see what the call was given (Linux 5.15, with
    /// BTF) and not pass over programs.
    AtReturn,
    /// At their entry and at their return.
    FromEntry,
}

/// What it means that a kernel does not have a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// No capture by this back end.
    Required,
    /// Passed over.
    Optional,
    /// Passed over when another row of this name is there.
    OneOf(&'static str),
}

/// A place to attach to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum At {
    /// A tracepoint: category and name.
    Tracepoint(&'static str, &'static str),
    /// A function's entry (programs `fentry_…`, `kprobe_…`) or return (`fexit_…`): the first of these that the kernel has, if
    /// it takes so many parameters.
    Function(&'static [&'static str], usize),
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tracepoint(category, name) => write!(f, "{category}:{name}"),
            Self::Function(names, parameters) => write!(f, "{} of {parameters}", names.join(" or ")),
        }
    }
}

const ANY: &str = "5.8 and later";

const fn hook(program: &'static str, at: At) -> Hook {
    Hook {
        program,
        at,
        need: Need::Required,
        reads: None,
        kernels: ANY,
    }
}

const fn tracepoint(program: &'static str, category: &'static str, name: &'static str) -> Hook {
    hook(program, At::Tracepoint(category, name))
}

const fn function(program: &'static str, names: &'static [&'static str], parameters: usize) -> Hook {
    hook(program, At::Function(names, parameters))
}

const fn optional(hook: Hook, kernels: &'static str) -> Hook {
    Hook {
        need: Need::Optional,
        kernels,
        ..hook
    }
}

/// A row for calls that read.
const fn read(program: &'static str, name: &'static str) -> Hook {
    Hook {
        reads: Some(Reads::FromEntry),
        ..tracepoint(program, "syscalls", name)
    }
}

/// Likewise.
const fn read_returned(name: &'static str) -> Hook {
    Hook {
        reads: Some(Reads::AtReturn),
        kernels: "5.15 to 6.18, with BTF, x86-64",
        ..tracepoint(READ_RETURNED, "syscalls", name)
    }
}

/// The program of [`Reads::AtReturn`].
pub(super) const READ_RETURNED: &str = "read_returned";

/// `tcp_recvmsg`, whose parameters change.
const fn recvmsg(program: &'static str, group: &'static str, parameters: usize) -> Hook {
    let kernels = match parameters {
        6 => "before 5.19",
        5 => "5.19 to 7.1",
        _ => "7.2 and later",
    };
    Hook {
        need: Need::OneOf(group),
        kernels,
        ..function(program, &["tcp_recvmsg"], parameters)
    }
}

/// Linux 6.15 gave pipes without a name functions of their own; those of named ones call them.
const PIPE_READ: &[&str] = &["anon_pipe_read", "pipe_read"];
const PIPE_WRITE: &[&str] = &["anon_pipe_write", "pipe_write"];

/// Returns come before entries everywhere, so that no call is left open.
const FENTRY: &[Hook] = &[
    optional(function("fentry_group_exit", &["do_group_exit"], 1), ANY),
    tracepoint("exec", "sched", "sched_process_exec"),
    tracepoint("exit", "sched", "sched_process_exit"),
    tracepoint("newtask", "task", "task_newtask"),
    function("fexit_sendmsg", &["tcp_sendmsg"], 3),
    recvmsg("fexit_recvmsg_4", "fexit tcp_recvmsg", 4),
    recvmsg("fexit_recvmsg_5", "fexit tcp_recvmsg", 5),
    recvmsg("fexit_recvmsg_6", "fexit tcp_recvmsg", 6),
    function("fexit_pipe_read", PIPE_READ, 2),
    function("fexit_pipe_write", PIPE_WRITE, 2),
    function("fentry_close", &["tcp_close"], 2),
    function("fentry_connect", &["tcp_connect"], 1),
    function("fentry_sendmsg", &["tcp_sendmsg"], 3),
    recvmsg("fentry_recvmsg", "fentry tcp_recvmsg", 4),
    recvmsg("fentry_recvmsg", "fentry tcp_recvmsg", 5),
    recvmsg("fentry_recvmsg_nonblock", "fentry tcp_recvmsg", 6),
    function("fentry_pipe_read", PIPE_READ, 2),
    function("fentry_pipe_write", PIPE_WRITE, 2),
];

const KPROBE: &[Hook] = &[
    optional(function("kprobe_group_exit", &["do_group_exit"], 1), ANY),
    tracepoint("exec", "sched", "sched_process_exec"),
    tracepoint("exit", "sched", "sched_process_exit"),
    tracepoint("newtask", "task", "task_newtask"),
    tracepoint("kprobe_return", "syscalls", "sys_exit_sendto"),
    tracepoint("kprobe_return", "syscalls", "sys_exit_sendmsg"),
    tracepoint("kprobe_return", "syscalls", "sys_exit_write"),
    tracepoint("kprobe_return", "syscalls", "sys_exit_writev"),
    tracepoint("kprobe_return", "syscalls", "sys_exit_recvfrom"),
    tracepoint("kprobe_return", "syscalls", "sys_exit_recvmsg"),
    tracepoint("kprobe_return", "syscalls", "sys_exit_read"),
    tracepoint("kprobe_return", "syscalls", "sys_exit_readv"),
    function("kprobe_close", &["tcp_close"], 2),
    function("kprobe_connect", &["tcp_connect"], 1),
    function("kprobe_sendmsg", &["tcp_sendmsg"], 3),
    recvmsg("kprobe_recvmsg", "kprobe tcp_recvmsg", 4),
    recvmsg("kprobe_recvmsg", "kprobe tcp_recvmsg", 5),
    recvmsg("kprobe_recvmsg_nonblock", "kprobe tcp_recvmsg", 6),
    function("kprobe_pipe_read", PIPE_READ, 2),
    function("kprobe_pipe_write", PIPE_WRITE, 2),
];

const TRACEPOINT: &[Hook] = &[
    optional(
        tracepoint("enter_exit_group", "syscalls", "sys_enter_exit_group"),
        ANY,
    ),
    optional(tracepoint("signal_deliver", "signal", "signal_deliver"), ANY),
    tracepoint("exec", "sched", "sched_process_exec"),
    tracepoint("exit", "sched", "sched_process_exit"),
    tracepoint("newtask", "task", "task_newtask"),
    tracepoint("exit_transfer", "syscalls", "sys_exit_sendto"),
    tracepoint("exit_transfer", "syscalls", "sys_exit_sendmsg"),
    tracepoint("exit_transfer", "syscalls", "sys_exit_write"),
    tracepoint("exit_transfer", "syscalls", "sys_exit_writev"),
    read("exit_transfer", "sys_exit_recvfrom"),
    read_returned("sys_exit_recvfrom"),
    read("exit_transfer", "sys_exit_recvmsg"),
    read_returned("sys_exit_recvmsg"),
    read("exit_transfer", "sys_exit_read"),
    read_returned("sys_exit_read"),
    read("exit_transfer", "sys_exit_readv"),
    read_returned("sys_exit_readv"),
    tracepoint("exit_connect", "syscalls", "sys_exit_connect"),
    tracepoint("exit_dup", "syscalls", "sys_exit_dup"),
    optional(
        tracepoint("exit_dup", "syscalls", "sys_exit_dup2"),
        "some architectures",
    ),
    tracepoint("exit_dup", "syscalls", "sys_exit_dup3"),
    tracepoint("exit_dup", "syscalls", "sys_exit_fcntl"),
    tracepoint("enter_close", "syscalls", "sys_enter_close"),
    optional(
        tracepoint("enter_close_range", "syscalls", "sys_enter_close_range"),
        "5.9 and later",
    ),
    tracepoint("enter_dup", "syscalls", "sys_enter_dup"),
    optional(
        tracepoint("enter_dup2", "syscalls", "sys_enter_dup2"),
        "some architectures",
    ),
    tracepoint("enter_dup2", "syscalls", "sys_enter_dup3"),
    tracepoint("enter_fcntl", "syscalls", "sys_enter_fcntl"),
    tracepoint("enter_sendto", "syscalls", "sys_enter_sendto"),
    tracepoint("enter_sendmsg", "syscalls", "sys_enter_sendmsg"),
    tracepoint("enter_write", "syscalls", "sys_enter_write"),
    tracepoint("enter_writev", "syscalls", "sys_enter_writev"),
    read("enter_recvfrom", "sys_enter_recvfrom"),
    read("enter_recvmsg", "sys_enter_recvmsg"),
    read("enter_read", "sys_enter_read"),
    read("enter_readv", "sys_enter_readv"),
    tracepoint("enter_connect", "syscalls", "sys_enter_connect"),
];

impl Backend {
    /// All, best first: what `--probes auto` tries.
    pub(crate) const ALL: [Self; 3] = [Self::Fentry, Self::Kprobe, Self::Tracepoint];

    /// As on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
        }
    }

    /// Its hooks, in the order in which they are attached.
    pub(crate) const fn plan(self) -> &'static [Hook] {
        match self {
            Self::Fentry => FENTRY,
            Self::Kprobe => KPROBE,
            Self::Tracepoint => TRACEPOINT,
        }
    }

    /// Does it know connections by their socket, and find those that are older than itself when they are used? Else by
    /// descriptors, which the scan of /proc must tell it.
    pub(crate) const fn knows_sockets(self) -> bool {
        matches!(self, Self::Fentry | Self::Kprobe)
    }
}

/// Fields of tracepoints whose place the programs take for granted.
pub(super) const FIELDS: [(&str, &str, usize); 7] = [
    ("signal/signal_deliver", "sig", 8),
    ("signal/signal_deliver", "sa_handler", 24),
    ("task/task_newtask", "pid", 8),
    ("task/task_newtask", "clone_flags", 32),
    ("syscalls/sys_enter_read", "buf", 24),
    ("syscalls/sys_exit_read", "__syscall_nr", 8),
    ("syscalls/sys_exit_read", "ret", 16),
];
