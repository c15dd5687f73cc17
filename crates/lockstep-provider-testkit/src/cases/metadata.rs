use lockstep_provider::{ErrorKind, RemoteRef};
use serde_json::Value;

use crate::{
    CANARY, Skip, Subject,
    assert::{assert_fields, assert_names, client},
    at,
};

const KEY: &str = "shop/database";

/// Reads metadata together with values and without changing them. The metadata of a missing key is
/// not found. A tag appears in it by its name.
///
/// # Errors
/// Skipped if the provider does not read metadata.
pub async fn metadata_is_answered_as_a_json_object(subject: &impl Subject) -> Result<(), Skip> {
    let client = client(subject).await;
    if !client.0.capability().metadata {
        return Skip::because("the provider reads no metadata");
    }
    subject.put(KEY, &[("value", CANARY)]).await;
    let metadata = RemoteRef::current(at(KEY)).metadata();
    let bare: Value = parsed(client.read(&metadata).await.value.expose());
    assert!(
        bare.is_object(),
        "metadata is an object, also where there is none"
    );
    subject.tag(KEY, "team", "shop").await?;
    let missing = RemoteRef::current(at("shop/nowhere")).metadata();
    let refs = [
        metadata.clone(),
        RemoteRef::current(at(KEY)),
        missing.clone(),
        metadata,
    ];
    let mut results = client.fetch(&refs).await.into_iter();
    let mut next = || {
        results
            .next()
            .unwrap_or_else(|| panic!("one result per reference"))
    };
    let first = next().unwrap_or_else(|error| panic!("the metadata must be readable: {error}"));
    assert_eq!(
        tag(&parsed(first.value.expose()), "team").as_deref(),
        Some("shop")
    );
    let value = next().unwrap_or_else(|error| panic!("the value must be readable: {error}"));
    assert_fields(&value, &[("value", CANARY)]);
    let Err(error) = next() else {
        panic!("a key that is not there has no metadata")
    };
    assert_eq!(error.kind.label(), ErrorKind::NotFound.label(), "{error}");
    assert_names(&error, "shop/nowhere");
    assert!(next().is_ok());
    Ok(())
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| panic!("metadata is JSON"))
}

/// Looks up a tag by name, in the object or one level below it: some services have several kinds of
/// tags.
fn tag(metadata: &Value, name: &str) -> Option<String> {
    let fields = metadata.as_object()?;
    let own = fields.get(name).and_then(Value::as_str);
    let below = || fields.values().find_map(|group| group.get(name)?.as_str());
    own.or_else(below).map(str::to_owned)
}
