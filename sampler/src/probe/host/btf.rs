//! Where the running kernel keeps the members of its structures.
//!
//! A reader for the BTF type format, as far as structures and sizes go. Format:
//! the kernel's `Documentation/bpf/btf.rst` and `include/uapi/linux/btf.h`.

use std::collections::HashSet;
use std::io;
use std::ops::Range;

use super::small_file;

const MAGIC: u16 = 0xEB9F;
const VERSION: u8 = 1;
/// Magic, version, flags, own length, then offset and length of two sections.
const HEADER_BYTES: usize = 24;
/// Name, info, size or type.
const TYPE_BYTES: usize = 12;
/// Name, type, offset.
const MEMBER_BYTES: usize = 12;
const POINTER_BYTES: u32 = 8;
/// A vmlinux of today has 5 to 10 MiB.
const CAP_BYTES: u64 = 64 << 20;
/// Typedefs, qualifiers and arrays followed from one type to its size.
const MAX_CHAIN: u32 = 32;

/// Why bytes are not BTF that can be read here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// The first bytes are not those of BTF in this machine's byte order.
    #[error("not BTF of this machine's byte order")]
    Magic,
    /// A version that does not exist yet.
    #[error("BTF of version {0}, which is not known")]
    Version(u8),
    /// A section reaches past the end.
    #[error("the BTF ends before its {0}")]
    Truncated(&'static str),
    /// A kind whose size is not known, so that what follows cannot be found.
    #[error("type {type_id} is of the unknown kind {kind}")]
    UnknownKind {
        /// The type's number.
        type_id: u32,
        /// Its kind.
        kind: u8,
    },
}

/// A type's number; 0 is `void`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TypeId(u32);

/// The types of a kernel. Borrows the bytes that it was read from.
#[derive(Debug)]
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where in `types` each type starts; type N at N - 1.
    starts: Vec<u32>,
}

/// The kinds that matter here; the numbers are `BTF_KIND_*`.
mod kind {
    pub(super) const INT: u8 = 1;
    pub(super) const PTR: u8 = 2;
    pub(super) const ARRAY: u8 = 3;
    pub(super) const STRUCT: u8 = 4;
    pub(super) const UNION: u8 = 5;
    pub(super) const ENUM: u8 = 6;
    pub(super) const FWD: u8 = 7;
    pub(super) const TYPEDEF: u8 = 8;
    pub(super) const VOLATILE: u8 = 9;
    pub(super) const CONST: u8 = 10;
    pub(super) const RESTRICT: u8 = 11;
    pub(super) const FUNC: u8 = 12;
    pub(super) const FUNC_PROTO: u8 = 13;
    pub(super) const VAR: u8 = 14;
    pub(super) const DATASEC: u8 = 15;
    pub(super) const FLOAT: u8 = 16;
    pub(super) const DECL_TAG: u8 = 17;
    pub(super) const TYPE_TAG: u8 = 18;
    pub(super) const ENUM64: u8 = 19;
}

/// The fixed part of a type.
struct Node {
    name: u32,
    kind: u8,
    /// The `kind_flag`: in a structure, members carry a bit-field size.
    flag: bool,
    members: usize,
    /// The size in bytes, or the number of another type.
    size_or_target: u32,
    /// Where in the type section the kind's own data starts.
    data: usize,
}

/// A member, seen from the structure that was asked about.
struct Member {
    offset_bits: u32,
    type_id: TypeId,
    bitfield: bool,
}

