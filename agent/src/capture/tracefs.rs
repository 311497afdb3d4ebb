//! The file system that names tracepoints.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, mount};

const MOUNT_POINT: &str = "/sys/kernel/tracing";
const DEBUGFS: &str = "/sys/kernel/debug/tracing";

/// Where tracefs is mounted, if it is.
#[must_use]
pub(crate) fn find() -> Option<PathBuf> {
    [MOUNT_POINT, DEBUGFS]
        .into_iter()
        .map(PathBuf::from)
        .find(|root| root.join("events").is_dir())
}

/// Mounts tracefs where it belongs unless it is there already.
///
/// # Errors
/// When it is not mounted and may not be.
pub(super) fn ensure() -> Result<PathBuf> {
    if let Some(root) = find() {
        return Ok(root);
    }
    mount("tracefs", MOUNT_POINT, "tracefs", MountFlags::empty(), None).with_context(|| {
        format!(
            "tracefs is not mounted and cannot be: run `mount -t tracefs tracefs {MOUNT_POINT}` on the host"
        )
    })?;
    tracing::info!("mounted tracefs at {MOUNT_POINT}");
    find().with_context(|| format!("tracefs at {MOUNT_POINT} has no events: the kernel lacks CONFIG_TRACING"))
}

/// Offset of a field in an event's context, from the event's `format` file.
pub(super) fn field_offset(tracefs: &Path, event: &str, field: &str) -> Option<usize> {
    let format = std::fs::read_to_string(tracefs.join("events").join(event).join("format")).ok()?;
    parse_offset(&format, field)
}

/// `\tfield:pid_t pid;\toffset:8;\tsize:4;\tsigned:1;`
fn parse_offset(format: &str, field: &str) -> Option<usize> {
    format.lines().find_map(|line| {
        let (declaration, rest) = line.trim().strip_prefix("field:")?.split_once(';')?;
        let name = declaration.rsplit(' ').next()?.split('[').next()?;
        if name != field {
            return None;
        }
        rest.trim()
            .strip_prefix("offset:")?
            .split(';')
            .next()?
            .parse()
            .ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: an event's format file.
    /// Guarantees: plain fields and arrays are found by name; others are not.
    #[test]
    fn offsets_by_name() {
        let format = "name: task_newtask\nID: 205\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
            \tfield:pid_t pid;\toffset:8;\tsize:4;\tsigned:1;\n\tfield:char comm[16];\toffset:12;\tsize:16;\tsigned:0;\n\
            \tfield:unsigned long clone_flags;\toffset:32;\tsize:8;\tsigned:0;\n";
        assert_eq!(parse_offset(format, "pid"), Some(8));
        assert_eq!(parse_offset(format, "comm"), Some(12));
        assert_eq!(parse_offset(format, "clone_flags"), Some(32));
        assert_eq!(parse_offset(format, "flags"), None);
    }
}
