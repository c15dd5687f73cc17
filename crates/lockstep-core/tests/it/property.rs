//! Properties of remote values.

use lockstep_core::{
    property::{PropertyError, extract, fields},
    remote::SecretValue,
};
use proptest::prelude::*;

const DOCUMENT: &str = r#"{
    "user": "shop", "port": 5432, "ratio": 1.10, "big": 123456789012345678901234567890, "on": true, "none": null,
    "a.b": "literal", "a": {"b": "nested", "c": [{"d": "deep"}, 2]}, "tls.crt": {"pem": "x"}, "": {"": "empty"},
    "list": ["x", [1, 2]], "unicode": "\u00e9\n", "0": "zero", "twice": 1, "twice": 2, "back\\slash": "b"
}"#;

fn text(path: &str) -> Result<String, PropertyError> {
    extract(&SecretValue::from(DOCUMENT), path).map(|value| value.expose_str().expect("text").to_owned())
}

#[test]
fn path_extracts_its_value() {
    for (path, expected) in [
        ("user", "shop"),
        ("port", "5432"),
        ("ratio", "1.10"),
        ("big", "123456789012345678901234567890"),
        ("on", "true"),
        ("a.b", "literal"),
        (r"a\.b", "literal"),
        ("a.c.0.d", "deep"),
        ("a.c.1", "2"),
        ("a.c", r#"[{"d":"deep"},2]"#),
        ("a", r#"{"b":"nested","c":[{"d":"deep"},2]}"#),
        ("tls.crt", r#"{"pem":"x"}"#),
        (r"tls\.crt.pem", "x"),
        ("list.0", "x"),
        ("list.1.1", "2"),
        ("unicode", "\u{e9}\n"),
        ("0", "zero"),
        ("twice", "2"),
        (r"back\slash", "b"),
        (r"back\\slash", "b"),
        (".", "empty"),
    ] {
        assert_eq!(text(path).as_deref(), Ok(expected), "{path}");
    }
    let list = SecretValue::from(r#"[{"a":1}]"#);
    assert_eq!(extract(&list, "0.a").expect("found").expose(), b"1");
}

#[test]
fn absent_property_is_missing() {
    for path in [
        "nope",
        "none",
        "user.x",
        "list.2",
        "list.-1",
        "list.x",
        "list.99999999999999999999",
        "a.c.0.e",
        "a.",
        "list.+1",
    ] {
        assert_eq!(
            text(path),
            Err(PropertyError::Missing { properties: 15 }),
            "{path}"
        );
    }
}

#[test]
fn value_without_properties_has_its_own_error() {
    for (value, error) in [
        (&b"plain text"[..], PropertyError::NotJson),
        (b"\xff", PropertyError::NotJson),
        (b"", PropertyError::NotJson),
        (b"{\"a\":1} x", PropertyError::NotJson),
        (b"{\"a\":", PropertyError::NotJson),
        (b"\"text\"", PropertyError::NotObject),
        (b"42", PropertyError::NotObject),
        (b"null", PropertyError::NotObject),
    ] {
        assert_eq!(extract(&SecretValue::new(value), "a"), Err(error));
        assert_eq!(fields(&SecretValue::new(value), None), Err(error));
    }
    assert_eq!(
        fields(&SecretValue::from("[1]"), None),
        Err(PropertyError::NotObject)
    );
    assert_eq!(text(&"a.".repeat(70)), Err(PropertyError::PathTooDeep));
}

#[test]
fn fields_are_all_fields_except_null() {
    let value = SecretValue::from(r#"{"a":"x","b":1.50,"c":null,"d":{"e": [1, 2]}}"#);
    let found: Vec<_> = fields(&value, None)
        .expect("an object")
        .into_iter()
        .map(|(name, value)| (name, value.expose_str().expect("text").to_owned()))
        .collect();
    let expected = [("a", "x"), ("b", "1.50"), ("d", r#"{"e":[1,2]}"#)];
    assert_eq!(
        found,
        expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
    assert_eq!(fields(&value, Some("d")).expect("an object").len(), 1);
    assert_eq!(fields(&value, Some("a")), Err(PropertyError::NotObject));
    assert_eq!(
        fields(&value, Some("x")),
        Err(PropertyError::Missing { properties: 4 })
    );
}

#[test]
fn errors_show_only_the_number_of_properties() {
    let value = SecretValue::from(r#"{"canary-field":"canary-value"}"#);
    let error = extract(&value, "nope").expect_err("missing");
    assert_eq!(error.to_string(), "it has no such property; it has 1 property");
    for value in ["canary", r#"{"canary": canary}"#, r#""canary""#] {
        for error in [
            extract(&SecretValue::from(value), "a"),
            fields(&SecretValue::from(value), None).map(|_| SecretValue::from("")),
        ] {
            let error = error.expect_err("no property");
            assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
        }
    }
}

#[test]
fn deep_nesting_does_not_overflow_the_stack() {
    let deep = SecretValue::from("[".repeat(100_000) + &"]".repeat(100_000));
    assert!(extract(&deep, "0.0.0").is_ok());
    assert!(extract(&SecretValue::from("{\"a\":".repeat(100_000)), "a.a").is_err());
}

proptest! {
    #[test]
    fn extraction_never_panics(value in "\\PC{0,60}", path in "[a-z0-9.\\\\]{0,20}") {
        let value = SecretValue::from(value);
        let _ = extract(&value, &path);
        let _ = fields(&value, Some(&path));
    }

    #[test]
    fn every_text_round_trips(text in "\\PC{0,30}", name in "\\PC{1,10}") {
        let value = SecretValue::from(serde_json::json!({ &name: &text }).to_string());
        let found = extract(&value, &name).expect("there");
        prop_assert_eq!(found.expose_str(), Some(text.as_str()));
    }
}