impl<'a> Btf<'a> {
    /// Indexes the types. Never panics, whatever the bytes are.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        let header = bytes
            .get(..HEADER_BYTES)
            .ok_or(BtfError::Truncated("header"))?;
        if u16::from_ne_bytes([header[0], header[1]]) != MAGIC {
            return Err(BtfError::Magic);
        }
        if header[2] != VERSION {
            return Err(BtfError::Version(header[2]));
        }
        let word = |at| u32_at(header, at).unwrap_or_default() as usize;
        let body = bytes
            .get(word(4)..)
            .ok_or(BtfError::Truncated("sections"))?;
        let section = |offset: usize, length: usize| body.get(offset..offset.checked_add(length)?);
        let types = section(word(8), word(12)).ok_or(BtfError::Truncated("types"))?;
        let strings = section(word(16), word(20)).ok_or(BtfError::Truncated("strings"))?;
        let mut btf = Self {
            types,
            strings,
            starts: Vec::new(),
        };
        let mut at = 0;
        while at < types.len() {
            let range = btf.extent(at)?;
            btf.starts.push(range.start as u32);
            at = range.end;
        }
        Ok(btf)
    }

    /// The name of a function, by the number of its type.
    pub fn function_name(&self, type_id: u32) -> Option<&'a str> {
        let node = self
            .ty(TypeId(type_id))
            .filter(|ty| ty.kind == kind::FUNC)?;
        str::from_utf8(self.string(node.name)?).ok()
    }

    /// Byte offset of a member, by the names of both; members of anonymous
    /// structures and unions count as the outer one's. None for what does not
    /// exist and for bit fields.
    pub fn member_offset_bytes(&self, structure: &str, member: &str) -> Option<u32> {
        let found = self.member(structure, member)?;
        (!found.bitfield && found.offset_bits % 8 == 0).then_some(found.offset_bits / 8)
    }

    /// Byte offset of a member of a member: `outer` is a structure in itself,
    /// whatever its type is called.
    pub fn nested_offset_bytes(&self, structure: &str, outer: &str, member: &str) -> Option<u32> {
        let outer = self.member(structure, outer)?;
        let inner = self.unqualified(outer.type_id)?;
        let mut seen = HashSet::new();
        let found = self.find_member(inner, member.as_bytes(), outer.offset_bits, &mut seen)?;
        (!found.bitfield && found.offset_bits % 8 == 0).then_some(found.offset_bits / 8)
    }

    /// Bytes of a member's type.
    pub fn member_size_bytes(&self, structure: &str, member: &str) -> Option<u32> {
        self.size_of(self.member(structure, member)?.type_id)
    }

    /// Bytes of a structure or union.
    pub fn struct_size_bytes(&self, structure: &str) -> Option<u32> {
        self.size_of(self.structure(structure)?)
    }

    fn member(&self, structure: &str, name: &str) -> Option<Member> {
        let mut seen = HashSet::new();
        self.find_member(self.structure(structure)?, name.as_bytes(), 0, &mut seen)
    }

    /// `seen` makes the search linear: a type searched in vain once is not
    /// searched again, so a ring of anonymous structures ends.
    fn find_member(
        &self,
        structure: TypeId,
        name: &[u8],
        base_bits: u32,
        seen: &mut HashSet<TypeId>,
    ) -> Option<Member> {
        if !seen.insert(structure) || seen.len() > 256 {
            return None;
        }
        let ty = self.ty(structure)?;
        for index in 0..ty.members {
            let at = ty.data + index * MEMBER_BYTES;
            let type_id = TypeId(u32_at(self.types, at + 4)?);
            let offset = u32_at(self.types, at + 8)?;
            // With the flag: size of the bit field in the top 8 bits.
            let (offset, bitfield) = if ty.flag {
                (offset & 0x00ff_ffff, offset >> 24 != 0)
            } else {
                (offset, false)
            };
            let offset_bits = base_bits.checked_add(offset)?;
            let member_name = self.string(u32_at(self.types, at)?);
            if member_name == Some(name) {
                return Some(Member {
                    offset_bits,
                    type_id,
                    bitfield,
                });
            }
            let anonymous = member_name.is_none_or(<[u8]>::is_empty);
            let inner = self.unqualified(type_id);
            if let Some(inner) = inner.filter(|&inner| anonymous && self.is_composite(inner))
                && let Some(found) = self.find_member(inner, name, offset_bits, seen)
            {
                return Some(found);
            }
        }
        None
    }

    /// The structure or union of a name.
    fn structure(&self, name: &str) -> Option<TypeId> {
        (1..=self.starts.len() as u32).map(TypeId).find(|&id| {
            self.is_composite(id)
                && self.ty(id).and_then(|ty| self.string(ty.name)) == Some(name.as_bytes())
        })
    }

    fn is_composite(&self, id: TypeId) -> bool {
        self.ty(id)
            .is_some_and(|ty| matches!(ty.kind, kind::STRUCT | kind::UNION))
    }

    /// The type behind typedefs and qualifiers.
    fn unqualified(&self, mut id: TypeId) -> Option<TypeId> {
        for _ in 0..MAX_CHAIN {
            let ty = self.ty(id)?;
            match ty.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = TypeId(ty.size_or_target);
                }
                _ => return Some(id),
            }
        }
        None
    }

    fn size_of(&self, id: TypeId) -> Option<u32> {
        let mut elements = 1u32;
        let mut id = id;
        for _ in 0..MAX_CHAIN {
            id = self.unqualified(id)?;
            let ty = self.ty(id)?;
            match ty.kind {
                kind::PTR => return elements.checked_mul(POINTER_BYTES),
                kind::ARRAY => {
                    elements = elements.checked_mul(u32_at(self.types, ty.data + 8)?)?;
                    id = TypeId(u32_at(self.types, ty.data)?);
                }
                kind::INT
                | kind::STRUCT
                | kind::UNION
                | kind::ENUM
                | kind::ENUM64
                | kind::FLOAT => return elements.checked_mul(ty.size_or_target),
                _ => return None,
            }
        }
        None
    }

    fn ty(&self, TypeId(id): TypeId) -> Option<Node> {
        let start = *self.starts.get((id as usize).checked_sub(1)?)? as usize;
        self.type_at(start)
    }

    fn type_at(&self, start: usize) -> Option<Node> {
        let info = u32_at(self.types, start + 4)?;
        Some(Node {
            name: u32_at(self.types, start)?,
            kind: (info >> 24 & 0x1f) as u8,
            flag: info >> 31 == 1,
            members: (info & 0xffff) as usize,
            size_or_target: u32_at(self.types, start + 8)?,
            data: start + TYPE_BYTES,
        })
    }

    /// From the start of the type at `start` to the start of the next.
    fn extent(&self, start: usize) -> Result<Range<usize>, BtfError> {
        let ty = self
            .type_at(start)
            .ok_or(BtfError::Truncated("last type"))?;
        let data_bytes = match ty.kind {
            kind::INT | kind::VAR | kind::DECL_TAG => 4,
            kind::ARRAY => 12,
            kind::STRUCT | kind::UNION => ty.members * MEMBER_BYTES,
            kind::ENUM | kind::FUNC_PROTO => ty.members * 8,
            kind::DATASEC | kind::ENUM64 => ty.members * 12,
            kind::PTR
            | kind::FWD
            | kind::TYPEDEF
            | kind::VOLATILE
            | kind::CONST
            | kind::RESTRICT
            | kind::FUNC
            | kind::FLOAT
            | kind::TYPE_TAG => 0,
            unknown => {
                return Err(BtfError::UnknownKind {
                    type_id: self.starts.len() as u32 + 1,
                    kind: unknown,
                });
            }
        };
        let end = ty.data + data_bytes;
        if end > self.types.len() {
            return Err(BtfError::Truncated("last type"));
        }
        Ok(start..end)
    }

    fn string(&self, offset: u32) -> Option<&'a [u8]> {
        let tail = self.strings.get(offset as usize..)?;
        tail.split(|&byte| byte == 0).next()
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(word.try_into().ok()?))
}

/// The BTF of the running kernel, as bytes for [`Btf::parse`].
pub fn read_kernel() -> io::Result<Vec<u8>> {
    small_file::read_bytes(KERNEL_BTF, CAP_BYTES)
}

/// Where the kernel shows its own BTF.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

#[cfg(test)]
mod tests;
