//! The few expressions that compilers, linkers and assembly put where a
//! register and an offset do not suffice.

use gimli::constants as dw;
use gimli::{EndianSlice, LittleEndian, Operation, Reader};

/// What an expression computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// register + offset
    Sum { register: u16, offset: i64 },
    /// *(register + offset) + add
    Dereferenced {
        register: u16,
        offset: i64,
        add: u64,
    },
    /// rsp + 8 + (8 if (rip & 15) >= threshold else 0)
    Plt { threshold: u8 },
}

/// Recognises an expression; `None` for any other.
pub(super) fn recognise(
    expression: gimli::Expression<EndianSlice<'_, LittleEndian>>,
    encoding: gimli::Encoding,
) -> Option<Known> {
    if let Some(threshold) = plt(expression.0.slice()) {
        return Some(Known::Plt { threshold });
    }
    let mut operations = expression.operations(encoding);
    let Operation::RegisterOffset {
        register, offset, ..
    } = operations.next().ok()??
    else {
        return None;
    };
    let register = register.0;
    match operations.next().ok()? {
        None => return Some(Known::Sum { register, offset }),
        Some(Operation::Deref {
            size: 8,
            space: false,
            ..
        }) => {}
        Some(_) => return None,
    }
    let add = match operations.next().ok()? {
        None => 0,
        Some(Operation::PlusConstant { value }) => value,
        Some(_) => return None,
    };
    operations
        .next()
        .ok()?
        .is_none()
        .then_some(Known::Dereferenced {
            register,
            offset,
            add,
        })
}

/// The threshold of a PLT's expression, which is the same in each linker.
fn plt(bytes: &[u8]) -> Option<u8> {
    const RSP: u8 = 7;
    const RIP: u8 = 16;
    match *bytes {
        [base, 8, ip, 0, mask, and, threshold, ge, shift, shl, plus]
            if [base, ip] == [dw::DW_OP_breg0.0 + RSP, dw::DW_OP_breg0.0 + RIP]
                && [mask, and] == [dw::DW_OP_lit15.0, dw::DW_OP_and.0]
                && [ge, shift, shl, plus]
                    == [
                        dw::DW_OP_ge.0,
                        dw::DW_OP_lit3.0,
                        dw::DW_OP_shl.0,
                        dw::DW_OP_plus.0,
                    ] =>
        {
            threshold
                .checked_sub(dw::DW_OP_lit0.0)
                .filter(|threshold| *threshold < 16)
        }
        _ => None,
    }
}

/// The expression's own bytes, read where the row says they are.
pub(super) fn of<'a, S>(
    section: &S,
    place: &gimli::UnwindExpression<usize>,
    encoding: gimli::Encoding,
) -> Option<Known>
where
    S: gimli::UnwindSection<EndianSlice<'a, LittleEndian>>,
{
    let expression = place.get(section).ok()?;
    (expression.0.len() <= 64)
        .then(|| recognise(expression, encoding))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::{Known, recognise};
    use gimli::{EndianSlice, Expression, LittleEndian};

    fn known(bytes: &[u8]) -> Option<Known> {
        let encoding = gimli::Encoding {
            format: gimli::Format::Dwarf32,
            version: 4,
            address_size: 8,
        };
        recognise(Expression(EndianSlice::new(bytes, LittleEndian)), encoding)
    }

    #[test]
    fn what_linkers_and_compilers_write_is_known() {
        // readelf: DW_OP_breg7 (rsp): 8; breg16 (rip): 0; lit15; and; lit11; ge; lit3; shl; plus
        let plt = [0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22];
        assert_eq!(known(&plt), Some(Known::Plt { threshold: 11 }));
        // DW_OP_breg6 (rbp): -8; deref
        let realigned = Known::Dereferenced {
            register: 6,
            offset: -8,
            add: 0,
        };
        assert_eq!(known(&[0x76, 0x78, 0x06]), Some(realigned));
        // DW_OP_breg7 (rsp): 152; deref; plus_uconst: 8
        let openssl = Known::Dereferenced {
            register: 7,
            offset: 152,
            add: 8,
        };
        assert_eq!(known(&[0x77, 0x98, 0x01, 0x06, 0x23, 8]), Some(openssl));
        let at_rbp = Known::Sum {
            register: 6,
            offset: 0,
        };
        assert_eq!(known(&[0x76, 0]), Some(at_rbp));
    }

    #[test]
    fn anything_else_is_not_guessed() {
        // DW_OP_breg7 8; breg9 0; lit8; mul; plus; deref; plus_uconst 8
        let indexed = [0x77, 8, 0x79, 0, 0x38, 0x1e, 0x22, 0x06, 0x23, 8];
        assert_eq!(known(&indexed), None);
        assert_eq!(known(&[]), None);
        assert_eq!(known(&[0x77]), None);
        assert_eq!(known(&[0x77, 8, 0x06, 0x06]), None);
        // A load of four bytes.
        assert_eq!(known(&[0x77, 8, 0x94, 4]), None);
    }
}
