//! The `file` provider: values in files below a folder that the operator was started with.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Values in files: for local use, and for what a CSI driver mounts. ClusterSecretStore only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileProvider {
    /// Folder, or YAML or JSON document, relative to the operator's `--file-root`. In a folder each file is one remote
    /// value and its path below the folder is the key; in a document each top-level field is one. No `..`; links must
    /// stay below that folder. Default: the root itself.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub path: String,
}
