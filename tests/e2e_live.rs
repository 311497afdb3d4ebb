//! End to end: real brokers, real Celery, real probes; spans compared with what Celery's own signals said.
//!
//! Needs root, BPF, `redis-server`, `rabbitmq-server` and Python; runs when `CELERYSCOPE_LIVE=1`, else every test says that it was
//! skipped. Tests run one at a time, whatever the number of test threads: they measure times on few processors.

#[path = "e2e/backends/mod.rs"]
mod backends;
#[path = "e2e/cache.rs"]
mod cache;
#[path = "e2e/check.rs"]
mod check;
#[path = "e2e/collector.rs"]
mod collector;
#[path = "e2e/faults/mod.rs"]
mod faults;
#[path = "e2e/flood.rs"]
mod flood;
#[path = "e2e/forms.rs"]
mod forms;
#[path = "e2e/hostile.rs"]
mod hostile;
#[path = "e2e/hosts.rs"]
mod hosts;
#[path = "e2e/idle.rs"]
mod idle;
#[path = "e2e/load.rs"]
mod load;
#[path = "e2e/metrics.rs"]
mod metrics;
#[path = "e2e/on_brokers.rs"]
mod on_brokers;
#[path = "e2e/outcomes.rs"]
mod outcomes;
#[path = "e2e/pools.rs"]
mod pools;
#[path = "e2e/privileges.rs"]
mod privileges;
#[path = "e2e/rabbitmq.rs"]
mod rabbitmq;
#[path = "e2e/recordings.rs"]
mod recordings;
#[path = "e2e/rig/mod.rs"]
mod rig;
#[path = "e2e/rubbish.rs"]
mod rubbish;
#[path = "e2e/scenarios.rs"]
mod scenarios;
#[path = "e2e/self_check.rs"]
mod self_check;
#[path = "e2e/tls/mod.rs"]
mod tls;
#[path = "e2e/traced.rs"]
mod traced;
#[path = "e2e/variants.rs"]
mod variants;
#[path = "../xtask/src/venv.rs"]
mod venv;
#[path = "e2e/workflows.rs"]
mod workflows;

/// What live and replayed tests share: the truth's form, and the comparison; and what the agent's own tests use too.
#[allow(dead_code, unreachable_pub, reason = "each test program uses its part")]
mod support {
    pub mod bpf;
    pub mod compare;
    pub mod truth;
}
