//! The executable mappings of one program in one process.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use super::mapping::{Backing, Mapping};
use super::proc_text::MAX_MAPPINGS;

/// Mappings by address, none overlapping another, at most 65,536.
#[derive(Debug, Clone, Default)]
pub struct AddressSpace {
    by_start: BTreeMap<u64, Placed>,
    /// The program it was made for.
    pub exe: Option<Arc<Path>>,
    /// When that was started, `CLOCK_MONOTONIC`; 0 where that was not heard. A
    /// process that was forked since has its parent's.
    pub since_ns: u64,
    /// Whether all of it is known: it was read from `/proc`, watched from exec
    /// on, or inherited from one of which this holds.
    pub complete: bool,
    /// Whether the first file to be mapped will be the program itself.
    awaits_program: bool,
}

#[derive(Debug, Clone)]
struct Placed {
    since_ns: u64,
    mapping: Arc<Mapping>,
}

/// The page at which every process of x86-64 may call the kernel's old entry
/// points. It belongs to no address space, so no exec tells of it.
static VSYSCALL: LazyLock<Arc<Mapping>> = LazyLock::new(|| {
    Arc::new(Mapping {
        start: 0xffff_ffff_ff60_0000,
        end: 0xffff_ffff_ff60_1000,
        file_offset: 0,
        backing: Backing::Vsyscall,
    })
});

impl AddressSpace {
    /// That of a program which was started at this time: empty, and therefore
    /// known.
    pub(crate) fn fresh(since_ns: u64) -> Self {
        Self {
            since_ns,
            complete: true,
            awaits_program: true,
            ..Self::default()
        }
    }

    /// The mapping at an address.
    pub fn at(&self, address: u64) -> Option<&Arc<Mapping>> {
        if cfg!(target_arch = "x86_64") && VSYSCALL.contains(address) {
            return Some(&VSYSCALL);
        }
        let (_, placed) = self.by_start.range(..=address).next_back()?;
        placed.mapping.contains(address).then_some(&placed.mapping)
    }

    /// All mappings, by address.
    pub fn mappings(&self) -> impl Iterator<Item = &Arc<Mapping>> {
        self.by_start.values().map(|placed| &placed.mapping)
    }

    /// Adds a mapping made at `since_ns`; what it covers of others is gone.
    /// Beyond the limit it is left out.
    pub(crate) fn insert(&mut self, since_ns: u64, mapping: Mapping) {
        if self
            .by_start
            .get(&mapping.start)
            .is_some_and(|placed| placed.mapping.is_same(&mapping))
        {
            return;
        }
        self.note_program(&mapping);
        let (start, end) = (mapping.start, mapping.end);
        // At most one reaches in from below; all others start inside.
        let below = self.by_start.range(..start).next_back();
        let covered: Vec<u64> = below
            .filter(|(_, placed)| placed.mapping.end > start)
            .into_iter()
            .chain(self.by_start.range(start..end))
            .map(|(&at, _)| at)
            .collect();
        for at in covered {
            let Some(Placed { since_ns, mapping }) = self.by_start.remove(&at) else {
                continue;
            };
            if mapping.start < start {
                self.place(since_ns, mapping.part(mapping.start, start));
            }
            if mapping.end > end {
                self.place(since_ns, mapping.part(end, mapping.end));
            }
        }
        self.place(since_ns, mapping);
    }

    fn place(&mut self, since_ns: u64, mapping: Mapping) {
        if self.by_start.len() < MAX_MAPPINGS {
            let mapping = Arc::new(mapping);
            self.by_start
                .insert(mapping.start, Placed { since_ns, mapping });
        }
    }

    /// Adds all mappings of another on top.
    pub(super) fn overlay(&mut self, other: &Self) {
        for placed in other.by_start.values() {
            self.insert(placed.since_ns, Mapping::clone(&placed.mapping));
        }
    }

    /// Removes and returns what was mapped after `time_ns`.
    pub(super) fn split_off_after(&mut self, time_ns: u64) -> Self {
        let mut later = Self::default();
        self.by_start.retain(|&start, placed| {
            let stays = placed.since_ns <= time_ns;
            if !stays {
                later.by_start.insert(start, placed.clone());
            }
            stays
        });
        later
    }

    /// How many mappings there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_start.len()
    }

    /// Notes the program, if this is the first file that it maps: the kernel
    /// maps a program before its interpreter.
    fn note_program(&mut self, mapping: &Mapping) {
        if !self.awaits_program {
            return;
        }
        let program = match &mapping.backing {
            Backing::File(file) => file.path.as_path().into(),
            Backing::Unpinned { path, .. } => Arc::clone(path),
            _ => return,
        };
        self.awaits_program = false;
        self.exe = Some(program).filter(|path| !path.as_os_str().is_empty());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use proptest::prelude::*;

    fn mapping(start: u64, end: u64, file_offset: u64) -> Mapping {
        Mapping {
            start,
            end,
            file_offset,
            backing: Backing::Anonymous { name: "".into() },
        }
    }

    #[test]
    fn an_address_outside_every_mapping_has_none() {
        let mut space = AddressSpace::fresh(0);
        space.insert(1, mapping(10, 20, 0));
        space.insert(1, mapping(30, 40, 0));
        assert!(
            [9, 20, 29, 40]
                .iter()
                .all(|&address| space.at(address).is_none())
        );
        assert_eq!(space.at(39).unwrap().start, 30);
    }

    #[test]
    fn a_new_mapping_cuts_the_one_it_lies_in() {
        let mut space = AddressSpace::fresh(0);
        space.insert(1, mapping(0x1000, 0x9000, 0x100_000));
        space.insert(2, mapping(0x3000, 0x4000, 0));
        let at = |address| space.at(address).map(|m| m.file_offset_of(address).0);
        assert_eq!(at(0x2fff), Some(0x101_fff));
        assert_eq!(at(0x3000), Some(0));
        assert_eq!(at(0x4000), Some(0x103_000));
        assert_eq!(space.len(), 3);
    }

    #[test]
    fn a_new_mapping_swallows_those_under_it() {
        let mut space = AddressSpace::fresh(0);
        for start in [10, 20, 30] {
            space.insert(1, mapping(start, start + 10, start));
        }
        space.insert(2, mapping(15, 35, 500));
        assert_eq!(space.len(), 3);
        assert_eq!(space.at(14).unwrap().end, 15);
        assert_eq!(space.at(25).unwrap().start, 15);
        assert_eq!(space.at(35).unwrap().file_offset, 35);
    }

    #[test]
    fn the_number_of_mappings_is_bounded() {
        let mut space = AddressSpace::fresh(0);
        for index in 0..MAX_MAPPINGS as u64 + 10 {
            space.insert(1, mapping(index * 10, index * 10 + 5, 0));
        }
        assert_eq!(space.len(), MAX_MAPPINGS);
    }

    proptest! {
        #[test]
        fn the_last_one_to_map_an_address_has_it(
            ranges in proptest::collection::vec((0_u64..64, 1_u64..32), 1..24),
        ) {
            let mut space = AddressSpace::fresh(0);
            let mut expected = [None; 96];
            for (index, &(start, length)) in ranges.iter().enumerate() {
                // The offset identifies the mapping and the place in it.
                let file_offset = index as u64 * 1_000;
                space.insert(index as u64, mapping(start, start + length, file_offset));
                for address in start..start + length {
                    expected[address as usize] = Some(file_offset + address - start);
                }
            }
            for (address, expected) in (0_u64..).zip(expected) {
                let found = space.at(address).map(|m| m.file_offset_of(address).0);
                prop_assert_eq!(found, expected);
            }
        }
    }
}
