//! What the trials are made of: programs to watch, a way to run the profiler,
//! and readers of what it wrote that know nothing of its code.

pub mod fixture;
pub mod guard;
pub mod index;
pub mod need;
pub mod perf_map;
pub mod pprof;
pub mod recording;
pub mod run;
pub mod stat;
pub mod verdict;
pub mod viewer;
pub mod wire;
