//! What naming goes by.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::cache::Cache;

use super::debuginfod::DebugServers;
use super::waiting::Waiting;

/// How long [`super::Symbolizer::finish`] waits. Hundreds of large files take seconds.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// What open parsers may hold together where nothing else is said.
const MAX_PARSER_BYTES: u64 = 512 << 20;
/// How long a child may be at one file. The largest debug files take seconds.
const FILE_DEADLINE: Duration = Duration::from_secs(15);
/// Where names are looked for, and at what cost.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directories with separate debug files, in order of preference.
    pub debug_dirs: Vec<PathBuf>,
    /// Servers that are asked for debug files that are in none of them.
    pub debug_servers: Option<DebugServers>,
    /// Where names that were found are kept for the next time.
    pub cache: Option<Arc<Cache>>,
    /// The kernel's symbol table.
    pub kallsyms: PathBuf,
    /// The boot that it is of, if that is known and it is the kernel's own: the part
    /// that does not change is then kept, too.
    pub boot_id: Option<String>,
    /// Code that the kernel runs for us, and its names: it need not be asked for
    /// these.
    pub own_kernel_code: Arc<[(Range<u64>, String)]>,
    /// How long [`super::Symbolizer::finish`] waits for answers, besides the time that
    /// servers may take.
    pub max_wait: Duration,
    /// Is told once a second while [`super::Symbolizer::finish`] waits, and at its end.
    pub on_wait: fn(Waiting),
    /// How long a child may be at one file before it is ended.
    pub file_deadline: Duration,
    /// Measures the memory of the profiler in bytes, for
    /// [`super::Stats::peak_rss_bytes`].
    pub rss_bytes: fn() -> u64,
    /// The capabilities that the threads keep, one bit each, after they have opened
    /// what they need more for.
    pub kept_rights: u64,
    /// What open parsers may hold together, in bytes. A file that takes more
    /// alone goes without what has to be inflated.
    pub max_parser_bytes: u64,
    /// When the profiler takes more, in bytes, no parser stays open.
    pub max_rss_bytes: u64,
    /// Files that are looked into at a time, each by a thread and a child of its own.
    pub at_a_time: NonZeroUsize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            debug_dirs: vec![PathBuf::from("/usr/lib/debug")],
            debug_servers: None,
            cache: None,
            kallsyms: PathBuf::from("/proc/kallsyms"),
            boot_id: None,
            own_kernel_code: Arc::from([]),
            max_wait: MAX_WAIT,
            on_wait: |_| (),
            file_deadline: FILE_DEADLINE,
            rss_bytes: || 0,
            kept_rights: u64::MAX,
            max_parser_bytes: MAX_PARSER_BYTES,
            max_rss_bytes: u64::MAX,
            at_a_time: NonZeroUsize::MIN,
        }
    }
}
