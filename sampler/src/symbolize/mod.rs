//! Addresses to frames, each distinct address once, off the drain path.
