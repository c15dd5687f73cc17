//! `lockstep version`: what this binary was built from.

use std::io;

use serde::Serialize;

use crate::{cli::VersionFormat, output, providers};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    version: &'static str,
    commit: Option<&'static str>,
    rust_version: &'static str,
    api_version: String,
    providers: Vec<&'static str>,
}

/// Prints the version, the commit where the build knew it, the compiler's version, the API and the providers.
pub(crate) fn print(format: VersionFormat) -> io::Result<()> {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("LOCKSTEP_COMMIT"),
        rust_version: env!("LOCKSTEP_RUST_VERSION"),
        api_version: format!("{}/{}", lockstep_api::GROUP, lockstep_api::VERSION),
        providers: providers::names(),
    };
    match format {
        VersionFormat::Text => output::print(&format!(
            "lockstep {}\ncommit     {}\nrust       {}\nAPI        {}\nproviders  {}\n",
            version.version,
            version.commit.unwrap_or("unknown"),
            version.rust_version,
            version.api_version,
            version.providers.join(", "),
        )),
        VersionFormat::Json => {
            let json = serde_json::to_string_pretty(&version).map_err(io::Error::other)?;
            output::print(&format!("{json}\n"))
        }
    }
}
