//! How much longer than on a usual machine things may take: `CELERYSCOPE_PATIENCE`, a factor, for emulated machines.
//!
//! Every limit of the rig goes through [`patient`], those on waiting and those on how exact times must be. What is told of a task
//! is held to the same whatever the factor.

use std::sync::OnceLock;
use std::time::Duration;

/// `limit`, as long as it is on this machine.
///
/// # Panics
/// The variable holds no number from 1 on.
pub(crate) fn patient(limit: Duration) -> Duration {
    static FACTOR: OnceLock<f64> = OnceLock::new();
    let factor = *FACTOR.get_or_init(|| {
        let Ok(value) = std::env::var("CELERYSCOPE_PATIENCE") else {
            return 1.0;
        };
        let factor = value.parse().ok().filter(|factor| (1.0..1000.0).contains(factor));
        factor.unwrap_or_else(|| panic!("CELERYSCOPE_PATIENCE is no factor from 1 to 1000: {value:?}"))
    });
    limit.mul_f64(factor)
}
