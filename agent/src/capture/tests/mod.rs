//! Live tests: real programs, a real server, the real kernel. They need root and run only with `CELERYSCOPE_LIVE=1`;
//! without it each says that it was skipped.

#[path = "../../../../tests/support/bpf.rs"]
#[allow(unreachable_pub, reason = "the live tests use it too")]
mod bpf;
mod calls;
mod idle;
mod leftovers;
mod lifetime;
mod limits;
mod locked;
mod pipes;
mod rig;
mod tls;
