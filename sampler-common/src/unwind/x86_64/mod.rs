//! The walk on `x86_64`.

mod fields;
mod registers;
mod rule;
mod step;

pub use registers::{Registers, pt_regs_word};
pub use rule::{Base, Rule, Saved};
pub use step::step;

#[cfg(test)]
mod tests;
