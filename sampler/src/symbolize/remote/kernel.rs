//! The kernel, by its own symbol table.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use crate::isolation::Lost;
use crate::symbolize::kept_kernel::KeptKernel;
use crate::symbolize::names::{FrameName, Named};
use crate::symbolize::protocol::{MAX_ADDRESSES, MAX_REPLY_BYTES, Reply, Request};

use super::{MAX_DEATHS, Parsers, receive_frames};

/// The kernel's symbols.
#[derive(Debug)]
pub(in crate::symbolize) struct KernelSymbols {
    /// It is opened once, with the rights that there are then, which are those
    /// that it goes on with.
    kallsyms: io::Result<File>,
    /// What an earlier recording kept of it.
    kept: KeptKernel,
    /// Code of ours, and its names.
    own: Arc<[(Range<u64>, String)]>,
    /// `/proc/modules` when the child read the table: code loaded later would be
    /// taken for the module before it.
    modules: Vec<u8>,
    deaths: u32,
    pub(super) names_hidden: bool,
    pub(super) panics: u64,
}

impl KernelSymbols {
    pub(in crate::symbolize) fn open(
        kallsyms: &Path,
        kept: KeptKernel,
        own: Arc<[(Range<u64>, String)]>,
    ) -> Self {
        // Not a FIFO, which would have us wait for whoever writes.
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(kallsyms);
        let kallsyms = opened.and_then(|file| {
            if file.metadata()?.is_file() {
                Ok(file)
            } else {
                Err(io::ErrorKind::InvalidInput.into())
            }
        });
        Self {
            kallsyms,
            kept,
            own,
            modules: Vec::new(),
            deaths: 0,
            names_hidden: false,
            panics: 0,
        }
    }

    /// The frames at an address that is known without asking: in code of ours, or in
    /// the kernel proper.
    fn known(&mut self, address: u64) -> Option<Named> {
        let own = self.own.iter().find(|(code, _)| code.contains(&address));
        let own = own.map(|(_, name)| Named::from([FrameName::of_symbol(name)]));
        own.or_else(|| self.kept.name(address))
    }

    /// Keeps for the next recording what does not change until the next boot.
    pub(super) fn keep(&mut self) {
        if let Ok(kallsyms) = &self.kallsyms {
            self.kept.keep(kallsyms);
        }
    }
}

impl Parsers {
    /// The frames at each address of the kernel; no address comes twice.
    pub(in crate::symbolize) fn name_kernel(&mut self, addresses: &[u64]) -> Vec<Named> {
        let known = |address: &u64| Some((*address, self.kernel.known(*address)?));
        let mut named: HashMap<u64, Named> = addresses.iter().filter_map(known).collect();
        let others = addresses.iter().copied();
        let others: Vec<u64> = others.filter(|at| !named.contains_key(at)).collect();
        for chunk in others.chunks(MAX_ADDRESSES) {
            let found = self.name_some_of_kernel(chunk);
            named.extend(chunk.iter().copied().zip(found));
        }
        let named = addresses.iter().map(|address| named.remove(address));
        named.map(Option::unwrap_or_default).collect()
    }

    fn name_some_of_kernel(&mut self, addresses: &[u64]) -> Vec<Named> {
        self.forget_old_modules();
        while self.kernel.deaths < MAX_DEATHS && self.kernel.kallsyms.is_ok() {
            if self.running().is_none() {
                break;
            }
            match self.ask_kernel(addresses) {
                Ok(named) => return named,
                Err(lost) => {
                    tracing::warn!("lost a parser over the kernel's symbols: {lost}");
                    self.kernel.deaths += 1;
                    self.lose_child();
                }
            }
        }
        if let Err(error) = &self.kernel.kallsyms {
            tracing::debug!(%error, "the kernel's symbols cannot be read");
        }
        self.kernel.names_hidden = true;
        vec![Named::from([]); addresses.len()]
    }

    fn forget_old_modules(&mut self) {
        let modules = fs::read("/proc/modules").unwrap_or_default();
        let is_new = modules != self.kernel.modules;
        self.kernel.modules = modules;
        if let (true, Some(running)) = (is_new, &mut self.child) {
            running.has_kernel = false;
        }
    }

    fn ask_kernel(&mut self, addresses: &[u64]) -> Result<Vec<Named>, Lost> {
        let file = self.kernel.kallsyms.as_ref().ok();
        let (Some(running), Some(file)) = (&mut self.child, file) else {
            return Err(Lost::Ended);
        };
        let deadline = self.bounds.begin(&running.child);
        let is_new_table = !std::mem::replace(&mut running.has_kernel, true);
        let request = Request::Kernel {
            addresses: addresses.to_vec(),
            is_new_table,
        };
        let file = is_new_table.then(|| file.as_fd());
        running.child.send(&request, file, deadline)?;
        let named = receive_frames(&running.child, addresses.len(), deadline)?;
        match running.child.receive(MAX_REPLY_BYTES, deadline)? {
            Reply::KernelNamed {
                names_hidden,
                panics,
            } => {
                self.kernel.names_hidden |= names_hidden;
                self.kernel.panics = panics;
                Ok(named)
            }
            _ => Err(Lost::Nonsense),
        }
    }
}
