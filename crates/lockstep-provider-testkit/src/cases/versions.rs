use lockstep_provider::{ErrorKind, RemoteRef};

use crate::{
    Skip, Subject,
    assert::{assert_fields, assert_names, client},
    at,
};

const KEY: &str = "shop/database";
const OLD: &[(&str, &str)] = &[("password", "CANARY-old")];
const NEW: &[(&str, &str)] = &[("password", "CANARY-new")];

/// After a rotation the new value is returned, with its version if the backend has versions.
///
/// # Errors
/// Never skipped.
pub async fn the_current_version_is_answered(subject: &impl Subject) -> Result<(), Skip> {
    let client = client(subject).await;
    let current = RemoteRef::current(at(KEY));
    let first = subject.put(KEY, OLD).await;
    let before = client.read(&current).await;
    assert_fields(&before, OLD);
    assert_eq!(before.version, first);
    let second = subject.put(KEY, NEW).await;
    let after = client.read(&current).await;
    assert_fields(&after, NEW);
    assert_eq!(after.version, second);
    assert!(after.created >= before.created, "a later version is not older");
    if client.0.capability().versions {
        assert!(
            first.is_some() && first != second,
            "another value is another version"
        );
    }
    Ok(())
}

/// A version that is not current is returned unchanged.
///
/// # Errors
/// Skipped if the backend has no versions.
pub async fn a_pinned_version_is_answered(subject: &impl Subject) -> Result<(), Skip> {
    let client = client(subject).await;
    if !client.0.capability().versions {
        return Skip::because("the backend has no versions");
    }
    let old = subject
        .put(KEY, OLD)
        .await
        .unwrap_or_else(|| panic!("a backend with versions tells them"));
    subject.put(KEY, NEW).await;
    let pinned = client.read(&RemoteRef::version(at(KEY), &old)).await;
    assert_fields(&pinned, OLD);
    assert_eq!(pinned.version, Some(old.clone()));
    let both = client
        .fetch(&[RemoteRef::current(at(KEY)), RemoteRef::version(at(KEY), old)])
        .await;
    for (result, expected) in both.iter().zip([NEW, OLD]) {
        match result {
            Ok(secret) => assert_fields(secret, expected),
            Err(error) => panic!("both versions are there: {error}"),
        }
    }
    Ok(())
}

/// The message names the key and the version.
///
/// # Errors
/// Skipped if the backend has no versions.
pub async fn a_missing_version_is_not_found(subject: &impl Subject) -> Result<(), Skip> {
    let client = client(subject).await;
    if !client.0.capability().versions {
        return Skip::because("the backend has no versions");
    }
    subject.put(KEY, OLD).await;
    let error = client
        .refuse(&RemoteRef::version(at(KEY), "4711"), ErrorKind::NotFound)
        .await;
    assert_names(&error, KEY);
    assert_names(&error, "4711");
    Ok(())
}
