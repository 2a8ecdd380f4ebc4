//! Which file each result goes to.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use crate::commands::Failure;
use crate::commands::cli::SymbolizeArgs;

/// What results are called, before the ending.
const RENAMED: &str = ".symbolized";
/// The endings of profiles, the longest first, which is the one of results.
const ENDINGS: [&str; 3] = [".pb.gz", ".pb", ".gz"];

/// Each input with its output. Makes the directory that `-o` names if several
/// files go there.
pub fn targets(args: &SymbolizeArgs) -> Result<Vec<(&Path, PathBuf)>, Failure> {
    let inputs = args.files.iter().map(PathBuf::as_path);
    let pairs: Vec<(&Path, PathBuf)> = match &args.output {
        None if args.in_place => inputs.map(|input| (input, input.to_owned())).collect(),
        None => inputs.map(|input| (input, beside(input))).collect(),
        Some(output) if args.files.len() == 1 && !output.is_dir() => {
            inputs.map(|input| (input, output.clone())).collect()
        }
        Some(directory) => {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot make {}", directory.display()))
                .map_err(Failure::Output)?;
            let inside = |input: &Path| input.file_name().map(|name| directory.join(name));
            inputs
                .map(|input| (input, inside(input).unwrap_or_else(|| directory.clone())))
                .collect()
        }
    };
    let mut taken = HashSet::new();
    match pairs.iter().find(|(_, output)| !taken.insert(output)) {
        None => Ok(pairs),
        Some((input, _)) => Err(Failure::Usage(anyhow!(
            "the result of {} would replace that of another FILE",
            input.display()
        ))),
    }
}

/// `cpu-x-1.pb.gz` becomes `cpu-x-1.symbolized.pb.gz`.
fn beside(input: &Path) -> PathBuf {
    let Some(name) = input.file_name() else {
        return input.to_owned();
    };
    let stem = name
        .to_str()
        .and_then(|text| ENDINGS.iter().find_map(|ending| text.strip_suffix(ending)));
    let mut renamed = stem.map_or_else(|| name.to_owned(), OsString::from);
    renamed.push(RENAMED);
    renamed.push(ENDINGS[0]);
    input.with_file_name(renamed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that unwraps says what it expects
    use super::*;
    use crate::commands::debug_servers::DebugServersArgs;

    fn args(files: &[&str], output: Option<&Path>) -> SymbolizeArgs {
        SymbolizeArgs {
            files: files.iter().map(PathBuf::from).collect(),
            debug_dir: Vec::new(),
            debug_servers: DebugServersArgs { debuginfod: None },
            trust_paths: false,
            kallsyms: None,
            output: output.map(Path::to_owned),
            in_place: false,
            force: false,
            json: false,
        }
    }

    fn outputs(args: &SymbolizeArgs) -> Vec<PathBuf> {
        let pairs = targets(args).unwrap();
        pairs.into_iter().map(|(_, output)| output).collect()
    }

    #[test]
    fn a_result_lies_beside_its_file() {
        let named = outputs(&args(&["d/a.pb.gz", "b.pb", "c.gz", "e", "d.d/f"], None));
        let expected = [
            "d/a.symbolized.pb.gz",
            "b.symbolized.pb.gz",
            "c.symbolized.pb.gz",
            "e.symbolized.pb.gz",
            "d.d/f.symbolized.pb.gz",
        ];
        assert_eq!(named, expected.map(PathBuf::from));
    }

    #[test]
    fn one_file_goes_to_a_file_and_several_to_a_directory() {
        let root = tempfile::tempdir().unwrap();
        let new = root.path().join("new");
        assert_eq!(outputs(&args(&["d/a"], Some(&new))), [new.as_path()]);
        assert_eq!(
            outputs(&args(&["d/a", "b"], Some(&new))),
            [new.join("a"), new.join("b")]
        );
        // By now it is a directory.
        assert_eq!(outputs(&args(&["d/a"], Some(&new))), [new.join("a")]);
    }

    #[test]
    fn two_results_are_two_files() {
        let root = tempfile::tempdir().unwrap();
        for (files, output) in [
            (["a.pb", "a.pb.gz"], None),
            (["x/a", "y/a"], Some(root.path())),
        ] {
            let args = args(&files, output);
            let refused = targets(&args);
            assert!(matches!(refused, Err(Failure::Usage(_))), "{files:?}");
        }
    }
}
