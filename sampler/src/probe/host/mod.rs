//! What this kernel and this caller can do.
