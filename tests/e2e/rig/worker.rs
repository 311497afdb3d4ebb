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
        let include = if options.cache_rate > 0 {
            "recorder,cache"
        } else {
            "recorder"
        };
        command.args(["-m", "celery", "-A", "app", "worker", "--include", include]);
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
    pub(crate) fn shut_down(mut self) {
        self.process.terminate();
        let status = self.process.wait(Duration::from_secs(20));
        assert!(status.is_some(), "the worker did not end on SIGTERM");
    }
}
