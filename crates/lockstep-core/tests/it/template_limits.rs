//! Templates that want too much end with an error: no stack overflow, no exhausted memory, no endless loop. Test threads
//! have 2 MiB of stack, as the operator's have.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use lockstep_core::{remote::SecretValue, template};
use proptest::prelude::*;

fn values() -> BTreeMap<String, SecretValue> {
    BTreeMap::from([
        ("a".to_owned(), SecretValue::from("value")),
        ("big".to_owned(), SecretValue::from("x".repeat(1 << 20))),
        ("binary".to_owned(), SecretValue::new(vec![0xff; 1 << 19])),
    ])
}

#[test]
fn expensive_templates_are_rejected_quickly() {
    let cases: Vec<(&str, String)> = vec![
        ("parentheses", format!("{{{{ {}1{} }}}}", "(".repeat(50_000), ")".repeat(50_000))),
        ("open parentheses", format!("{{{{ {}", "(".repeat(100_000))),
        ("blocks", "{{ if true }}".repeat(1_000) + &"{{ end }}".repeat(1_000)),
        ("else if", format!("{{{{ if .a }}}}{}{{{{ end }}}}", "{{ else if .a }}".repeat(5_000))),
        ("else with", format!("{{{{ with .a }}}}{}{{{{ end }}}}", "{{ else with .a }}".repeat(5_000))),
        ("pipeline", format!("{{{{ .a {} }}}}", "| upper ".repeat(12_000))),
        ("arguments", format!("{{{{ print {} }}}}", ".big ".repeat(12_000))),
        ("variables", "{{ $x := .big }}".repeat(10_000)),
        ("recursion", "{{ define \"r\" }}{{ template \"r\" . }}{{ end }}{{ template \"r\" . }}".to_owned()),
        ("two in a circle", "{{ define \"a\" }}{{ template \"b\" }}{{ end }}{{ define \"b\" }}{{ template \"a\" }}{{ end }}{{ template \"a\" }}".to_owned()),
        ("range", "{{ range 1000000000 }}{{ end }}".to_owned()),
        ("nested ranges", "{{ range 10000 }}{{ range 10000 }}{{ range 10000 }}{{ end }}{{ end }}{{ end }}".to_owned()),
        ("a hundred megabytes", "{{ range 100 }}{{ repeat 1000000 \"x\" }}{{ end }}".to_owned()),
        ("doubling", "{{ $s := \"x\" }}{{ range 60 }}{{ $s = print $s $s }}{{ end }}{{ $s }}".to_owned()),
        ("deep list", "{{ $s := list }}{{ range 5000 }}{{ $s = list $s }}{{ end }}{{ $s }}".to_owned()),
        ("binary output", "{{ range 1000 }}{{ .binary }}{{ end }}".to_owned()),
        ("binary digest", "{{ sha256sum (print .binary .binary .binary) }}".to_owned()),
        ("indent", "{{ indent 1000000 \"a\\nb\\nc\" }}".to_owned()),
        ("replace", "{{ replace \"x\" .big .big }}".to_owned()),
        ("regular replace", "{{ regexReplaceAll \"x\" .big .big }}".to_owned()),
        ("join", "{{ join .big (until 1000) }}".to_owned()),
        ("printf", "{{ printf \"%1000000d%1000000d\" 1 2 }}".to_owned()),
        ("until", "{{ until 1000000000 }}".to_owned()),
        ("untilStep", "{{ untilStep 0 9223372036854775807 1 }}".to_owned()),
        ("seq", "{{ seq -9223372036854775808 9223372036854775807 }}".to_owned()),
        ("regex", "{{ regexMatch \"((a{1000}){1000}){1000}\" .a }}".to_owned()),
        ("nested regex", format!("{{{{ regexMatch \"{}a{}\" .a }}}}", "(".repeat(5_000), ")".repeat(5_000))),
        ("slow", "{{ range 10000 }}{{ bcrypt \"p\" }}{{ end }}".to_owned()),
        ("json", format!("{{{{ fromJson \"{}\" }}}}", "[".repeat(10_000))),
        ("yaml", format!("{{{{ fromYaml \"{}\" }}}}", "[".repeat(10_000))),
        ("yaml aliases", "{{ fromYaml \"a: &a [x,x,x,x,x,x,x,x,x]\\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\\ng: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\" }}".to_owned()),
        ("text", "x".repeat(300 * 1024)),
    ];
    for (name, text) in cases {
        let start = Instant::now();
        let result = template::render(&text, &values());
        assert!(result.is_err(), "{name} is refused");
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{name} took {:?}",
            start.elapsed()
        );
    }
}

