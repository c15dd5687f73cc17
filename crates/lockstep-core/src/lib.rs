//! The decisions of lockstep, as pure functions: no I/O, no clock, no client.

pub mod remote;
pub mod template;
pub mod time;
