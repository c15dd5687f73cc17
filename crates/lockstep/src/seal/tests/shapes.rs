use proptest::prelude::*;

use super::{faults, scan, sealed, source};

/// An object whose `spec.data` is that.
fn object(data: &str) -> String {
    format!(
        "apiVersion: lockstep.dev/v1alpha1\nkind: SyncedSecret\nmetadata: {{ name: database, namespace: shop }}\nspec:\n  secretStoreRef: {{ name: kms }}\n  data:\n{data}"
    )
}

#[test]
fn every_scalar_style_is_sealed_in_place() {
    for (before, after, value) in [
        // plain scalars and their surroundings
        (
            "  # first\n  - secretKey: password   # the key\n    plaintext: hunter2  # ours alone\n    ciphertextScope: Strict\n",
            "  # first\n  - secretKey: password   # the key\n    ciphertext: SEALED-0  # ours alone\n    ciphertextScope: Strict\n",
            "hunter2",
        ),
        ("  - plaintext: a b: c\n    secretKey: a\n", "", ""),
        (
            "  - plaintext:   with spaces é#x\n    secretKey: a\n",
            "  - ciphertext:   SEALED-0\n    secretKey: a\n",
            "with spaces é#x",
        ),
        (
            "  - secretKey: a\n    plaintext: over\n      two lines\n",
            "  - secretKey: a\n    ciphertext: SEALED-0\n",
            "over two lines",
        ),
        (
            "  - secretKey: a\n    plaintext:\n      hunter2\n",
            "  - secretKey: a\n    ciphertext:\n      SEALED-0\n",
            "hunter2",
        ),
        // quoted, and the quotes stay
        (
            "  - secretKey: a\n    plaintext: 'it''s # no comment'\n",
            "  - secretKey: a\n    ciphertext: 'SEALED-0'\n",
            "it's # no comment",
        ),
        (
            "  - \"secretKey\": a\n    \"plaintext\": \"tab\\tquote\\\" \\u00e9\\n\"   # c\n",
            "  - \"secretKey\": a\n    \"ciphertext\": \"SEALED-0\"   # c\n",
            "tab\tquote\" é\n",
        ),
        (
            "  - secretKey: a\n    'plaintext': \"over\n      lines \\\n      and on\"\n",
            "  - secretKey: a\n    'ciphertext': \"SEALED-0\"\n",
            "over lines and on",
        ),
        (
            "  - secretKey: a\n    plaintext: ''\n",
            "  - secretKey: a\n    ciphertext: 'SEALED-0'\n",
            "",
        ),
        // blocks
        (
            "  - secretKey: a\n    plaintext: |\n      one\n        two\n\n      three\n    ciphertextScope: Namespace\n",
            "  - secretKey: a\n    ciphertext: SEALED-0\n    ciphertextScope: Namespace\n",
            "one\n  two\n\nthree\n",
        ),
        (
            "  - secretKey: a\n    plaintext: |-   # beside\n      one\n\n\n  # after\n  - secretKey: b\n    remoteRef: { key: b }\n",
            "  - secretKey: a\n    ciphertext: SEALED-0   # beside\n\n\n  # after\n  - secretKey: b\n    remoteRef: { key: b }\n",
            "one",
        ),
        (
            "  - secretKey: a\n    plaintext: >+\n      one\n      two\n\n  - secretKey: b\n    remoteRef: { key: b }\n",
            "  - secretKey: a\n    ciphertext: SEALED-0\n\n  - secretKey: b\n    remoteRef: { key: b }\n",
            "one two\n\n",
        ),
        (
            "  - secretKey: a\n    plaintext: |2-\n        indented\n      less\n",
            "  - secretKey: a\n    ciphertext: SEALED-0\n",
            "  indented\nless",
        ),
        (
            "  - secretKey: a\n    plaintext: # why | or > here\n      |\n      one\n",
            "  - secretKey: a\n    ciphertext: # why | or > here\n      SEALED-0\n",
            "one\n",
        ),
        // the end of the file ends it, too
        (
            "  - secretKey: a\n    plaintext: |\n      one",
            "  - secretKey: a\n    ciphertext: SEALED-0",
            "one",
        ),
        (
            "  - secretKey: a\n    plaintext: one",
            "  - secretKey: a\n    ciphertext: SEALED-0",
            "one",
        ),
        // flow
        (
            "  - { secretKey: a, plaintext: hunter2 } # c\n",
            "  - { secretKey: a, ciphertext: SEALED-0 } # c\n",
            "hunter2",
        ),
        (
            "    [ {\"secretKey\":\"a\",\"plaintext\":\"hunter2\"},\n    { secretKey: b, remoteRef: { key: b } } ]\n",
            "    [ {\"secretKey\":\"a\",\"ciphertext\":\"SEALED-0\"},\n    { secretKey: b, remoteRef: { key: b } } ]\n",
            "hunter2",
        ),
        // a key of its own
        (
            "  - secretKey: a\n    ? plaintext\n    : hunter2\n",
            "  - secretKey: a\n    ? ciphertext\n    : SEALED-0\n",
            "hunter2",
        ),
        // a file
        (
            "  - secretKey: a\n    plaintextFile: tls/key.pem\n",
            "  - secretKey: a\n    ciphertext: SEALED-0\n",
            "tls/key.pem",
        ),
    ] {
        if after.is_empty() {
            // no YAML: nothing is changed
            let source = source(&object(before));
            assert_eq!(scan(&source, None).unreadable.len(), 1, "{before}");
            continue;
        }
        for ending in ["\n", "\r\n"] {
            let [before, after] = [before, after].map(|text| object(text).replace('\n', ending));
            let (text, values) = sealed(&before);
            assert_eq!(text, after);
            assert_eq!(values, [value], "{before}");
        }
    }
}