#[test]
fn templates_within_the_limits_are_rendered() {
    let blocks = "{{ if true }}".repeat(31) + "x" + &"{{ end }}".repeat(31);
    let parentheses = format!("{{{{ {}1{} }}}}", "(".repeat(31), ")".repeat(31));
    let calls = (0..30).fold("{{ template \"t0\" .a }}".to_owned(), |text, n| {
        text + &format!(
            "{{{{ define \"t{n}\" }}}}{{{{ template \"t{}\" . }}}}{{{{ end }}}}",
            n + 1
        )
    }) + "{{ define \"t30\" }}x{{ end }}";
    for (text, length) in [
        (blocks, 1),
        (parentheses, 1),
        (calls, 1),
        ("{{ .big }}".to_owned(), 1 << 20),
        ("{{ .binary }}{{ .binary }}".to_owned(), 1 << 20),
        ("{{ range 10000 }}x{{ end }}".to_owned(), 10_000),
    ] {
        let output = template::render(&text, &values());
        assert_eq!(output.as_ref().map(SecretValue::len), Ok(length), "{text:.60}");
    }
}

#[test]
fn repeated_search_is_stopped_in_time_and_named() {
    let text = "(repeat 1000000 \"a\")";
    for (function, arguments) in [
        ("regexReplaceAll", format!("\"a*x|a\" {text} \"\"")),
        ("regexReplaceAll", format!("\"a*x|(a)\" {text} \"$1\"")),
        ("regexReplaceAllLiteral", format!("\"a*x|a\" {text} \"\"")),
        ("regexFindAll", format!("\"a*x|a\" {text} -1")),
        ("regexSplit", format!("\"a*x|a\" {text} -1")),
        ("mustRegexReplaceAll", format!("\"a*x|a\" {text} \"\"")),
    ] {
        let begun = Instant::now();
        let error = template::render(&format!("{{{{ {function} {arguments} }}}}"), &values()).unwrap_err();
        assert_eq!(
            error.message,
            format!("{function}: it did not finish within the second that a template may take."),
        );
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{function}: {:?}",
            begun.elapsed()
        );
    }
    let trimmed = "{{ trimAll (print (repeat 50000 \"b\") \"a\") (repeat 100000 \"a\") }}";
    assert!(
        template::render(trimmed, &values()).is_ok(),
        "trimAll looks at each character once"
    );
}

