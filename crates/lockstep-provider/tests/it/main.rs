//! Tests the providers of this crate and the layers around them from outside.

#![expect(clippy::unwrap_used, reason = "what a helper cannot do fails the test")]

mod credentials;
#[cfg(target_os = "linux")]
mod file;
mod isolation;
mod memory;