#[test]
fn only_sealed_values_change_among_many_documents() {
    let entry = "  - secretKey: a\n    plaintext: hunter2\n";
    let other = "# A ConfigMap\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata:\n  plaintext: stays\n  spec: |\n    data:\n    - plaintext: stays\n";
    let text = format!(
        "%YAML 1.2\n---\n{}---\n# nothing\n---\n{other}...\n---  # third\n{}",
        object(entry),
        object(entry).replace("database", "smtp")
    );
    let (after, values) = sealed(&text);
    assert_eq!(values, ["hunter2", "hunter2"]);
    let expected = text
        .replacen("plaintext: hunter2", "ciphertext: SEALED-0", 1)
        .replacen("plaintext: hunter2", "ciphertext: SEALED-1", 1);
    assert_eq!(after, expected);
}

#[test]
fn objects_in_a_list_and_in_json_are_sealed() {
    let json = r#"{
  "apiVersion": "v1", "kind": "List",
  "items": [ {"apiVersion":"lockstep.dev/v1alpha1","kind":"SyncedSecret",
    "metadata":{"name":"database","namespace":"shop"},
    "spec":{"secretStoreRef":{"name":"kms"},"data":[{"secretKey":"a","plaintext":"hunter2"}]}} ]
}"#;
    let (after, _) = sealed(json);
    assert_eq!(
        after,
        json.replace(r#""plaintext":"hunter2""#, r#""ciphertext":"SEALED-0""#)
    );
}

#[test]
fn unsealable_value_is_rejected_with_its_line() {
    let entry = |fields: &str| object(&format!("  - {fields}\n"));
    for (text, line, wanted) in [
        (entry("{ secretKey: a, plaintext: &p CANARY }"), 7, "anchor"),
        (entry("&e { secretKey: a, plaintext: CANARY }"), 7, "anchor"),
        (
            object("  - &e { secretKey: a, plaintext: CANARY }\n  - *e\n"),
            7,
            "anchor",
        ),
        (
            format!("x: &v CANARY\n{}", entry("{ secretKey: a, plaintext: *v }")),
            8,
            "alias",
        ),
        (
            format!(
                "x: &v {{ plaintext: CANARY }}\n{}",
                entry("{ secretKey: a, <<: *v }")
            ),
            8,
            "merge key",
        ),
        (entry("{ secretKey: a, plaintext: !!str CANARY }"), 7, "tag"),
        (
            entry("{ secretKey: a, &k plaintext: CANARY }"),
            7,
            "tag or an anchor",
        ),
        (entry("{ secretKey: a, plaintext: 12345 }"), 7, "quote it"),
        (
            entry("{ secretKey: a, plaintext: { x: CANARY } }"),
            7,
            "must be a string",
        ),
        (
            entry("{ secretKey: a, plaintext: CANARY, remoteRef: { key: a } }"),
            7,
            "remoteRef",
        ),
        (
            entry("{ secretKey: a, plaintext: CANARY, plaintextFile: a }"),
            7,
            "plaintextFile",
        ),
        (
            entry("{ secretKey: a, plaintext: CANARY, optional: true }"),
            7,
            "optional requires remoteRef",
        ),
        (
            entry("{ secretKey: 'a/b', plaintext: CANARY }"),
            7,
            "secretKey: must match",
        ),
        (entry("{ plaintext: CANARY }"), 7, "secretKey: required"),
        (
            entry("{ secretKey: a, plaintext: CANARY, ciphertextScope: All }"),
            7,
            "ciphertextScope: must be one of",
        ),
        (
            entry("{ secretKey: a, plaintext: CANARY }").replace(", namespace: shop", ""),
            7,
            "--namespace",
        ),
        (
            entry("{ secretKey: a, plaintext: CANARY }").replace("  secretStoreRef: { name: kms }\n", "\n"),
            7,
            "secretStoreRef",
        ),
        (entry("{ secretKey: a, plaintext: !!int CANARY }"), 1, "tag"),
        (entry("{ secretKey: a, plaintext: !!bool CANARY }"), 1, "tag"),
        (entry("{ secretKey: a, plaintext: \"CANARY }"), 1, "not YAML"),
        (
            entry("{ secretKey: a, plaintext: CANARY, plaintext: CANARY2 }"),
            1,
            "duplicate key",
        ),
    ] {
        let source = source(&text);
        let mut scan = scan(&source, None);
        let faults = faults(&mut scan);
        assert!(
            faults
                .iter()
                .any(|fault| fault.contains(wanted) && fault.starts_with(&format!("manifest.yaml:{line}: "))),
            "{text}\n{faults:#?}"
        );
        let output = format!("{faults:?}{:?}{:?}{source:?}", scan.plaintexts, scan.entries);
        assert!(!output.contains("CANARY"), "{output}");
    }
}

