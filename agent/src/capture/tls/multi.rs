//! Links that put one program at many places of a file at once (`BPF_LINK_TYPE_UPROBE_MULTI`, Linux 6.6). What aya attaches goes
//! through a performance event for each place, which takes the kernel a tenth of a second each to let go of, one after the other;
//! these it lets go of together.
//!
//! aya 0.14 loads no programs for them, so the two that are needed are loaded here, from the same object and with the same maps.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use aya::Ebpf;
use aya::maps::Map;
use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_insn, bpf_prog_type};

use crate::capture::{kernel_release, object};

/// The first kernel that has them.
const SINCE: (u32, u32) = (6, 6);
/// `BPF_F_UPROBE_MULTI_RETURN`, include/uapi/linux/bpf.h.
const RETURN: u32 = 1;

/// Does this kernel have them?
pub(in crate::capture) fn supported() -> bool {
    kernel_release::current().is_some_and(|release| release >= SINCE)
}

/// The programs, loaded.
pub(in crate::capture) struct Multi {
    enter: OwnedFd,
    exit: OwnedFd,
}

/// The kernel half's maps, by name: their descriptors, whoever holds them.
pub(in crate::capture) struct Maps(HashMap<String, RawFd>);

impl Maps {
    /// While none is taken out.
    pub(in crate::capture) fn of(ebpf: &Ebpf) -> Self {
        let maps = ebpf.maps();
        Self(
            maps.filter_map(|(name, map)| Some((name.to_owned(), descriptor(map)?)))
                .collect(),
        )
    }
}

/// A place in a file, and what the program there is told of it.
#[derive(Clone, Copy)]
pub(in crate::capture) struct Place {
    pub(in crate::capture) offset: u64,
    pub(in crate::capture) cookie: u64,
}

impl Multi {
    /// `None` on kernels that don't have such links. The maps must still be there.
    ///
    /// # Errors
    /// The object is not as expected, or the kernel refuses a program.
    pub(in crate::capture) fn load(maps: &Maps) -> Result<Option<Self>> {
        if !supported() {
            return Ok(None);
        }
        let mut object = aya_obj::Object::parse(object::BYTES).context("cannot read the BPF object")?;
        let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        let own = std::mem::take(&mut object.maps);
        let known = own
            .iter()
            .filter_map(|(name, map)| Some((name.as_str(), *maps.0.get(name)?, map)));
        object.relocate_maps(known, &sections)?;
        object.relocate_calls(&sections)?;
        Ok(Some(Self {
            enter: load(&object, "ssl_enter")?,
            exit: load(&object, "ssl_return")?,
        }))
    }

    /// Puts the programs at the entry and the return of the functions at these places, for one process.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(in crate::capture) fn attach(&self, path: &Path, places: &[Place], pid: u32) -> Result<[OwnedFd; 2]> {
        let path = CString::new(path.as_os_str().as_bytes()).context("a path with a NUL in it")?;
        let offsets: Vec<u64> = places.iter().map(|place| place.offset).collect();
        let cookies: Vec<u64> = places.iter().map(|place| place.cookie).collect();
        let link = |program: &OwnedFd, flags: u32| -> Result<OwnedFd> {
            // SAFETY: all zeroes is a value of this union of integers.
            let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
            // SAFETY: writes to members of the union, all of which are integers.
            unsafe {
                let link = &mut attributes.link_create;
                link.__bindgen_anon_1.prog_fd = u32::try_from(program.as_raw_fd())?;
                link.attach_type = bpf_attach_type::BPF_TRACE_UPROBE_MULTI as u32;
                let multi = &mut link.__bindgen_anon_3.uprobe_multi;
                multi.path = path.as_ptr() as u64;
                multi.offsets = offsets.as_ptr() as u64;
                multi.cookies = cookies.as_ptr() as u64;
                multi.cnt = u32::try_from(places.len())?;
                multi.flags = flags;
                multi.pid = pid;
            }
            bpf(bpf_cmd::BPF_LINK_CREATE, &attributes).context("cannot attach to a TLS library")
        };
        // The return first: an entry without one would note a call that never ends.
        let exit = link(&self.exit, RETURN)?;
        Ok([exit, link(&self.enter, 0)?])
    }
}

fn load(object: &aya_obj::Object, name: &str) -> Result<OwnedFd> {
    let program = object
        .programs
        .get(name)
        .with_context(|| format!("the BPF object has no program {name}: it does not belong to this build"))?;
    let function = object
        .functions
        .get(&program.function_key())
        .with_context(|| format!("BPF program {name} has no code"))?;
    let instructions: &[bpf_insn] = &function.instructions;
    // SAFETY: as in `attach`.
    let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: as in `attach`.
    unsafe {
        let load = &mut attributes.__bindgen_anon_3;
        load.prog_type = bpf_prog_type::BPF_PROG_TYPE_KPROBE as u32;
        load.expected_attach_type = bpf_attach_type::BPF_TRACE_UPROBE_MULTI as u32;
        load.insns = instructions.as_ptr() as u64;
        load.insn_cnt = u32::try_from(instructions.len())?;
        load.license = object.license.as_ptr() as u64;
        for (to, from) in load.prog_name.iter_mut().zip(name.bytes().take(15)) {
            *to = from.cast_signed();
        }
    }
    bpf(bpf_cmd::BPF_PROG_LOAD, &attributes).with_context(|| format!("the kernel refused BPF program {name}"))
}

/// The system call, for commands that give a descriptor.
fn bpf(command: bpf_cmd, attributes: &bpf_attr) -> Result<OwnedFd> {
    // SAFETY: the attributes are of this size, and what they point to lives until the call returns.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            std::ptr::from_ref(attributes),
            size_of::<bpf_attr>(),
        )
    };
    ensure!(fd >= 0, io::Error::last_os_error());
    let Ok(fd) = RawFd::try_from(fd) else {
        bail!("the kernel gave {fd} for a descriptor");
    };
    // SAFETY: the call gave it to us just now.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The map's, of the kinds that the kernel half uses.
fn descriptor(map: &Map) -> Option<RawFd> {
    match map {
        Map::Array(map)
        | Map::HashMap(map)
        | Map::LruHashMap(map)
        | Map::PerCpuArray(map)
        | Map::PerfEventArray(map)
        | Map::RingBuf(map) => Some(map.fd().as_fd().as_raw_fd()),
        _ => None,
    }
}
