//! How eagerly threads of this process run.

/// Whoever empties what the kernel fills: late, it loses samples.
pub const SAMPLING: i32 = -10;
/// Unwind tables: until one is there, each stack that needs it is copied, which
/// costs those that are sampled more.
pub const TABLES: i32 = -10;
/// Names: someone waits for them at the end, on a busy host too.
pub const NAMES: i32 = -5;

/// Gives the calling thread, and what it starts from then on, this niceness.
/// Without the right to do so it takes its turn as before.
pub fn set(niceness: i32) {
    // SAFETY: changes the priority of the calling thread and nothing else.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness) };
}
