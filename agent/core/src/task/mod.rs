//! Tasks over time: publishes, attempts, and how evidence from the broker, the pool and the process table becomes one
//! life each.
//!
//! Invariants: every table has a cap and evicts its oldest; an attempt is put out at most once; ids that were used as a
//! parent never change afterwards.

mod attempt;
mod deliver;
mod engine;
mod events;
mod finish;
mod names;
mod pool;
mod process;
mod publish;
mod tags;
mod timers;

pub(crate) use attempt::{Attempt, Start, State};
pub(crate) use engine::Engine;
