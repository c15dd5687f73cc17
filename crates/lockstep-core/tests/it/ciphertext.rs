//! Ciphertexts: every round trip, and everything that can happen to one on its way through Git.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use lockstep_api::CiphertextScope;
use lockstep_core::{
    ciphertext::{Binding, CiphertextError, DATA_KEY_BYTES, Envelope, NONCE_BYTES, Sealed},
    remote::SecretValue,
};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

fn binding(key: &str) -> Binding {
    Binding::new(CiphertextScope::Strict, "shop", "database", key)
}

fn envelope(value: &[u8], key: [u8; DATA_KEY_BYTES]) -> Sealed {
    let value = SecretValue::new(value);
    let envelope = Envelope::seal(&value, &key, [9; NONCE_BYTES], &binding("a")).unwrap();
    Sealed::envelope("aws", &binding("a"), vec![7; 40], envelope)
}

/// Changes the bytes of a ciphertext and recomputes the check, as an attacker can.
fn rewrite(sealed: &Sealed, change: impl FnOnce(&mut Vec<u8>)) -> Result<Sealed, CiphertextError> {
    let text = sealed.to_string();
    let mut bytes = URL_SAFE_NO_PAD.decode(&text["lockstep:v1:".len()..]).unwrap();
    bytes.truncate(bytes.len() - 4);
    change(&mut bytes);
    let check = Sha256::digest(&bytes);
    bytes.extend_from_slice(&check[..4]);
    Sealed::parse(&format!("lockstep:v1:{}", URL_SAFE_NO_PAD.encode(bytes)))
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
fn data_key_of_an_envelope_is_refused_as_a_value() {
    let sealed = envelope(b"CANARY", [1; DATA_KEY_BYTES]);
    let body_bytes = NONCE_BYTES + b"CANARY".len() + 16;
    let direct = rewrite(&sealed, |bytes| {
        bytes[0] = 1;
        bytes.truncate(bytes.len() - body_bytes);
    });
    let direct = direct.unwrap();
    assert_eq!(direct, Sealed::direct("aws", &binding("a"), vec![7; 40]));
    let requested = direct.ciphertext(binding("a")).unwrap().binding;
    assert_ne!(requested, sealed.ciphertext(binding("a")).unwrap().binding);
}

#[test]
fn value_is_refused_as_a_data_key() {
    let direct = Sealed::direct("aws", &binding("a"), vec![7; 40]);
    let body = envelope(b"forged", [1; DATA_KEY_BYTES]);
    let envelope = rewrite(&direct, |bytes| {
        bytes[0] = 3;
        bytes.extend(vec![0; NONCE_BYTES + 16]);
    });
    for sealed in [envelope.unwrap(), body] {
        let requested = sealed.ciphertext(binding("a")).unwrap().binding;
        assert_ne!(requested, direct.ciphertext(binding("a")).unwrap().binding);
    }
}

#[test]
fn data_key_is_refused_for_another_envelope() {
    let sealed = envelope(b"CANARY", [1; DATA_KEY_BYTES]);
    let forged = envelope(b"forged", [1; DATA_KEY_BYTES]);
    assert_ne!(
        forged.ciphertext(binding("a")).unwrap().binding,
        sealed.ciphertext(binding("a")).unwrap().binding
    );
}

#[test]
fn direct_ciphertext_has_the_binding_of_its_location() {
    let sealed = Sealed::direct("aws", &binding("a"), vec![7; 40]);
    assert_eq!(sealed.ciphertext(binding("a")).unwrap().binding, binding("a"));
}

#[test]
fn envelope_with_an_unbound_data_key_is_rejected() {
    let sealed = envelope(b"CANARY", [1; DATA_KEY_BYTES]);
    let error = rewrite(&sealed, |bytes| bytes[0] = 2).unwrap_err();
    assert_eq!(error, CiphertextError::OldEnvelope);
}

#[test]
fn white_space_that_yaml_folds_in_is_passed_over() {
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