#[test]
fn file_in_the_advice_is_shell_quoted() {
    let text = object("  - { secretKey: a, plaintext: CANARY }\n");
    for (name, shown) in [
        ("deploy/manifest.yaml", "deploy/manifest.yaml"),
        ("a b.yaml", "'a b.yaml'"),
        ("$(id).yaml", "'$(id).yaml'"),
        ("a;id.yaml", "'a;id.yaml'"),
    ] {
        let mut source = source(&text);
        name.clone_into(&mut source.name);
        let scan = scan(&source, None);
        assert_eq!(
            scan.plaintexts[0].message,
            format!("not sealed. Run: lockstep seal -f {shown}")
        );
    }
    let mut source = source(&text);
    "standard input".clone_into(&mut source.name);
    source.path = None;
    let scan = scan(&source, None);
    assert_eq!(scan.plaintexts[0].message, "not sealed. Run: lockstep seal -f -");
}

#[test]
fn namespace_option_applies_to_objects_without_one() {
    let text = object("  - { secretKey: a, plaintext: x }\n").replace(", namespace: shop", "");
    let source = source(&text);
    let mut scan = scan(&source, Some("blog"));
    assert_eq!(faults(&mut scan), [""; 0]);
    assert_eq!(scan.entries[0].namespace.as_deref(), Some("blog"));
    assert_eq!(scan.entries[0].object, "SyncedSecret blog/database");
}

#[test]
fn unparsable_file_is_skipped_unless_it_could_hold_plaintext() {
    let template = "{{- if .Values.x }}\na: {{ .Values.y }}\n{{- end }}\n";
    for (text, passed_over) in [
        (template.to_owned(), true),
        (format!("{template}kind: Secret\n"), true),
        (format!("{template}apiVersion: lockstep.dev/v1alpha1\n"), false),
        ("kind: Secret\na: [\n".to_owned(), false),
        ("{ \"kind\": \"Secret\", \n".to_owned(), false),
        ("imagePullSecrets: [\n".to_owned(), true),
    ] {
        let mut source = source(&text);
        source.named = false;
        let scan = scan(&source, None);
        assert_eq!(scan.skipped.is_some(), passed_over, "{text}");
        assert_eq!(scan.unreadable.is_empty(), passed_over, "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_can_be_scanned(
        words in prop::collection::vec("plaintext|secretKey|spec|data|a|é|[-:|>\\[\\]{},\"'#&*!?%\n\r\t ]|: |\n  |\n    - |---\n|<<", 0..60),
        inside in any::<bool>(),
    ) {
        let mut text = words.concat();
        if inside {
            text = object(&format!("    - secretKey: a\n      plaintext: {text}"));
        }
        let source = source(&text);
        let mut scan = scan(&source, None);
        if faults(&mut scan).is_empty() {
            let texts: Vec<_> = scan.entries.iter().map(|_| "lockstep:v1:x".to_owned()).collect();
            // it is sealed, or it is not, and nothing in between
            let sealed = scan.sealed(&texts);
            prop_assert!(sealed.is_none_or(|sealed| sealed.matches("lockstep:v1:x").count() == texts.len()));
        }
    }
}
