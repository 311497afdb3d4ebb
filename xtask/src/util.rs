//! What every command needs: where things are, how a step is announced, how a program is run.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The repository's root: the parent of this package's directory.
pub(crate) fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// Where downloads and virtual environments are kept between runs: `$CELERYSCOPE_CACHE`, else
/// `$XDG_CACHE_HOME/celeryscope`, else `~/.cache/celeryscope`.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    let set = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(dir) = set("CELERYSCOPE_CACHE") {
        return Ok(dir);
    }
    set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .map(|dir| dir.join("celeryscope"))
        .context("no cache directory: set CELERYSCOPE_CACHE, XDG_CACHE_HOME or HOME")
}

/// Announces what is being done, in one line: a short word, then the detail.
pub(crate) fn say(word: &str, detail: impl std::fmt::Display) {
    println!("{word:>10}  {detail}");
}

/// The cargo that runs this command.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs a program to its end, its output shown. Fails when it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let status = command
        .status()
        .with_context(|| format!("cannot start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

/// Runs a program to its end with its standard output handed on line by line, and gives the lines that `keep` picks.
pub(crate) fn run_and_keep(command: &mut Command, keep: impl Fn(&str) -> bool) -> (Vec<String>, Result<()>) {
    let mut kept = Vec::new();
    let result = (|| {
        let shown = shown(command);
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{shown}`"))?;
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).split(b'\n') {
                let line = line?;
                let line = String::from_utf8_lossy(&line);
                println!("{line}");
                if keep(&line) {
                    kept.push(line.trim_end().to_owned());
                }
            }
        }
        let status = child.wait()?;
        if !status.success() {
            bail!("`{shown}` failed ({status})");
        }
        Ok(())
    })();
    (kept, result)
}

/// The standard output of a program that is expected to succeed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let out = command
        .output()
        .with_context(|| format!("cannot start `{shown}`"))?;
    if !out.status.success() {
        bail!(
            "`{shown}` failed ({}): {}",
            out.status,
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// An executable that cargo built.
pub(crate) struct Executable {
    /// The name of its target.
    pub(crate) target: String,
    /// What its target is: `bin`, `test`, `bench`, …
    pub(crate) kind: String,
    /// Whether it runs the target's tests (or benches) instead of the target itself.
    pub(crate) is_test: bool,
    /// Where it is.
    pub(crate) path: PathBuf,
}

/// Builds with cargo, progress shown, and gives the executables that were built or were there already.
pub(crate) fn build_executables(arguments: &[&str]) -> Result<Vec<Executable>> {
    let mut command = cargo();
    command
        .args(arguments)
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit());
    let out = output(&mut command)?;
    let messages = out
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let executable = |message: serde_json::Value| {
        Some(Executable {
            target: message.pointer("/target/name")?.as_str()?.to_owned(),
            kind: message.pointer("/target/kind/0")?.as_str()?.to_owned(),
            is_test: message.pointer("/profile/test")?.as_bool()?,
            path: message.get("executable")?.as_str()?.into(),
        })
    };
    Ok(messages.filter_map(executable).collect())
}

/// Where a program is on `PATH` or in one of the places that root's `PATH` has and others' lacks.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}
