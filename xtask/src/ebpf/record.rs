//! What is written beside the committed object: from which sources it was
//! built, and with what.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// `sampler.bpf.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The first line of `rustc --version` and its LLVM's version.
    pub toolchain: String,
    /// What `bpf-linker --version` prints.
    pub bpf_linker: String,
    /// SHA-256 over the names and contents of the sources, in hexadecimal.
    pub source_sha256: String,
    /// SHA-256 of the object, in hexadecimal.
    pub object_sha256: String,
}

/// SHA-256 of `bytes` in lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// `bytes` in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::sha256_hex;

    #[test]
    fn the_hash_of_nothing_is_the_one_that_fips_180_4_gives() {
        assert_eq!(
            sha256_hex(b""),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
