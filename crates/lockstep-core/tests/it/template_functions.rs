//! The allow-list of functions, and its documentation.

use lockstep_core::template::{self, FUNCTIONS};

#[test]
fn function_list_matches_the_pinned_list() {
    let mut names: Vec<_> = FUNCTIONS.iter().map(|function| function.name).collect();
    names.sort_unstable();
    let pinned: Vec<_> = include_str!("../data/template_functions.txt").lines().collect();
    assert_eq!(
        names, pinned,
        "a new function is added to tests/data/template_functions.txt too"
    );
}

#[test]
fn nondeterministic_functions_are_unknown() {
    for name in [
        "randAlphaNum",
        "randAlpha",
        "randNumeric",
        "randAscii",
        "randBytes",
        "randInt",
        "uuidv4",
        "shuffle",
        "genCA",
        "genPrivateKey",
        "genSelfSignedCert",
        "genSignedCert",
        "derivePassword",
        "encryptAES",
        "now",
        "date",
        "dateInZone",
        "ago",
        "unixEpoch",
        "env",
        "expandenv",
        "getHostByName",
        "osBase",
        "call",
        "include",
        "tpl",
        "lookup",
    ] {
        assert!(
            FUNCTIONS.iter().all(|function| function.name != name),
            "{name} is listed"
        );
        let error = template::check(&format!("{{{{ {name} }}}}")).expect_err(name);
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn function_documentation_is_current() {
    assert_eq!(
        template::functions_markdown(),
        include_str!("../../../../docs/reference/functions.md"),
        "docs/reference/functions.md is generated: see lockstep_core::template::functions_markdown"
    );
}
