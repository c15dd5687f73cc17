//! The providers of this crate, seen from outside.

#[cfg(target_os = "linux")]
mod file;
mod isolation;
mod memory;
