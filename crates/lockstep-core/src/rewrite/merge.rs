use std::collections::BTreeMap;

use lockstep_api::{
    RewriteMerge, RewriteMergeConflictPolicy, RewriteMergePriorityPolicy, RewriteMergeStrategy,
};

use crate::{property, remote::SecretValue, text::one_of};

/// A field, and the rank of the entry that it came from. The last entry in `priority` ranks
/// highest. Entries that are not in `priority` rank lowest.
struct Source {
    rank: usize,
    field: SecretValue,
}

/// Merges the JSON objects in the values.
///
/// Strategy `Extract` returns each field like a property: text without quotes, everything else as
/// JSON. Strategy `JSON` returns one object and keeps the JSON of every field.
pub(super) fn merge(
    merge: &RewriteMerge,
    entries: &BTreeMap<String, SecretValue>,
) -> Result<BTreeMap<String, SecretValue>, String> {
    if merge.priority_policy == RewriteMergePriorityPolicy::Strict
        && let Some(missing) = merge.priority.iter().find(|key| !entries.contains_key(*key))
    {
        return Err(format!("merge.priority: no key \"{missing}\" exists"));
    }
    let mut merged: BTreeMap<String, Source> = BTreeMap::new();
    for (key, value) in entries {
        let rank = merge
            .priority
            .iter()
            .rposition(|name| name == key)
            .map_or(0, |index| index + 1);
        let object = match merge.strategy {
            RewriteMergeStrategy::Extract => property::fields(value, None),
            RewriteMergeStrategy::Json => property::raw_fields(value),
        };
        let object = object.map_err(|_| {
            // the user wrote the keys of priority
            let which = if rank > 0 {
                format!("key \"{key}\"")
            } else {
                one_of(entries.len())
            };
            format!("the value of {which} is not a JSON object, which merge requires")
        })?;
        for (name, field) in object {
            let source = Source { rank, field };
            match merged.get(&name) {
                Some(other) if other.rank > rank => {}
                Some(other)
                    if other.rank == rank && merge.conflict_policy == RewriteMergeConflictPolicy::Error =>
                {
                    return Err(format!(
                        "two of the {} values contain the same field. Set merge.priority to choose one, or set \
                         merge.conflictPolicy: Ignore to use the later one",
                        entries.len()
                    ));
                }
                _ => {
                    merged.insert(name, source);
                }
            }
        }
    }
    let fields = merged.into_iter().map(|(name, source)| (name, source.field));
    match merge.strategy {
        RewriteMergeStrategy::Extract => Ok(fields.collect()),
        RewriteMergeStrategy::Json => {
            let into = merge
                .into
                .as_ref()
                .ok_or("merge.into: is required for merge.strategy: JSON")?;
            Ok(BTreeMap::from([(into.clone(), object(fields)?)]))
        }
    }
}

fn object(fields: impl Iterator<Item = (String, SecretValue)>) -> Result<SecretValue, String> {
    let mut json = b"{".to_vec();
    for (index, (name, field)) in fields.enumerate() {
        if index > 0 {
            json.push(b',');
        }
        let name =
            serde_json::to_string(&name).map_err(|_| "the name of a field cannot be written as JSON")?;
        json.extend_from_slice(name.as_bytes());
        json.push(b':');
        json.extend_from_slice(field.expose());
    }
    json.push(b'}');
    Ok(SecretValue::new(json))
}
