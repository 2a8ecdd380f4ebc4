//! Debug files from servers that are asked by build ID.
//!
//! Protocol: debuginfod(8), "WEBAPI": `GET URL/buildid/ID/debuginfo`. Nothing
//! is asked unless the user named a server. A server may be slow, silent or
//! wrong: each wait has an end, so have all of a run together, and what comes
//! is taken only if it is a file with the build ID asked for.

mod cache;
mod certificates;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::ring;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

use crate::object::BuildId;
use cache::Cache;

/// How long a server may take to accept a connection.
const MAX_CONNECT: Duration = Duration::from_secs(3);
/// How long it may take for a whole file.
const MAX_FILE: Duration = Duration::from_secs(30);
/// How long a run may wait for servers altogether.
pub(super) const MAX_RUN: Duration = Duration::from_secs(60);
/// The largest file that is taken.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// Servers with debug files, and where to keep what comes from them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebugServers {
    /// Their addresses, `http` or `https`, in the order in which they are asked.
    pub urls: Vec<String>,
    /// The directory that the clients of debuginfod share.
    pub cache_dir: PathBuf,
}

/// A client of these servers, for one run.
#[derive(Debug)]
pub(crate) struct Debuginfod {
    agent: Agent,
    servers: Vec<String>,
    cache: Cache,
    /// No server has them.
    missing: HashSet<BuildId>,
    left: Duration,
}

