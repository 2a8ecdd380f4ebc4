//! Profiles that get their names later: the same ones that a recording gives them.
//!
//! Where names are compared, a recording's own profile is the measure: its names
//! are taken out, `sampler symbolize` puts them back, and a reader whose schema is
//! not ours tells whether all is as it was.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use libdd_profiling_protobuf::prost_impls::{Message as _, Profile};
use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::server::Server;
use crate::support::fixture::{fixture, scratch};
use crate::support::need;
use crate::support::run::{Recorder, sampler};
use crate::support::verdict::{Verdict, ensure, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "symbolize::a_recording_without_names_gets_them_later",
            recorded_without_names,
        ),
        trial(
            "symbolize::names_are_those_that_the_recording_gave",
            same_names,
        ),
        trial("symbolize::a_debug_file_is_enough", debug_file_alone),
        trial(
            "symbolize::a_stripped_program_with_its_debug_file",
            stripped,
        ),
        trial(
            "symbolize::a_server_with_its_debug_file_is_enough",
            debug_file_of_server,
        ),
        trial("symbolize::another_file_names_nothing", another_file),
        trial("symbolize::the_kernel_of_another_boot", another_boot),
        trial("symbolize::files_are_replaced_with_care", with_care),
        trial("symbolize::what_fails_says_so", what_fails),
    ]
}

/// Each location: its mapping, its address, and its lines.
type Locations = Vec<(String, u64, Vec<Said>)>;
/// Name, raw name, source file, line.
type Said = (String, String, String, i64);

fn read(path: &Path) -> Verdict<Profile> {
    let mut message = Vec::new();
    GzDecoder::new(File::open(path)?).read_to_end(&mut message)?;
    Ok(Profile::decode(message.as_slice())?)
}

fn write(path: &Path, profile: &Profile) -> Verdict {
    let mut out = GzEncoder::new(File::create(path)?, Compression::fast());
    out.write_all(&profile.encode_to_vec())?;
    out.finish()?;
    Ok(())
}

fn text(profile: &Profile, index: i64) -> String {
    profile.string_table[index as usize].clone()
}

fn module(profile: &Profile, mapping_id: u64) -> String {
    let mapping = &profile.mappings[mapping_id as usize - 1];
    text(profile, mapping.filename)
}

fn locations(profile: &Profile) -> Locations {
    let said = |id: u64, line: i64| {
        let function = &profile.functions[id as usize - 1];
        let text = |index| text(profile, index);
        (
            text(function.name),
            text(function.system_name),
            text(function.filename),
            line,
        )
    };
    profile
        .locations
        .iter()
        .map(|location| {
            let lines = location.lines.iter();
            let lines = lines
                .map(|line| said(line.function_id, line.line))
                .collect();
            (
                module(profile, location.mapping_id),
                location.address,
                lines,
            )
        })
        .collect()
}

/// The profile as it would be had nobody looked for names.
fn without_names(profile: &Profile) -> Verdict<Profile> {
    let mut bare = copy(profile)?;
    for location in &mut bare.locations {
        // Remarks such as `[truncated: …]` are no names.
        if module(profile, location.mapping_id) != "[sampler]" {
            location.lines.clear();
        }
    }
    for mapping in &mut bare.mappings {
        mapping.has_functions = false;
        mapping.has_filenames = false;
        mapping.has_line_numbers = false;
        mapping.has_inline_frames = false;
    }
    Ok(bare)
}

fn copy(profile: &Profile) -> Verdict<Profile> {
    Ok(Profile::decode(profile.encode_to_vec().as_slice())?)
}

/// The profile of a program, as its recording names it; alone in the folder.
fn recorded(program: &Path, options: &[&str], into: &Path) -> Verdict<Profile> {
    let out = into.join("recording");
    let run = Recorder::new(options)?
        .into(&out)
        .command(program, &["700"])
        .run()?;
    run.exits(0)?;
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let file = profile_file(&out, &name)?;
    let profile = read(&file)?;
    fs::remove_dir_all(&out)?;
    Ok(profile)
}

fn profile_file(out: &Path, comm: &str) -> Verdict<PathBuf> {
    let begins = format!("cpu-{comm}-");
    let names = fs::read_dir(out)?.map_while(Result::ok);
    let found = names.map(|entry| entry.path()).find(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(&begins))
    });
    found.ok_or_else(|| format!("no file of {comm}").into())
}

fn symbolize<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Verdict<Output> {
    Ok(command(words).output()?)
}

/// What runs it, and asks no server that these words do not name.
fn command<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(sampler());
    command
        .arg("symbolize")
        .args(words)
        .env_remove("DEBUGINFOD_URLS");
    command
}

/// Runs it on one file; the result and what was said on stdout.
fn named(folder: &Path, bare: &Profile, options: &[&OsStr]) -> Verdict<(Profile, String)> {
    named_with(folder, bare, options, &folder.join("debuginfod"))
}

