//! A RabbitMQ node of one test's own: free ports, loopback only, its own Erlang port mapper, nothing on disk that outlives it.
//!
//! The port mapper is started first and in the foreground, since the node would else start one that outlives it. Erlang's
//! helper processes lead sessions of their own; they end when their node's pipe to them closes, however it ended.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::erlang::Shortcuts;
use super::loopback::{Family, answers, free_port};
use super::process::{Process, wait_for};
use super::tls::{Identity, Tls};

/// Debian's script that runs the server as who calls it; the one on the PATH changes to a user of its own.
const DEBIANS: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// What a client of AMQP 0-9-1 says first, and how the frame of `connection.start` begins.
const HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";
const METHOD_ON_CHANNEL_0: &[u8] = &[1, 0, 0];

/// A node on 127.0.0.1 and, where the host has IPv6, on ::1.
#[derive(Debug)]
pub(crate) struct RabbitMq {
    // None while it is stopped. Dropped before what it needs.
    node: Option<Process>,
    _port_mapper: Process,
    port: u16,
    identity: Option<Identity>,
    command: Command,
    folder: PathBuf,
}

impl RabbitMq {
    /// Starts it and waits until it answers; with an identity it speaks TLS only.
    pub(crate) fn start(folder: &Path, identity: Option<&Identity>) -> Self {
        let [port, distribution, mapper] = [free_port(), free_port(), free_port()];
        let data = folder.join(format!("rabbitmq-{port}"));
        std::fs::create_dir_all(&data).expect("a folder for RabbitMQ");
        let protocol = identity.map_or("tcp", |_| "ssl");
        let mut settings = format!("listeners.{protocol}.1 = 127.0.0.1:{port}\n");
        if Family::V6.is_there() {
            settings += &format!("listeners.{protocol}.2 = ::1:{port}\n");
        }
        settings += &identity.map(tls_settings).unwrap_or_default();
        settings += "log.console = true\nlog.console.level = warning\nlog.file = false\n";
        std::fs::write(data.join("rabbitmq.conf"), settings).expect("RabbitMQ's settings");
        std::fs::write(data.join("plugins"), "[].\n").expect("RabbitMQ's plug-ins");

        let mut epmd = Command::new("epmd");
        epmd.args(["-address", "127.0.0.1", "-port", &mapper.to_string()]);
        let port_mapper = Process::spawn(&format!("epmd-{mapper}"), &epmd, folder, None);
        let program = Path::new(DEBIANS);
        let program = if program.exists() {
            program
        } else {
            Path::new("rabbitmq-server")
        };
        let mut command = Command::new(program);
        command
            // Where the cookie goes.
            .env("HOME", &data)
            .env("ERL_EPMD_PORT", mapper.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODENAME", format!("celeryscope-{port}@localhost"))
            .env("RABBITMQ_DIST_PORT", distribution.to_string())
            .env("RABBITMQ_CONFIG_FILE", data.join("rabbitmq"));
        let mut arguments = "-kernel inet_dist_use_interface {127,0,0,1}".to_owned();
        if let Some(shortcuts) = Shortcuts::make(&data) {
            command.env("RABBITMQ_PLUGINS_DIR", &shortcuts.plugins);
            arguments += &format!(" -pa {}", shortcuts.modules.display());
        }
        command.env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", arguments);
        for (variable, file) in [
            ("RABBITMQ_MNESIA_BASE", "data"),
            ("RABBITMQ_LOG_BASE", "log"),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", "plugins"),
            ("RABBITMQ_GENERATED_CONFIG_DIR", "generated"),
            // These are not there: the host's own must not be read.
            ("RABBITMQ_CONF_ENV_FILE", "environment"),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", "advanced.config"),
        ] {
            command.env(variable, data.join(file));
        }
        let mut server = Self {
            node: None,
            _port_mapper: port_mapper,
            port,
            identity: identity.cloned(),
            command,
            folder: folder.to_owned(),
        };
        server.start_again();
        server
    }

    /// Starts it with the data that it left.
    pub(crate) fn start_again(&mut self) {
        let name = format!("rabbitmq-{}", self.port);
        let node = self
            .node
            .insert(Process::spawn(&name, &self.command, &self.folder, None));
        wait_for("an answer of rabbitmq-server", Duration::from_secs(60), || {
            assert!(node.ended().is_none(), "RabbitMQ ended at once: {}", node.log());
            answers(self.port, self.identity.as_ref(), HEADER, METHOD_ON_CHANNEL_0).ok()
        });
    }

    /// Tells it to end, and waits until it has put its data in order.
    pub(crate) fn stop(&mut self) {
        let mut node = self.node.take().expect("a node that runs");
        node.terminate();
        let status = node.wait(Duration::from_secs(30));
        assert!(status.is_some(), "RabbitMQ did not end: {}", node.log());
    }

    /// Ends it as the kernel does when memory is short, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        let mut node = self.node.take().expect("a node that runs");
        node.signal("KILL");
        let status = node.wait(Duration::from_secs(10));
        assert!(status.is_some(), "RabbitMQ outlived SIGKILL");
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self, family: Family) -> String {
        let scheme = self.identity.as_ref().map_or("amqp", |_| "amqps");
        format!("{scheme}://{}:{}//", family.host(), self.port)
    }
}

/// Lines of RabbitMQ's settings that put TLS in the place of plain connections.
fn tls_settings(identity: &Identity) -> String {
    let version = match identity.tls {
        Tls::V12 => "tlsv1.2",
        Tls::V13 => "tlsv1.3",
    };
    format!(
        "listeners.tcp = none\n\
         ssl_options.cacertfile = {}\n\
         ssl_options.certfile = {}\n\
         ssl_options.keyfile = {}\n\
         ssl_options.verify = verify_none\n\
         ssl_options.fail_if_no_peer_cert = false\n\
         ssl_options.versions.1 = {version}\n",
        identity.authority.display(),
        identity.certificate.display(),
        identity.key.display(),
    )
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        // Its data goes with the test: no need to wait until it has put them in order.
        if let Some(node) = &self.node {
            node.signal("KILL");
        }
    }
}
