//! Who runs: identity, mappings, pinned files.
