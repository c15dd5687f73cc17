//! What a user reads when a template is wrong, and what nobody ever reads: a value.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_core::{
    remote::SecretValue,
    template::{self, Values},
};

const CANARY: &str = "canary-value";

fn values() -> BTreeMap<String, SecretValue> {
    BTreeMap::from([
        ("username".to_owned(), SecretValue::from(CANARY)),
        ("password".to_owned(), SecretValue::from(CANARY)),
        ("tls.crt".to_owned(), SecretValue::from(CANARY)),
        (
            "json".to_owned(),
            SecretValue::from(r#"{"a":"canary-value","none":null,"n":5}"#),
        ),
        ("cert".to_owned(), SecretValue::new(b"canary\xff\xfe".to_vec())),
    ])
}

fn message(text: &str) -> String {
    let values = values();
    let named = values.keys().cloned().collect();
    match template::render(text, Values::from(&values).naming(&named)) {
        Ok(_) => panic!("{text} renders"),
        Err(error) => error.to_string(),
    }
}

fn output(text: &str) -> String {
    let output = template::render(text, &values()).unwrap_or_else(|error| panic!("{text}: {error}"));
    output.expose_str().expect("text").to_owned()
}

#[test]
fn missing_key_is_named_with_its_position() {
    assert_eq!(
        message("postgres://{{ .usernme }}:{{ .password }}@db"),
        "line 1, column 15: \".usernme\" is not a key of this Secret. Available keys: cert, json, password, tls.crt, username."
    );
    for (text, beginning) in [
        (
            "a\n  {{ .password }} {{ .nope }}",
            "line 2, column 22: \".nope\" is not a key",
        ),
        ("é{{ .nope }}", "line 1, column 5: \".nope\" is not a key"),
        ("{{ .nope | upper }}", "line 1, column 4: \".nope\" is not a key"),
        ("{{ .nope.deeper }}", "line 1, column 4: \".nope\" is not a key"),
        ("{{ $.nope }}", "line 1, column 4: \".nope\" is not a key"),
        ("{{ upper .nope }}", "line 1, column 10: \".nope\" is not a key"),
        (
            "{{ if eq (upper .nope) \"x\" }}{{ end }}",
            "line 1, column 17: \".nope\" is not a key",
        ),
        (
            "{{ if true }}{{ .nope }}{{ end }}",
            "line 1, column 17: \".nope\" is not a key",
        ),
        (
            "{{ with .username }}{{ $.nope }}{{ end }}",
            "line 1, column 24: \".nope\" is not a key",
        ),
        (
            "{{ range list 1 }}{{ $.nope }}{{ end }}",
            "line 1, column 22: \".nope\" is not a key",
        ),
        (
            "{{ index . \"nope\" }}",
            "line 1, column 10: \"nope\" is not a key",
        ),
        (
            "{{ printf \"%s %s\" .password .nope }}",
            "line 1, column 29: \".nope\" is not a key",
        ),
        ("{{ list .nope }}", "line 1, column 9: \".nope\" is not a key"),
        (
            "{{ dict \"a\" .nope }}",
            "line 1, column 13: \".nope\" is not a key",
        ),
        (
            "{{ \"x\\\\\" }}{{ .nope }}",
            "line 1, column 15: \".nope\" is not a key",
        ),
        (
            "{{ $x := .nope }}{{ $x }}",
            "line 1, column 21: \"$x\" does not exist",
        ),
        (
            "{{ template \"t\" . }}{{ define \"t\" }}{{ .nope }}{{ end }}",
            "line 1, column 40: \".nope\" does not exist",
        ),
        (
            "{{ (fromJson .json).nope }}",
            "line 1, column 20: \".nope\" does not exist",
        ),
        (
            "{{ (fromJson .json).none }}",
            "line 1, column 20: \".none\" does not exist",
        ),
    ] {
        assert!(message(text).starts_with(beginning), "{text}: {}", message(text));
    }
    assert!(message("{{ .tls.crt }}").ends_with("Read keys that contain a dot with: index . \"tls.crt\"."));
    assert!(message("{{ .tls-crt }}").contains("index . \"the-key\""));
}

#[test]
fn long_lists_of_keys_are_truncated() {
    let values: BTreeMap<_, _> = (0..25)
        .map(|n| (format!("key{n:02}"), SecretValue::from("x")))
        .collect();
    let message = |named: usize, keys: usize| {
        let named: BTreeSet<String> = values.keys().take(named).cloned().collect();
        let values = values.clone().into_iter().take(keys).collect();
        template::render("{{ .nope }}", Values::from(&values).naming(&named))
            .expect_err("missing")
            .to_string()
    };
    for (named, keys, end) in [
        (25, 25, "key18, key19 and 5 more."),
        (24, 25, "key18, key19 and 4 more, and 1 key of dataFrom."),
        (2, 25, ". Available keys: key00, key01, and 23 keys of dataFrom."),
        (0, 25, ". 25 keys of dataFrom are available."),
        (0, 1, ". 1 key of dataFrom is available."),
        (25, 0, ". There are no keys."),
    ] {
        let message = message(named, keys);
        assert!(message.ends_with(end), "{message}");
    }
}

#[test]
fn keys_missing_from_the_spec_are_not_shown() {
    let values = BTreeMap::from([("canary.key".to_owned(), SecretValue::from("\u{0}"))]);
    for text in [
        "{{ .nope }}",
        "{{ $.nope.x }}",
        "{{ index . \"nope\" }}",
        "{{ required \"x\" .nope }}",
        "{{ range $key, $value := . }}{{ fail $key }}{{ end }}",
        "{{ range $key, $value := . }}{{ $value.x }}{{ end }}",
        "{{ range $key, $value := . }}{{ fromJson $key }}{{ end }}",
        "{{ toJson . | fromJson | first }}",
        "{{ template \"nope\" . }}",
    ] {
        let error = template::render(text, &values).expect_err(text).to_string();
        assert!(!error.contains("canary"), "{text}: {error}");
    }
    let duplicate = "{{ range $key, $value := . }}{{ $key }}: a\n{{ $key }}: b\n{{ end }}";
    let error = template::render_map(duplicate, &values).expect_err("duplicate");
    assert!(!error.to_string().contains("canary"), "{error}");
}

#[test]
fn missing_key_can_be_tested() {
    for (text, expected) in [
        ("{{ if .nope }}a{{ else }}b{{ end }}", "b"),
        ("{{ with .nope }}a{{ else }}b{{ end }}", "b"),
        ("{{ range .nope }}a{{ else }}b{{ end }}", "b"),
        ("{{ .nope | default \"d\" }}", "d"),
        ("{{ default \"d\" .nope.deeper }}", "d"),
        ("{{ index . \"nope\" | default \"d\" }}", "d"),
        ("{{ get . \"nope\" }}", ""),
        ("{{ hasKey . \"nope\" }}", "false"),
        ("{{ coalesce .nope \"c\" }}", "c"),
        ("{{ empty .nope }}{{ not .nope }}", "truetrue"),
        ("{{ if and .nope .username }}a{{ else }}b{{ end }}", "b"),
        ("{{ or .nope \"o\" }}", "o"),
        ("{{ eq .nope \"a\" }}{{ ne .nope \"a\" }}", "falsetrue"),
        ("{{ kindOf .nope }}", "invalid"),
    ] {
        assert_eq!(output(text), expected, "{text}");
    }
}

#[test]
fn value_that_looks_like_a_missing_one_is_rendered() {
    let values = BTreeMap::from([("a".to_owned(), SecretValue::from("<no value>"))]);
    for text in ["{{ .a }}", "{{ print .a }}", "<no value>"] {
        let output = template::render(text, &values).expect("renders");
        assert_eq!(output.expose(), b"<no value>", "{text}");
    }
}

#[test]
fn errors_contain_no_value() {
    for text in [
        "{{ .nope }}",
        "{{ .password.field }}",
        "{{ fail .password }}",
        "{{ required .password .nope }}",
        "{{ b64dec .password }}",
        "{{ fromJson .password }}",
        "{{ fromYaml (print \"a: [\" .password) }}",
        "{{ add .password 1 }}",
        "{{ index .password .password }}",
        "{{ index (list 1) .password }}",
        "{{ index (dict) .password }}",
        "{{ range .password }}{{ end }}",
        "{{ len (add .password 1) }}",
        "{{ lt .password 1 }}",
        "{{ regexMatch (print \"(\" .password) \"a\" }}",
        "{{ regexReplaceAll \"(\" .password \"\" }}",
        "{{ slice .password 3 1 }}",
        "{{ slice .password 0 100000 }}",
        "{{ printf .username 1 | fromJson }}",
        "{{ trunc .password \"a\" }}",
        "{{ repeat 1000000 .password }}",
        "{{ substr 9 3 .password }}",
        "{{ htpasswd (print .username \":\") \"p\" }}",
        "{{ htpasswd \"u\" \"p\" .password }}",
        "{{ upper .cert }}",
        "{{ toJson . }}",
        "{{ dig .password .password }}",
        "{{ .password \"argument\" }}",
        "{{ \"a\" | .password }}",
        "{{ (fromJson .json).a.b }}",
        "{{ (fromJson .json).n.b }}",
        "{{ template \"none\" .password }}",
        "{{ set .password \"a\" 1 }}",
        "{{ first .password }}",
        "{{ until .password }}",
        "{{ round 1.5 .password }}",
        "{{ div 1 .password }}",
    ] {
        let error = template::render(text, &values()).expect_err(text);
        for shown in [error.to_string(), format!("{error:?}")] {
            assert!(!shown.contains("canary"), "{text}: {shown}");
        }
    }
    for text in [
        "{{ .password }}",
        "{{ .password }}: [",
        "a: {{ .json }}",
        "{{ .password }}: 1\n{{ .username }}: 2",
    ] {
        let error = template::render_map(text, &values()).expect_err(text);
        assert!(
            !format!("{error} {error:?}").contains("canary"),
            "{text}: {error}"
        );
    }
}

#[test]
fn errors_explain_what_to_do() {
    for (text, expected) in [
        (
            "{{ uuidv4 }}",
            "line 1, column 4: \"uuidv4\" is not a function of lockstep's templates. A template must produce the same output for the same input.",
        ),
        (
            "{{ now }}",
            "line 1, column 4: \"now\" is not a function of lockstep's templates. Templates have no clock.",
        ),
        (
            "{{ env \"HOME\" }}",
            "line 1, column 4: \"env\" is not a function of lockstep's templates. Templates can read only the keys of the Secret.",
        ),
        (
            "{{ lockstep__printed 1 }}",
            "line 1, column 4: \"lockstep__printed\" is not a function of lockstep's templates.",
        ),
        ("{{ .a", "line 1, column 1: \"{{\" is not closed by \"}}\"."),
        (
            "{{ if .a }}",
            "line 1, column 1: {{ if }} is not closed by {{ end }}.",
        ),
        ("{{ end }}", "line 1, column 1: {{ end }} has no matching block."),
        ("{{ $x }}", "line 1, column 4: the variable is not declared here."),
        (
            "{{ 'a' }}",
            "line 1, column 4: use double quotes for text, not single quotes.",
        ),
        (
            "{{ fail \"a name is needed\" }}",
            "line 1, column 4: fail: the template calls fail: \"a name is needed\".",
        ),
        (
            "{{ required \"give it\" .nope }}",
            "line 1, column 4: required: a value that the template requires is not there: \"give it\".",
        ),
        (
            "{{ b64dec \"%\" }}",
            "line 1, column 4: b64dec: the text is not base64.",
        ),
        (
            "{{ trim }}",
            "line 1, column 4: trim has the wrong number of arguments: expected 1, got 0.",
        ),
        (
            "{{ upper .cert }}",
            "line 1, column 10: \".cert\" is binary, but upper accepts only text. Encode it with b64enc, or copy it unchanged with mergePolicy: Merge.",
        ),
        (
            "{{ .password.a }}",
            "line 1, column 4: \".password.a\" reads a field of a value without fields. Parse JSON text with fromJson.",
        ),
        (
            "{{ $d := dict }}{{ $_ := set $d \"a\" 1 }}",
            "line 1, column 17: set does not change $d. Assign its result: {{ $d = set $d … }}.",
        ),
    ] {
        assert_eq!(message(text), expected, "{text}");
    }
}

#[test]
fn checking_needs_no_values() {
    assert!(template::check("{{ .anything | upper }}").is_ok());
    assert!(template::check("{{ .anything | nope }}").is_err());
    assert!(template::check("{{ ( }}").is_err());
}

#[test]
fn binary_values_are_unchanged() {
    let bytes = b"canary\xff\xfe";
    for (text, expected) in [
        ("{{ .cert }}", bytes.to_vec()),
        ("<{{ .cert }}>", b"<canary\xff\xfe>".to_vec()),
        ("{{ .cert | b64enc }}", b"Y2FuYXJ5//4=".to_vec()),
        ("{{ \"Y2FuYXJ5//4=\" | b64dec }}", bytes.to_vec()),
        ("{{ .cert | b64enc | b64dec | b64enc }}", b"Y2FuYXJ5//4=".to_vec()),
        ("{{ $x := list .cert }}{{ index $x 0 }}", bytes.to_vec()),
        ("{{ if .cert }}{{ default \"d\" .cert }}{{ end }}", bytes.to_vec()),
        ("{{ eq .cert .cert }}", b"true".to_vec()),
    ] {
        let output = template::render(text, &values()).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(output.expose(), expected, "{text}");
    }
    let map = template::render_map("a: \"{{ .cert }}\"", &values()).expect("a map");
    assert_eq!(map["a"].expose(), bytes);
    let odd = BTreeMap::from([("a".to_owned(), SecretValue::from("x\u{10FFFE}0\u{10FFFF}"))]);
    assert_eq!(
        template::render("{{ .a }}", &odd).expect("renders").expose(),
        odd["a"].expose()
    );
}

#[test]
fn map_keeps_the_text_of_its_values() {
    let map = template::render_map(
        "a: 1.10\nb: true\nc: x\nd: \"1\"\ne:\nf: null\ng: 0x10\n",
        &values(),
    )
    .expect("a map");
    let texts: Vec<_> = map
        .iter()
        .map(|(key, value)| (key.as_str(), value.expose_str().expect("text")))
        .collect();
    assert_eq!(
        texts,
        [
            ("a", "1.10"),
            ("b", "true"),
            ("c", "x"),
            ("d", "1"),
            ("e", ""),
            ("f", ""),
            ("g", "0x10")
        ]
    );
    assert!(template::render_map("", &values()).expect("empty").is_empty());
    for wrong in ["a: 1\na: 2", "- a", "text", "a: {b: c}", "a: [1]"] {
        assert!(template::render_map(wrong, &values()).is_err(), "{wrong}");
    }
}

#[test]
fn template_renames_a_key() {
    assert_eq!(
        template::render_key("{{ .value | upper | replace \"-\" \"_\" }}", "a-b").as_deref(),
        Ok("A_B")
    );
    assert!(template::render_key("{{ .key }}", "a").is_err());
}
