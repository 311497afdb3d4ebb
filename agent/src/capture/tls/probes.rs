//! Puts the kernel half's programs into a process's TLS library, by the best that the kernel has for that.

use std::any::Any;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::Ebpf;
use aya::maps::{HashMap, MapData};
use aya::programs::Program;
use aya::programs::uprobe::{UProbeLink, UProbeScope};
use celeryscope_common::maps::ssl;

use super::multi::{Multi, Place};
use crate::capture::attach;
use crate::host::tls::{Function, Library};

/// Something that holds probes: gone, they are.
pub(super) type Held = Box<dyn Any + Send>;

/// A function's program for its entry, where that needs one of its own.
const fn entry(function: Function) -> &'static str {
    match function {
        Function::Write => "ssl_write",
        Function::WriteEx => "ssl_write_ex",
        Function::Read => "ssl_read",
        Function::ReadEx => "ssl_read_ex",
    }
}

/// What tells one program which function it is at.
const fn cookie(function: Function) -> u64 {
    match function {
        Function::Write => ssl::WRITES,
        Function::WriteEx => ssl::WRITES | ssl::EXTENDED,
        Function::Read => 0,
        Function::ReadEx => ssl::EXTENDED,
    }
}

/// Programs that run when a process gets to a place in its own memory, and the names of programs to be told of.
pub(in crate::capture) struct UserProbes {
    ebpf: Arc<Mutex<Ebpf>>,
    multi: Option<Multi>,
    expected: HashMap<MapData, [u8; 16], u8>,
}

impl UserProbes {
    pub(in crate::capture) fn new(
        ebpf: Arc<Mutex<Ebpf>>,
        multi: Option<Multi>,
        expected: HashMap<MapData, [u8; 16], u8>,
    ) -> Self {
        Self {
            ebpf,
            multi,
            expected,
        }
    }

    /// Lets the programs run whenever the process calls one of the library's functions.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn attach(&mut self, library: &Library, pid: u32) -> Result<Vec<Held>> {
        let Some(multi) = &self.multi else {
            return self.attach_each(library, pid);
        };
        let places: Vec<Place> = library
            .functions
            .found()
            .map(|(function, offset)| Place {
                offset,
                cookie: cookie(function),
            })
            .collect();
        let links = multi.attach(&library.path, &places, pid)?;
        Ok(links.into_iter().map(|link| Box::new(link) as Held).collect())
    }

    /// The same, a link for each.
    fn attach_each(&mut self, library: &Library, pid: u32) -> Result<Vec<Held>> {
        let mut held = Vec::new();
        for (function, offset) in library.functions.found() {
            // The return first: an entry without one would note a call that never ends.
            for program in ["ssl_return", entry(function)] {
                let link = self.attach_one(program, library, offset, pid)?;
                held.push(Box::new(link) as Held);
            }
        }
        Ok(held)
    }

    fn attach_one(&mut self, program: &str, library: &Library, offset: u64, pid: u32) -> Result<UProbeLink> {
        let pid = NonZeroU32::new(pid).context("process 0 has no memory")?;
        let mut ebpf = self.ebpf.lock().unwrap_or_else(PoisonError::into_inner);
        let probe = user_probe(&mut ebpf, program)?;
        let link = probe.attach(offset, &library.path, UProbeScope::OneProcess(pid));
        let link = link.and_then(|id| probe.take_link(id));
        link.map_err(|error| {
            anyhow!(
                "cannot attach {program} to {}: {}",
                library.path.display(),
                attach::attach_refusal(&error)
            )
        })
    }

    /// Loads what will be needed, so that the first process does not wait for it.
    ///
    /// # Errors
    /// The kernel refuses a program.
    pub(in crate::capture) fn prepare(&mut self) -> Result<()> {
        if self.multi.is_some() {
            return Ok(());
        }
        let mut ebpf = self.ebpf.lock().unwrap_or_else(PoisonError::into_inner);
        for program in Function::ALL.map(entry).into_iter().chain(["ssl_return"]) {
            user_probe(&mut ebpf, program)?
                .load()
                .map_err(|error| anyhow!("{}", attach::refusal(program, &error)))?;
        }
        Ok(())
    }

    /// From now on an Exec record tells of every process that begins to run a program of this name, watched or not.
    pub(super) fn expect(&mut self, name: &str) {
        let mut comm = [0; 16];
        let len = name.len().min(comm.len() - 1);
        comm[..len].copy_from_slice(&name.as_bytes()[..len]);
        if let Err(error) = self.expected.insert(comm, 1, 0) {
            tracing::debug!("processes called {name} won't be told of: {error}");
        }
    }
}

fn user_probe<'a>(ebpf: &'a mut Ebpf, program: &str) -> Result<&'a mut aya::programs::UProbe> {
    match attach::program(ebpf, program)? {
        Program::UProbe(probe) => Ok(probe),
        _ => bail!("BPF program {program} is no user probe: it does not belong to this build"),
    }
}
