//! Which back end it is to be: the first that this kernel takes.

use anyhow::{Result, bail};

use super::attach::{self, State};
use super::kernel::Kernel;
use super::options::{LiveOptions, Probes};
use super::plan::Backend;
use super::ring::Ring;
use super::tls::UserProbes;

/// The kernel half, running.
pub(super) struct Loaded {
    pub(super) kernel: Kernel,
    pub(super) user_probes: UserProbes,
    pub(super) ring: Ring,
    pub(super) backend: Backend,
    pub(super) hooks: Vec<State>,
    pub(super) passed_over: Vec<(Backend, String)>,
}

impl Loaded {
    /// By the back end that is asked for, or the best that the kernel allows.
    ///
    /// # Errors
    /// Why it, or each of them, can't be had.
    pub(super) fn best(options: &LiveOptions) -> Result<Self> {
        let wanted = match options.probes {
            Probes::Auto => &Backend::ALL[..],
            Probes::Fentry => &[Backend::Fentry],
            Probes::Kprobe => &[Backend::Kprobe],
            Probes::Tracepoint => &[Backend::Tracepoint],
        };
        let mut passed_over: Vec<(Backend, String)> = Vec::new();
        for backend in wanted.iter().copied() {
            let load = || {
                attach::precheck(backend)?;
                Kernel::load(backend, options)
            };
            match load() {
                Ok((kernel, user_probes, ring, hooks)) => {
                    return Ok(Self {
                        kernel,
                        user_probes,
                        ring,
                        backend,
                        hooks,
                        passed_over,
                    });
                }
                Err(error) => {
                    tracing::info!("back end {} cannot be used: {error:#}", backend.name());
                    passed_over.push((backend, format!("{error:#}")));
                }
            }
        }
        let reasons = passed_over
            .iter()
            .map(|(backend, reason)| format!("back end {} cannot be used: {reason}", backend.name()));
        bail!("{}", reasons.collect::<Vec<_>>().join("; "))
    }
}
