//! Profiles that get their names later: the same ones that a recording gives them.
//!
//! Where names are compared, a recording's own profile is the measure: its names
//! are taken out, `sampler symbolize` puts them back, and a reader whose schema is
//! not ours tells whether all is as it was.

mod files;
mod profile;

use std::fs;
use std::path::Path;

use libdd_profiling_protobuf::prost_impls::Profile;
use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::server::Server;
use crate::support::fixture::{fixture, scratch};
use crate::support::need;
use crate::support::run::Recorder;
use crate::support::verdict::{Verdict, ensure, trial};

use profile::{
    burner, locations, named, named_with, of_module, profile_file, read, recorded, run,
    same_but_for_names, symbolize, text, without_names,
};

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
        trial("symbolize::files_are_replaced_with_care", files::with_care),
        trial("symbolize::what_fails_says_so", files::what_fails),
    ]
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
    let (mut own, mut later) = (of_kernel(&own), of_kernel(&later));
    // The recording's own programs went with it: a later copy does not know them.
    let is_bpf = |(function, ..): &profile::Said| function.starts_with("bpf_prog_");
    own.retain(|address, lines| {
        let is_gone = lines.iter().any(is_bpf) && later.get(address).is_some_and(Vec::is_empty);
        if is_gone {
            later.remove(address);
        }
        !is_gone
    });
    ensure!(
        !own.is_empty() && own == later,
        "{own:#?} became {later:#?}\n{said}"
    );
    Ok(())
}
