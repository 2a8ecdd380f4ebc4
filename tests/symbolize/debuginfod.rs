//! Debug files from a real debuginfod server.

use std::fs;
use std::process::Command;

use libtest_mimic::Trial;
use sampler::symbolize::{DebugServers, Options};

use crate::fixture::pin;
use crate::separate::{build_id, outermost_with, stripped};
use crate::server::Server;
use crate::tool::{Outcome, Stop, fail, trial};

pub fn trials() -> Vec<Trial> {
    vec![trial(
        "a_debuginfod_server_gives_the_debug_file",
        server_gives,
    )]
}

/// Asks a real server, and then nobody: the cache has it, where the client of
/// elfutils finds it too.
fn server_gives() -> Outcome {
    let (built, offset) = stripped()?;
    let files = built.dir.path().join("files");
    fs::create_dir(&files)?;
    fs::rename(
        built.dir.path().join("program.debug"),
        files.join("renamed"),
    )?;
    let id = build_id(&built.program)?;
    let cache_dir = built.dir.path().join("cache");
    let file = pin(&built.program)?;
    let server =
        Server::start(&files).map_err(|error| Stop::Missing(format!("debuginfod: {error}")))?;
    server.wait_for(&id)?;
    let url = server.url();
    let ask = |servers: Option<&str>| {
        let options = Options {
            debug_dirs: Vec::new(),
            debug_servers: servers.map(|url| DebugServers {
                urls: vec![url.to_owned()],
                cache_dir: cache_dir.clone(),
            }),
            ..Options::default()
        };
        outermost_with(&file, offset, options)
    };
    match ask(None)? {
        Some((_, 0, 1)) => {}
        other => return fail(format!("with no server: {other:?}")),
    }
    for (when, is_up) in [("from the server", true), ("from the cache", false)] {
        if !is_up {
            fs::remove_dir_all(&files)?;
        }
        let nobody = "http://127.0.0.1:1";
        match ask(Some(if is_up { &url } else { nobody }))? {
            Some((name, line, _)) if name == "outer" && line > 0 => {}
            other => return fail(format!("{when}: {other:?}")),
        }
    }
    let found = Command::new("debuginfod-find")
        .args(["debuginfo", &id])
        .env("DEBUGINFOD_CACHE_PATH", &cache_dir)
        .env("DEBUGINFOD_URLS", "http://127.0.0.1:1")
        .output()
        .map_err(|error| Stop::Missing(format!("debuginfod-find: {error}")))?;
    let cached = cache_dir.join(&id).join("debuginfo");
    if String::from_utf8_lossy(&found.stdout).trim() != cached.to_string_lossy() {
        return fail(format!("debuginfod-find: {found:?}"));
    }
    Ok(())
}
