//! The protobuf wire format, as far as editing a message without knowing all of
//! it takes: each field with the bytes that it is made of.
//!
//! Layout: <https://protobuf.dev/programming-guides/encoding/>.

/// The longest varint of 64 bits.
const MAX_VARINT_BYTES: usize = 10;

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// It ends inside of a field.
    #[error("it is cut inside of a field")]
    Cut,
    /// A number of more than 64 bits.
    #[error("a number has more than 64 bits")]
    Varint,
    /// A field with the number 0, or one too large.
    #[error("no field has the number {0}")]
    Number(u64),
    /// A group, or a wire type that does not exist.
    #[error("field {number} has the wire type {wire_type}")]
    WireType {
        /// The field's number.
        number: u32,
        /// What stands for its type.
        wire_type: u8,
    },
    /// A field that is known, but is not of this type.
    #[error("field {0} is of another type")]
    Type(u32),
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// A varint.
    Number(u64),
    /// A text, a message or packed numbers.
    Bytes(&'a [u8]),
    /// 4 or 8 bytes, which pprof has no use for.
    Fixed,
}

/// One field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field<'a> {
    pub number: u32,
    pub value: Value<'a>,
    /// All of it, tag and length included.
    pub raw: &'a [u8],
}

impl<'a> Field<'a> {
    /// Its number, if it is one.
    pub fn number(&self) -> Result<u64, WireError> {
        match self.value {
            Value::Number(number) => Ok(number),
            _ => Err(WireError::Type(self.number)),
        }
    }

    /// Its bytes, if it has some.
    pub fn bytes(&self) -> Result<&'a [u8], WireError> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(WireError::Type(self.number)),
        }
    }

    /// The numbers of a repeated field, packed or not.
    pub fn numbers(&self) -> impl Iterator<Item = Result<u64, WireError>> + use<'a> {
        let (alone, mut packed) = match self.value {
            Value::Number(number) => (Some(Ok(number)), [].as_slice()),
            Value::Bytes(packed) => (None, packed),
            Value::Fixed => (Some(Err(WireError::Type(self.number))), [].as_slice()),
        };
        let packed = std::iter::from_fn(move || {
            if packed.is_empty() {
                return None;
            }
            let number = varint(&mut packed);
            if number.is_err() {
                packed = &[];
            }
            Some(number)
        });
        alone.into_iter().chain(packed)
    }
}

/// The fields of a message, in the order in which they stand.
#[derive(Debug, Clone)]
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let read = self.read();
        if read.is_err() {
            self.0 = &[];
        }
        Some(read)
    }
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> Result<Field<'a>, WireError> {
        let all = self.0;
        let tag = varint(&mut self.0)?;
        let number = u32::try_from(tag >> 3)
            .ok()
            .filter(|number| (1..1 << 29).contains(number))
            .ok_or(WireError::Number(tag >> 3))?;
        let value = match (tag & 7) as u8 {
            0 => Value::Number(varint(&mut self.0)?),
            1 => self.skip(8).map(|_| Value::Fixed)?,
            2 => {
                let length = varint(&mut self.0)?;
                Value::Bytes(self.skip(length)?)
            }
            5 => self.skip(4).map(|_| Value::Fixed)?,
            wire_type => return Err(WireError::WireType { number, wire_type }),
        };
        let raw = &all[..all.len() - self.0.len()];
        Ok(Field { number, value, raw })
    }

    fn skip(&mut self, bytes: u64) -> Result<&'a [u8], WireError> {
        let bytes = usize::try_from(bytes).map_err(|_| WireError::Cut)?;
        let (skipped, rest) = self.0.split_at_checked(bytes).ok_or(WireError::Cut)?;
        self.0 = rest;
        Ok(skipped)
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, WireError> {
    let mut value = 0_u64;
    for at in 0..MAX_VARINT_BYTES {
        let byte = *bytes.get(at).ok_or(WireError::Cut)?;
        let part = u64::from(byte & 0x7f);
        let shifted = part << (7 * at);
        if shifted >> (7 * at) != part {
            return Err(WireError::Varint);
        }
        value |= shifted;
        if byte & 0x80 == 0 {
            *bytes = &bytes[at + 1..];
            return Ok(value);
        }
    }
    Err(WireError::Varint)
}

/// Appends a field that is a number.
pub(super) fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

/// Appends a field that is a text or a message.
pub(super) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, (u64::from(number) << 3) | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that unwraps says what it expects
    use proptest::prelude::*;

    use super::*;

    fn first(bytes: &[u8]) -> Result<Field<'_>, WireError> {
        Fields(bytes).next().unwrap()
    }

    #[test]
    fn what_is_no_field_is_told_apart() {
        assert_eq!(first(&[0x08]), Err(WireError::Cut));
        assert_eq!(first(&[0x12, 5, 1]), Err(WireError::Cut));
        assert_eq!(
            first(&[0x12, 0xff, 0xff, 0xff, 0xff, 0x0f]),
            Err(WireError::Cut)
        );
        assert_eq!(first(&[0x00, 0x00]), Err(WireError::Number(0)));
        let wire_type = 3;
        let group = WireError::WireType {
            number: 1,
            wire_type,
        };
        assert_eq!(first(&[0x0b]), Err(group));
        let mut long = vec![0x08];
        long.extend([0xff; 9]);
        long.push(2);
        assert_eq!(first(&long), Err(WireError::Varint));
        *long.last_mut().unwrap() = 1;
        assert_eq!(first(&long).unwrap().number(), Ok(u64::MAX));
        long.insert(1, 0xff);
        assert_eq!(first(&long), Err(WireError::Varint));
    }

    #[test]
    fn a_broken_message_ends() {
        assert_eq!(Fields(&[0x0b, 1, 2, 3]).count(), 1);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number in 1u32..1 << 29, value: u64, text: Vec<u8>) {
            let mut message = Vec::new();
            put_number(&mut message, number, value);
            let end = message.len();
            put_bytes(&mut message, number, &text);
            let fields: Vec<_> = Fields(&message).collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(fields[0], Field { number, value: Value::Number(value), raw: &message[..end] });
            prop_assert_eq!(fields[1], Field { number, value: Value::Bytes(&text), raw: &message[end..] });
        }

        #[test]
        fn any_bytes_are_fields_or_an_error(bytes: Vec<u8>) {
            let whole: Result<Vec<_>, _> = Fields(&bytes).collect();
            if let Ok(fields) = whole {
                let raw: Vec<u8> = fields.iter().flat_map(|field| field.raw.to_vec()).collect();
                prop_assert_eq!(raw, bytes);
            }
        }
    }
}
