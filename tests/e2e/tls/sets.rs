//! A representative set of tasks over each version of TLS, in each order of starting, on each pool.

use std::time::Duration;

use super::LIMIT;
use crate::on_brokers::on_brokers;
use crate::pools::{self, LATE, PLAIN, STARTED, case};
use crate::rig::loopback::Family;
use crate::rig::{Agent, Broker, Tls, Way};
use crate::variants::{Comes, SET, played, stage};
use crate::{check, variants};

/// Before worker and publisher have opened a connection, and told the ports only: each connection's first bytes say that it is TLS.
fn agent_comes_first(tls: Tls, name: &str, broker: Broker) {
    let Some(scene) = stage(broker, name, "celery57", tls) else {
        return;
    };
    let watch = || Agent::start(scene.folder(), "agent", &scene.ports(), &["--stats"]);
    let set = [SET, &["failures 2"]].concat();
    let left = played(&scene, broker, Comes::First, &set, LIMIT, watch).stop();
    check::all_is_told(&scene, &left, &check::few_runs());
}

/// After them, over ::1, told that TLS is spoken.
fn agent_comes_last(tls: Tls, name: &str, broker: Broker) {
    let way = Way {
        family: Family::V6,
        ..tls.into()
    };
    if let Some(scene) = stage(broker, name, "celery57", way) {
        variants::told_in_full(&scene, broker, Comes::Last, SET, Duration::from_secs(30));
    }
}

/// Scenario: TLS 1.2 with a prefork worker: plain calls, chain, chord, retry, requeue, failures, 1 MiB of arguments, forking clients.
/// The agent is there first and knows the ports only.
/// Guarantees: it recognises TLS by itself; every task is told in full, at the times of the pool's pipes.
fn tls_12(broker: Broker) {
    agent_comes_first(Tls::V12, "tls12", broker);
}
on_brokers!(tls_12: redis, rabbitmq);

/// Scenario: as above with TLS 1.3, where the server's session tickets come amid what the application says.
/// Guarantees: as above.
fn tls_13(broker: Broker) {
    agent_comes_first(Tls::V13, "tls13", broker);
}
on_brokers!(tls_13: redis, rabbitmq);

/// Scenario: TLS 1.2 over ::1; worker and publisher were at work before the agent came, and are idle when it comes.
/// Guarantees: sessions and pool pipes that are older than the agent are found, and every later task is told in full.
fn tls_12_and_agent_comes_last(broker: Broker) {
    agent_comes_last(Tls::V12, "tls12-last", broker);
}
on_brokers!(tls_12_and_agent_comes_last: redis, rabbitmq);

/// Scenario: as above with TLS 1.3.
/// Guarantees: as above.
fn tls_13_and_agent_comes_last(broker: Broker) {
    agent_comes_last(Tls::V13, "tls13-last", broker);
}
on_brokers!(tls_13_and_agent_comes_last: redis, rabbitmq);

/// Scenario: a thread pool over TLS 1.3, with late acks and STARTED results. Several threads of one process write and read
/// at a time, each in its session.
/// Guarantees: as in clear: every task is told in full; starts and ends of paced runs within 5 ms for 95 of 100.
fn threads(broker: Broker) {
    pools::run(
        Tls::V13,
        broker,
        "threads",
        &[case(STARTED, false, Some("result"))],
    );
}
on_brokers!(threads: redis, rabbitmq);

/// Scenario: gevent over TLS 1.3: plain. Its sockets never wait in the kernel: a call that can't go on returns, another greenlet of
/// the same thread runs, and the call is made again. Celery patches `ssl` before anything imports it when `--pool gevent` stands on
/// the command line of `python -m celery`.
/// Guarantees: as with threads.
fn gevent(broker: Broker) {
    pools::run(Tls::V13, broker, "gevent", &[case(PLAIN, false, Some("ack"))]);
}
on_brokers!(gevent: redis, rabbitmq);

/// Scenario: eventlet over TLS 1.3, with late acks and events; patched as for gevent.
/// Guarantees: as with threads.
fn eventlet(broker: Broker) {
    pools::run(Tls::V13, broker, "eventlet", &[case(LATE, true, Some("event"))]);
}
on_brokers!(eventlet: redis);
