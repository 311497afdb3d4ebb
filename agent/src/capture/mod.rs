//! Live capture: the kernel half is loaded, attached and told what to watch; its records come out in order, with what
//! the core must know besides (processes, clocks, losses) put in before them.
//!
//! What is `unsafe` in this program is here (the layout of shared values, one descriptor, mappings, two calls of the allocator) and in the kernel half.
//! Process ids are those of the initial pid namespace, which the agent must share.

pub(crate) mod attach;
mod btf;
mod clock;
pub(crate) mod counters;
mod hints;
mod ignored;
mod implied;
mod kernel;
pub(crate) mod kernel_release;
mod layout;
mod live;
mod loaded;
mod mapping;
mod memory;
mod netns;
mod notes;
mod object;
mod options;
pub(crate) mod plan;
mod preemption;
mod privileges;
mod ring;
mod scan;
#[cfg(test)]
mod tests;
mod tls;
pub(crate) mod tracefs;
mod waiter;

pub(crate) use btf::PATH as BTF;
pub(crate) use live::{Live, needs};
pub(crate) use memory::give_back;
pub(crate) use object::{ORIGIN, SHA256};
pub(crate) use options::{LiveOptions, Probes};
pub(crate) use privileges::missing_privileges;
