//! `lockstep version`: prints what this binary was built from.

use std::io;

use serde::Serialize;

use crate::{cli::VersionFormat, output, providers};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Build {
    version: &'static str,
    commit: Option<&'static str>,
    rust_version: &'static str,
    api_version: String,
    providers: Vec<&'static str>,
}

/// Prints the version, the commit if the build knew it, the Rust version, the API version and the
/// providers.
pub(crate) fn print(format: VersionFormat) -> io::Result<()> {
    let build = Build {
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("LOCKSTEP_COMMIT"),
        rust_version: env!("LOCKSTEP_RUST_VERSION"),
        api_version: format!("{}/{}", lockstep_api::GROUP, lockstep_api::VERSION),
        providers: providers::names(),
    };
    match format {
        VersionFormat::Text => output::print(&format!(
            "lockstep {}\ncommit     {}\nrust       {}\nAPI        {}\nproviders  {}\n",
            build.version,
            build.commit.unwrap_or("unknown"),
            build.rust_version,
            build.api_version,
            build.providers.join(", "),
        )),
        VersionFormat::Json => {
            let json = serde_json::to_string_pretty(&build).map_err(io::Error::other)?;
            output::print_json(&format!("{json}\n"))
        }
    }
}
