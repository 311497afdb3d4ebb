//! What the live tests are made of: brokers, workers, publishers, the agent, and the truth.
//!
//! Every part owns its processes and its files under one temporary folder and ends them when it is dropped. Nothing
//! here knows what a right span is: that is `support/compare.rs`.

pub(crate) mod agent;
pub(crate) mod broker;
pub(crate) mod collector;
pub(crate) mod erlang;
pub(crate) mod hosts;
pub(crate) mod loopback;
pub(crate) mod openssl;
pub(crate) mod patience;
pub(crate) mod process;
pub(crate) mod publisher;
pub(crate) mod rabbitmq;
pub(crate) mod redis;
pub(crate) mod report;
pub(crate) mod scene;
pub(crate) mod secret;
pub(crate) mod spans;
pub(crate) mod tls;
pub(crate) mod truth;
pub(crate) mod way;
pub(crate) mod worker;

pub(crate) use agent::Agent;
pub(crate) use broker::Broker;
pub(crate) use publisher::Publisher;
pub(crate) use scene::Scene;
pub(crate) use tls::Tls;
pub(crate) use way::Way;
pub(crate) use worker::Worker;
