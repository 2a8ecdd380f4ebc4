//! Rules for code that nothing describes, from its instructions: they are
//! followed from where functions start, along their branches, and with them
//! the stack pointer and the place of the caller's `rbp`. `x86_64` alone.
//!
//! ```text
//! frame      what one instruction does to a frame
//! function   one function, along its control flow
//! certain    what of that is the function's own, calls that never return considered
//! functions  which functions there are, and which are believed
//! ```
//!
//! Wrong rules are worse than none, so a function is believed whole or not at
//! all: each of its instructions is reached with frames that agree, it is left
//! with the stack and `rbp` as they were found, and nothing in it is out of the
//! ordinary.

mod certain;
mod frame;
mod function;
mod functions;
#[cfg(test)]
mod tests;

pub(super) use functions::{Gap, Run, runs};
