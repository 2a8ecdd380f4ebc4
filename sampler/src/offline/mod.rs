//! Names for a profile that is written already, here or on another machine.
//!
//! What a profile keeps of a frame without a name is enough to name it later: the
//! mapping with its build ID, and the address in it. [`Lookup`] asks for all
//! locations of any number of profiles, [`Lookup::finish`] waits, and [`Answers`]
//! then gives each profile its lines and says why the rest has none.
//!
//! A wrong name is worse than none. A file is taken for a mapping only by its
//! build ID, unless somebody vouches for paths; the kernel only if the profile is
//! of this very boot, or if somebody brings its symbols; code of which only the
//! debug file is left only if it is certain where it lay.

mod files;
mod kernel;
mod lookup;
mod reason;

pub use files::FilePlaces;
pub use lookup::{Answers, Lookup, Options};
pub use reason::{Named, Reason, Unnamed};
