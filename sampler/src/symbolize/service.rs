//! The child's side: the parsers, and what they may take together.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use crate::isolation::{Parent, Service};
use crate::object::{BuildId, FileId, PinnedFile};

use super::debug_file::Candidates;
use super::decompressed::Decompressed;
use super::demangle::Demangler;
use super::frames::of_symbol;
use super::inflation::Allowance;
use super::jit::{JitSource, JitStats};
use super::kernel::Kernel;
use super::names::Named;
use super::native::{AddressKind, NativeFile};
use super::parsers::OpenParsers;
use super::protocol::{FileState, MAX_FILE_ROWS_BYTES, MAX_PART_BYTES, Reply, Request, split};

/// What a child does that names addresses.
pub const SERVICE: Service = Service {
    name: "names",
    run: |parent| {
        // An error says that the parent has no more to ask.
        let _ = serve(&parent);
    },
};

fn serve(parent: &Parent) -> io::Result<()> {
    let (
        Request::Begin {
            max_parser_bytes,
            allowance_bytes,
        },
        None,
    ) = parent.receive()?
    else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let mut parsers = Parsers {
        parent,
        files: HashMap::new(),
        open: OpenParsers::new(max_parser_bytes),
        max_parser_bytes,
        allowance: Allowance::new(allowance_bytes),
        kernel: None,
        demangler: Demangler::default(),
        dump: None,
    };
    loop {
        let (request, file) = parent.receive()?;
        parsers.answer(request, file)?;
    }
}

/// All parsers.
struct Parsers<'a> {
    parent: &'a Parent,
    files: HashMap<u64, NativeFile>,
    open: OpenParsers,
    max_parser_bytes: u64,
    allowance: Allowance,
    kernel: Option<(Kernel, PinnedFile)>,
    demangler: Demangler,
    /// The jitdump for what is asked next.
    dump: Option<OwnedFd>,
}

