//! The in-memory profile. No I/O.
