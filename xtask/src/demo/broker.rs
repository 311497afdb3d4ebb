//! The shop's servers: Redis, which keeps results and may carry messages, and RabbitMQ when that is to carry them.
//!
//! All listen on free ports of 127.0.0.1 and keep their data in the demo's own directory.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::{Interrupt, Service, free_port};
use crate::util;

const START_LIMIT: Duration = Duration::from_secs(30);
/// An Erlang node takes a few seconds to start, more on a busy machine.
const RABBITMQ_LIMIT: Duration = Duration::from_secs(90);

/// What carries the shop's messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Broker {
    Redis,
    Rabbitmq,
}

/// The running servers. Dropping it stops them.
pub(super) struct Servers {
    // In the order in which they are stopped.
    rabbitmq: Option<RabbitMq>,
    redis: Redis,
}

impl Servers {
    /// Starts what the broker needs and waits until it answers.
    pub(super) fn start(broker: Broker, dir: &Path, interrupt: &Interrupt) -> Result<Self> {
        let redis = Redis::start(dir, interrupt)?;
        let rabbitmq = match broker {
            Broker::Redis => None,
            Broker::Rabbitmq => Some(RabbitMq::start(dir, interrupt)?),
        };
        Ok(Self { rabbitmq, redis })
    }

    /// Where the shop sends its messages.
    pub(super) fn broker_url(&self) -> String {
        match &self.rabbitmq {
            Some(rabbitmq) => format!("amqp://guest:guest@127.0.0.1:{}//", rabbitmq.port),
            None => self.results_url(),
        }
    }

    /// Where it keeps its results.
    pub(super) fn results_url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.redis.port)
    }

    /// Every port on which Celery talks to them.
    pub(super) fn ports(&self) -> Vec<u16> {
        self.rabbitmq
            .iter()
            .map(|rabbitmq| rabbitmq.port)
            .chain([self.redis.port])
            .collect()
    }
}

struct Redis {
    _server: Service,
    port: u16,
}

impl Redis {
    fn start(dir: &Path, interrupt: &Interrupt) -> Result<Self> {
        let port = free_port()?;
        let program = util::find_program("redis-server").context("redis-server is missing")?;
        util::say("start", format!("redis-server on port {port}"));
        let mut command = Command::new(program);
        command
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no", "--dir"])
            .arg(dir);
        let mut server = Service::start("redis-server", &mut command, dir)?;
        server.wait_ready(interrupt, START_LIMIT, |_| connects(port))?;
        Ok(Self {
            _server: server,
            port,
        })
    }
}

struct RabbitMq {
    // In the order in which they are stopped.
    _node: Service,
    _epmd: Service,
    port: u16,
}

impl RabbitMq {
    /// Starts a node that knows nothing of others on this machine. Erlang's port mapper is started before it, because the
    /// one that a node starts by itself outlives the node.
    fn start(dir: &Path, interrupt: &Interrupt) -> Result<Self> {
        let epmd_port = free_port()?;
        let mut command = Command::new(util::find_program("epmd").context("Erlang's epmd is missing")?);
        command.args(["-port", &epmd_port.to_string(), "-address", "127.0.0.1"]);
        let mut epmd = Service::start("epmd", &mut command, dir)?;
        epmd.wait_ready(interrupt, START_LIMIT, |_| connects(epmd_port))?;

        let port = free_port()?;
        util::say(
            "start",
            format!("rabbitmq-server on port {port} (takes some seconds)"),
        );
        let mut node = Service::start("rabbitmq-server", &mut node_command(dir, port, epmd_port)?, dir)?;
        node.wait_ready(interrupt, RABBITMQ_LIMIT, |node| {
            node.log().contains("Server startup complete") && connects(port)
        })?;
        Ok(Self {
            _node: node,
            _epmd: epmd,
            port,
        })
    }
}

/// The node's own program: the packages' wrapper on `PATH` changes to the user `rabbitmq` and to the system's data.
fn node_command(dir: &Path, port: u16, epmd_port: u16) -> Result<Command> {
    let program = Path::new("/usr/lib/rabbitmq/bin/rabbitmq-server");
    ensure!(program.is_file(), "{} is missing", program.display());
    let own = dir.join("rabbitmq");
    fs::create_dir_all(&own)?;
    for (file, nothing) in [
        ("rabbitmq.conf", ""),
        ("env.conf", ""),
        ("advanced.config", "[].\n"),
        ("enabled_plugins", "[].\n"),
    ] {
        fs::write(own.join(file), nothing)?;
    }
    let mut command = Command::new(program);
    // What the user set for nodes of their own would lead this one to them.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RABBITMQ_") {
            command.env_remove(name);
        }
    }
    command
        .env("HOME", &own)
        .env("ERL_EPMD_PORT", epmd_port.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODENAME", format!("celeryscope-{port}@localhost"))
        .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODE_PORT", port.to_string())
        .env("RABBITMQ_DIST_PORT", free_port()?.to_string())
        .env(
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "-kernel inet_dist_use_interface {127,0,0,1}",
        )
        .env("RABBITMQ_LOGS", "-")
        // With this the script becomes the node instead of watching over it: what is signalled is what runs.
        .env("RABBITMQ_ALLOW_INPUT", "true")
        .env("RABBITMQ_SERVER_START_ARGS", "-noinput");
    for (name, file) in [
        ("RABBITMQ_CONF_ENV_FILE", "env.conf"),
        ("RABBITMQ_CONFIG_FILE", "rabbitmq.conf"),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", "advanced.config"),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", "enabled_plugins"),
        ("RABBITMQ_MNESIA_BASE", "data"),
        ("RABBITMQ_LOG_BASE", "log"),
    ] {
        command.env(name, own.join(file));
    }
    Ok(command)
}

fn connects(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}
