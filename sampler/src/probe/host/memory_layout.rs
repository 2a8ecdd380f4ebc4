//! The offsets that the eBPF programs need to find the mapping at an address.

use sampler_common::{ALLOCATION_END_AT, ALLOCATION_SLOTS_AT, RANGE_SLOTS_AT};

pub use sampler_common::MemoryLayout;

use super::btf::Btf;

/// The layout of a kernel; of one that keeps mappings in another way than the
/// programs can read, one that is not `known`.
pub fn memory_layout(btf: &Btf<'_>, page_bytes: u64) -> MemoryLayout {
    look_up(btf, page_bytes).unwrap_or_default()
}

fn look_up(btf: &Btf<'_>, page_bytes: u64) -> Option<MemoryLayout> {
    let offset = |structure, member| btf.member_offset_bytes(structure, member);
    // From 6.1 on.
    let nodes_are_known = offset("maple_range_64", "slot")? == RANGE_SLOTS_AT
        && offset("maple_arange_64", "slot")? == ALLOCATION_SLOTS_AT
        && offset("maple_arange_64", "meta")? == ALLOCATION_END_AT;
    let area = |member| offset("vm_area_struct", member);
    Some(MemoryLayout {
        known: u32::from(nodes_are_known),
        tree_root: btf.nested_offset_bytes("mm_struct", "mm_mt", "ma_root")?,
        // From 6.4 on, if so configured.
        lock_sequence: offset("mm_struct", "mm_lock_seq").unwrap_or(0),
        vdso: btf.nested_offset_bytes("mm_struct", "context", "vdso")?,
        start_stack: offset("mm_struct", "start_stack")?,
        start_code: offset("mm_struct", "start_code")?,
        area_start: area("vm_start")?,
        area_end: area("vm_end")?,
        area_memory: area("vm_mm")?,
        area_flags: area("vm_flags")?,
        area_page_offset: area("vm_pgoff")?,
        area_file: area("vm_file")?,
        file_inode: offset("file", "f_inode")?,
        inode_number: offset("inode", "i_ino")?,
        page_shift: page_bytes.ilog2(),
        reserved: 0,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::probe::host::btf;

    #[test]
    fn the_running_kernel_is_known() {
        let Ok(bytes) = btf::read_kernel() else {
            eprintln!("skipped: this kernel shows no BTF");
            return;
        };
        let layout = memory_layout(&Btf::parse(&bytes).unwrap(), 4096);
        assert_eq!(layout.known, 1);
        assert_eq!(layout.area_end, layout.area_start + 8);
        assert_eq!(layout.page_shift, 12);
        assert_ne!(layout.tree_root, 0);
    }

    #[test]
    fn a_kernel_without_the_tree_is_not() {
        let mut bytes = vec![0_u8; 24];
        bytes[..2].copy_from_slice(&0xEB9F_u16.to_ne_bytes());
        bytes[2] = 1;
        bytes[4..8].copy_from_slice(&24_u32.to_ne_bytes());
        let layout = memory_layout(&Btf::parse(&bytes).unwrap(), 4096);
        assert_eq!(layout, MemoryLayout::default());
    }
}
