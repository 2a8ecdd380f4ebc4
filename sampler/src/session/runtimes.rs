//! Runtimes that compile while they run, and how they are made to tell the names.

/// A runtime that is known by its program.
#[derive(Debug, PartialEq, Eq)]
struct Runtime {
    /// The file name of the program, up to its version.
    program: &'static str,
    /// What a person is told to do.
    advice: &'static str,
}

const RUNTIMES: &[Runtime] = &[
    Runtime {
        program: "node",
        advice: "start it with --perf-basic-prof",
    },
    Runtime {
        program: "java",
        advice: "start it with -XX:+PreserveFramePointer, and while it is recorded run `jcmd PID Compiler.perfmap` (JDK 17 or newer)",
    },
    Runtime {
        program: "dotnet",
        advice: "start it with DOTNET_PerfMapEnabled=1 in its environment",
    },
    Runtime {
        program: "python",
        advice: "start it with -X perf (Python 3.12 or newer)",
    },
    Runtime {
        program: "ruby",
        advice: "start it with --yjit-perf (Ruby 3.3 or newer)",
    },
    Runtime {
        program: "beam.smp",
        advice: "start Erlang with +JPperf true",
    },
];

/// How the program at a path is made to tell the names of its code.
pub fn advice(exe: &str) -> Option<&'static str> {
    let name = exe.rsplit('/').next()?;
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let name = if name == "nodejs" { "node" } else { name };
    let runtime = RUNTIMES.iter().find(|runtime| runtime.program == name)?;
    Some(runtime.advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_known_by_their_program_whatever_its_version() {
        for (exe, expected) in [
            ("/usr/bin/node", Some("--perf-basic-prof")),
            ("/opt/node20/bin/nodejs", Some("--perf-basic-prof")),
            ("/usr/lib/jvm/java-17/bin/java", Some("Compiler.perfmap")),
            ("/usr/bin/python3.12", Some("-X perf")),
            ("ruby3.3", Some("--yjit-perf")),
            ("/usr/lib/erlang/erts-13.1/bin/beam.smp", Some("+JPperf")),
            ("/usr/bin/javac", None),
            ("/usr/bin/noded", None),
            ("", None),
            ("3.12", None),
        ] {
            let found = advice(exe);
            assert_eq!(found.is_some(), expected.is_some(), "{exe}");
            assert!(
                found.unwrap_or("").contains(expected.unwrap_or("")),
                "{exe}"
            );
        }
    }
}
