use std::collections::BTreeMap;

use lockstep_api::{
    RewriteMerge, RewriteMergeConflictPolicy, RewriteMergePriorityPolicy, RewriteMergeStrategy,
};

use crate::{property, remote::SecretValue};

/// Which entry a field came from, and its rank: entries in `priority` outrank the others, the last one most.
struct Source<'a> {
    key: &'a str,
    rank: usize,
    field: SecretValue,
}

/// Merges the JSON objects in the values.
///
/// Strategy `Extract` yields the fields as properties yield them: texts without quotes, everything else as its JSON.
/// Strategy `JSON` yields one object in which every field keeps its JSON as it was.
pub(super) fn merge(
    merge: &RewriteMerge,
    entries: &BTreeMap<String, SecretValue>,
) -> Result<BTreeMap<String, SecretValue>, String> {
    if merge.priority_policy == RewriteMergePriorityPolicy::Strict
        && let Some(missing) = merge.priority.iter().find(|key| !entries.contains_key(*key))
    {
        return Err(format!(
            "merge.priority names \"{missing}\", which is not among the keys"
        ));
    }
    let mut merged: BTreeMap<String, Source<'_>> = BTreeMap::new();
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
            format!("the value of key \"{key}\" is not a JSON object, and merge takes those only")
        })?;
        for (name, field) in object {
            let source = Source { key, rank, field };
            match merged.get(&name) {
                Some(other) if other.rank > rank => {}
                Some(other)
                    if other.rank == rank && merge.conflict_policy == RewriteMergeConflictPolicy::Error =>
                {
                    return Err(format!(
                        "the values of keys \"{}\" and \"{key}\" hold the same field; merge.priority says which one \
                         wins, or merge.conflictPolicy Ignore takes the later one",
                        other.key
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
                .ok_or("merge with strategy JSON needs merge.into")?;
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
        let name = serde_json::to_string(&name).map_err(|_| "a field's name has no form in JSON")?;
        json.extend_from_slice(name.as_bytes());
        json.push(b':');
        json.extend_from_slice(field.expose());
    }
    json.push(b'}');
    Ok(SecretValue::new(json))
}
