//! The walk on `aarch64`.

mod fields;
mod registers;
mod rule;
mod step;

pub use registers::{Registers, without_signature};
pub use rule::{Base, Rule, Saved};
pub use step::step;

#[cfg(test)]
mod tests;
