//! Code that was made at run time, by files that name it.

use std::collections::HashSet;
use std::os::fd::AsFd as _;

use crate::isolation::Lost;
use crate::symbolize::jit::{JitSource, JitStats};
use crate::symbolize::names::Named;
use crate::symbolize::protocol::{MAX_ADDRESSES, MAX_REPLY_BYTES, Reply, Request};

use super::{Parsers, Running, receive_frames};

/// What may be read in all of files that name code made at run time.
const MAX_JIT_BYTES: u64 = 1 << 30;
/// Files that name code made at run time.
#[derive(Debug)]
pub(super) struct Jit {
    pub(super) stats: JitStats,
    /// What may still be read of all of them.
    allowance_bytes: u64,
    /// Sources that have cost a child; they are not asked again.
    pub(super) lost: HashSet<u64>,
}

impl Default for Jit {
    fn default() -> Self {
        Self {
            stats: JitStats::default(),
            allowance_bytes: MAX_JIT_BYTES,
            lost: HashSet::new(),
        }
    }
}

impl Parsers {
    /// The frames at each address of code that was made at run time; they are in
    /// ascending order.
    pub(in crate::symbolize) fn name_jit(
        &mut self,
        source: &JitSource,
        addresses: &[u64],
    ) -> Vec<Named> {
        let mut named = Vec::with_capacity(addresses.len());
        for chunk in addresses.chunks(MAX_ADDRESSES) {
            let asked = if self.jit.lost.contains(&source.id) || self.running().is_none() {
                None
            } else {
                self.ask_jit(source, chunk)
                    .inspect_err(|lost| {
                        tracing::warn!("lost a parser over a perf map or jitdump: {lost}");
                        self.jit.lost.insert(source.id);
                        self.lose_child();
                    })
                    .ok()
            };
            named.extend(asked.unwrap_or_else(|| vec![Named::from([]); chunk.len()]));
        }
        named
    }

    fn ask_jit(&mut self, source: &JitSource, addresses: &[u64]) -> Result<Vec<Named>, Lost> {
        let Some(Running { child, .. }) = &self.child else {
            return Err(Lost::Ended);
        };
        let deadline = self.bounds.begin(child);
        if let Some(dump) = &source.dump {
            child.send(&Request::JitDump, Some(dump.as_fd()), deadline)?;
        }
        let request = Request::Jit {
            addresses: addresses.to_vec(),
            allowance_bytes: self.jit.allowance_bytes,
        };
        let map = source.map.as_ref().map(|map| map.as_fd());
        child.send(&request, map, deadline)?;
        let named = receive_frames(child, addresses.len(), deadline)?;
        match child.receive(MAX_REPLY_BYTES, deadline)? {
            Reply::JitNamed {
                stats,
                allowance_bytes,
            } => {
                self.jit.stats.add(stats);
                self.jit.allowance_bytes = self.jit.allowance_bytes.min(allowance_bytes);
                Ok(named)
            }
            _ => Err(Lost::Nonsense),
        }
    }
}
