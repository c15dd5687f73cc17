//! The provider against a real OpenBao server, and against servers that misbehave.

mod behaviour;
mod bench;
mod proxy;
