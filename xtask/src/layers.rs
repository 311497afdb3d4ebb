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

/// The core's modules from the bottom up. A module may import from an earlier line, not from its own line or a later one.
const ORDER: &[&[&str]] = &[
    &["time", "limits", "stats"],
    &["wire"],
    &["stream"],
    &["broker"],
    &["celery"],
    &["task"],
    &["span"],
    &["pipeline"],
];

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

/// What `text`, the file at `path` below the core's `src`, imports from its own or a higher layer.
fn upward_imports(path: &Path, text: &str) -> Vec<String> {
    let Some(own) = path
        .iter()
        .next()
        .and_then(|first| Path::new(first).file_stem()?.to_str())
    else {
        return Vec::new();
    };
    // The map of the crate may see everything.
    if own == "lib" {
        return Vec::new();
    }
    let Some(own_rank) = rank(own) else {
        return vec![format!(
            "{}: module `{own}` has no place in xtask's list of layers",
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
        for imported in line.split("crate::").skip(1) {
            let name: String = imported
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            if name != own && rank(&name).is_some_and(|rank| rank >= own_rank) {
                violations.push(format!(
                    "{}:{}: `{own}` imports `{name}`",
                    path.display(),
                    number + 1
                ));
            }
        }
    }
    violations
}

fn rank(module: &str) -> Option<usize> {
    ORDER.iter().position(|layer| layer.contains(&module))
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

    /// Scenario: a wire module imports a span type, and a span module imports a wire type.
    /// Guarantees: only the first is refused, with file and line.
    #[test]
    fn upward_import_is_refused() {
        let violations = upward_imports(
            Path::new("wire/resp.rs"),
            "use std::fmt;\nuse crate::span::Span;\n",
        );
        assert_eq!(violations, ["wire/resp.rs:2: `wire` imports `span`"]);
        assert_eq!(
            upward_imports(Path::new("span/build.rs"), "use crate::wire::Reader;\n"),
            [""; 0]
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
