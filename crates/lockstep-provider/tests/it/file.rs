//! The file provider passes the behaviour suite: as a folder of files and as a YAML document. What is its own is tested
//! in the modules below.

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
