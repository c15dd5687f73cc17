//! Checks that no two files of a crate import each other, directly or through other files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::visit::{self, Visit};

/// The path of a module within its crate.
type ModulePath = Vec<String>;

/// Crates that are not checked. The fake services of the testkit share one state that contains their
/// parts.
const EXEMPT: [&str; 1] = ["lockstep-testkit"];

/// The imports and re-exports of a file.
#[derive(Default)]
struct Imports {
    uses: BTreeSet<ModulePath>,
    reexports: BTreeMap<String, ModulePath>,
}

struct Visitor<'a> {
    modules: &'a BTreeMap<ModulePath, PathBuf>,
    /// The visited module, including inline modules.
    module: ModulePath,
    imports: Imports,
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && matches!(&attribute.meta, syn::Meta::List(list) if list.tokens.to_string().contains("test"))
    })
}

/// Collects every path of a `use` tree with the name that it introduces.
fn leaves(tree: &syn::UseTree, prefix: &mut ModulePath, found: &mut Vec<(ModulePath, String)>) {
    let mut end = |name: String, exported: String| {
        let mut path = prefix.clone();
        path.push(name);
        found.push((path, exported));
    };
    match tree {
        syn::UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            leaves(&path.tree, prefix, found);
            prefix.pop();
        }
        syn::UseTree::Name(name) => end(name.ident.to_string(), name.ident.to_string()),
        syn::UseTree::Rename(name) => end(name.ident.to_string(), name.rename.to_string()),
        syn::UseTree::Glob(_) => end("*".to_owned(), "*".to_owned()),
        syn::UseTree::Group(group) => {
            for tree in &group.items {
                leaves(tree, prefix, found);
            }
        }
    }
}

impl Visitor<'_> {
    /// Returns the path from the root of the crate, unless it leads to another crate.
    fn absolute(&self, path: &[String]) -> Option<ModulePath> {
        let mut base = self.module.clone();
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" => {
                base.clear();
                rest = &rest[1..];
            }
            "self" | "super" => {
                while let Some(step) = rest.first().filter(|step| *step == "self" || *step == "super") {
                    if step == "super" {
                        base.pop();
                    }
                    rest = &rest[1..];
                }
            }
            first => {
                let mut child = base.clone();
                child.push(first.to_owned());
                if !self.modules.contains_key(&child) {
                    return None;
                }
            }
        }
        base.extend(rest.iter().filter(|step| *step != "self").cloned());
        Some(base)
    }
}

impl<'ast> Visit<'ast> for Visitor<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Const(item) => &item.attrs,
            syn::Item::Struct(item) => &item.attrs,
            _ => {
                visit::visit_item(self, item);
                return;
            }
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.content.is_some() {
            self.module.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.module.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let mut found = Vec::new();
        leaves(&item.tree, &mut Vec::new(), &mut found);
        for (path, exported) in found {
            let Some(path) = self.absolute(&path) else {
                continue;
            };
            if matches!(item.vis, syn::Visibility::Inherited) {
                self.imports.uses.insert(path);
            } else {
                self.imports.reexports.insert(exported, path);
            }
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<_> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        if names.len() > 1
            && let Some(path) = self.absolute(&names)
        {
            self.imports.uses.insert(path);
        }
        visit::visit_path(self, path);
    }
}

/// Returns the files of a crate by module.
fn modules(source: &Path) -> BTreeMap<ModulePath, PathBuf> {
    let mut found = BTreeMap::new();
    let mut folders = vec![source.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let below = path.strip_prefix(source).unwrap().with_extension("");
            let mut module: ModulePath = below
                .iter()
                .map(|part| part.to_str().unwrap().to_owned())
                .collect();
            if module
                .last()
                .is_some_and(|last| matches!(last.as_str(), "mod" | "lib" | "main"))
            {
                module.pop();
            }
            found.insert(module, path);
        }
    }
    found.retain(|module, _| {
        let last = module.last().map_or("", String::as_str);
        last != "tests" && !last.ends_with("_tests")
    });
    found
}

/// Returns the module of the file that defines the item at a path.
fn definition(
    imports: &BTreeMap<ModulePath, Imports>,
    path: &ModulePath,
    depth: usize,
) -> Option<ModulePath> {
    let length = (0..=path.len())
        .rev()
        .find(|length| imports.contains_key(&path[..*length]))?;
    let (module, rest) = path.split_at(length);
    let reexport = rest.first().and_then(|name| imports[module].reexports.get(name));
    match reexport.filter(|target| *target != path && depth < 8) {
        Some(target) => {
            let mut target = target.clone();
            target.extend_from_slice(&rest[1..]);
            definition(imports, &target, depth + 1)
        }
        None => Some(module.to_vec()),
    }
}

/// Returns the groups of files of a crate that import each other.
fn cycles(source: &Path) -> Vec<Vec<String>> {
    let modules = modules(source);
    let imports: BTreeMap<ModulePath, Imports> = modules
        .iter()
        .map(|(module, file)| {
            let mut visitor = Visitor {
                modules: &modules,
                module: module.clone(),
                imports: Imports::default(),
            };
            let text = fs::read_to_string(file).unwrap();
            visitor.visit_file(&syn::parse_file(&text).unwrap());
            (module.clone(), visitor.imports)
        })
        .collect();
    let mut graph = petgraph::graphmap::DiGraphMap::<usize, ()>::new();
    let names: Vec<&ModulePath> = modules.keys().collect();
    let number = |module: &ModulePath| names.iter().position(|name| *name == module);
    for (from, module) in names.iter().enumerate() {
        for path in &imports[*module].uses {
            let to = definition(&imports, path, 0).and_then(|defined| number(&defined));
            if let Some(to) = to.filter(|to| *to != from) {
                graph.add_edge(from, to, ());
            }
        }
    }
    petgraph::algo::tarjan_scc(&graph)
        .into_iter()
        .filter(|group| group.len() > 1)
        .map(|group| group.into_iter().map(|file| names[file].join("::")).collect())
        .collect()
}

#[test]
fn files_of_a_crate_have_no_import_cycles() {
    let mut found = Vec::new();
    for entry in fs::read_dir("../crates").unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        if !EXEMPT.contains(&name.as_str()) {
            let cycles = cycles(&folder.join("src"));
            found.extend(
                cycles
                    .into_iter()
                    .map(|cycle| format!("{name}: {}", cycle.join(", "))),
            );
        }
    }
    assert!(found.is_empty(), "import cycles:\n{}", found.join("\n"));
}

#[test]
fn cycle_through_a_reexport_is_found() {
    let folder = std::env::temp_dir().join(format!("lockstep-imports-{}", std::process::id()));
    fs::create_dir_all(folder.join("a")).unwrap();
    for (file, text) in [
        ("lib.rs", "mod a;\nmod b;\nmod c;"),
        ("a.rs", "mod inner;\npub use inner::Thing;"),
        ("a/inner.rs", "use crate::b::other;\npub struct Thing;"),
        (
            "b.rs",
            "pub fn other(_: crate::a::Thing) {}\n#[cfg(test)]\nmod tests { use crate::c; }",
        ),
        ("c.rs", "use crate::b::other;"),
    ] {
        fs::write(folder.join(file), text).unwrap();
    }
    let found = cycles(&folder);
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    let mut cycle = found[0].clone();
    cycle.sort();
    assert_eq!(cycle, ["a::inner", "b"]);
}
