//! Takes the place of `rustc` while the eBPF crate is built, for one reason:
//! a crate's name in symbols and debug sections must not depend on where the
//! checkout lies.
//!
//! rustc mixes `-C metadata` into each mangled name. For a path dependency
//! outside the workspace's folder, as `sampler-common` is for `sampler-ebpf`,
//! cargo computes that value from the absolute path, and no setting of cargo
//! changes it. So cargo calls this program, which gives our own crates a
//! constant value and then becomes rustc.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

/// Set for the build by [`install`]: cargo passes no argument that would tell.
const MARK: &str = "SAMPLER_XTASK_IS_RUSTC";
/// The crates whose source is a path, by rustc's names for them.
const PATH_CRATES: [&str; 2] = ["sampler_common", "sampler_ebpf"];

/// Makes `cargo` call this program instead of rustc.
pub fn install(cargo: &mut Command, this_program: &Path) {
    cargo.env("RUSTC_WRAPPER", this_program).env(MARK, "1");
}

/// Called by cargo as `xtask RUSTC ARG…`, this becomes rustc and does not
/// return unless that fails; called by a person it returns `None`.
pub fn run_if_called_as_one() -> Option<ExitCode> {
    env::var_os(MARK)?;
    let mut args = env::args_os().skip(1);
    let rustc = args.next()?;
    let error = Command::new(&rustc)
        .args(with_constant_metadata(args.collect()))
        .env_remove(MARK)
        .exec();
    eprintln!("error: cannot start {}: {error}", rustc.display());
    Some(ExitCode::FAILURE)
}

/// The arguments with `-C metadata` replaced by the crate's name, if the crate is ours.
fn with_constant_metadata(mut args: Vec<OsString>) -> Vec<OsString> {
    let ours = args
        .windows(2)
        .find(|pair| pair[0] == "--crate-name")
        .and_then(|pair| pair[1].to_str())
        .and_then(|name| PATH_CRATES.into_iter().find(|known| *known == name));
    if let Some(name) = ours {
        for at in 1..args.len() {
            if args[at - 1] == "-C" && starts_with(&args[at], "metadata=") {
                args[at] = format!("metadata={name}").into();
            }
        }
    }
    args
}

fn starts_with(arg: &OsStr, prefix: &str) -> bool {
    arg.as_encoded_bytes().starts_with(prefix.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(line: &str) -> String {
        let args = with_constant_metadata(line.split(' ').map(OsString::from).collect());
        args.join(OsStr::new(" ")).to_string_lossy().into_owned()
    }

    #[test]
    fn our_crates_get_a_metadata_value_that_no_path_enters() {
        assert_eq!(
            rewritten("--crate-name sampler_common -C metadata=0a1b -C extra-filename=-77"),
            "--crate-name sampler_common -C metadata=sampler_common -C extra-filename=-77"
        );
    }

    #[test]
    fn all_other_crates_keep_theirs() {
        let line = "--crate-name aya_ebpf -C metadata=0a1b src/lib.rs";
        assert_eq!(rewritten(line), line);
        assert_eq!(rewritten("-vV"), "-vV");
    }
}
