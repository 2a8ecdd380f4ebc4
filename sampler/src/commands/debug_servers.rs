//! Which debuginfod servers are asked.
//!
//! The variables are those of every client of debuginfod; see debuginfod(8) and
//! debuginfod-find(1).

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;

use crate::commands::Failure;
use crate::symbolize::DebugServers;

/// Which servers with debug files to ask.
#[derive(Debug, Args)]
pub struct DebugServersArgs {
    /// Ask debuginfod servers for debug information that is not on this machine:
    /// those in `DEBUGINFOD_URLS`, or these (several in quotes). They learn the
    /// build IDs of what is named. Setting the variable is enough to ask.
    #[arg(long, value_name = "URL", num_args = 0..=1, require_equals = true,
          default_missing_value = "")]
    pub debuginfod: Option<String>,
}

impl DebugServersArgs {
    /// The servers that are to be asked, if any are.
    pub fn servers(&self) -> Result<Option<DebugServers>, Failure> {
        debug_servers(self.debuginfod.as_deref(), |name| env::var_os(name))
    }
}

/// The servers that `--debuginfod` names; without names, or without the option,
/// those of `DEBUGINFOD_URLS`; none if nothing says any. An entry of the variable
/// that is no address of a server is passed over, one of the option refused.
fn debug_servers(
    option: Option<&str>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<DebugServers>, Failure> {
    let is_address = |url: &&str| url.starts_with("http://") || url.starts_with("https://");
    let named = option.filter(|urls| !urls.trim().is_empty());
    if let Some(wrong) = named.and_then(|urls| urls.split_whitespace().find(|url| !is_address(url)))
    {
        return Err(Failure::Usage(anyhow!(
            "`--debuginfod={wrong}`: the address of a server begins with http:// or https://"
        )));
    }
    let usual = variable("DEBUGINFOD_URLS").unwrap_or_default();
    let usual = usual.to_string_lossy();
    let urls: Vec<String> = named
        .unwrap_or(&usual)
        .split_whitespace()
        .filter(is_address)
        .map(str::to_owned)
        .collect();
    if urls.is_empty() {
        return match option {
            None => Ok(None),
            Some(_) => Err(Failure::Usage(anyhow!(
                "`--debuginfod` asks the servers in DEBUGINFOD_URLS, which names none: \
                 set it, or use `--debuginfod=URL`"
            ))),
        };
    }
    match cache_dir(variable) {
        Some(cache_dir) => Ok(Some(DebugServers { urls, cache_dir })),
        None if option.is_none() => Ok(None),
        None => Err(Failure::Usage(anyhow!(
            "`--debuginfod` needs a cache: set DEBUGINFOD_CACHE_PATH to a directory"
        ))),
    }
}

/// Where the clients of debuginfod keep what they were given.
fn cache_dir(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let path = |name| {
        variable(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    path("DEBUGINFOD_CACHE_PATH")
        .or_else(|| path("XDG_CACHE_HOME").map(|dir| dir.join("debuginfod_client")))
        .or_else(|| path("HOME").map(|dir| dir.join(".cache/debuginfod_client")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn asked(
        option: Option<&str>,
        variables: &[(&str, &str)],
    ) -> Result<Option<(String, String)>, Failure> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        debug_servers(option, variable).map(|servers| {
            servers.map(|servers| {
                let cache_dir = servers.cache_dir.to_string_lossy().into_owned();
                (servers.urls.join(" "), cache_dir)
            })
        })
    }

    const HOME: (&str, &str) = ("HOME", "/root");
    const IN_HOME: &str = "/root/.cache/debuginfod_client";

    fn urls(option: Option<&str>, usual: &str) -> Option<String> {
        let variables = [HOME, ("DEBUGINFOD_URLS", usual)];
        asked(option, &variables).unwrap().map(|(urls, _)| urls)
    }

    #[test]
    fn nobody_is_asked_unless_named() {
        assert_eq!(asked(None, &[HOME]).unwrap(), None);
        assert_eq!(urls(None, " "), None);
        assert_eq!(
            urls(None, "http://a https://b"),
            Some("http://a https://b".into())
        );
        assert_eq!(urls(Some(""), "http://a"), Some("http://a".into()));
        assert_eq!(urls(Some("http://c"), "http://a"), Some("http://c".into()));
    }

    #[test]
    fn what_is_no_server_is_passed_over_or_refused() {
        let usual = "ima:enforcing http://a file:///b";
        assert_eq!(urls(None, usual), Some("http://a".into()));
        for (option, usual) in [
            ("ftp://a", ""),
            ("http://a b", ""),
            ("", ""),
            ("", "file:///b"),
        ] {
            let refused = asked(Some(option), &[HOME, ("DEBUGINFOD_URLS", usual)]);
            assert_eq!(refused.unwrap_err().exit_code(), 2, "{option:?}");
        }
    }

    #[test]
    fn the_cache_is_where_the_variables_say() {
        let cache = |variables: &[(&str, &str)]| {
            let found = asked(Some("http://a"), variables).ok().flatten();
            found.map(|(_, cache)| cache)
        };
        let xdg = ("XDG_CACHE_HOME", "/x");
        assert_eq!(cache(&[HOME]), Some(IN_HOME.into()));
        assert_eq!(cache(&[HOME, xdg]), Some("/x/debuginfod_client".into()));
        let own = ("DEBUGINFOD_CACHE_PATH", "/own");
        assert_eq!(cache(&[HOME, xdg, own]), Some("/own".into()));
        assert_eq!(cache(&[("HOME", "")]), None);
        assert_eq!(
            asked(None, &[("DEBUGINFOD_URLS", "http://a")]).unwrap(),
            None
        );
    }
}
