//! Clients of other kinds than one long-lived process with one thread.

use std::time::Duration;

use super::{LIMIT, publishes, told_in_full};
use crate::check;
use crate::on_brokers::on_brokers;
use crate::rig::process::Process;
use crate::rig::worker::Options;
use crate::rig::{Agent, Broker, Scene, Tls, Worker};
use crate::support::compare::Expect;

/// Scenario: a client of four threads that publish at the same time.
/// Guarantees: every publish is told once, by the thread that made it.
fn several_threads(broker: Broker) {
    if let Some(scene) = Scene::set_over(Tls::V13, broker, "threaded", "celery57") {
        told_in_full(&scene, publishes(&["threaded 4 10", "threaded 4 10"]));
    }
}
on_brokers!(several_threads: redis, rabbitmq);

/// How many clients come and go, and how many of them at a time.
const CLIENTS: usize = 18;
const AT_ONCE: usize = 3;

/// Scenario: after the agent came, one new process after the other loads OpenSSL, publishes one task at once and ends.
/// Guarantees: not one of the publishes is missed, though there was no process to prepare for.
fn short_lived(broker: Broker) {
    let Some(scene) = Scene::set_over(Tls::V13, broker, "short-lived", "celery57") else {
        return;
    };
    told_in_full(&scene, |scene| {
        for round in 0..CLIENTS / AT_ONCE {
            let start = |n| {
                let mut command = scene.python();
                command.args(["-m", "once"]);
                Process::spawn(&format!("client{round}-{n}"), &command, scene.folder(), None)
            };
            for client in (0..AT_ONCE).map(start).collect::<Vec<_>>() {
                ended_well(client);
            }
        }
        assert_eq!(scene.truth().published_ids().len(), CLIENTS);
    });
}
on_brokers!(short_lived: redis, rabbitmq);

/// Scenario: a client that was never seen before connects with redis.asyncio, which leaves OpenSSL memory in the place of the socket, and
/// half a second later sends hand-made messages: small ones and one of 200 kB, by one version of TLS after the other.
/// Guarantees: its publishes are told, and in full but for the broker's address, which nothing ties to the session; the runs that
/// follow are told in full.
#[test]
fn asyncio() {
    for tls in [Tls::V12, Tls::V13] {
        let Some(scene) = Scene::set_over(tls, Broker::Redis, "asyncio", "celery57") else {
            return;
        };
        let agent = Agent::watch(&scene, "agent");
        let worker = Worker::start(&scene, "w1", &Options::default());
        let mut command = scene.python();
        command.args(["-m", "by_asyncio", "10", "200000"]);
        ended_well(Process::spawn("asyncio", &command, scene.folder(), None));
        scene.settle(LIMIT);
        drop(worker);
        let expect = Expect {
            broker_known: false,
            ..check::few_runs()
        };
        check::all_is_told(&scene, &agent.stop(), &expect);
        assert_eq!(scene.truth().published_ids().len(), 11);
    }
}

fn ended_well(mut client: Process) {
    let status = client.wait(Duration::from_secs(30));
    assert!(
        status.is_some_and(|status| status.success()),
        "a client's end: {status:?}: {}",
        client.log()
    );
}

/// Scenario: arguments of 1 MiB and of 10 MiB: more than one call takes, and on RabbitMQ many frames in many calls.
/// Guarantees: what is not copied is a gap of known length; every task is told in full.
fn large_arguments(broker: Broker) {
    if let Some(scene) = Scene::set_over(Tls::V13, broker, "large", "celery57") {
        let set = ["large 1", "simple 2", "large 10", "chained", "large 1"];
        told_in_full(&scene, publishes(&set));
    }
}
on_brokers!(large_arguments: redis, rabbitmq);