#[test]
fn text_too_long_for_its_expression_is_rejected_by_name() {
    let error = template::render(r#"{{ regexMatch "\\w{20}" .big }}"#, &values()).unwrap_err();
    assert!(
        error
            .message
            .starts_with("regexMatch: the text is too long for a regular expression of this size"),
        "{error}"
    );
}

#[test]
fn memory_of_a_template_is_bounded() {
    const FULL: &str = "the template would hold more than 16 MiB of values at the same time.";
    let twenty = |action: fn(usize) -> String| (0..20).map(action).collect::<Vec<_>>().concat();
    let declared = twenty(|n| format!("{{{{ $x{n} := .big }}}}"));
    let made = twenty(|n| format!("{{{{ $x{n} := repeat 1000000 \"x\" }}}}"));
    for text in [
        declared,
        made,
        format!("{{{{ list {} | len }}}}", ".big ".repeat(40)),
        format!("{{{{ list {} | len }}}}", "(repeat 1000000 \"x\") ".repeat(40)),
        format!("{{{{ if list {} }}}}x{{{{ end }}}}", ".big ".repeat(40)),
        format!(
            "{}{}",
            "{{ with .big }}{{ with $ }}".repeat(12),
            "{{ end }}{{ end }}".repeat(12)
        ),
    ] {
        let message = template::render(&text, &values()).unwrap_err().message;
        assert!(
            message == FULL || message.ends_with("would have too many parts."),
            "{text:.60}: {message}"
        );
    }
    let one_after_the_other = "{{ with .big }}{{ len . }}{{ end }}{{ if .big }}x{{ end }}".repeat(20);
    assert!(template::render(&one_after_the_other, &values()).is_ok());
}

#[test]
fn aliases_of_the_output_are_counted_before_they_are_expanded() {
    let bomb = "a: &a \"{{ repeat 500000 \"x\" }}\"\n{{ range $i := until 10000 }}k{{ $i }}: *a\n{{ end }}";
    let begun = Instant::now();
    let error = template::render_map(bomb, &values()).unwrap_err();
    assert_eq!(
        error.message,
        "the output is a YAML map that is larger than 1 MiB, or has more than 50,000 nodes, once its aliases are expanded.",
    );
    let within = format!(
        "{{{{ $y := `{bomb}` }}}}{{{{ $y = print \"a: &a \" (repeat 500000 \"x\") \"\\nb: *a\\nc: *a\" }}}}{{{{ fromYaml $y }}}}"
    )
    .replace("{{ repeat 500000 \"x\" }}", "")
    .replace("{{ range $i := until 10000 }}k{{ $i }}: *a\n{{ end }}", "");
    let error = template::render(&within, &values()).unwrap_err();
    assert!(
        error
            .message
            .starts_with("fromYaml: the text is larger than 1 MiB"),
        "{error}"
    );
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let few = template::render_map("a: &a x\nb: *a\n", &values()).unwrap();
    assert_eq!(few["b"].expose(), b"x");
}

#[test]
fn values_larger_than_two_mebibytes_are_rejected() {
    let values = BTreeMap::from([("a".to_owned(), SecretValue::new(vec![b'x'; (2 << 20) + 1]))]);
    let error = template::render("{{ len .a }}", &values).expect_err("too large");
    assert_eq!(
        error.to_string(),
        "the values that the template may read exceed 2 MiB in total."
    );
}

/// Pieces that make templates which get past the parser more often than random text does.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("{{ ".to_owned()),
        Just(" }}".to_owned()),
        Just("{{- ".to_owned()),
        Just(" -}}".to_owned()),
        Just("(".to_owned()),
        Just(")".to_owned()),
        Just(" | ".to_owned()),
        Just(" .a ".to_owned()),
        Just(" .binary ".to_owned()),
        Just(".nope".to_owned()),
        Just(" $x := ".to_owned()),
        Just("$x".to_owned()),
        Just("\"é\\n\" ".to_owned()),
        Just("`\\d` ".to_owned()),
        Just("{{ if .a }}".to_owned()),
        Just("{{ range list 1 2 }}".to_owned()),
        Just("{{ else }}".to_owned()),
        Just("{{ end }}".to_owned()),
        Just("{{/* ".to_owned()),
        Just(" */}}".to_owned()),
        (-3_i64..20).prop_map(|number| format!(" {number} ")),
        proptest::sample::select(template::FUNCTIONS)
            .prop_filter("bcrypt is slow", |function| !["bcrypt", "htpasswd"]
                .contains(&function.name))
            .prop_map(|function| format!(" {} ", function.name)),
        ".{0,4}",
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn argument() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec![
        ".a",
        ".binary",
        "\"\"",
        "\"é\\u00dfX\"",
        "0",
        "-1",
        "1",
        "3",
        "9223372036854775807",
        "-9223372036854775808",
        "1.5",
        "1e300",
        "true",
        "(list)",
        "(list 1 \"a\" (list))",
        "(dict)",
        "(dict \"a\" 1)",
        ".",
        ".nope",
        "\"%d%s%[9]q%*d\"",
        "\"(a|b)*\"",
        "\"[\"",
        "(fromJson \"null\")",
        "(fromJson \"{\\\"a\\\":[null,1.0e5]}\")",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn no_template_text_panics(text in pieces()) {
        let values = BTreeMap::from([
            ("a".to_owned(), SecretValue::from("val\u{fc}e")),
            ("binary".to_owned(), SecretValue::new(vec![0xff, 0])),
        ]);
        let _ = template::render(&text, &values);
        let _ = template::render_map(&text, &values);
    }

    #[test]
    fn no_arguments_panic(
        function in proptest::sample::select(template::FUNCTIONS),
        arguments in proptest::collection::vec(argument(), 0..5),
    ) {
        prop_assume!(!["bcrypt", "htpasswd"].contains(&function.name));
        let values = BTreeMap::from([
            ("a".to_owned(), SecretValue::from("canary-val\u{fc}e")),
            ("binary".to_owned(), SecretValue::new(b"canary\xff".to_vec())),
        ]);
        let text = format!("{{{{ {} {} }}}}", function.name, arguments.join(" "));
        if let Err(error) = template::render(&text, &values) {
            prop_assert!(!error.to_string().contains("canary"), "{text}: {error}");
        }
    }

    #[test]
    fn random_text_does_not_panic(text in "\\PC{0,60}") {
        let _ = template::render(&text, &BTreeMap::new());
    }
}
