//! The names of the kernel, from kallsyms.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use blazesym::MaybeDefault;
use blazesym::symbolize::source::{Kernel as KernelSource, Source};
use blazesym::symbolize::{Input, Reason, Symbolized, Symbolizer};

use super::demangle::Demangler;
use super::frames::frames;
use super::names::Named;

/// Where the kernel's half of the address space begins, on every 64-bit
/// architecture.
const KERNEL_START: u64 = 1 << 63;

/// kallsyms knows where a symbol starts and not where it ends. Further from the
/// start than the largest functions reach, the symbol is another's.
const MAX_FUNCTION_BYTES: u64 = 256 << 10;

/// The kernel's symbol table, as it was when it was first asked.
pub(super) struct Kernel {
    source: Source<'static>,
    parser: Symbolizer,
    /// No symbol has an address, or there are none.
    pub names_hidden: bool,
    /// Panics of the parser that were caught.
    pub panics: u64,
}

impl Kernel {
    /// Nothing is read before the first address is asked for.
    pub(super) fn new(kallsyms: PathBuf) -> Self {
        let source = KernelSource {
            kallsyms: MaybeDefault::Some(kallsyms),
            // A vmlinux that happens to lie in /boot need not be this kernel's.
            vmlinux: MaybeDefault::None,
            debug_syms: false,
            ..KernelSource::default()
        };
        Self {
            source: Source::Kernel(source),
            parser: new_parser(),
            names_hidden: false,
            panics: 0,
        }
    }

    /// The frames at each of the addresses.
    pub(super) fn name(&mut self, addresses: &[u64]) -> Vec<Named> {
        let asked = catch_unwind(AssertUnwindSafe(|| {
            let input = Input::AbsAddr(addresses);
            self.parser.symbolize(&self.source, input).map(|symbols| {
                let hidden = symbols
                    .iter()
                    .any(|symbol| matches!(symbol, Symbolized::Unknown(Reason::MissingSyms)));
                let named = addresses.iter().zip(&symbols);
                (
                    named.map(|(at, symbol)| name_of(*at, symbol)).collect(),
                    hidden,
                )
            })
        }));
        match asked {
            Ok(Ok((named, hidden))) => {
                self.names_hidden |= hidden;
                named
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "the kernel's symbols cannot be read");
                self.names_hidden = true;
                vec![Arc::from([]); addresses.len()]
            }
            Err(_) => {
                self.panics += 1;
                self.parser = new_parser();
                vec![Arc::from([]); addresses.len()]
            }
        }
    }
}

/// Whether an address that lies so far behind the start of a symbol can be its.
pub(super) fn reaches(offset: u64) -> bool {
    offset <= MAX_FUNCTION_BYTES
}

fn name_of(address: u64, symbolized: &Symbolized<'_>) -> Named {
    let symbol = symbolized
        .as_sym()
        .filter(|symbol| address >= KERNEL_START && reaches(symbol.offset as u64));
    Named::from(symbol.map_or_else(Vec::new, |symbol| {
        frames(symbol, None, &mut Demangler::default())
    }))
}

fn new_parser() -> Symbolizer {
    Symbolizer::builder()
        // The time stamp of a file in /proc says nothing about its content.
        .enable_auto_reload(false)
        // It would ask the kernel for the lines of BPF programs, and give up all
        // names where it may not.
        .enable_code_info(false)
        .enable_demangling(false)
        .build()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that unwraps says what it expects
    use std::fs;

    use super::*;

    const BASE: u64 = 0xffff_ffff_8100_0000;

    fn kernel(kallsyms: &str) -> (tempfile::NamedTempFile, Kernel) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), kallsyms).unwrap();
        let kernel = Kernel::new(file.path().to_owned());
        (file, kernel)
    }

    fn names(kernel: &mut Kernel, addresses: &[u64]) -> Vec<Option<String>> {
        let named = kernel.name(addresses);
        named
            .iter()
            .map(|frames| frames.first().map(|frame| frame.name.clone()))
            .collect()
    }

    #[test]
    fn an_address_has_the_name_of_the_symbol_that_starts_before_it() {
        let (_file, mut kernel) = kernel(
            "0000000000001000 A per_cpu_thing\n\
             ffffffff81000000 T _stext\n\
             ffffffff81000100 t _RNvC6_123foo3bar\n",
        );
        assert_eq!(
            names(
                &mut kernel,
                &[BASE + 8, BASE + 0x104, BASE + 0x1000_0000, 0x1004]
            ),
            [
                Some("_stext".to_owned()),
                Some("123foo::bar".to_owned()),
                None,
                None
            ]
        );
        assert!(!kernel.names_hidden);
    }

    #[test]
    fn a_kernel_that_hides_its_addresses_gives_no_names() {
        let (_file, mut kernel) = kernel("0000000000000000 T _stext\n0000000000000000 t f\n");
        assert_eq!(names(&mut kernel, &[BASE]), [None]);
        assert!(kernel.names_hidden);
    }

    #[test]
    fn no_kallsyms_means_no_names() {
        let mut kernel = Kernel::new(PathBuf::from("/nonexistent/kallsyms"));
        assert_eq!(names(&mut kernel, &[BASE]), [None]);
        assert!(kernel.names_hidden);
    }
}
