//! A Celery worker: `celery worker` on the watched application, with the recorder loaded beside it.

use std::time::Duration;

use super::process::{Process, wait_for};
use super::scene::Scene;

/// How to start a worker; the default is what `celery -A app worker -c 2` gives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// Publish task events.
    pub(crate) events: bool,
    /// Commands a second of a cache inside each pool child; 0 for none.
    pub(crate) cache_rate: u32,
    /// The module to start instead of `app`.
    pub(crate) app: Option<&'static str>,
    /// More modules to load, besides the recorder.
    pub(crate) include: Vec<&'static str>,
    /// More words on the command line.
    pub(crate) arguments: Vec<&'static str>,
}

/// A running worker.
#[derive(Debug)]
pub(crate) struct Worker {
    process: Process,
}

impl Worker {
    /// Starts it and waits until it consumes.
    pub(crate) fn start(scene: &Scene, name: &str, options: &Options) -> Self {
        let mut command = scene.python();
        // One option with a comma: a second --include would take the first one's place.
        let mut include = vec!["recorder"];
        include.extend(&options.include);
        if options.cache_rate > 0 {
            include.push("cache");
        }
        command.args(["-m", "celery", "-A", options.app.unwrap_or("app"), "worker"]);
        command.args(["--include", &include.join(",")]);
        // A host part that no other test uses, so that workers of several tests never answer each other.
        command.args([
            "-n",
            &format!("{name}@{}", scene.name()),
            "-c",
            "2",
            "-l",
            "WARNING",
        ]);
        if options.events {
            command.arg("-E");
        }
        if options.cache_rate > 0 {
            command.env("WORKLOAD_CACHE_RATE", options.cache_rate.to_string());
        }
        command.args(&options.arguments);
        let process = Process::spawn(name, &command, scene.folder(), None);
        let mut worker = Self { process };
        wait_for("a worker that is ready", Duration::from_secs(30), || {
            assert!(
                worker.process.ended().is_none(),
                "the worker ended at once: {}",
                worker.process.log()
            );
            scene.truth().is_ready(worker.pid()).then_some(())
        });
        worker
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Warm shutdown: running tasks end, the others go back to the broker.
    pub(crate) fn shut_down(self) {
        self.end("TERM");
    }

    /// Sends the main process a signal; pool children that outlive it go on until this is dropped.
    pub(crate) fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    /// Whether the main process is gone.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.ended().is_some()
    }

    /// Sends the main process a signal that ends it, and waits until it has.
    pub(crate) fn end(mut self, signal: &str) {
        self.process.signal(signal);
        let status = self.process.wait(Duration::from_secs(20));
        assert!(status.is_some(), "the worker did not end on SIG{signal}");
    }
}
