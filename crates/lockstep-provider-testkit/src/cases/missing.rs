use lockstep_provider::{ErrorKind, Location, RemoteRef};

use crate::{
    Skip, Subject,
    assert::{assert_fields, assert_names, client},
    at,
};

/// The message names the key as the user wrote it.
///
/// # Errors
/// Never skipped.
pub async fn a_missing_key_is_not_found(subject: &impl Subject) -> Result<(), Skip> {
    let client = client(subject).await;
    subject.put("shop/database", &[("value", "CANARY")]).await;
    for key in ["shop/databse", "missing", "shop", "shop/database/below"] {
        let error = client
            .refuse(&RemoteRef::current(at(key)), ErrorKind::NotFound)
            .await;
        assert_names(&error, key);
    }
    Ok(())
}

/// A deleted key behaves like one that never existed.
///
/// # Errors
/// Never skipped.
pub async fn a_deleted_key_is_not_found(subject: &impl Subject) -> Result<(), Skip> {
    let client = client(subject).await;
    let key = RemoteRef::current(at("shop/database"));
    subject.put(&key.key, &[("value", "CANARY-1")]).await;
    client.read(&key).await;
    subject.delete(&key.key).await;
    let error = client.refuse(&key, ErrorKind::NotFound).await;
    assert_names(&error, &key.key);
    subject.put(&key.key, &[("value", "CANARY-2")]).await;
    assert_fields(&client.read(&key).await, &[("value", "CANARY-2")]);
    Ok(())
}

/// A key is not a path that can be walked: a grant for `shop/*` must not cover `shop/../other`.
///
/// # Errors
/// Never skipped.
pub async fn keys_that_lead_elsewhere_are_refused(subject: &impl Subject) -> Result<(), Skip> {
    let client = client(subject).await;
    subject.put("other", &[("value", "CANARY")]).await;
    subject.put("shop/database", &[("value", "CANARY")]).await;
    for key in [
        "shop/../other",
        "shop/./database",
        "shop/%2e%2e/other",
        "shop/..%2fother",
        "../other",
        "./other",
        "..",
        ".",
        "",
        "shop/\u{0}/other",
        "shop/\n/other",
    ] {
        // a text that is not a valid location is rejected before a provider sees it
        let Ok(location) = Location::new(key) else {
            continue;
        };
        let result = client.fetch(&[RemoteRef::current(location)]).await.remove(0);
        let kind = result.err().map(|error| error.kind);
        assert!(
            matches!(
                kind,
                Some(ErrorKind::NotFound | ErrorKind::ConfigInvalid | ErrorKind::PermissionDenied)
            ),
            "the key \"{}\" must be refused, not {}",
            key.escape_default(),
            kind.map_or("answered", ErrorKind::label),
        );
    }
    Ok(())
}

/// The message names the key. Other keys stay readable.
///
/// # Errors
/// Skipped if the backend has no permissions for single keys.
pub async fn a_denied_key_is_permission_denied(subject: &impl Subject) -> Result<(), Skip> {
    let client = client(subject).await;
    for key in ["shop/database", "shop/denied"] {
        subject.put(key, &[("key", key), ("canary", "CANARY")]).await;
    }
    subject.deny("shop/denied").await?;
    let error = client
        .refuse(
            &RemoteRef::current(at("shop/denied")),
            ErrorKind::PermissionDenied,
        )
        .await;
    assert_names(&error, "shop/denied");
    let results = client
        .fetch(&["shop/denied", "shop/database"].map(|key| RemoteRef::current(at(key))))
        .await;
    assert!(results[0].is_err());
    assert!(results[1].is_ok(), "a key that is denied denies no other");
    Ok(())
}
