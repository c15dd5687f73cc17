//! The providers of this crate, seen from outside.

mod memory;
