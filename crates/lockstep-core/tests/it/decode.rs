//! Decoding strategies.

use lockstep_api::DecodingStrategy::{Auto, Base64, Base64Url, None};
use lockstep_core::{
    decode::{DecodeError, decode},
    remote::SecretValue,
};
use proptest::prelude::*;

#[test]
fn each_strategy_decodes_its_encoding() {
    for (strategy, value, expected) in [
        (None, &b"aGVsbG8="[..], Ok(&b"aGVsbG8="[..])),
        (None, b"\xff", Ok(b"\xff")),
        (Base64, b"aGVsbG8=", Ok(b"hello")),
        (Base64, b"aGVsbG8", Ok(b"hello")),
        (Base64, b" aGVs\r\nbG8=\n", Ok(b"hello")),
        (Base64, b"+/8=", Ok(b"\xfb\xff")),
        (Base64, b"-_8=", Err(DecodeError::NotBase64)),
        (Base64, b"not base64!", Err(DecodeError::NotBase64)),
        (Base64, b"", Ok(b"")),
        (Base64Url, b"-_8=", Ok(b"\xfb\xff")),
        (Base64Url, b"-_8", Ok(b"\xfb\xff")),
        (Base64Url, b"+/8=", Err(DecodeError::NotBase64Url)),
        (Base64Url, b"\xff", Err(DecodeError::NotBase64Url)),
        (Auto, b"aGVsbG8=", Ok(b"hello")),
        (Auto, b"-_8=", Ok(b"\xfb\xff")),
        (Auto, b"aGVsbG8", Ok(b"aGVsbG8")),
        (Auto, b"plain text", Ok(b"plain text")),
        (Auto, b"\xff\xfe\xfd\xfc", Ok(b"\xff\xfe\xfd\xfc")),
        (Auto, b"  ", Ok(b"  ")),
        (Auto, b"", Ok(b"")),
    ] {
        let decoded = decode(strategy, &SecretValue::new(value));
        assert_eq!(
            decoded.as_ref().map(SecretValue::expose),
            expected.as_ref().map(|bytes| *bytes),
            "{value:?}"
        );
    }
}

#[test]
fn errors_name_the_strategy_but_not_the_value() {
    for (strategy, name) in [(Base64, "Base64"), (Base64Url, "Base64URL")] {
        let error = decode(strategy, &SecretValue::from("canary!"))
            .expect_err("no base64")
            .to_string();
        assert!(error.contains(name) && !error.contains("canary"), "{error}");
    }
}

proptest! {
    #[test]
    fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        for strategy in [None, Base64, Base64Url, Auto] {
            let _ = decode(strategy, &SecretValue::new(bytes.clone()));
        }
    }
}
