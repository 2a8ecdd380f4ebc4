//! The walk on `x86_64`.

mod registers;
mod rule;
mod step;

pub use registers::{Registers, pt_regs_word};
pub use rule::{Base, Rule, Saved};
pub use step::step;
