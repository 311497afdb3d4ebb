//! Brokers that speak TLS: what Celery says within `rediss://` and `amqps://` is told like what it says in clear.
//!
//! Certificates are made for each test and checked by the clients. The agent has two ways to learn that a port speaks TLS: it is told
//! (`--tls-port`), or it sees how a connection begins.

mod bystanders;
mod clients;
mod losses;
mod pythons;
mod rig_check;
mod secrets;
mod sets;

use std::time::Duration;

use crate::check;
use crate::rig::worker::Options;
use crate::rig::{Agent, Publisher, Scene, Worker};

const LIMIT: Duration = Duration::from_secs(40);

/// A worker and an agent that was there before it, told where TLS is spoken; then whatever `clients` does, and every span compared.
fn told_in_full(scene: &Scene, clients: impl FnOnce(&Scene)) {
    let agent = Agent::watch(scene, "agent");
    let worker = Worker::start(scene, "w1", &Options::default());
    clients(scene);
    scene.settle(LIMIT);
    drop(worker);
    check::all_is_told(scene, &agent.stop(), &check::few_runs());
}

/// A publisher that is told these scenarios.
fn publishes(scenarios: &[&str]) -> impl FnOnce(&Scene) {
    move |scene| {
        let mut publisher = Publisher::start_watched(scene, "publisher");
        for scenario in scenarios {
            publisher.publish(scenario);
        }
    }
}
