//! Runs the behaviour suite for the file provider, as a folder of files and as a YAML document. The
//! modules below test what is specific to it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod document;
mod folder;
mod grants;
mod setup;
mod store;
mod suite;
mod watch;