/// The same, with this cache of what servers gave.
fn named_with(
    folder: &Path,
    bare: &Profile,
    options: &[&OsStr],
    cache: &Path,
) -> Verdict<(Profile, String)> {
    let (input, result) = (folder.join("bare.pb.gz"), folder.join("result.pb.gz"));
    write(&input, bare)?;
    let mut words: Vec<&OsStr> = options.to_vec();
    words.extend([
        OsStr::new("--force"),
        OsStr::new("-o"),
        result.as_ref(),
        input.as_ref(),
    ]);
    let output = command(words)
        .env("DEBUGINFOD_CACHE_PATH", cache)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{}: {said}", output.status);
    let profile = read(&result)?;
    same_but_for_names(bare, &profile)?;
    Ok((
        profile,
        String::from_utf8_lossy(&output.stdout).into_owned(),
    ))
}

/// All that is measured is as it was.
fn same_but_for_names(before: &Profile, after: &Profile) -> Verdict {
    let mut after = copy(after)?;
    ensure!(
        after.locations.len() == before.locations.len(),
        "other locations"
    );
    for (new, old) in after.locations.iter_mut().zip(&before.locations) {
        new.lines.clone_from(&old.lines);
    }
    for (new, old) in after.mappings.iter_mut().zip(&before.mappings) {
        new.has_functions = old.has_functions;
        new.has_filenames = old.has_filenames;
        new.has_line_numbers = old.has_line_numbers;
        new.has_inline_frames = old.has_inline_frames;
    }
    after.functions.truncate(before.functions.len());
    after.string_table.truncate(before.string_table.len());
    ensure!(after == *before, "more than names changed");
    Ok(())
}

/// The locations of one module, by the end of its path.
fn of_module(profile: &Profile, ending: &str) -> BTreeMap<u64, Vec<Said>> {
    let all = locations(profile).into_iter();
    all.filter(|(module, ..)| module.ends_with(ending))
        .map(|(_, address, lines)| (address, lines))
        .collect()
}

/// The burning program, built in a way of its own.
fn burner(folder: &Path, flags: &[&str]) -> Verdict<PathBuf> {
    let program = folder.join("burner");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/burn.c");
    let status = Command::new(need::tool("gcc")?)
        .args(["-g", "-O2", "-fno-omit-frame-pointer", "-pthread"])
        .args(flags)
        .arg("-o")
        .args([&program, &source])
        .status()?;
    ensure!(status.success(), "gcc: {status}");
    Ok(program)
}

fn run(tool: &str, words: &[&OsStr]) -> Verdict {
    let status = Command::new(need::tool(tool)?).args(words).status()?;
    ensure!(status.success(), "{tool}: {status}");
    Ok(())
}

fn recorded_without_names() -> Verdict {
    need::root()?;
    let folder = scratch()?;
    let out = folder.path().join("out");
    Recorder::new(&["-F", "499", "--no-names"])?
        .into(&out)
        .command(fixture("burn")?, &["700"])
        .run()?
        .exits(0)?;
    let file = profile_file(&out, "burn")?;
    let bare = read(&file)?;
    for (module, address, lines) in locations(&bare) {
        ensure!(
            lines.is_empty() || module == "[sampler]",
            "{address:#x} of {module} has a name: {lines:?}"
        );
    }
    for mapping in &bare.mappings {
        let (name, build_id) = (text(&bare, mapping.filename), text(&bare, mapping.build_id));
        let is_remark = name == "[sampler]";
        ensure!(
            mapping.has_functions == is_remark,
            "{name} was not looked at"
        );
        // 64-bit files of a distribution and of gcc all have one.
        ensure!(
            is_remark || build_id.len() >= 16,
            "the build ID of {name} is {build_id:?}"
        );
    }
    let output = symbolize([&file])?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let result = file.with_extension("").with_extension("symbolized.pb.gz");
    let profile = read(&result)?;
    same_but_for_names(&bare, &profile)?;
    let named = of_module(&profile, "/burn");
    let is_named = |name: &str| named.values().flatten().any(|said| said.0 == name);
    ensure!(
        is_named("burn_leaf") && is_named("main"),
        "the program's functions are not among {named:?}"
    );
    Ok(())
}

