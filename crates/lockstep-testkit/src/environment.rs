//! The only place in this crate that reads environment variables.

use std::{env, ffi::OsString, path::PathBuf};

use anyhow::{Context as _, Result};

/// The folder with prebuilt control plane binaries (`etcd`, `kube-apiserver`, …), as in
/// controller-runtime's tests.
pub const ASSETS: &str = "KUBEBUILDER_ASSETS";
/// The `lockstep` binary that end-to-end tests run, instead of the one next to the tests.
pub const BINARY: &str = "LOCKSTEP_BIN";
/// If set, the folders of servers that tests started are kept, with their logs.
pub const KEEP: &str = "LOCKSTEP_TEST_KEEP";

/// Returns the value of an environment variable, or `None` if it is not set or empty.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place of the test harness that reads the environment"
)]
pub(crate) fn get(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// Returns the folder where tools are kept between runs and between clones: `lockstep/tools` in the
/// user's cache folder.
///
/// # Errors
/// When neither `XDG_CACHE_HOME` nor `HOME` is set.
pub fn tool_cache() -> Result<PathBuf> {
    let cache = match get("XDG_CACHE_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(get("HOME").context("set HOME or XDG_CACHE_HOME: tools are kept there")?)
            .join(".cache"),
    };
    Ok(cache.join("lockstep").join("tools"))
}
