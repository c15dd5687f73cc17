//! Label selectors.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// LabelSelector has the meaning of a Kubernetes label selector: all
/// requirements must match.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// matchLabels maps names of labels to the values they must have. If empty, it
    /// matches everything.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// matchExpressions is a list of further requirements, which must all match. At
    /// most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub match_expressions: Vec<LabelSelectorRequirement>,
}

/// Each requirement compares one label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelectorRequirement {
    /// key is the name of the label.
    pub key: String,
    /// operator is how the label is compared.
    ///
    /// - `In`: its value is one of values.
    /// - `NotIn`: it is absent, or its value is none of values.
    /// - `Exists`: it is present.
    /// - `DoesNotExist`: it is absent.
    pub operator: LabelSelectorOperator,
    /// values is the list of values for `In` and `NotIn`. Ignored for `Exists` and
    /// `DoesNotExist`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// LabelSelectorOperator is how a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LabelSelectorOperator {
    /// Its value is one of `values`.
    In,
    /// It is absent, or its value is none of `values`.
    NotIn,
    /// It is present.
    Exists,
    /// It is absent.
    DoesNotExist,
}
