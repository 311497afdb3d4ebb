//! Which Linux this is.

/// The first with BPF ring buffers: nothing older can work.
const OLDEST: (u32, u32) = (5, 8);

/// What to do, where this version is too old.
#[must_use]
pub(crate) fn too_old(version: (u32, u32)) -> Option<String> {
    let (major, minor) = OLDEST;
    (version < OLDEST)
        .then(|| format!("BPF ring buffers need Linux {major}.{minor} or later: upgrade the host"))
}

/// Major and minor version of the running kernel, where its release begins with them.
#[must_use]
pub(crate) fn current() -> Option<(u32, u32)> {
    parse(rustix::system::uname().release().to_str().ok()?)
}

/// `6.1.0-28-amd64`
#[must_use]
pub(crate) fn parse(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: releases of distributions, and none.
    /// Guarantees: the first two numbers, or nothing.
    #[test]
    fn releases() {
        assert_eq!(parse("5.10.0-28-amd64"), Some((5, 10)));
        assert_eq!(parse("6.18.44"), Some((6, 18)));
        assert_eq!(parse("5.7-rc1"), Some((5, 7)));
        assert_eq!(parse("next"), None);
    }
}
