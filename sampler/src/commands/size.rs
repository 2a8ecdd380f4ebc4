//! Sizes, as people write them.

/// Bytes, from `256M`, `1G`, `512MiB` or a plain number of them. `K`, `M` and
/// `G` are powers of 1,024, with or without `iB`, in either case.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return Err(how()),
    };
    if number.is_empty() {
        return Err(how());
    }
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "it is more than any machine has".to_owned())
}

fn how() -> String {
    "write it as 256M, 1G, 512MiB, or as a number of bytes".to_owned()
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("1", 1),
            ("268435456", 256 << 20),
            ("256M", 256 << 20),
            ("256m", 256 << 20),
            ("512MiB", 512 << 20),
            ("512mib", 512 << 20),
            ("1G", 1 << 30),
            ("2GiB", 2 << 30),
            ("64K", 64 << 10),
            ("1kib", 1 << 10),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "", "M", "-1", "-1M", "+1", "1.5G", "1 G", "256MB", "256Mi", "1T", "0x10", "much",
            " 1", "1M ", "١",
        ] {
            let refused = parse_size(text);
            assert!(
                refused.as_ref().is_err_and(|how| how.contains("256M")),
                "{text:?}: {refused:?}"
            );
        }
        for text in ["18446744073709551616", "17179869184G"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
