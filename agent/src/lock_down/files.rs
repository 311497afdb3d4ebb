//! What outputs may open, by Landlock (Linux 5.13).

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreated, RulesetCreatedAttr as _, RulesetError, Scope, path_beneath_rules,
};

/// Said where there is none.
pub(super) const NONE: &str = "the kernel has no Landlock";

/// The newest that this was tried with.
const NEWEST: ABI = ABI::V6;

/// What names are resolved by, whom certificates are trusted from, and what is told of the agent's own process. Folders, because
/// files such as resolv.conf are exchanged while the agent runs. What /proc says of others, no output may ask: it holds no
/// capability, and Landlock bars processes that are not under it.
const READ: [&str; 5] = ["/etc", "/usr", "/lib", "/lib64", "/proc"];
/// Where certificates are, instead.
const CERTIFICATES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// In words, for the log; None where this kernel has none.
pub(super) fn describe() -> Option<&'static str> {
    let has = |abi| rules(CompatLevel::HardRequirement, abi).is_ok();
    if has(NEWEST) {
        Some("Landlock")
    } else {
        has(ABI::V1).then_some("what there is of Landlock")
    }
}

/// From now on this thread, and those that it starts, write to no file that is not open already, execute nothing, listen
/// nowhere, signal nobody, and read only what an output needs. As much of this as the kernel knows.
///
/// # Errors
/// The kernel has Landlock and refuses.
pub(super) fn confine() -> Result<()> {
    let restrict = || -> Result<(), RulesetError> {
        rules(CompatLevel::BestEffort, NEWEST)?
            .add_rules(path_beneath_rules(
                readable(),
                AccessFs::ReadFile | AccessFs::ReadDir,
            ))?
            .restrict_self()
            .map(drop)
    };
    restrict().context("can't lock down: the kernel refuses Landlock's rules")
}

/// All that can be forbidden is.
fn rules(level: CompatLevel, abi: ABI) -> Result<RulesetCreated, RulesetError> {
    let mut rules = Ruleset::default()
        .set_compatibility(level)
        .handle_access(AccessFs::from_all(abi))?;
    // Kinds that came later; to ask for none of a kind is an error.
    let (net, scope) = (
        AccessNet::from_all(abi) & AccessNet::BindTcp,
        Scope::from_all(abi),
    );
    if !net.is_empty() {
        rules = rules.handle_access(net)?;
    }
    if !scope.is_empty() {
        rules = rules.scope(scope)?;
    }
    rules.create()
}

/// Those that are there.
fn readable() -> Vec<PathBuf> {
    let resolver = fs::canonicalize("/etc/resolv.conf").ok();
    let resolver = resolver.and_then(|file| Some(file.parent()?.to_owned()));
    let certificates = CERTIFICATES.into_iter().filter_map(std::env::var_os);
    READ.into_iter()
        .map(PathBuf::from)
        .chain(certificates.map(PathBuf::from))
        .chain(resolver)
        .filter(|path| path.exists())
        .collect()
}
