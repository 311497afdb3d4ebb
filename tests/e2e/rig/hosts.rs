//! Two hosts joined by a cable, as far as the network goes: two network namespaces with a veth pair between them.
//!
//! They go with the guard, whatever became of the test; the kernel keeps a namespace until its last process has ended.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

/// One of two hosts.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    name: String,
    address: Ipv4Addr,
}

/// Both, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Hosts {
    pub(crate) worker: Host,
    pub(crate) publisher: Host,
}

impl Host {
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// `program`, to be started on this host.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }
}

impl Hosts {
    /// Makes them, with loopback and the cable up.
    ///
    /// # Panics
    /// `ip` is not there, or may not.
    pub(crate) fn set() -> Self {
        let host = |role: &str, number| Host {
            name: format!("celeryscope-{role}-{}", std::process::id()),
            address: Ipv4Addr::new(10, 201, 77, number),
        };
        // The guard is there before the first of them, so that half of the work is undone as well.
        let hosts = Self {
            worker: host("w", 1),
            publisher: host("p", 2),
        };
        let (w, p) = (&hosts.worker, &hosts.publisher);
        ip(&["netns", "add", &w.name]);
        ip(&["netns", "add", &p.name]);
        // Made inside: the names are in use nowhere else.
        ip(&[
            "link", "add", "cable", "netns", &w.name, "type", "veth", "peer", "name", "cable", "netns",
            &p.name,
        ]);
        for host in [w, p] {
            let address = format!("{}/24", host.address);
            ip(&["-n", &host.name, "address", "add", &address, "dev", "cable"]);
            for device in ["lo", "cable"] {
                ip(&["-n", &host.name, "link", "set", device, "up"]);
            }
        }
        hosts
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in [&self.worker, &self.publisher] {
            // One that was never made is no matter.
            let _ = Command::new("ip")
                .args(["netns", "del", &host.name])
                .stderr(Stdio::null())
                .status();
        }
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output();
    let output = output.unwrap_or_else(|e| panic!("cannot start ip (package iproute2): {e}"));
    assert!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}
