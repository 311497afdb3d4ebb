//! Wire formats: bytes in, messages out.
//!
//! Every decoder here is resumable (input may be cut at any byte), owns no socket and no clock, and treats what it
//! reads as hostile: no panic, no allocation by a length it was merely told, every cap in [`crate::Limits`].
//! What a message means is not known here but in the broker layer.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        reason = "tests may panic; what they test is checked when it is built without them"
    )
)]

pub mod amqp;
pub mod pool;
pub mod resp;
