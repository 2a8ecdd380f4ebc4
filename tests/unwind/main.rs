//! The table walk over real programs, compared with those who unwind for a
//! living: gdb on stopped processes, framehop on every function of a file.
//!
//! A missing tool skips a test visibly, and fails it where `CI=true`.

mod assembled;
mod cost;
mod costly;
mod crafted;
mod elf;
mod files;
mod frames;
mod hostile;
mod musl;
mod peer;
mod pieces;
mod stopped;
#[path = "../symbolize/tool.rs"]
mod tool;
mod undescribed;
mod walker;

use libtest_mimic::Arguments;

#[global_allocator]
static ALLOCATOR: cost::Counting = cost::Counting;

fn main() -> std::process::ExitCode {
    let arguments = Arguments::from_args();
    crafted::warm_up();
    let mut trials = stopped::trials();
    trials.extend(musl::trials());
    trials.extend(assembled::trials());
    trials.extend(files::trials());
    trials.extend(undescribed::trials());
    trials.extend(hostile::trials());
    trials.extend(crafted::trials());
    trials.extend(costly::trials());
    trials.extend(pieces::trials());
    libtest_mimic::run(&arguments, trials).exit_code()
}
