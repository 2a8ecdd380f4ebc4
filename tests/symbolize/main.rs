//! Names of addresses in real ELF files, compared with what binutils say.
//!
//! The files are built here by the machine's own compilers. A missing tool
//! skips a test visibly, and fails it where `CI=true`.

mod accuracy;
mod bounded;
mod compressed;
mod debuginfod;
mod elsewhere;
mod fixture;
mod golang;
mod kept;
mod kernel;
mod native;
mod separate;
mod server;
mod supplements;
mod tool;

use libtest_mimic::{Arguments, Trial};

fn main() -> std::process::ExitCode {
    sampler::serve_if_child();
    let arguments = Arguments::from_args();
    let mut trials: Vec<Trial> = Vec::new();
    trials.extend(native::trials());
    trials.extend(bounded::trials());
    trials.extend(compressed::trials());
    trials.extend(kept::trials());
    trials.extend(separate::trials());
    trials.extend(supplements::trials());
    trials.extend(golang::trials());
    trials.extend(elsewhere::trials());
    trials.extend(debuginfod::trials());
    trials.extend(accuracy::trials());
    trials.extend(kernel::trials());
    libtest_mimic::run(&arguments, trials).exit_code()
}
