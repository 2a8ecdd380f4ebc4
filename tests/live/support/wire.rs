//! Protocol buffers' wire format, as much of it as profile.proto uses.
//! Source: protobuf.dev, "Encoding".

/// A field's value: a number, or the bytes of a string, message or packed list.
pub enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of one message, in order, or what is wrong with the bytes.
pub fn fields(mut rest: &[u8]) -> Result<Vec<(u64, Value<'_>)>, String> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let value = match key & 7 {
            0 => Value::Number(varint(&mut rest)?),
            2 => {
                let length = usize::try_from(varint(&mut rest)?).map_err(|e| e.to_string())?;
                let (bytes, after) = rest
                    .split_at_checked(length)
                    .ok_or("a field is longer than its message")?;
                rest = after;
                Value::Bytes(bytes)
            }
            other => return Err(format!("wire type {other} has no place in a profile")),
        };
        found.push((key >> 3, value));
    }
    Ok(found)
}

/// A repeated number, packed or one by one.
pub fn numbers(value: &Value<'_>, into: &mut Vec<u64>) -> Result<(), String> {
    match *value {
        Value::Number(number) => into.push(number),
        Value::Bytes(mut rest) => {
            while !rest.is_empty() {
                into.push(varint(&mut rest)?);
            }
        }
    }
    Ok(())
}

fn varint(rest: &mut &[u8]) -> Result<u64, String> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or("a number is cut off")?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err("a number of more than ten bytes".into())
}
