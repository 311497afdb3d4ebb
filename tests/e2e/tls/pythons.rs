//! Other builds of Python than the one that the environments are made with: each brings its own `_ssl`, perhaps its own OpenSSL, and
//! those before 3.10 call other functions of it.
//!
//! They take their packages from an environment, which is possible since all that they need of it is pure Python.

use std::env::var_os;
use std::path::{Path, PathBuf};

use super::{publishes, told_in_full};
use crate::rig::report::say;
use crate::rig::{Broker, Scene, Tls};

/// The system's own, whichever stands first on the PATH.
const SYSTEMS: &str = "/usr/bin/python3";

const SET: &[&str] = &["simple 3", "chained", "retries", "large 1", "paced 5"];

/// Prints version and prefix, where everything is there that a worker needs.
const PROBE: &str = "\
import ctypes, ssl, sys
import redis
from celery.worker.consumer import Consumer
from kombu.utils.imports import symbol_by_name
all(map(symbol_by_name, Consumer.Blueprint.default_steps))
print(*sys.version_info[:3], sys.base_prefix)";

/// A Python that can run Celery from the packages of a stage.
#[derive(Debug)]
struct Python {
    program: PathBuf,
    version: [u32; 3],
    prefix: String,
}

impl Python {
    /// `None` where it isn't there, or lacks something.
    fn at(program: &Path, scene: &Scene) -> Option<Self> {
        let output = scene
            .python_at(program)
            .args(["-c", PROBE])
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        let said = String::from_utf8(output.stdout).ok()?;
        let mut words = said.trim().splitn(4, ' ');
        let mut number = || words.next()?.parse().ok();
        Some(Self {
            version: [number()?, number()?, number()?],
            prefix: words.next()?.to_owned(),
            program: program.to_owned(),
        })
    }
}

/// All that can be found but the one that the stage's environment was made with, the oldest first.
fn others(scene: &Scene) -> Vec<Python> {
    let pyenv = var_os("PYENV_ROOT").map(PathBuf::from);
    let pyenv = pyenv.or_else(|| Some(PathBuf::from(var_os("HOME")?).join(".pyenv")));
    let versions = pyenv.and_then(|root| std::fs::read_dir(root.join("versions")).ok());
    let built = versions.into_iter().flatten().flatten();
    let programs = built.map(|entry| entry.path().join("bin/python3"));
    let own = Python::at(scene.python().get_program().as_ref(), scene).expect("the environment's Python");
    let mut found: Vec<Python> = programs
        .chain([PathBuf::from(SYSTEMS)])
        .filter_map(|program| Python::at(&program, scene))
        .filter(|python| python.prefix != own.prefix)
        .collect();
    found.sort_by_key(|python| python.version);
    found
}

/// Plays the set with worker and publisher on this Python.
fn play(scene: Scene, python: &Python) {
    let [major, minor, patch] = python.version;
    say(&format!("Python {major}.{minor}.{patch} of {}", python.prefix));
    told_in_full(&scene.with_python(&python.program), publishes(SET));
}

/// Scenario: worker and publisher on the system's Python, on the oldest and on the newest that is found beside it; environments are
/// made with the one that stands first on the PATH, which the other tests use.
/// Guarantees: every task is told in full, whoever built the interpreter.
#[test]
fn other_builds() {
    let set = || Scene::set_over(Tls::V13, Broker::Redis, "builds", "celery57");
    let Some(scene) = set() else { return };
    let mut found = others(&scene);
    drop(scene);
    if found.is_empty() {
        say("builds: skipped: no Python on this host but the one of the environments");
    }
    let systems = found
        .iter()
        .position(|python| python.program == Path::new(SYSTEMS));
    let mut chosen: Vec<Python> = systems.map(|at| found.remove(at)).into_iter().collect();
    chosen.extend(found.pop());
    chosen.extend(found.into_iter().next());
    for python in &chosen {
        if let Some(scene) = set() {
            play(scene, python);
        }
    }
}

/// Scenario: a Python before 3.10, with Celery 4.4: it calls `SSL_read` and `SSL_write`, which tell lengths in another way than what
/// came after them.
/// Guarantees: every task is told in full.
#[test]
fn before_310() {
    let Some(scene) = Scene::set_over(Tls::V13, Broker::Redis, "before-310", "celery44") else {
        return;
    };
    let found = others(&scene)
        .into_iter()
        .rfind(|python| python.version < [3, 10, 0]);
    match found {
        Some(python) => play(scene, &python),
        None => say("before-310: skipped: no Python before 3.10 on this host"),
    }
}
