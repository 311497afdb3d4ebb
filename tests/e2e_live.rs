//! End to end: real Redis, real Celery, real probes; spans compared with what Celery's own signals said.
//!
//! Needs root, BPF, `redis-server` and Python; runs when `CELERYSCOPE_LIVE=1`, else every test says that it was
//! skipped. Tests run one at a time, whatever the number of test threads: they measure times on few processors.

#[path = "e2e/rig/mod.rs"]
mod rig;
#[path = "e2e/self_check.rs"]
mod self_check;
#[path = "../xtask/src/venv.rs"]
mod venv;

/// What live and replayed tests share: the truth's form, and the comparison.
mod support {
    pub mod truth;
}