fn same_names() -> Verdict {
    need::root()?;
    for flags in [
        &["-fPIE", "-pie"][..],
        &["-no-pie"],
        &["-fPIE", "-pie", "-Wl,-z,noseparate-code"],
    ] {
        let folder = scratch()?;
        let program = burner(folder.path(), flags)?;
        let own = recorded(&program, &["-F", "999"], folder.path())?;
        let (later, said) = named(folder.path(), &without_names(&own)?, &[])?;
        let (own, later) = (locations(&own), locations(&later));
        let mut differences = own.iter().zip(&later).filter(|(own, later)| own != later);
        // Only the code of modules and BPF programs is not named later.
        if let Some((own, later)) = differences.find(|(own, _)| !own.0.starts_with("[kernel")) {
            return Err(format!("{flags:?}: {own:?} became {later:?}\n{said}").into());
        }
        let of_kernel = own
            .iter()
            .zip(&later)
            .filter(|(own, _)| own.0.starts_with("[kernel"));
        for (own, later) in of_kernel {
            ensure!(
                own == later || later.2.is_empty(),
                "{own:?} became {later:?}"
            );
        }
    }
    Ok(())
}

/// A debug file by each tool that there is: they treat program headers differently.
/// None of them lies where its build ID says.
fn debug_files(program: &Path, folder: &Path) -> Verdict<Vec<TempDir>> {
    let mut dirs = Vec::new();
    for tool in ["objcopy", "llvm-objcopy", "eu-strip"] {
        if tool != "objcopy" && need::tool(tool).is_err() {
            continue;
        }
        let dir = tempfile::Builder::new()
            .prefix("debug-")
            .tempdir_in(folder)?;
        let debug_file = dir.path().join("deep/down/any-name");
        let stripped = folder.join("stripped");
        fs::create_dir_all(dir.path().join("deep/down"))?;
        let (program, debug_file) = (program.as_os_str(), debug_file.as_os_str());
        if tool == "eu-strip" {
            let words = [
                "-f".as_ref(),
                debug_file,
                "-o".as_ref(),
                stripped.as_ref(),
                program,
            ];
            run(tool, &words)?;
        } else {
            run(tool, &["--only-keep-debug".as_ref(), program, debug_file])?;
        }
        dirs.push(dir);
    }
    Ok(dirs)
}

fn debug_file_alone() -> Verdict {
    need::root()?;
    for flags in [
        &["-fPIE", "-pie"][..],
        &["-no-pie"],
        &["-fPIE", "-pie", "-Wl,-z,noseparate-code"],
    ] {
        let folder = scratch()?;
        let program = burner(folder.path(), flags)?;
        let own = recorded(&program, &["-F", "999"], folder.path())?;
        let bare = without_names(&own)?;
        let dirs = debug_files(&program, folder.path())?;
        fs::remove_file(&program)?;
        let (later, said) = named(folder.path(), &bare, &[])?;
        ensure!(
            of_module(&later, "/burner").values().all(Vec::is_empty),
            "a file that is gone has names"
        );
        ensure!(said.contains("no file with this build ID"), "{said}");
        for dir in dirs {
            let options = ["--debug-dir".as_ref(), dir.path().as_os_str()];
            let (later, said) = named(folder.path(), &bare, &options)?;
            let (own, later) = (of_module(&own, "/burner"), of_module(&later, "/burner"));
            ensure!(
                own == later,
                "{flags:?} in {:?}: {own:#?} became {later:#?}\n{said}",
                dir.path()
            );
            ensure!(
                own.values().flatten().any(|said| said.0 == "burn_leaf"),
                "{own:#?}"
            );
        }
    }
    Ok(())
}

/// The name of a program's only build ID, in hexadecimal.
fn build_id(profile: &Profile, ending: &str) -> Verdict<String> {
    let mappings = profile.mappings.iter();
    let mut of_module =
        mappings.filter(|mapping| text(profile, mapping.filename).ends_with(ending));
    let mapping = of_module.next().ok_or("the program is not mapped")?;
    Ok(text(profile, mapping.build_id))
}

/// First the program is there without its debug information, then not at all; the
/// debug file is nowhere but at the server, and in the end in the cache alone.
fn debug_file_of_server() -> Verdict {
    need::root()?;
    let folder = scratch()?;
    let program = burner(folder.path(), &[])?;
    let own = recorded(&program, &["-F", "999"], folder.path())?;
    let bare = without_names(&own)?;
    let files = folder.path().join("served");
    fs::create_dir(&files)?;
    let debug_file = files.join("any-name");
    run(
        "objcopy",
        &[
            "--only-keep-debug".as_ref(),
            program.as_ref(),
            debug_file.as_ref(),
        ],
    )?;
    run("strip", &[program.as_ref()])?;
    need::tool("debuginfod")?;
    let server = Server::start(&files)?;
    server.wait_for(&build_id(&bare, "/burner")?)?;

    let own = of_module(&own, "/burner");
    let cache = folder.path().join("cache");
    let named_by = |url: &str, cache: &Path| -> Verdict<_> {
        let option = format!("--debuginfod={url}");
        let (later, said) = named_with(folder.path(), &bare, &[option.as_ref()], cache)?;
        Ok((of_module(&later, "/burner"), said))
    };
    let nobody = "http://127.0.0.1:1";
    let (later, said) = named_by(nobody, &cache)?;
    ensure!(own != later, "a stripped program has all names:\n{said}");
    let (later, said) = named_by(&server.url(), &cache)?;
    ensure!(own == later, "{own:#?} became {later:#?}\n{said}");

    fs::remove_file(&program)?;
    let fresh = folder.path().join("fresh");
    let (later, said) = named_by(nobody, &fresh)?;
    ensure!(
        later.values().all(Vec::is_empty) && said.contains("no file with this build ID"),
        "a file that is nowhere has names:\n{said}"
    );
    for url in [&server.url(), nobody] {
        let (later, said) = named_by(url, &fresh)?;
        ensure!(own == later, "by {url}: {own:#?} became {later:#?}\n{said}");
    }
    Ok(())
}