impl Parsers<'_> {
    fn answer(&mut self, request: Request, file: Option<OwnedFd>) -> io::Result<()> {
        match (request, file) {
            (
                Request::Open {
                    file: number,
                    build_id,
                    symbols_only,
                },
                Some(file),
            ) => self.open(number, build_id.map(BuildId), file, symbols_only),
            (
                Request::Name {
                    file,
                    addresses,
                    kind,
                },
                None,
            ) => self.name(file, &addresses, kind),
            (Request::Symbols { file }, None) => self.symbols(file),
            (Request::Demangle { symbols }, None) => self.demangle(&symbols),
            (Request::JitDump, Some(dump)) => {
                self.dump = Some(dump);
                Ok(())
            }
            (
                Request::Jit {
                    addresses,
                    allowance_bytes,
                },
                map,
            ) => self.name_jit(&addresses, map, allowance_bytes),
            (
                Request::Kernel {
                    addresses,
                    is_new_table,
                },
                file,
            ) => self.name_kernel(&addresses, file, is_new_table),
            (Request::CloseParsers, None) => {
                for closed in self.open.close_all() {
                    if let Some(file) = self.files.get_mut(&closed.inode) {
                        file.close_parser();
                    }
                }
                give_back_memory();
                self.parent.send(&Reply::Closed)
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn open(
        &mut self,
        number: u64,
        build_id: Option<BuildId>,
        file: OwnedFd,
        symbols_only: bool,
    ) -> io::Result<()> {
        let pin = PinnedFile::new(own_id(number), PathBuf::new(), build_id, File::from(file));
        let mut candidates = Offered {
            parent: self.parent,
            wants: None,
            lost: false,
        };
        let mut file = NativeFile::open(Arc::new(pin), &mut candidates, &mut self.allowance);
        if candidates.lost {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if symbols_only {
            file.forgo_debug_info();
        }
        let state = self.state(&file);
        self.files.insert(number, file);
        self.parent.send(&Reply::Opened(state))
    }

    fn name(&mut self, number: u64, addresses: &[u64], kind: AddressKind) -> io::Result<()> {
        self.make_room(number);
        let Some(file) = self.files.get_mut(&number) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let named = file.name(addresses, kind, &mut self.demangler);
        self.send_frames(&named)?;
        let state = self
            .files
            .get(&number)
            .map_or_else(FileState::default, |file| self.state(file));
        self.parent.send(&Reply::Named(state))
    }

    fn symbols(&self, number: u64) -> io::Result<()> {
        let Some(file) = self.files.get(&number) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let rows = file.symbol_rows();
        let rows = rows.filter(|rows| rows.as_bytes().len() <= MAX_FILE_ROWS_BYTES);
        self.parent.send(&Reply::Symbols(rows.is_some()))?;
        rows.map_or(Ok(()), |rows| self.parent.send_bytes(rows.as_bytes()))
    }

    fn demangle(&mut self, symbols: &[Vec<u8>]) -> io::Result<()> {
        let symbols = symbols.iter();
        let named: Vec<Named> = symbols
            .map(|name| Named::from(of_symbol(name, &mut self.demangler)))
            .collect();
        self.send_frames(&named)
    }

    fn name_jit(
        &mut self,
        addresses: &[u64],
        map: Option<OwnedFd>,
        mut allowance_bytes: u64,
    ) -> io::Result<()> {
        let pin = |file: OwnedFd| {
            let file = PinnedFile::new(own_id(0), PathBuf::new(), None, File::from(file));
            Arc::new(file)
        };
        let source = JitSource {
            id: 0,
            dump: self.dump.take().map(pin),
            map: map.map(pin),
        };
        let mut stats = JitStats::default();
        let named = source.name(addresses, &mut allowance_bytes, &mut stats);
        self.send_frames(&named)?;
        self.parent.send(&Reply::JitNamed {
            stats,
            allowance_bytes,
        })
    }

    fn name_kernel(
        &mut self,
        addresses: &[u64],
        file: Option<OwnedFd>,
        is_new_table: bool,
    ) -> io::Result<()> {
        if let (true, Some(file)) = (is_new_table, file) {
            let pin = PinnedFile::new(own_id(0), PathBuf::new(), None, File::from(file));
            let kernel = Kernel::new(pin.reopen_path());
            self.kernel = Some((kernel, pin));
        }
        let Some((kernel, _)) = &mut self.kernel else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let named = kernel.name(addresses);
        let names_hidden = kernel.names_hidden;
        let panics = kernel.panics;
        self.send_frames(&named)?;
        self.parent.send(&Reply::KernelNamed {
            names_hidden,
            panics,
        })
    }

    fn send_frames(&self, named: &[Named]) -> io::Result<()> {
        let mut answers = named.iter().map(|frames| frames.to_vec()).collect();
        while !Vec::is_empty(&answers) {
            self.parent.send(&Reply::Frames(split(&mut answers)))?;
        }
        Ok(())
    }

    /// Before a parser opens, closes those used longest ago, as far as need be;
    /// one that the run's allowance does not suffice for has to go without what
    /// is compressed.
    fn make_room(&mut self, number: u64) {
        let Some(file) = self.files.get(&number) else {
            return;
        };
        let parser_bytes = file.parser_bytes();
        if self.open.touch(own_id(number)) {
            return;
        }
        for closed in self.open.admit(own_id(number), parser_bytes) {
            if let Some(file) = self.files.get_mut(&closed.inode) {
                file.close_parser();
            }
        }
        if let Some(file) = self.files.get_mut(&number)
            && (parser_bytes > self.max_parser_bytes || !self.allowance.take(file.inflated_bytes()))
        {
            file.forgo_inflation();
        }
    }

    fn state(&self, file: &NativeFile) -> FileState {
        FileState {
            failed: file.has_failed(),
            lost_debug_info: file.lost_debug_info,
            lacks_supplement: file.lacks_supplement(),
            panics: file.panics,
            parser_bytes: file.parser_bytes(),
            debug_bytes: file.debug_bytes(),
            allowance_bytes: self.allowance.left_bytes(),
        }
    }
}

/// Gives the system what the allocator holds of what was freed.
fn give_back_memory() {
    // SAFETY: has no preconditions.
    unsafe { libc::malloc_trim(0) };
}

/// The number that the worker gave a file, in place of the device and inode that
/// only the worker knows.
fn own_id(number: u64) -> FileId {
    FileId {
        device: 0,
        inode: number,
    }
}

/// Debug files that the parent offers.
struct Offered<'a> {
    parent: &'a Parent,
    /// What is asked for with the first of them.
    wants: Option<Reply>,
    /// The parent is gone.
    lost: bool,
}

impl Offered<'_> {
    fn ask_for_next(&mut self) -> io::Result<Option<File>> {
        let wants = self.wants.take().unwrap_or(Reply::WantsNext);
        self.parent.send(&wants)?;
        match self.parent.receive()? {
            (Request::Candidate, Some(file)) => Ok(Some(File::from(file))),
            (Request::NoCandidate, None) => Ok(None),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn ask_for_decompressed(
        &mut self,
        file: &File,
        plan: &Decompressed,
        allowance: &mut Allowance,
    ) -> io::Result<Option<File>> {
        self.parent.send(&Reply::Compressed {
            size_bytes: plan.size_bytes(),
        })?;
        let mut answer = self.parent.receive()?;
        if let (Request::Decompress, None) = answer {
            let mut parts = Parts {
                parent: self.parent,
                next: Vec::with_capacity(MAX_PART_BYTES),
            };
            if let Err(error) = plan.write(file, allowance, &mut parts) {
                tracing::debug!(%error, "debug information that cannot be inflated");
                self.parent.send_bytes(&[])?;
            }
            answer = self.parent.receive()?;
        }
        match answer {
            (Request::Decompressed, Some(file)) => Ok(Some(File::from(file))),
            (Request::LeaveCompressed, None) => Ok(None),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// What was found; nothing is asked any more of a parent that is gone.
    fn found(&mut self, asked: io::Result<Option<File>>) -> Option<File> {
        self.lost = asked.is_err();
        asked.ok().flatten()
    }
}

impl Candidates for Offered<'_> {
    fn seek(&mut self, build_id: &BuildId, link: Option<&[u8]>) {
        self.wants = Some(Reply::Wants {
            build_id: build_id.0.clone(),
            link: link.map(Box::from),
        });
    }

    fn next(&mut self) -> Option<File> {
        if self.lost {
            return None;
        }
        let asked = self.ask_for_next();
        self.found(asked)
    }

    fn decompressed(
        &mut self,
        file: &File,
        plan: &Decompressed,
        allowance: &mut Allowance,
    ) -> Option<File> {
        if self.lost {
            return None;
        }
        let asked = self.ask_for_decompressed(file, plan, allowance);
        self.found(asked)
    }
}

/// Sends what is written as messages of some size.
struct Parts<'a> {
    parent: &'a Parent,
    next: Vec<u8>,
}

impl Write for Parts<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = MAX_PART_BYTES - self.next.len();
        let taken = &bytes[..room.min(bytes.len())];
        self.next.extend_from_slice(taken);
        if self.next.len() == MAX_PART_BYTES {
            self.flush()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.next.is_empty() {
            self.parent.send_bytes(&self.next)?;
            self.next.clear();
        }
        Ok(())
    }
}
