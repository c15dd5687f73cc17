//! Ciphertexts: every round trip, and everything that can happen to one on its way through Git.

use lockstep_api::CiphertextScope;
use lockstep_core::{
    ciphertext::{Binding, CiphertextError, DATA_KEY_BYTES, NONCE_BYTES, Sealed},
    remote::SecretValue,
};
use proptest::prelude::*;

fn binding(key: &str) -> Binding {
    Binding::new(CiphertextScope::Strict, "shop", "database", key)
}

fn envelope(value: &[u8], key: [u8; DATA_KEY_BYTES]) -> Sealed {
    let value = SecretValue::new(value);
    Sealed::envelope("aws", &binding("a"), vec![7; 40], &value, &key, [9; NONCE_BYTES]).unwrap()
}

proptest! {
    #[test]
    fn ciphertext_round_trips(wrapped in prop::collection::vec(any::<u8>(), 0..300), kms in "[a-z]{1,12}") {
        let sealed = Sealed::direct(&kms, &binding("a"), wrapped.clone());
        let read = Sealed::parse(&sealed.to_string()).unwrap();
        prop_assert_eq!(&read, &sealed);
        prop_assert_eq!(read.kms(), kms);
        prop_assert_eq!(read.ciphertext(binding("a")).unwrap().bytes, wrapped);
    }

    #[test]
    fn envelope_round_trips(value in prop::collection::vec(any::<u8>(), 0..5000), key: [u8; DATA_KEY_BYTES]) {
        let read = Sealed::parse(&envelope(&value, key).to_string()).unwrap();
        let opened = read.open(&SecretValue::new(key.to_vec()), &binding("a")).unwrap();
        prop_assert_eq!(opened.expose(), value);
    }

    #[test]
    fn parser_never_panics(text in "(lockstep:v1:)?[A-Za-z0-9_=: -]{0,200}") {
        let _ = Sealed::parse(&text);
    }

    #[test]
    fn truncated_or_changed_ciphertext_is_reported(at in any::<prop::sample::Index>(), letter in "[A-Za-z0-9_-]") {
        let text = envelope(b"CANARY", [1; DATA_KEY_BYTES]).to_string();
        let start = "lockstep:v1:".len();
        let at = start + at.index(text.len() - start);
        prop_assert_eq!(Sealed::parse(&text[..at]).unwrap_err(), CiphertextError::Damaged);
        let changed = format!("{}{letter}{}", &text[..at], &text[at + 1..]);
        if changed != text {
            prop_assert_eq!(Sealed::parse(&changed).unwrap_err(), CiphertextError::Damaged);
        }
    }
}

#[test]
fn ciphertext_is_rejected_in_another_location() {
    let sealed = Sealed::direct("aws", &binding("a"), vec![1, 2, 3]);
    assert!(sealed.ciphertext(binding("a")).is_ok());
    assert_eq!(
        sealed.ciphertext(binding("b")).unwrap_err(),
        CiphertextError::OtherPlace
    );
    let looser = Binding::new(CiphertextScope::Namespace, "shop", "database", "a");
    assert_eq!(
        sealed.ciphertext(looser).unwrap_err(),
        CiphertextError::OtherPlace
    );
}

#[test]
fn envelope_tag_also_binds_it_to_its_location() {
    let sealed = envelope(b"CANARY", [1; DATA_KEY_BYTES]);
    let key = SecretValue::new([1; DATA_KEY_BYTES].to_vec());
    assert_eq!(
        sealed.open(&key, &binding("b")).unwrap_err(),
        CiphertextError::NotOpened
    );
    for wrong in [vec![2; DATA_KEY_BYTES], vec![1; 16], vec![]] {
        let error = sealed.open(&SecretValue::new(wrong), &binding("a")).unwrap_err();
        assert_eq!(error, CiphertextError::NotOpened);
    }
}

#[test]
fn whitespace_from_yaml_folding_is_ignored() {
    let sealed = envelope(b"value", [1; DATA_KEY_BYTES]);
    let text = sealed.to_string();
    let folded = format!(" {}\n  {} {}\n", &text[..20], &text[20..40], &text[40..]);
    assert_eq!(Sealed::parse(&folded).unwrap(), sealed);
}

#[test]
fn other_text_and_unknown_versions_are_distinguished() {
    for text in ["", "hunter2", "lockstep:", "lockstep:secret", "vault:v1:abc"] {
        assert_eq!(
            Sealed::parse(text).unwrap_err(),
            CiphertextError::NotSealed,
            "{text}"
        );
    }
    assert_eq!(
        Sealed::parse("lockstep:v2:AAAA").unwrap_err(),
        CiphertextError::UnknownVersion
    );
    for text in ["lockstep:v1:", "lockstep:v1:A", "lockstep:v1:not*base64"] {
        assert_eq!(
            Sealed::parse(text).unwrap_err(),
            CiphertextError::Damaged,
            "{text}"
        );
    }
}
