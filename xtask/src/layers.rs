//! `cargo xtask layers`: the direction of dependencies, checked.
//!
//! Two rules of ARCHITECTURE.md that the compiler does not enforce: the core is a pure state machine, so no runtime,
//! no kernel interface and no exporter is among its dependencies; and in it a module imports only from those below it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::util;

/// What the core must not depend on, directly or not: a prefix of the package's name each.
const FORBIDDEN_IN_CORE: &[&str] = &[
    "async-",
    "aya",
    "futures",
    "hyper",
    "libc",
    "log",
    "mio",
    "nix",
    "opentelemetry",
    "reqwest",
    "rustix",
    "tokio",
    "tonic",
    "tracing",
];

/// The core's modules from the bottom up. A module may import from its own line and from those before it. A submodule
/// that is listed (`span::build`) stands apart from its parent.
const ORDER: &[&[&str]] = &[
    &["metric"],
    &["time", "text", "limits", "stats", "held", "bounded"],
    &["stream", "detect"],
    &["wire"],
    // What a span is; how one is made of a task's life is higher up.
    &["span"],
    &["celery"],
    &["broker"],
    &["connection"],
    &["task", "span::build"],
    &["pipeline"],
];

/// Plain types of the public interface that every layer speaks of, wherever they are defined.
const VOCABULARY: &[&str] = &["Config", "Output", "Verdict"];

/// Checks both rules.
///
/// # Errors
/// Every violation, one a line.
pub(crate) fn run() -> Result<()> {
    let mut violations = forbidden_dependencies(&dependencies("celeryscope-core")?);
    let source = util::root().join("agent/core/src");
    for file in rust_files(&source)? {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let file = file.strip_prefix(&source).unwrap_or(&file);
        violations.extend(upward_imports(file, &text));
    }
    if !violations.is_empty() {
        bail!("the layers are broken:\n  {}", violations.join("\n  "));
    }
    util::say(
        "layers",
        "the core depends on nothing it must not, and imports point downwards",
    );
    Ok(())
}

/// Names of all packages that `package` is built from, without those of its tests and benches.
fn dependencies(package: &str) -> Result<Vec<String>> {
    let mut command = util::cargo();
    command.args([
        "tree",
        "--package",
        package,
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]);
    let tree = util::output(&mut command)?;
    Ok(tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect())
}

fn forbidden_dependencies(names: &[String]) -> Vec<String> {
    let forbidden = |name: &String| FORBIDDEN_IN_CORE.iter().any(|prefix| name.starts_with(prefix));
    names
        .iter()
        .filter(|name| forbidden(name))
        .map(|name| format!("celeryscope-core depends on {name}"))
        .collect()
}

/// What `text`, the file at `path` below the core's `src`, imports from a higher layer.
fn upward_imports(path: &Path, text: &str) -> Vec<String> {
    let own: Vec<&str> = path
        .iter()
        .filter_map(|part| Path::new(part).file_stem()?.to_str())
        .collect();
    // The map of the crate may see everything.
    if own == ["lib"] {
        return Vec::new();
    }
    let Some((own_rank, own)) = place(&own) else {
        return vec![format!(
            "{}: this module has no place in xtask's list of layers",
            path.display()
        )];
    };
    let mut violations = Vec::new();
    for (number, line) in text.lines().enumerate() {
        // Tests come last in a file and may use whatever shows their point.
        if line.trim() == "#[cfg(test)]" {
            break;
        }
        if line.trim_start().starts_with("//") {
            continue;
        }
        for import in line.split("crate::").skip(1) {
            let names: Vec<&str> = import.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            let names: Vec<&str> = names.into_iter().filter(|name| !name.is_empty()).collect();
            let spoken_of = names.get(1..).unwrap_or_default();
            if !spoken_of.is_empty() && spoken_of.iter().all(|name| VOCABULARY.contains(name)) {
                continue;
            }
            if let Some((_, imported)) = place(&names).filter(|(rank, _)| *rank > own_rank) {
                violations.push(format!(
                    "{}:{}: `{own}` imports `{imported}`",
                    path.display(),
                    number + 1
                ));
            }
        }
    }
    violations
}

/// The line of [`ORDER`] that a path of names belongs to, and the module that puts it there.
fn place(names: &[&str]) -> Option<(usize, String)> {
    let find = |module: String| {
        Some((
            ORDER.iter().position(|layer| layer.contains(&module.as_str()))?,
            module,
        ))
    };
    let [first, rest @ ..] = names else { return None };
    rest.first()
        .and_then(|second| find(format!("{first}::{second}")))
        .or_else(|| find((*first).to_owned()))
}

fn rust_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a wire module imports a span type, and a broker module imports a wire type.
    /// Guarantees: only the first is refused, with file and line.
    #[test]
    fn upward_import_is_refused() {
        let violations = upward_imports(
            Path::new("wire/resp.rs"),
            "use std::fmt;\nuse crate::span::Span;\n",
        );
        assert_eq!(violations, ["wire/resp.rs:2: `wire` imports `span`"]);
        assert_eq!(
            upward_imports(Path::new("broker/redis.rs"), "use crate::wire::Reader;\n"),
            [""; 0]
        );
    }

    /// Scenario: Celery's layer imports an id from `span`, and the builder of spans.
    /// Guarantees: a listed submodule has a place of its own, above its parent's.
    #[test]
    fn submodule_stands_apart() {
        let text = "use crate::span::SpanId;\nuse crate::span::build::run;\n";
        assert_eq!(
            upward_imports(Path::new("celery/mod.rs"), text),
            ["celery/mod.rs:2: `celery` imports `span::build`"]
        );
        assert_eq!(
            upward_imports(Path::new("span/build.rs"), "use crate::task::Attempt;"),
            [""; 0]
        );
        assert_eq!(
            upward_imports(Path::new("span/model.rs"), "use crate::task::Attempt;").len(),
            1
        );
    }

    /// Scenario: a low layer imports the pipeline's public types, and with them the pipeline.
    /// Guarantees: the types alone are let through.
    #[test]
    fn vocabulary_is_let_through() {
        let lines = [
            "use crate::pipeline::{Config, Output};",
            "use crate::pipeline::{Output, Pipeline};",
        ];
        assert_eq!(
            lines.map(|line| upward_imports(Path::new("task/mod.rs"), line).len()),
            [0, 1]
        );
    }

    /// Scenario: an upward import in a comment, in a test module, and in a path inside an expression.
    /// Guarantees: only the code that is compiled into the core counts, wherever in a line it stands.
    #[test]
    fn comments_and_tests_do_not_count() {
        let text =
            "// crate::span\nlet x = crate::task::f();\n#[cfg(test)]\nmod tests { use crate::span::Span; }\n";
        assert_eq!(
            upward_imports(Path::new("celery/mod.rs"), text),
            ["celery/mod.rs:2: `celery` imports `task`"]
        );
    }

    /// Scenario: a new module that nobody put into the list of layers.
    /// Guarantees: it is refused, so that the list stays whole.
    #[test]
    fn unknown_module_is_refused() {
        assert_eq!(upward_imports(Path::new("magic.rs"), "").len(), 1);
    }

    /// Scenario: a list of packages with tokio's and harmless ones.
    /// Guarantees: what starts with a forbidden name is refused, the rest not.
    #[test]
    fn forbidden_dependency_is_named() {
        let names = ["serde", "tokio-util", "memchr"].map(str::to_owned);
        assert_eq!(
            forbidden_dependencies(&names),
            ["celeryscope-core depends on tokio-util"]
        );
    }
}
