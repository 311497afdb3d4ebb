//! Container and pod ids out of /proc/PID/cgroup, as docker, containerd, CRI-O and podman lay their cgroups out.

/// The container's id: the last run of exactly 64 hex digits in any cgroup's path.
pub(super) fn id(cgroup: &str) -> Option<String> {
    paths(cgroup)
        .flat_map(|path| path.rsplit('/'))
        // Podman's and CRI-O's monitors live beside the container.
        .filter(|component| !component.contains("conmon"))
        .find_map(|component| {
            component
                .split(|c: char| !c.is_ascii_hexdigit())
                .find(|run| run.len() == 64)
                .map(str::to_owned)
        })
}

/// The pod's uid: a path component `…pod<uid>…`; the systemd driver writes its dashes as underscores, static pods have
/// 32 hex digits without any.
pub(super) fn pod_uid(cgroup: &str) -> Option<String> {
    paths(cgroup)
        .flat_map(|path| path.split('/'))
        .find_map(|component| {
            let (_, rest) = component.rsplit_once("pod")?;
            let uid = rest.strip_suffix(".slice").unwrap_or(rest).replace('_', "-");
            let hex = |text: &str| text.chars().all(|c| c.is_ascii_hexdigit());
            let parts: Vec<_> = uid.split('-').map(str::len).collect();
            let fits = parts == [8, 4, 4, 4, 12] || parts == [32];
            (fits && hex(&uid.replace('-', ""))).then_some(uid)
        })
}

/// The third field of each line; it may hold colons itself.
fn paths(cgroup: &str) -> impl Iterator<Item = &str> {
    cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: cgroup files of the common runtimes, versions 1 and 2, both cgroup drivers.
    /// Guarantees: container id and pod uid are found where there are any, and nowhere else.
    #[test]
    fn ids_of_runtimes() {
        let hex = "0123456789abcdef".repeat(4);
        let uid = "1b2c3d4e-0000-4111-8222-333344445555";
        let under = uid.replace('-', "_");
        for (text, container, pod) in [
            (format!("0::/system.slice/docker-{hex}.scope"), true, false),
            (
                format!("12:cpu,cpuacct:/docker/{hex}\n1:name=systemd:/docker/{hex}\n0::/"),
                true,
                false,
            ),
            (format!("0::/kubepods/besteffort/pod{uid}/{hex}"), true, true),
            (
                format!(
                    "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice/cri-containerd-{hex}.scope"
                ),
                true,
                true,
            ),
            (
                format!("0::/kubepods.slice/kubepods-pod{under}.slice/crio-{hex}.scope/container"),
                true,
                true,
            ),
            (
                format!("0::/machine.slice/libpod-{hex}.scope/container"),
                true,
                false,
            ),
            (
                format!("0::/machine.slice/libpod-conmon-{hex}.scope"),
                false,
                false,
            ),
            (
                "0::/user.slice/user-1000.slice/session-2.scope".to_owned(),
                false,
                false,
            ),
            (format!("0::/system.slice/podman-{hex}0.service"), false, false),
            (String::new(), false, false),
        ] {
            assert_eq!(id(&text), container.then(|| hex.clone()), "{text}");
            assert_eq!(pod_uid(&text), pod.then(|| uid.to_owned()), "{text}");
        }
    }
}
