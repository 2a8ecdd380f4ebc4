//! Files that are replaced, or stay as they were.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use libdd_profiling_protobuf::prost_impls::{Message as _, Profile};

use crate::support::fixture::{fixture, scratch};
use crate::support::need;
use crate::support::verdict::{Verdict, ensure};

use super::profile::{locations, read, recorded, symbolize, without_names, write};

pub(super) fn with_care() -> Verdict {
    need::root()?;
    let folder = scratch()?;
    let own = recorded(&fixture("burn")?, &["-F", "499"], folder.path())?;
    let at = |name: &str| folder.path().join(name);
    let file = at("x.pb.gz");
    write(&file, &without_names(&own)?)?;
    let bare = fs::read(&file)?;
    fs::set_permissions(&file, Permissions::from_mode(0o640))?;
    let code = |words: &[&str]| -> Verdict<(Option<i32>, String)> {
        let words = words.iter().map(|word| match *word {
            "x.pb.gz" | "x.symbolized.pb.gz" | "dir" | "link.pb.gz" | "raw.pb" => {
                at(word).into_os_string()
            }
            word => word.into(),
        });
        let output = symbolize(words)?;
        Ok((
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ))
    };
    let is = |found: (Option<i32>, String), wanted: i32| -> Verdict {
        ensure!(
            found.0 == Some(wanted),
            "{:?} instead of {wanted}: {}",
            found.0,
            found.1
        );
        Ok(())
    };
    is(code(&["x.pb.gz"])?, 0)?;
    let mode =
        |path: &Path| -> Verdict<u32> { Ok(fs::metadata(path)?.permissions().mode() & 0o7777) };
    let beside = at("x.symbolized.pb.gz");
    ensure!(mode(&beside)? == 0o640, "the mode is {:o}", mode(&beside)?);
    ensure!(fs::read(&file)? == bare, "the input was touched");
    // A second time it is in the way.
    let first = fs::read(&beside)?;
    fs::write(&beside, "mine")?;
    is(code(&["x.pb.gz"])?, 5)?;
    ensure!(
        fs::read(&beside)? == b"mine",
        "a file was replaced without --force"
    );
    is(code(&["--force", "x.pb.gz"])?, 0)?;
    ensure!(
        fs::read(&beside)? == first,
        "the same input gives another result"
    );

    symlink(&file, at("link.pb.gz"))?;
    is(code(&["--in-place", "link.pb.gz"])?, 5)?;
    ensure!(
        fs::read(&file)? == bare,
        "a link was followed to be replaced"
    );
    is(code(&["--in-place", "x.pb.gz"])?, 0)?;
    ensure!(
        fs::read(&file)? == first && mode(&file)? == 0o640,
        "not what it should be in place"
    );

    // What was not compressed stays so in place.
    fs::write(at("raw.pb"), without_names(&own)?.encode_to_vec())?;
    is(code(&["--in-place", "raw.pb"])?, 0)?;
    let raw = Profile::decode(fs::read(at("raw.pb"))?.as_slice())?;
    ensure!(
        locations(&raw) == locations(&read(&file)?),
        "a plain file got other names"
    );

    is(code(&["-o", "dir", "x.pb.gz", "raw.pb"])?, 0)?;
    let mut names: Vec<_> = fs::read_dir(at("dir"))?
        .map_while(Result::ok)
        .map(|entry| entry.file_name())
        .collect();
    names.sort();
    ensure!(names == ["raw.pb", "x.pb.gz"], "{names:?}");
    Ok(())
}

pub(super) fn what_fails() -> Verdict {
    need::root()?;
    let folder = scratch()?;
    let own = recorded(&fixture("burn")?, &["-F", "499"], folder.path())?;
    let at = |name: &str| folder.path().join(name);
    write(&at("good.pb.gz"), &own)?;
    fs::write(at("text"), "no profile\n")?;
    fs::write(at("cut.pb.gz"), &fs::read(at("good.pb.gz"))?[..100])?;
    for bad in ["text", "cut.pb.gz", "missing"] {
        let output = symbolize([at(bad), at("good.pb.gz"), "--json".into(), "--force".into()])?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(4),
            "{bad}: {}: {said}",
            output.status
        );
        ensure!(said.contains(bad), "the file is not named: {said}");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let of = |list: &str| {
            json[list][0]["file"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        ensure!(
            of("files").ends_with("good.pb.gz") && of("failed").ends_with(bad),
            "{json}"
        );
        ensure!(
            json["files"][0]["locations"] == own.locations.len(),
            "{json}"
        );
    }
    for (words, wanted) in [
        (
            vec!["--in-place".into(), "-o".into(), at("x"), at("good.pb.gz")],
            2,
        ),
        (vec![], 2),
        (
            vec!["--debug-dir".into(), at("missing"), at("good.pb.gz")],
            4,
        ),
        (vec!["-o".into(), at("missing/x"), at("good.pb.gz")], 5),
        (vec![folder.path().to_owned()], 4),
    ] {
        let output = symbolize(&words)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(wanted),
            "{words:?}: {}: {said}",
            output.status
        );
    }
    Ok(())
}
