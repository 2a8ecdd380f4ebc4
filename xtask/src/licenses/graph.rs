//! The part of `cargo metadata`'s answer that says what is linked into what.
//!
//! Format: <https://doc.rust-lang.org/cargo/commands/cargo-metadata.html>

use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::{HashMap, HashSet};

/// One answer of `cargo metadata --format-version 1`.
#[derive(Deserialize)]
pub struct Metadata {
    /// Every package of the lock file, ours included.
    pub packages: Vec<Package>,
    resolve: Resolve,
}

/// One version of a package.
#[derive(Deserialize)]
pub struct Package {
    /// cargo's unique name for it.
    pub id: String,
    /// Its name on the registry.
    pub name: String,
    /// The licence expression of its manifest.
    pub license: Option<String>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    /// `None` is a normal dependency, else `"dev"` or `"build"`.
    kind: Option<String>,
}

impl Package {
    /// Runs inside the compiler, and so do its dependencies: nothing of them
    /// is linked into the product.
    fn is_proc_macro(&self) -> bool {
        self.targets
            .iter()
            .any(|target| target.kind.iter().any(|kind| kind == "proc-macro"))
    }
}

impl Metadata {
    /// The ids of the packages whose code may end up in package `product`, on
    /// whatever platform, itself included.
    pub fn linked_into(&self, product: &str) -> Result<HashSet<&str>> {
        let nodes: HashMap<&str, &Node> = self
            .resolve
            .nodes
            .iter()
            .map(|node| (node.id.as_str(), node))
            .collect();
        let proc_macros: HashSet<&str> = self
            .packages
            .iter()
            .filter(|package| package.is_proc_macro())
            .map(|package| package.id.as_str())
            .collect();
        let start = self
            .packages
            .iter()
            .find(|package| package.name == product)
            .with_context(|| format!("no package {product}"))?;

        let mut linked = HashSet::new();
        let mut open = vec![start.id.as_str()];
        while let Some(id) = open.pop() {
            if proc_macros.contains(id) || !linked.insert(id) {
                continue;
            }
            let dependencies = nodes.get(id).map_or(&[][..], |node| &node.deps);
            open.extend(
                dependencies
                    .iter()
                    .filter(|dependency| {
                        dependency.dep_kinds.iter().any(|kind| kind.kind.is_none())
                    })
                    .map(|dependency| dependency.pkg.as_str()),
            );
        }
        Ok(linked)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    const GRAPH: &str = r#"{
      "packages": [
        {"id": "p", "name": "product", "license": null, "targets": [{"kind": ["bin"]}]},
        {"id": "n", "name": "normal", "license": null, "targets": [{"kind": ["lib"]}]},
        {"id": "i", "name": "indirect", "license": null, "targets": [{"kind": ["lib"]}]},
        {"id": "m", "name": "macros", "license": null, "targets": [{"kind": ["proc-macro"]}]},
        {"id": "s", "name": "syn", "license": null, "targets": [{"kind": ["lib"]}]},
        {"id": "d", "name": "dev", "license": null, "targets": [{"kind": ["lib"]}]},
        {"id": "b", "name": "build", "license": null, "targets": [{"kind": ["lib"]}]}
      ],
      "resolve": {"nodes": [
        {"id": "p", "deps": [
          {"pkg": "n", "dep_kinds": [{"kind": "dev"}, {"kind": null}]},
          {"pkg": "m", "dep_kinds": [{"kind": null}]},
          {"pkg": "d", "dep_kinds": [{"kind": "dev"}]},
          {"pkg": "b", "dep_kinds": [{"kind": "build"}]}]},
        {"id": "n", "deps": [{"pkg": "i", "dep_kinds": [{"kind": null}]}]},
        {"id": "m", "deps": [{"pkg": "s", "dep_kinds": [{"kind": null}]}]}
      ]}
    }"#;

    #[test]
    fn what_only_builds_tests_or_generates_code_is_not_linked() {
        let metadata: Metadata = serde_json::from_str(GRAPH).unwrap();
        let linked = metadata.linked_into("product").unwrap();
        assert_eq!(linked, HashSet::from(["p", "n", "i"]));
    }

    #[test]
    fn a_product_that_does_not_exist_is_an_error_not_an_empty_set() {
        let metadata: Metadata = serde_json::from_str(GRAPH).unwrap();
        assert!(metadata.linked_into("produkt").is_err());
    }
}
