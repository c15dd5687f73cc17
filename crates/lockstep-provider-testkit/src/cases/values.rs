use lockstep_core::property;
use lockstep_provider::{ErrorKind, RemoteRef};

use crate::{
    Skip, Subject,
    assert::{assert_fields, client},
    at,
};

/// A value is one JSON object with the stored fields.
///
/// # Errors
/// Never skipped.
pub async fn values_are_answered_with_all_their_fields(subject: &impl Subject) -> Result<(), Skip> {
    let client = client(subject).await;
    let fields = [
        ("username", "CANARY-user"),
        ("password", "CANARY \"quoted\" \\ and\nlines\t"),
    ];
    subject.put("shop/database", &fields).await;
    subject.put("top", &[("value", "CANARY-top")]).await;
    assert_fields(
        &client.read(&RemoteRef::current(at("shop/database"))).await,
        &fields,
    );
    assert_fields(
        &client.read(&RemoteRef::current(at("top"))).await,
        &[("value", "CANARY-top")],
    );
    Ok(())
}

/// The pipeline's own function extracts properties from what the provider returns.
///
/// # Errors
/// Never skipped.
pub async fn properties_can_be_taken_out_of_a_value(subject: &impl Subject) -> Result<(), Skip> {
    let client = client(subject).await;
    subject
        .put(
            "shop/database",
            &[("username", "CANARY-user"), ("tls.crt", "CANARY-certificate")],
        )
        .await;
    let secret = client.read(&RemoteRef::current(at("shop/database"))).await;
    for (path, expected) in [("username", "CANARY-user"), ("tls.crt", "CANARY-certificate")] {
        match property::extract(&secret.value, path) {
            Ok(value) => assert!(
                value.expose() == expected.as_bytes(),
                "the property \"{path}\" must be as stored"
            ),
            Err(error) => panic!("the property \"{path}\" must be there: {error}"),
        }
    }
    assert!(property::extract(&secret.value, "pasword").is_err());
    Ok(())
}

/// Covers values and field names in several scripts.
///
/// # Errors
/// Never skipped.
pub async fn unicode_values_are_answered_unchanged(subject: &impl Subject) -> Result<(), Skip> {
    let client = client(subject).await;
    let fields = [
        ("größe", "CANARY ключ 鍵 🔑 e\u{301} \u{202e}\u{0}\u{7f}"),
        ("鍵", "CANARY\u{feff}"),
    ];
    subject.put("shop/unicode", &fields).await;
    assert_fields(
        &client.read(&RemoteRef::current(at("shop/unicode"))).await,
        &fields,
    );
    Ok(())
}

/// An empty text is a value, not a missing one.
///
/// # Errors
/// Never skipped.
pub async fn empty_values_are_answered_empty(subject: &impl Subject) -> Result<(), Skip> {
    let client = client(subject).await;
    subject.put("shop/empty", &[("password", "")]).await;
    assert_fields(
        &client.read(&RemoteRef::current(at("shop/empty"))).await,
        &[("password", "")],
    );
    Ok(())
}

/// Covers bytes that are not valid text, and an empty value.
///
/// # Errors
/// Skipped if the backend only stores fields.
pub async fn binary_values_are_answered_byte_for_byte(subject: &impl Subject) -> Result<(), Skip> {
    let client = client(subject).await;
    let mut every_byte: Vec<u8> = (0..=255).collect();
    every_byte.extend_from_slice(b"CANARY\n\r\n");
    for (key, bytes) in [
        ("shop/binary", every_byte.as_slice()),
        ("shop/nothing", &[]),
        ("shop/line", b"CANARY\n"),
    ] {
        let stored = subject.put_raw(key, bytes).await;
        // Not every backend can store an empty value.
        if bytes.is_empty() && stored.is_err() {
            continue;
        }
        stored?;
        let secret = client.read(&RemoteRef::current(at(key))).await;
        assert!(
            secret.value.expose() == bytes,
            "the {} bytes of \"{key}\" must be as stored",
            bytes.len()
        );
    }
    assert!(
        client.0.capability().binary,
        "what answers binary values must say so"
    );
    Ok(())
}

/// Covers keys in several scripts and characters with a meaning in URLs.
///
/// # Errors
/// Skipped if no value can have such a key.
pub async fn unicode_keys_are_found(subject: &impl Subject) -> Result<(), Skip> {
    let client = client(subject).await;
    for key in [
        "shop/größe-鍵-ключ",
        "shop/100%25&more",
        "shop/a?b#c;d",
        "shop/a+b=c,d@e~f",
    ] {
        subject.takes_key(key)?;
        let fields = [("value", key), ("canary", "CANARY")];
        subject.put(key, &fields).await;
        assert_fields(&client.read(&RemoteRef::current(at(key))).await, &fields);
        let near = format!("{key}.");
        client
            .refuse(&RemoteRef::current(at(near)), ErrorKind::NotFound)
            .await;
    }
    Ok(())
}

/// A Kubernetes Secret holds at most one mebibyte. A value of that size is returned whole, or
/// rejected because of its size.
///
/// # Errors
/// Never skipped.
pub async fn large_values_are_answered_or_refused_cleanly(subject: &impl Subject) -> Result<(), Skip> {
    let client = client(subject).await;
    let large = "CANARY".repeat((1 << 20) / 6);
    subject.put("shop/large", &[("value", &large)]).await;
    match client
        .fetch(&[RemoteRef::current(at("shop/large"))])
        .await
        .remove(0)
    {
        Ok(secret) => assert_fields(&secret, &[("value", &large)]),
        Err(error) => assert_eq!(error.kind.label(), ErrorKind::Malformed.label(), "{error}"),
    }
    Ok(())
}