fn stripped() -> Verdict {
    need::root()?;
    let folder = scratch()?;
    let program = burner(folder.path(), &[])?;
    let own = recorded(&program, &["-F", "999"], folder.path())?;
    let bare = without_names(&own)?;
    let dirs = debug_files(&program, folder.path())?;
    run("strip", &[program.as_ref()])?;
    let (later, _) = named(folder.path(), &bare, &[])?;
    let leaf = |profile: &Profile| {
        let named = of_module(profile, "/burner");
        named.values().flatten().any(|said| said.0 == "burn_leaf")
    };
    ensure!(!leaf(&later), "a stripped program has names");
    for dir in dirs {
        let options = ["--debug-dir".as_ref(), dir.path().as_os_str()];
        let (later, said) = named(folder.path(), &bare, &options)?;
        let (own, later) = (of_module(&own, "/burner"), of_module(&later, "/burner"));
        ensure!(own == later, "{own:#?} became {later:#?}\n{said}");
    }
    Ok(())
}

fn another_file() -> Verdict {
    need::root()?;
    let folder = scratch()?;
    let program = burner(folder.path(), &[])?;
    let own = recorded(&program, &["-F", "999"], folder.path())?;
    // The same source, other code, at the same path.
    burner(folder.path(), &["-O0"])?;
    for options in [&[][..], &["--trust-paths".as_ref()]] {
        let (later, said) = named(folder.path(), &without_names(&own)?, options)?;
        ensure!(
            of_module(&later, "/burner").values().all(Vec::is_empty),
            "another build of the program named it"
        );
        ensure!(said.contains("has another build ID"), "{said}");
    }

    let program = burner(folder.path(), &["-Wl,--build-id=none"])?;
    let own = recorded(&program, &["-F", "999"], folder.path())?;
    let bare = without_names(&own)?;
    let (later, said) = named(folder.path(), &bare, &[])?;
    ensure!(
        of_module(&later, "/burner").values().all(Vec::is_empty),
        "a file that nothing identifies has names"
    );
    ensure!(said.contains("--trust-paths"), "{said}");
    let (later, said) = named(folder.path(), &bare, &["--trust-paths".as_ref()])?;
    let (own, later) = (of_module(&own, "/burner"), of_module(&later, "/burner"));
    ensure!(own == later, "{own:#?} became {later:#?}\n{said}");
    Ok(())
}

fn another_boot() -> Verdict {
    need::root()?;
    let folder = scratch()?;
    // Most of its ticks are in the kernel.
    let own = recorded(&fixture("syscalls")?, &["-F", "999"], folder.path())?;
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let mut bare = without_names(&own)?;
    let of_kernel = |profile: &Profile| of_module(profile, "[kernel.kallsyms]");
    let (later, said) = named(folder.path(), &bare, &[])?;
    ensure!(
        of_kernel(&later).values().any(|lines| !lines.is_empty()),
        "no kernel frame of this boot was named:\n{said}"
    );

    let comment = bare
        .string_table
        .iter_mut()
        .find(|text| text.contains(boot_id.trim()));
    let comment = comment.ok_or("the profile does not say of which boot it is")?;
    *comment = comment.replace(boot_id.trim(), "00000000-0000-0000-0000-000000000000");
    let (later, said) = named(folder.path(), &bare, &[])?;
    ensure!(
        of_kernel(&later).values().all(Vec::is_empty),
        "the addresses of another boot have names"
    );
    ensure!(said.contains("of another boot"), "{said}");

    let kallsyms = folder.path().join("kallsyms");
    fs::write(&kallsyms, fs::read("/proc/kallsyms")?)?;
    let (later, said) = named(
        folder.path(),
        &bare,
        &["--kallsyms".as_ref(), kallsyms.as_ref()],
    )?;
    let (own, later) = (of_kernel(&own), of_kernel(&later));
    ensure!(
        !own.is_empty() && own == later,
        "{own:#?} became {later:#?}\n{said}"
    );
    Ok(())
}

fn with_care() -> Verdict {
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

fn what_fails() -> Verdict {
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
