//! The public functions of the core, as tables and properties.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test ends with a panic that names the case"
)]

use lockstep_core::remote::Location;

/// The location with that text.
fn at(text: impl AsRef<str>) -> Location {
    Location::new(text.as_ref()).unwrap()
}

mod ciphertext;
mod ciphertext_pipeline;
mod decode;
mod events;
mod forecast;
mod history;
mod lease;
mod locations;
mod property;
mod reconcile;
mod rewrite;
mod rollback;
mod rollout;
mod rotation;
mod secret_write;
mod template_against_go;
mod template_errors;
mod template_functions;
mod template_limits;
mod versions;
mod workload;
