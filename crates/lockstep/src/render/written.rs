//! Masks the metadata of a Secret. Only metadata that is written in the manifest is shown, because
//! templates can put values into everything else.

use std::collections::BTreeMap;

use lockstep_api::{Template, TemplateTarget, annotation};
use lockstep_core::assemble::DesiredSecret;

/// Start of a template action.
const ACTION: &str = "{{";

/// Stands for a text that a template made. A template chooses its length, so the length is not shown.
const MASK: &str = "●●●●●●●●";

/// Masks a value: shows only its length.
pub(super) fn mask(bytes: usize) -> String {
    let unit = if bytes == 1 { "byte" } else { "bytes" };
    format!("{MASK} ({bytes} {unit})")
}

/// Masks a key: shows only its position.
pub(super) fn mask_key(index: usize) -> String {
    format!("●●●●●●●● (key {} of a template)", index + 1)
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
    // one template with an action can make any key, and overwrite any text
    let is_constant = template.is_none_or(|template| is_constant(template, target));
    let mut masked = BTreeMap::new();
    let mut hidden = 0;
    for (key, text) in texts {
        let by_name = written.and_then(|written| written.get(key));
        let is_own = is_own(key);
        let shown = if is_own || by_name.is_some() || is_constant {
            key.clone()
        } else {
            hidden += 1;
            mask_key(hidden - 1)
        };
        let is_written = is_own || is_constant && by_name.is_none_or(|text| !text.contains(ACTION));
        let text = if is_written { text } else { MASK };
        masked.insert(shown, text.to_owned());
    }
    masked
}

/// Returns the literals of `templateFrom` that make labels, annotations or data.
fn literals(template: &Template, target: TemplateTarget) -> impl Iterator<Item = &str> {
    let all = template.template_from.iter();
    all.filter(move |from| from.target == target)
        .map(|from| from.literal.as_str())
}

/// Whether no literal of `templateFrom` for this target has an action. Then every key is written in the manifest.
pub(super) fn is_constant(template: &Template, target: TemplateTarget) -> bool {
    !literals(template, target).any(|literal| literal.contains(ACTION))
}

/// Whether lockstep itself sets the label or annotation, from names in the manifest.
fn is_own(key: &str) -> bool {
    matches!(key, annotation::MANAGED_BY_LABEL | annotation::OWNER)
}
