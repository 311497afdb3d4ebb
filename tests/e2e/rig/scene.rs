//! One test's stage: a temporary folder, a Python environment, a broker, and the truth that gathers there.

use std::cell::{RefCell, RefMut};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::broker::{Broker, Servers};
use super::hosts::Host;
use super::loopback::Family;
use super::patience::patient;
use super::process::GLANCE;
use super::rabbitmq::RabbitMq;
use super::redis::Redis;
use super::tls::Identity;
use super::truth::TruthLog;
use super::way::Way;
use crate::support::truth::Truth;
use crate::venv;

/// The stage. Live tests share two processors, so only one stage exists at a time.
#[derive(Debug)]
pub(crate) struct Scene {
    // Dropped in this order: the servers first, the folder's removal is last.
    servers: Servers,
    environment: PathBuf,
    /// Another Python than the environment's own.
    python: Option<PathBuf>,
    name: String,
    truth: RefCell<TruthLog>,
    settings: Map<String, Value>,
    host: Option<Host>,
    folder: Folder,
    _alone: MutexGuard<'static, ()>,
}

/// A temporary folder; kept, and named on stderr, when the test fails.
#[derive(Debug)]
struct Folder(PathBuf);

impl Scene {
    /// A stage with the named environment and a Redis, reached over 127.0.0.1; `None`, with a line that says why, when
    /// live tests are not asked for.
    pub(crate) fn set(name: &str, environment: &str) -> Option<Self> {
        Self::set_on(Broker::Redis, name, environment)
    }

    /// The same with another broker.
    pub(crate) fn set_on(broker: Broker, name: &str, environment: &str) -> Option<Self> {
        Self::set_over(Family::V4, broker, name, environment)
    }

    /// The same over a loopback address, a version of TLS, or both.
    pub(crate) fn set_over(
        way: impl Into<Way>,
        broker: Broker,
        name: &str,
        environment: &str,
    ) -> Option<Self> {
        let alone = live(name)?;
        venv::ensure(&[environment]).unwrap_or_else(|e| panic!("{e:#}"));
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = format!(
            "{}-{name}-{}-{}",
            broker.name(),
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let folder = Folder(std::env::temp_dir().join("celeryscope-e2e").join(&unique));
        std::fs::create_dir_all(folder.0.join("truth")).expect("a temporary folder");
        let environment = venv::path(environment).unwrap_or_else(|e| panic!("{e:#}"));
        let servers = Servers::start(broker, way.into(), &folder.0);
        let settings = servers.identity().map(|identity| identity.settings(broker));
        Some(Self {
            settings: settings.map_or_else(Map::new, object),
            servers,
            environment,
            python: None,
            name: unique,
            truth: RefCell::new(TruthLog::new(&folder.0.join("truth"))),
            host: None,
            folder,
            _alone: alone,
        })
    }

    /// Unique among all tests that run on this machine.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The same with settings of the application, a JSON object with Celery's names, for every program started later.
    pub(crate) fn with_settings(mut self, settings: &str) -> Self {
        self.settings.extend(parsed(settings));
        self
    }

    /// The stage as it was at first, but for the servers and their data, with these settings: what was played on it is over.
    pub(crate) fn clear(&mut self, settings: &str) {
        let own = self
            .servers
            .identity()
            .map(|identity| identity.settings(self.broker()));
        self.settings = own.map_or_else(Map::new, object);
        self.settings.extend(parsed(settings));
        self.truth().forget_tasks();
    }

    /// The same with another Python for every program started later.
    pub(crate) fn with_python(mut self, python: &Path) -> Self {
        self.python = Some(python.to_owned());
        self
    }

    /// The same with another Redis in place of its own.
    pub(crate) fn with_redis(mut self, redis: Redis) -> Self {
        self.servers.redis = Some(redis);
        self
    }

    /// Every program started later is started there.
    pub(crate) fn go_to(&mut self, host: &Host) {
        self.host = Some(host.clone());
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder.0
    }

    pub(crate) fn broker(&self) -> Broker {
        self.servers.broker()
    }

    pub(crate) fn redis(&self) -> &Redis {
        self.servers.redis.as_ref().expect("a stage with Redis")
    }

    /// What its servers show to clients, where they speak TLS.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.servers.identity()
    }

    pub(crate) fn servers(&mut self) -> &mut Servers {
        &mut self.servers
    }

