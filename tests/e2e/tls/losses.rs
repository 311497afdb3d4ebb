//! Connections that end in the middle.

use crate::faults::killed;
use crate::on_brokers::on_brokers;
use crate::rig::{Broker, Tls};

/// Scenario: SIGKILL to the broker while a client publishes 400 tasks a second and a worker runs them: every session is reset in
/// mid-stream. It comes back on its port, and others connect.
/// Guarantees: as in clear: the agent goes on; tasks from before that and from after it are told in full, those in the midst of it
/// don't mislead it.
fn broker_is_killed(broker: Broker) {
    killed::broker_over(Tls::V13, broker);
}
on_brokers!(broker_is_killed: redis, rabbitmq);

/// Scenario: SIGKILL to a worker's main process while a client publishes 400 tasks a second; another takes over.
/// Guarantees: as in clear: one publish each, one run for each attempt.
fn worker_is_killed(broker: Broker) {
    killed::worker_over(Tls::V13, broker);
}
on_brokers!(worker_is_killed: redis, rabbitmq);
