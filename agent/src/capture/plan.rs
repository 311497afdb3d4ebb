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
    /// Which way of seeing system calls it belongs to; nothing where it serves both.
    pub(crate) calls: Option<Calls>,
    /// Kernels that have it, for those who read the plan; what decides is the kernel's own word.
    pub(crate) kernels: &'static str,
}

/// How the tracepoint back end sees system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Calls {
    /// By the two tracepoints that all calls pass, at a quarter of the cost. The kernel must let a program see what a call was given (Linux
    /// 5.15, with BTF) and not pass over programs.
    All,
    /// By tracepoints of each call, at its entry and at its return.
    Each,
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
    /// A tracepoint of this name, as the kernel's code calls it.
    RawTracepoint(&'static str),
    /// A function's entry (programs `fentry_…`, `kprobe_…`) or return (`fexit_…`): the first of these that the kernel has, if
    /// it takes so many parameters.
    Function(&'static [&'static str], usize),
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tracepoint(category, name) => write!(f, "{category}:{name}"),
            Self::RawTracepoint(name) => write!(f, "{name}, raw"),
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
        calls: None,
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

/// A row of [`Calls::Each`].
const fn each(program: &'static str, name: &'static str) -> Hook {
    Hook {
        calls: Some(Calls::Each),
        ..tracepoint(program, "syscalls", name)
    }
}

/// A row of [`Calls::All`].
const fn all(program: &'static str, name: &'static str) -> Hook {
    Hook {
        calls: Some(Calls::All),
        kernels: "5.15 to 6.18, with BTF, x86-64",
        ..hook(program, At::RawTracepoint(name))
    }
}

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
    hook("kprobe_return", At::RawTracepoint("sys_exit")),
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
    optional(each("enter_exit_group", "sys_enter_exit_group"), ANY),
    optional(tracepoint("signal_deliver", "signal", "signal_deliver"), ANY),
    tracepoint("exec", "sched", "sched_process_exec"),
    tracepoint("exit", "sched", "sched_process_exit"),
    tracepoint("newtask", "task", "task_newtask"),
    all("exit_any", "sys_exit"),
    all("enter_any", "sys_enter"),
    each("exit_transfer", "sys_exit_sendto"),
    each("exit_transfer", "sys_exit_sendmsg"),
    each("exit_transfer", "sys_exit_write"),
    each("exit_transfer", "sys_exit_writev"),
    each("exit_transfer", "sys_exit_recvfrom"),
    each("exit_transfer", "sys_exit_recvmsg"),
    each("exit_transfer", "sys_exit_read"),
    each("exit_transfer", "sys_exit_readv"),
    each("exit_connect", "sys_exit_connect"),
    each("exit_dup", "sys_exit_dup"),
    optional(each("exit_dup", "sys_exit_dup2"), "some architectures"),
    each("exit_dup", "sys_exit_dup3"),
    each("exit_dup", "sys_exit_fcntl"),
    each("enter_close", "sys_enter_close"),
    optional(
        each("enter_close_range", "sys_enter_close_range"),
        "5.9 and later",
    ),
    each("enter_dup", "sys_enter_dup"),
    optional(each("enter_dup2", "sys_enter_dup2"), "some architectures"),
    each("enter_dup2", "sys_enter_dup3"),
    each("enter_fcntl", "sys_enter_fcntl"),
    each("enter_sendto", "sys_enter_sendto"),
    each("enter_sendmsg", "sys_enter_sendmsg"),
    each("enter_write", "sys_enter_write"),
    each("enter_writev", "sys_enter_writev"),
    each("enter_recvfrom", "sys_enter_recvfrom"),
    each("enter_recvmsg", "sys_enter_recvmsg"),
    each("enter_read", "sys_enter_read"),
    each("enter_readv", "sys_enter_readv"),
    each("enter_connect", "sys_enter_connect"),
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
pub(super) const FIELDS: [(&str, &str, usize); 6] = [
    ("signal/signal_deliver", "sig", 8),
    ("signal/signal_deliver", "sa_handler", 24),
    ("task/task_newtask", "pid", 8),
    ("task/task_newtask", "clone_flags", 32),
    ("syscalls/sys_enter_read", "buf", 24),
    ("syscalls/sys_exit_read", "ret", 16),
];