    pub(crate) fn rabbitmq(&mut self) -> &mut RabbitMq {
        self.servers.rabbitmq.as_mut().expect("a stage with RabbitMQ")
    }

    /// The broker's.
    pub(crate) fn port(&self) -> u16 {
        self.ports()[0]
    }

    /// The broker's and, where it is another one, the result backend's: what an agent is told to watch.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.servers.ports()
    }

    /// The environment's Python with the workload on its path, told where broker, backend and truth are.
    pub(crate) fn python(&self) -> Command {
        match &self.python {
            Some(python) => self.python_at(python),
            None => self.python_at(&self.environment.join("bin/python")),
        }
    }

    /// Another Python with the environment's packages, told the same.
    pub(crate) fn python_at(&self, program: &Path) -> Command {
        let mut python = match &self.host {
            Some(host) => host.command(program),
            None => Command::new(program),
        };
        let (broker, backend) = self.servers.urls();
        let mut path = workload().into_os_string();
        if !program.starts_with(&self.environment) {
            path.push(":");
            path.push(packages(&self.environment));
        }
        python
            .current_dir(self.folder())
            .env("PYTHONPATH", path)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONWARNINGS", "ignore")
            // A worker that takes pickle refuses to run as root, which these tests need to be.
            .env("C_FORCE_ROOT", "1")
            .env("WORKLOAD_BROKER", broker)
            .env("WORKLOAD_BACKEND", backend)
            .env(
                "WORKLOAD_CONFIG",
                Value::Object(self.settings.clone()).to_string(),
            )
            .env("WORKLOAD_TRUTH_DIR", self.folder().join("truth"));
        python
    }

    /// The truth so far.
    pub(crate) fn truth(&self) -> RefMut<'_, TruthLog> {
        let mut truth = self.truth.borrow_mut();
        truth.refresh();
        truth
    }

    /// Waits until every message that was sent has been dealt with for good, and the agent's slower evidence is in.
    pub(crate) fn settle(&self, limit: Duration) {
        let limit = patient(limit);
        let deadline = Instant::now() + limit;
        loop {
            let unsettled = self.truth().unsettled();
            if unsettled.is_empty() {
                break;
            }
            let some: Vec<_> = unsettled.iter().take(5).collect();
            assert!(
                Instant::now() < deadline,
                "{} messages not dealt with in {limit:?}: {some:?}",
                unsettled.len()
            );
            std::thread::sleep(GLANCE * 10);
        }
        // The last run's READY, ack and result follow its postrun by some milliseconds.
        std::thread::sleep(patient(Duration::from_millis(300)));
    }

    /// The whole truth, also left in the folder.
    pub(crate) fn whole_truth(&self) -> Truth {
        let joined = self.truth().joined(&self.name, self.broker());
        let path = self.folder().join("truth.json");
        std::fs::write(&path, format!("{joined:#}")).expect("truth.json");
        let mut truth = Truth::load(&path);
        truth.broker_port = Some(self.port());
        truth
    }
}

/// Where an environment keeps what was installed into it.
pub(crate) fn packages(environment: &Path) -> PathBuf {
    let versions = std::fs::read_dir(environment.join("lib")).expect("an environment's lib");
    let version = versions.flatten().next().expect("a version of Python in it");
    version.path().join("site-packages")
}

fn parsed(settings: &str) -> Map<String, Value> {
    object(serde_json::from_str(settings).unwrap_or_else(|e| panic!("{e}: {settings}")))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("settings are a JSON object, not {other}"),
    }
}

/// The right to run a live test, or nothing and a line on stderr.
pub(crate) fn live(name: &str) -> Option<MutexGuard<'static, ()>> {
    static ALONE: Mutex<()> = Mutex::new(());
    if std::env::var_os("CELERYSCOPE_LIVE").is_none_or(|v| v != "1") {
        super::report::say(&format!(
            "{name}: skipped: needs CELERYSCOPE_LIVE=1 (root, BPF, Redis, RabbitMQ, Python)"
        ));
        return None;
    }
    Some(ALONE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The folder of the watched application.
pub(crate) fn workload() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/workload")
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            super::report::say(&format!("kept for a look: {}", self.0.display()));
        } else {
            // A folder that stays behind under the system's temporary folder harms nobody.
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
