//! Live tests: real programs, a real server, the real kernel. They need root and run only with `CELERYSCOPE_LIVE=1`;
//! without it each says that it was skipped.

mod calls;
mod cost;
mod lifetime;
mod limits;
mod pipes;
mod rig;
