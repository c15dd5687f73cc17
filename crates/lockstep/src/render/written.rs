//! Masks the metadata of a Secret. Only metadata that is written in the manifest is shown, because
//! templates can put values into everything else.

use std::collections::BTreeMap;

use lockstep_api::{Template, TemplateTarget, annotation};
use lockstep_core::assemble::DesiredSecret;

/// Start of a template action.
const ACTION: &str = "{{";

/// Masks a text: shows only its length.
pub(super) fn mask(bytes: usize) -> String {
    let unit = if bytes == 1 { "byte" } else { "bytes" };
    format!("●●●●●●●● ({bytes} {unit})")
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
    let literals: Vec<_> = template
        .into_iter()
        .flat_map(|template| literals(template, target))
        .collect();
    let mut masked = BTreeMap::new();
    let mut hidden = 0;
    for (key, text) in texts {
        let by_name = written.and_then(|written| written.get(key));
        let by_literal = literals.iter().any(|literal| names(literal, key));
        let is_own = is_own(key);
        let shown = if is_own || by_name.is_some() || by_literal {
            key.clone()
        } else {
            hidden += 1;
            mask_key(hidden - 1)
        };
        // a text that is written in the manifest reveals nothing
        let is_constant = |literal: &&str| !literal.contains(ACTION) && literal.contains(text.as_str());
        let is_written = is_own || by_name == Some(text) || literals.iter().any(is_constant);
        masked.insert(
            shown,
            if is_written {
                text.clone()
            } else {
                mask(text.len())
            },
        );
    }
    masked
}

/// Returns the literals of `templateFrom` that make labels, annotations or data.
pub(super) fn literals(template: &Template, target: TemplateTarget) -> impl Iterator<Item = &str> {
    let all = template.template_from.iter();
    all.filter(move |from| from.target == target)
        .map(|from| from.literal.as_str())
}

/// Whether a line of the literal starts with this key.
pub(super) fn names(literal: &str, key: &str) -> bool {
    literal.lines().any(|line| {
        let rest = line.trim_start_matches([' ', '"', '\'']).strip_prefix(key);
        rest.is_some_and(|rest| rest.trim_start_matches(['"', '\'']).starts_with(':'))
    })
}

/// Whether lockstep itself sets the label or annotation, from names in the manifest.
fn is_own(key: &str) -> bool {
    matches!(key, annotation::MANAGED_BY_LABEL | annotation::OWNER)
}
