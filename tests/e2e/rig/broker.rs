//! What carries the tasks of a test, and what their results.

use std::path::Path;

use super::rabbitmq::RabbitMq;
use super::redis::{Guard, Redis};
use super::tls::Identity;
use super::way::Way;

/// Broker and result backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broker {
    /// Redis is both.
    Redis,
    /// Results go to Redis.
    RabbitMq,
    /// `rpc://`: results are messages to whoever asked.
    RabbitMqRpc,
    /// `disabled://`: nothing ever says how a task ended.
    RabbitMqWithoutResults,
}

impl Broker {
    /// Part of the names of tests and folders.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::RabbitMq => "rabbitmq",
            Self::RabbitMqRpc => "rabbitmq-rpc",
            Self::RabbitMqWithoutResults => "rabbitmq-without-results",
        }
    }

    /// As the truth names the broker, and the backend.
    pub(crate) fn in_truth(self) -> (&'static str, &'static str) {
        match self {
            Self::Redis => ("redis", "redis"),
            Self::RabbitMq => ("rabbitmq", "redis"),
            Self::RabbitMqRpc => ("rabbitmq", "rpc"),
            Self::RabbitMqWithoutResults => ("rabbitmq", "none"),
        }
    }

    /// Those of the workload's scenarios that work there: a client that waits needs results; a chord needs results that any
    /// worker can read, which those sent to the client are not; and a connection of AMQP can't be shared by forks.
    pub(crate) fn possible<'a>(self, scenarios: &[&'a str]) -> impl Iterator<Item = &'a str> {
        scenarios
            .iter()
            .copied()
            .filter(move |scenario| self.can(scenario))
    }

    fn can(self, scenario: &str) -> bool {
        let scenario = scenario.split(' ').next().unwrap_or(scenario);
        let waits = ["paced", "losses"].contains(&scenario);
        let joins = [
            "chorded",
            "group_then_task",
            "chords",
            "replacing",
            "deepening",
            "mixed",
        ];
        (self.has_results() || !waits)
            && (self.joins() || !joins.contains(&scenario))
            && (self == Self::Redis || scenario != "forking")
    }

    /// Whether results are stored where anybody can read them.
    pub(crate) fn joins(self) -> bool {
        matches!(self, Self::Redis | Self::RabbitMq)
    }

    /// Whether anything tells how a task ended.
    pub(crate) fn has_results(self) -> bool {
        self != Self::RabbitMqWithoutResults
    }
}

/// The servers of a [`Broker`].
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) rabbitmq: Option<RabbitMq>,
    pub(crate) redis: Option<Redis>,
    broker: Broker,
    way: Way,
    /// Where they speak TLS.
    identity: Option<Identity>,
}

impl Servers {
    /// Starts them and waits until they answer.
    pub(crate) fn start(broker: Broker, way: Way, folder: &Path) -> Self {
        let identity = way.tls.map(|tls| Identity::make(tls, folder));
        let guard = Guard {
            identity: identity.clone(),
            password: way.password,
        };
        Self {
            rabbitmq: (broker != Broker::Redis).then(|| RabbitMq::start(folder, identity.as_ref())),
            redis: broker.joins().then(|| Redis::start(folder, guard)),
            broker,
            way,
            identity,
        }
    }

    pub(crate) fn broker(&self) -> Broker {
        self.broker
    }

    /// The broker's port, then the result backend's where it is another one.
    pub(crate) fn ports(&self) -> Vec<u16> {
        let rabbitmq = self.rabbitmq.iter().map(RabbitMq::port);
        rabbitmq.chain(self.redis.iter().map(Redis::port)).collect()
    }

    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Kills the one that carries the tasks.
    pub(crate) fn kill_broker(&mut self) {
        match (&mut self.rabbitmq, &mut self.redis) {
            (Some(rabbitmq), _) => rabbitmq.kill(),
            (None, redis) => redis.iter_mut().for_each(Redis::kill),
        }
    }

    /// Starts that one again, on its port.
    pub(crate) fn start_broker_again(&mut self) {
        match (&mut self.rabbitmq, &mut self.redis) {
            (Some(rabbitmq), _) => rabbitmq.start_again(),
            (None, redis) => redis.iter_mut().for_each(Redis::start_again),
        }
    }

    /// URLs of broker and backend.
    pub(crate) fn urls(&self) -> (String, String) {
        let family = self.way.family;
        let redis = self.redis.as_ref().map(|redis| redis.url(family));
        let broker = self.rabbitmq.as_ref().map(|rabbitmq| rabbitmq.url(family));
        let backend = match self.broker {
            Broker::RabbitMqRpc => Some("rpc://".to_owned()),
            Broker::RabbitMqWithoutResults => Some("disabled://".to_owned()),
            Broker::Redis | Broker::RabbitMq => redis.clone(),
        };
        let url = |url: Option<String>| url.expect("every broker has its server");
        (url(broker.or(redis)), url(backend))
    }
}
