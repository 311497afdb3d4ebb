//! One guest: boot, job, end.
//!
//! Software emulation only: KVM is not to be had everywhere, and hangs where a hypervisor pretends to have it. No network
//! device, no disk: the host's files over 9p, read-only. Everything that the guest prints goes to the log of a [`Service`],
//! which is read while it grows. QEMU ends with the guard, and with this process however it ends.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::initramfs;
use super::kernels::{Image, Kernel};
use crate::process::{Interrupt, Interrupted, Service};
use crate::util;

const MEMORY_MIB: &str = "3072";
/// Everything that QEMU can emulate, but what only guards or widens the page tables: emulated, that costs a quarter of the speed.
const PROCESSOR: &str = "max,-la57,-smap,-smep,-umip,-pku,-pks";
/// What is left out besides where instructions count: those that move any amount of memory, emulated by one for each byte.
const BUT_FOR_STRINGS: &str = ",-erms,-fsrm";

/// What a guest's clock goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// The host's time, with so many processors.
    Time(u32),
    /// Its own instructions, a nanosecond each, on one processor: what a program takes of it is then a count of them. Nobody waits while
    /// nothing runs.
    Instructions,
}

/// What a guest is to do, and how long it may take.
pub(super) struct Job<'a> {
    /// For the host's `sh`.
    pub(super) script: &'a str,
    pub(super) clock: Clock,
    pub(super) limit: Duration,
}

/// How it went.
#[derive(Debug)]
pub(super) struct Ended {
    /// The job's exit code.
    pub(super) code: i32,
    /// From the start of QEMU to that of the job.
    pub(super) boot: Duration,
    /// From the start of QEMU to the job's end.
    pub(super) whole: Duration,
    /// Everything the guest printed.
    pub(super) log: PathBuf,
}

/// Boots `kernel` and runs the job in it, handing on each line that the guest prints from the job's start on.
///
/// # Errors
/// The guest did not come up, ended early, or took too long: with where it was and where all it printed is.
pub(super) fn run(
    kernel: Kernel,
    image: &Image,
    job: &Job<'_>,
    interrupt: &Interrupt,
    line: &mut dyn FnMut(&str),
) -> Result<Ended> {
    let folder = folder(kernel)?;
    let initramfs = folder.join("initramfs");
    fs::write(&initramfs, initramfs::make(image, job.script)?)?;
    let start = Instant::now();
    let mut qemu = Service::start("qemu", &mut command(image, &initramfs, job.clock), &folder)?;
    let mut console = Console::open(folder.join("qemu.log"))?;
    let done = interrupt.wait(job.limit, || {
        // Asked first, so that what it printed before its end is read.
        let alive = qemu.check_alive();
        console.read(start, line)?;
        if console.code.is_none() {
            alive?;
        }
        Ok(console.code.is_some())
    });
    let at = console.at.clone();
    let whole = start.elapsed();
    let code = match done {
        Ok(true) => Ok(console.code.unwrap_or_default()),
        Ok(false) => Err(anyhow!("not done after {} s", job.limit.as_secs())),
        Err(error) if error.is::<Interrupted>() => return Err(error),
        Err(error) => Err(error),
    };
    let code = code.with_context(|| {
        let (name, log) = (kernel.name, console.path.display());
        format!("kernel {name} in QEMU came as far as {at:?} (all it printed: {log})")
    })?;
    Ok(Ended {
        code,
        boot: console.booted.unwrap_or_default(),
        whole,
        log: console.path,
    })
}

fn command(image: &Image, initramfs: &Path, clock: Clock) -> Command {
    let qemu = "qemu-system-x86_64";
    // Should this process be killed, it can't stop what it started; the kernel does then.
    let mut command = match util::find_program("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--", qemu]);
            command
        }
        None => Command::new(qemu),
    };
    match clock {
        Clock::Time(processors) => {
            command.args(["-accel", "tcg,thread=multi", "-cpu", PROCESSOR]);
            command.args(["-smp", &processors.to_string()]);
        }
        Clock::Instructions => {
            command.args(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]);
            command.args(["-smp", "1", "-cpu", &format!("{PROCESSOR}{BUT_FOR_STRINGS}")]);
        }
    }
    command
        .args(["-m", MEMORY_MIB])
        .args(["-display", "none", "-monitor", "none", "-serial", "stdio"])
        .args(["-nodefaults", "-no-user-config", "-no-reboot"])
        .args([
            "-virtfs",
            "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
        ])
        .arg("-kernel")
        .arg(&image.vmlinuz)
        .arg("-initrd")
        .arg(initramfs)
        // A panic ends QEMU (-no-reboot), the rest is for speed: nobody attacks a guest that runs our tests.
        .args([
            "-append",
            "console=ttyS0 loglevel=3 panic=-1 mitigations=off nokaslr random.trust_cpu=on tsc=reliable",
        ]);
    command
}

/// A folder of this run's own, `<cache>/vm/<kernel>-<pid>`. Those of runs that are over go: the last one's log is kept until now.
fn folder(kernel: Kernel) -> Result<PathBuf> {
    let all = util::cache_dir()?.join("vm");
    fs::create_dir_all(&all).with_context(|| format!("cannot make {}", all.display()))?;
    for entry in fs::read_dir(&all)? {
        let entry = entry?;
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.strip_prefix(kernel.name)?.strip_prefix('-'));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    let folder = all.join(format!("{}-{}", kernel.name, std::process::id()));
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// What the guest prints, read while it grows.
struct Console {
    path: PathBuf,
    file: File,
    /// A line that is still being written.
    rest: Vec<u8>,
    /// The last line that said something.
    at: String,
    booted: Option<Duration>,
    code: Option<i32>,
}

impl Console {
    fn open(path: PathBuf) -> Result<Self> {
        Ok(Self {
            file: File::open(&path)?,
            path,
            rest: Vec::new(),
            at: "nothing".to_owned(),
            booted: None,
            code: None,
        })
    }

    fn read(&mut self, start: Instant, show: &mut dyn FnMut(&str)) -> Result<()> {
        self.file.read_to_end(&mut self.rest)?;
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end();
            if !line.is_empty() {
                line.clone_into(&mut self.at);
            }
            match (self.booted, line.strip_prefix("vm: ")) {
                (None, Some("the host's files are there")) => self.booted = Some(start.elapsed()),
                (Some(_), Some(said)) if said.starts_with("exit ") => {
                    self.code = said.strip_prefix("exit ").and_then(|code| code.parse().ok());
                }
                (Some(_), _) => show(line),
                (None, _) => {}
            }
        }
        Ok(())
    }
}
