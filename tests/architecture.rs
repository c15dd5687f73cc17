//! Checks that dependencies have one direction, between crates and between the files of a crate, and
//! that all provider crates have the same files.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::use_debug,
    reason = "a test that cannot continue fails"
)]

#[path = "architecture/imports.rs"]
mod imports;
#[path = "architecture/providers.rs"]
mod providers;

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand, PackageId};

/// Returns all direct and indirect dependencies of a package, without dev-dependencies.
fn closure(from: &str) -> BTreeSet<String> {
    let metadata = MetadataCommand::new()
        .manifest_path("../Cargo.toml")
        .exec()
        .unwrap();
    let names: BTreeMap<&PackageId, &str> = metadata
        .packages
        .iter()
        .map(|package| (&package.id, package.name.as_str()))
        .collect();
    let resolve = metadata.resolve.as_ref().unwrap();
    let edges: BTreeMap<&PackageId, Vec<&PackageId>> = resolve
        .nodes
        .iter()
        .map(|node| {
            let normal = node.deps.iter().filter(|dep| {
                dep.dep_kinds
                    .iter()
                    .any(|kind| kind.kind != DependencyKind::Development)
            });
            (&node.id, normal.map(|dep| &dep.pkg).collect())
        })
        .collect();
    let start = metadata
        .packages
        .iter()
        .find(|package| package.name == from)
        .unwrap();
    let mut seen = BTreeSet::new();
    let mut open = vec![&start.id];
    while let Some(id) = open.pop() {
        for next in &edges[id] {
            if seen.insert(names[*next].to_owned()) {
                open.push(next);
            }
        }
    }
    seen
}

#[test]
fn core_and_api_depend_on_no_runtime_client_or_sdk() {
    let banned = [
        "tokio",
        "kube",
        "kube-client",
        "kube-runtime",
        "hyper",
        "reqwest",
        "vaultrs",
        "axum",
        "tower",
    ];
    for package in ["lockstep-api", "lockstep-core"] {
        let needs = closure(package);
        let wrong: Vec<_> = banned
            .iter()
            .filter(|name| needs.contains(**name))
            .map(ToString::to_string)
            .chain(
                needs
                    .iter()
                    .filter(|name| name.starts_with("aws-sdk") || name.starts_with("google-cloud"))
                    .cloned(),
            )
            .collect();
        assert!(wrong.is_empty(), "{package} depends on {wrong:?}");
    }
}

#[test]
fn only_the_binary_depends_on_provider_crates() {
    let is_provider = |name: &&String| {
        name.starts_with("lockstep-provider-") && name.as_str() != "lockstep-provider-testkit"
    };
    for package in [
        "lockstep-api",
        "lockstep-core",
        "lockstep-provider",
        "lockstep-controller",
        "lockstep-provider-testkit",
        "lockstep-testkit",
        "xtask",
    ] {
        let needs = closure(package);
        let providers: Vec<_> = needs.iter().filter(is_provider).collect();
        assert!(providers.is_empty(), "{package} depends on {providers:?}");
    }
    assert!(
        closure("lockstep")
            .iter()
            .any(|name| name == "lockstep-provider-vault")
    );
}

#[test]
fn crates_depend_only_on_lower_layers() {
    let order = [
        "lockstep-api",
        "lockstep-core",
        "lockstep-provider",
        "lockstep-controller",
        "lockstep",
    ];
    for (index, package) in order.iter().enumerate() {
        let needs = closure(package);
        for above in &order[index + 1..] {
            assert!(!needs.contains(*above), "{package} depends on {above}");
        }
    }
}

#[test]
fn binary_has_only_one_tls_provider() {
    let needs = closure("lockstep");
    for banned in ["openssl", "openssl-sys", "native-tls", "hyper-tls"] {
        assert!(!needs.contains(banned), "{banned}");
    }
}