/// Why a server did not give a file.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    /// It answers that it has none.
    #[error("it has no such file")]
    Missing,
    /// It cannot be reached, refuses or breaks off; it is not asked again.
    #[error("{0}")]
    Server(#[from] ureq::Error),
    /// It answers with something else than the file.
    #[error("status {0}")]
    Status(u16),
    /// What it sends cannot be kept: too large, the time was over, no room.
    #[error("not kept: {0}")]
    NotKept(#[from] io::Error),
}

impl Debuginfod {
    /// A client that has asked nothing yet; none, and a warning, if the cache
    /// cannot be used.
    pub(crate) fn open(servers: DebugServers) -> Option<Self> {
        let cache_dir = servers.cache_dir.clone();
        Self::new(servers)
            .inspect_err(|error| {
                tracing::warn!(?cache_dir, %error, "no debuginfod server is asked: the cache cannot be used");
            })
            .ok()
    }

    fn new(servers: DebugServers) -> io::Result<Self> {
        let is_encrypted = |url: &String| url.starts_with("https:");
        let certificates = if servers.urls.iter().any(is_encrypted) {
            certificates::of_system()
        } else {
            Vec::new()
        };
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(certificates)))
            .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .timeout_connect(Some(MAX_CONNECT))
            .http_status_as_error(false)
            .max_redirects(3)
            .user_agent(concat!("sampler/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self {
            agent,
            servers: servers.urls,
            cache: Cache::open(&servers.cache_dir)?,
            missing: HashSet::new(),
            left: MAX_RUN,
        })
    }

    /// The debug file with a build ID: from the cache, else from the first
    /// server that has it.
    pub(crate) fn find(&mut self, build_id: &BuildId) -> Option<File> {
        if let Some(cached) = self.cache.get(build_id) {
            return Some(cached);
        }
        if self.missing.contains(build_id) {
            return None;
        }
        let mut next = 0;
        while let Some(server) = self.servers.get(next).filter(|_| !self.left.is_zero()) {
            let began = Instant::now();
            let fetched = self.fetch(server, build_id);
            self.left = self.left.saturating_sub(began.elapsed());
            match fetched {
                Ok(file) => return Some(file),
                Err(FetchError::Server(error)) => {
                    tracing::warn!(server, %error, "a debuginfod server is not asked any more");
                    self.servers.remove(next);
                }
                Err(error) => {
                    tracing::debug!(server, %build_id, %error, "no debug file");
                    next += 1;
                }
            }
        }
        self.missing.insert(build_id.clone());
        None
    }

    fn fetch(&self, server: &str, build_id: &BuildId) -> Result<File, FetchError> {
        let url = format!(
            "{}/buildid/{build_id}/debuginfo",
            server.trim_end_matches('/')
        );
        let request = self.agent.get(url).config();
        let request = request.timeout_global(Some(self.left.min(MAX_FILE)));
        let response = request.build().call()?;
        match response.status().as_u16() {
            200 => {}
            404 => return Err(FetchError::Missing),
            other => return Err(FetchError::Status(other)),
        }
        let mut body = response.into_body().into_reader().take(MAX_FILE_BYTES + 1);
        let kept = self.cache.keep(build_id, |file| {
            if io::copy(&mut body, file)? > MAX_FILE_BYTES {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            Ok(())
        })?;
        tracing::info!(server, %build_id, "took a debug file");
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use super::*;

    const ID: [u8; 8] = [0xab, 1, 2, 3, 4, 5, 6, 7];

    /// A server that gives each request to `answer`, and its address.
    fn server(answer: impl Fn(TcpStream) + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut lines = BufReader::new(&stream).lines().map(Result::unwrap);
                let first = lines.next().unwrap();
                assert_eq!(first, "GET /buildid/ab01020304050607/debuginfo HTTP/1.1");
                while !lines.next().unwrap().is_empty() {}
                answer(stream);
            }
        });
        url
    }

    fn says(answer: Vec<u8>) -> impl Fn(TcpStream) + Send + 'static {
        move |mut stream| stream.write_all(&answer).unwrap()
    }

    fn not_found() -> Vec<u8> {
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()
    }

    fn found(content: &[u8]) -> Vec<u8> {
        let length = content.len();
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        [head.as_bytes(), content].concat()
    }

    fn client(urls: &[String], dir: &tempfile::TempDir) -> Debuginfod {
        let servers = DebugServers {
            urls: urls.to_vec(),
            cache_dir: dir.path().join("cache"),
        };
        Debuginfod::new(servers).unwrap()
    }

    #[test]
    fn the_first_server_that_has_the_file_gives_it_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = cache::tests::debug_file(ID);
        let urls = [server(says(not_found())), server(says(found(&file)))];
        let build_id = BuildId(Box::new(ID));
        let mut content = Vec::new();
        let mut first = client(&urls, &dir).find(&build_id).unwrap();
        first.read_to_end(&mut content).unwrap();
        assert_eq!(content, file);
        // Nobody is asked for what the cache has.
        assert!(client(&[], &dir).find(&build_id).is_some());
    }

    #[test]
    fn what_is_missing_is_asked_for_once() {
        let dir = tempfile::tempdir().unwrap();
        let (asked, count) = std::sync::mpsc::channel();
        let url = server(move |mut stream| {
            asked.send(()).unwrap();
            stream.write_all(&not_found()).unwrap();
        });
        let mut client = client(&[url], &dir);
        for _ in 0..3 {
            assert!(client.find(&BuildId(Box::new(ID))).is_none());
        }
        assert_eq!(count.try_iter().count(), 1);
    }

    #[test]
    fn another_file_is_neither_taken_nor_kept() {
        let dir = tempfile::tempdir().unwrap();
        let other = cache::tests::debug_file([9; 8]);
        let urls = [server(says(found(&other))), server(says(found(b"none")))];
        assert!(client(&urls, &dir).find(&BuildId(Box::new(ID))).is_none());
        assert!(client(&[], &dir).find(&BuildId(Box::new(ID))).is_none());
    }

    #[test]
    fn a_file_that_breaks_off_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut answer = found(&cache::tests::debug_file(ID));
        answer.pop();
        let mut client = client(&[server(says(answer))], &dir);
        assert!(client.find(&BuildId(Box::new(ID))).is_none());
        assert!(client.cache.get(&BuildId(Box::new(ID))).is_none());
    }

    #[test]
    fn a_silent_server_costs_no_more_than_what_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let url = server(|stream| {
            thread::sleep(Duration::from_secs(600));
            drop(stream);
        });
        let mut client = client(&[url], &dir);
        client.left = Duration::from_millis(300);
        let began = Instant::now();
        assert!(client.find(&BuildId(Box::new(ID))).is_none());
        assert!(began.elapsed() < Duration::from_secs(60));
        assert!(client.servers.is_empty());
    }
}
