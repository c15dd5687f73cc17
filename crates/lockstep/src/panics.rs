//! Reports the location of a panic but not its payload, which could contain a secret value.

use std::panic;

use crate::output;

/// Replaces the default hook, which prints the payload.
pub(crate) fn install_hook() {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        if tracing::dispatcher::has_been_set() {
            tracing::error!(%place, "panic: this is a bug in lockstep, please report it");
        } else {
            output::print_error(&format!(
                "error: panic at {place}: this is a bug in lockstep, please report it"
            ));
        }
    }));
}
