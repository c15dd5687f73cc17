//! Masks the metadata of a Secret. Only metadata that is written in the manifest is shown, because
//! templates can put values into everything else.

use std::collections::BTreeMap;

use lockstep_api::{Template, TemplateTarget, annotation};
use lockstep_core::assemble::DesiredSecret;

/// Start of a template action.
const ACTION: &str = "{{";

/// Represents a text that a template made. The template decides its length, so the length is not
/// shown.
pub(super) const MASK: &str = "●●●●●●●●";

/// Stands for all keys of a map that templates make. Templates choose their number, so it is shown
/// even if there are none.
pub(super) const TEMPLATED_KEYS: &str = "●●●●●●●● (keys made by templates)";

/// Masks a value: shows only its length.
pub(super) fn mask(bytes: usize) -> String {
    let unit = if bytes == 1 { "byte" } else { "bytes" };
    format!("{MASK} ({bytes} {unit})")
}

/// Returns the Secret with the labels and annotations masked that templates made.
pub(super) fn masked(secret: &DesiredSecret, template: Option<&Template>) -> DesiredSecret {
    let metadata = template.and_then(|template| template.metadata.as_ref());
    let mask = |texts, target, written| masked_texts(texts, written, template, target);
    DesiredSecret {
        labels: mask(
            &secret.labels,
            TemplateTarget::Labels,
            metadata.map(|metadata| &metadata.labels),
        ),
        annotations: mask(
            &secret.annotations,
            TemplateTarget::Annotations,
            metadata.map(|metadata| &metadata.annotations),
        ),
        ..secret.clone()
    }
}

fn masked_texts(
    texts: &BTreeMap<String, String>,
    written: Option<&BTreeMap<String, String>>,
    template: Option<&Template>,
    target: TemplateTarget,
) -> BTreeMap<String, String> {
    let makes_keys = makes_keys(template, target);
    let mut masked = BTreeMap::new();
    if makes_keys {
        masked.insert(TEMPLATED_KEYS.to_owned(), MASK.to_owned());
    }
    for (key, text) in texts {
        let by_name = written.and_then(|written| written.get(key));
        let is_own = is_own(key);
        if makes_keys && !is_own && by_name.is_none() {
            continue;
        }
        let is_written = is_own || !makes_keys && by_name.is_none_or(|text| !text.contains(ACTION));
        let text = if is_written { text } else { MASK };
        masked.insert(key.clone(), text.to_owned());
    }
    masked
}

/// Whether a literal of `templateFrom` for this target has an action. Such a literal can make any
/// key and overwrite any text.
pub(super) fn makes_keys(template: Option<&Template>, target: TemplateTarget) -> bool {
    let all = template.into_iter().flat_map(|template| &template.template_from);
    all.filter(|from| from.target == target)
        .any(|from| from.literal.contains(ACTION))
}

/// Whether lockstep itself sets the label or annotation, from names in the manifest.
fn is_own(key: &str) -> bool {
    matches!(key, annotation::MANAGED_BY_LABEL | annotation::OWNER)
}
