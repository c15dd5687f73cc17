//! The `file` provider: values in files below a folder that the operator is started with.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// FileProvider reads values from files, for local use and for volumes that a
/// CSI driver mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileProvider {
    /// path is a folder, or a YAML or JSON document, relative to the operator's
    /// `--file-root`. In a folder, each file is one remote value, and its path
    /// below the folder is the key. In a document, each top-level field is one
    /// remote value. `..` and links that leave the folder are an error. Defaults to
    /// the root itself. At most 1024 characters.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub path: String,
}
