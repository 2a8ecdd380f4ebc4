//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgAction, ArgGroup, Args, CommandFactory as _, Parser, Subcommand};

use super::debug_servers::DebugServersArgs;
use super::doctor::DoctorArgs;
use super::size::parse_size;
use crate::output::FileFormat;
use crate::probe::Event;
use crate::session::{Grouping, UnwindBy};

const FIRST_STEPS: &str = "\
First steps, as root:
  sampler doctor                        can this host be recorded? what would be lost?
  sampler record -d 10s -o profiles     the whole host, for ten seconds
  sampler record --help                 one process, a cgroup, a command; formats";

/// Samples the stacks of everything that runs on this host and writes one
/// pprof file per process.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100, after_help = FIRST_STEPS)]
pub struct Cli {
    /// Say more on stderr; twice for still more.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// From the arguments of the process, its own name first.
    ///
    /// `record --` with nothing behind it is refused: it is what a script makes
    /// of an empty variable, and must not become a recording of the whole host.
    pub fn from_arguments(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, clap::Error> {
        let arguments: Vec<OsString> = arguments.into_iter().collect();
        let dashes_last = arguments.last().is_some_and(|last| last == "--");
        let cli = Self::try_parse_from(arguments)?;
        match &cli.command {
            Command::Record(args) if dashes_last && args.command.is_empty() => Err(Self::command()
                .error(
                    ErrorKind::MissingRequiredArgument,
                    "`record --` needs a command behind the dashes; without them it records the whole host",
                )),
            _ => Ok(cli),
        }
    }
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Record profiles: of the whole host, of processes, of a cgroup, of a command.
    Record(Box<RecordArgs>),
    /// Name the frames of profiles that are written already, here or elsewhere.
    Symbolize(SymbolizeArgs),
    /// Say what this host allows, what each missing item costs, and how to get it.
    Doctor(DoctorArgs),
}

const RECORD_EXAMPLES: &str = "\
Examples:
  sampler record -d 10s                 the whole host, for ten seconds
  sampler record -p 1234 -F 999         one process, until Ctrl-C or its end
  sampler record -p 1234 --children     and everything that it starts
  sampler record -o out -- make -j8     a command, from its first instruction
  sampler record --group comm --summary s.json -- cargo test
                                        the same in CI: a file for each program
  sampler record --cgroup /system.slice/nginx.service -d 1m
                                        a service, for a minute
  sampler record --group host --format pprof,svg -d 10s
                                        one file and one flame graph for all

Then: go tool pprof -http=: out/cpu-NAME-PID.pb.gz

COMPLETE% is the share of the user stacks that reached their root: code built
without frame pointers gives truncated ones. The ledger says where every tick
went: ticks = counted + idle + out of scope + lost.

Exit codes: 0 done, 2 bad usage, 3 this host cannot (see `sampler doctor`),
4 target not found, 5 could not write; once a command has started, its own.";

/// What to record, how, and where to.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
#[command(after_help = RECORD_EXAMPLES, group = ArgGroup::new("target").multiple(false))]
pub struct RecordArgs {
    /// The whole host. This is the default.
    #[arg(short, long, group = "target")]
    pub all: bool,

    /// A process, with all of its threads, those to come included. Repeatable.
    #[arg(short, long, value_name = "PID", group = "target",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Vec<u32>,

    /// With --pid: their descendants too, those to come included.
    #[arg(long, requires = "pid")]
    pub children: bool,

    /// Processes by the name of their main thread (at most 15 bytes, as `ps -o comm` shows it),
    /// also those that appear later.
    #[arg(long, value_name = "NAME", group = "target")]
    pub comm: Option<OsString>,

    /// A cgroup2 path, with everything below it; also one where nothing runs yet.
    #[arg(long, value_name = "PATH", group = "target")]
    pub cgroup: Option<PathBuf>,

    /// A command to start and record, with its descendants. Its input, output
    /// and exit code stay its own.
    #[arg(last = true, value_name = "CMD", group = "target")]
    pub command: Vec<OsString>,

    /// Samples a second on each CPU. 99 keeps out of step with what runs at 100.
    #[arg(short = 'F', long, value_name = "HZ", default_value_t = 99,
          value_parser = parse_frequency)]
    pub frequency: u64,

    /// How long: 10s, 1m, 500ms. Without it until Ctrl-C, SIGTERM, or the end of
    /// the processes that were asked for.
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,

    /// The directory to write. Must be empty or not there yet.
    /// [default: `sampler-` and the UTC time]
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,

    /// Replace an older recording in the directory: the files that its
    /// index.json names, and no others.
    #[arg(long)]
    pub force: bool,

    /// Formats to write: pprof; folded, for flamegraph.pl and speedscope; svg, a flame graph.
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "pprof"
    )]
    pub format: Vec<FileFormat>,

    /// What shares a file: process, exe, comm, cgroup, host.
    #[arg(long, value_name = "BY", default_value_t = Grouping::Process)]
    pub group: Grouping,

    /// Print what index.json holds instead of a table; with a command, to stderr.
    #[arg(long)]
    pub json: bool,

    /// With a command: write what --json prints to this file, and no table.
    #[arg(long, value_name = "FILE", requires = "command")]
    pub summary: Option<PathBuf>,

    /// Drop kernel frames. No sample is dropped: a tick in the kernel counts for its user code.
    #[arg(long, conflicts_with = "kernel_only")]
    pub user_only: bool,

    /// Drop user frames. No sample is dropped.
    #[arg(long)]
    pub kernel_only: bool,

    /// How user stacks are walked: by tables, made from the unwind information
    /// that compilers write, which needs no frame pointers; or by frame-pointers.
    #[arg(long, value_name = "HOW", default_value_t = UnwindBy::default())]
    pub unwind: UnwindBy,

    /// With --unwind tables: check one in N of the stacks that the kernel's side
    /// walked by another walk, framehop's, and say on stderr how often they agree.
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true,
          default_missing_value = "16", value_parser = clap::value_parser!(u32).range(1..))]
    pub verify_unwind: Option<u32>,

    /// Name no frames: no symbols and no debug information are read here. `sampler symbolize`
    /// names the profiles later, or on another machine.
    #[arg(long)]
    pub no_names: bool,

    /// The memory that the recording may take, maps in the kernel included: 256M, 1G.
    /// What finds no room in it costs detail, never samples; index.json says how much.
    /// [default: 256M, or more where many CPUs need it]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub memory: Option<u64>,

    /// Where what is worked out from files, unwind tables and names, is kept for the next
    /// recording. [default: /var/cache/sampler for root, else ~/.cache/sampler]
    #[arg(long, value_name = "DIR", conflicts_with = "no_cache")]
    pub cache: Option<PathBuf>,

    /// Keep nothing for the next recording, and take nothing from earlier ones.
    #[arg(long)]
    pub no_cache: bool,

    /// Who is asked for debug files.
    #[command(flatten)]
    pub debug_servers: DebugServersArgs,

    /// What ticks: cpu-clock; with --experimental also cycles, instructions.
    #[arg(long, value_name = "EVENT", default_value_t = Event::CpuClock)]
    pub event: Event,

    /// Allow what could not be tested: hardware events.
    #[arg(long)]
    pub experimental: bool,

    /// What provokes losses.
    #[command(flatten)]
    pub test: TestArgs,
}

impl RecordArgs {
    /// The formats, each once, in the order in which they were asked for.
    pub fn formats(&self) -> Vec<FileFormat> {
        let mut formats = Vec::new();
        for format in &self.format {
            if !formats.contains(format) {
                formats.push(*format);
            }
        }
        formats
    }
}

const SYMBOLIZE_HELP: &str = "\
Examples:
  sampler symbolize out/cpu-*.pb.gz     results beside the files: cpu-….symbolized.pb.gz
  sampler symbolize --in-place --debug-dir /srv/debug out/*.pb.gz
                                        with the debug files of the recorded machine
  sampler symbolize --debuginfod=https://debuginfod.example out/*.pb.gz
                                        with debug files from a server
  sampler symbolize --kallsyms kallsyms.txt -o named.pb.gz cpu-x-1.pb.gz
                                        with a copy of its /proc/kallsyms

A file is taken for a mapping if its build ID is the one in the profile. It is
looked for, in this order: in each --debug-dir, as .build-id/xx/yyyy.debug and
wherever in it; in /usr/lib/debug by build ID; at the path in the profile; as a
debug file, from the servers of --debuginfod.
Kernel frames are named from --kallsyms, else from this kernel if the profile
is of this boot. Samples, labels and addresses stay as they are; profiles of
other tools are welcome.

Exit codes: 0 done, 2 bad usage, 4 a FILE is not there or is no profile, 5 could
not write. A FILE that fails costs the others nothing.";

/// Which profiles to name, from what, and where to.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
#[command(after_help = SYMBOLIZE_HELP)]
pub struct SymbolizeArgs {
    /// Profiles in the pprof format, gzip or not.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// A directory with programs, libraries or debug files, searched by build ID. Repeatable.
    #[arg(long, value_name = "DIR")]
    pub debug_dir: Vec<PathBuf>,

    /// Who is asked for debug files.
    #[command(flatten)]
    pub debug_servers: DebugServersArgs,

    /// Name mappings without a build ID from whatever is at their path now.
    #[arg(long)]
    pub trust_paths: bool,

    /// The symbols of the kernel that the profiles are of: a copy of its /proc/kallsyms,
    /// made as root during the same boot.
    #[arg(long, value_name = "FILE")]
    pub kallsyms: Option<PathBuf>,

    /// The file to write; a directory, if it is one or for several FILEs.
    /// [default: NAME.symbolized.pb.gz beside each NAME.pb.gz]
    #[arg(short, long, value_name = "PATH", conflicts_with = "in_place")]
    pub output: Option<PathBuf>,

    /// Replace each FILE by its result, which appears whole. Mode and owner stay.
    #[arg(long)]
    pub in_place: bool,

    /// Replace results that are there already.
    #[arg(long)]
    pub force: bool,

    /// Print one JSON object instead of lines of text.
    #[arg(long)]
    pub json: bool,
}

/// Options that provoke losses, for tests.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// Tiny tables: threads=N,counts=N,words=N.
    #[arg(long = "test-limit", hide = true, value_delimiter = ',', value_parser = parse_pair)]
    pub limit: Vec<(String, u32)>,
    /// CPUs that have tables.
    #[arg(long = "test-regions", hide = true)]
    pub regions: Option<u32>,
    /// Short stacks: user=N,kernel=N.
    #[arg(long = "test-depth", hide = true, value_delimiter = ',', value_parser = parse_pair)]
    pub depth: Vec<(String, u32)>,
    /// `kernel_stack`: as if the kernel refused its stack.
    #[arg(long = "test-fault", hide = true, value_parser = ["kernel_stack"])]
    pub fault: Option<String>,
    /// Time between two drains.
    #[arg(long = "test-drain", hide = true, value_parser = parse_duration)]
    pub drain: Option<Duration>,
}

/// A rate that is not zero.
fn parse_frequency(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(0) => Err("it must be at least 1 Hz".to_owned()),
        Ok(hz) => Ok(hz),
        Err(_) => Err("write it as a whole number of samples a second".to_owned()),
    }
}

/// A time that is not zero.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error}: write it as 10s, 1m or 500ms"))?;
    if duration.is_zero() {
        return Err("it must be longer than nothing".to_owned());
    }
    Ok(duration)
}

fn parse_pair(text: &str) -> Result<(String, u32), String> {
    let (name, number) = text.split_once('=').ok_or("NAME=NUMBER")?;
    let number = number.parse().map_err(|_| "NAME=NUMBER")?;
    Ok((name.to_owned(), number))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the failure report

    use super::*;

    fn record(arguments: &[&str]) -> Result<RecordArgs, clap::Error> {
        let all = ["sampler", "record"].iter().chain(arguments);
        match Cli::from_arguments(all.map(OsString::from))?.command {
            Command::Record(args) => Ok(*args),
            _ => unreachable!("asked for record"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn one_target_at_most() {
        assert!(record(&["-a"]).is_ok());
        assert!(record(&["-p", "1", "-p", "2", "--children"]).is_ok());
        for both in [
            &["-a", "-p", "1"][..],
            &["-p", "1", "--comm", "x"],
            &["--comm", "x", "--", "true"],
            &["--cgroup", "/", "-a"],
            &["--children"],
        ] {
            assert_eq!(record(both).unwrap_err().exit_code(), 2, "{both:?}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for nonsense in [
            &["-F", "0"][..],
            &["-F", "many"],
            &["-d", "0s"],
            &["-d", "soon"],
            &["-d", "-1s"],
            &["-p", "0"],
            &["--memory", "much"],
            &["--memory", "256MB"],
            &["--format", "pdf"],
            &["--group", "phase-of-the-moon"],
            &["--event", "luck"],
            &["--user-only", "--kernel-only"],
            &["--summary", "x"],
        ] {
            assert_eq!(record(nonsense).unwrap_err().exit_code(), 2, "{nonsense:?}");
        }
    }

    #[test]
    fn dashes_without_a_command_are_not_the_whole_host() {
        for empty in [&["--"][..], &["-d", "10s", "--"], &["-a", "--"]] {
            let refused = record(empty).unwrap_err();
            assert_eq!(refused.exit_code(), 2, "{empty:?}");
            assert!(refused.to_string().contains("needs a command"), "{refused}");
        }
        // To run `--` is somebody's right.
        assert_eq!(record(&["--", "--"]).unwrap().command, ["--"]);
        assert!(record(&[]).unwrap().command.is_empty());
    }

    #[test]
    fn a_format_named_twice_is_written_once() {
        let args = record(&["--format", "svg,pprof,svg", "--format", "pprof"]).unwrap();
        assert_eq!(args.formats(), [FileFormat::Svg, FileFormat::Pprof]);
    }

    #[test]
    fn a_server_stands_behind_an_equals_sign_and_a_file_does_not() {
        let words = ["--debuginfod=http://a", "--debuginfod"];
        for (word, expected) in words.into_iter().zip(["http://a", ""]) {
            let args = record(&[word, "--", "true"]).unwrap();
            assert_eq!(args.debug_servers.debuginfod.as_deref(), Some(expected));
            assert_eq!(args.command, ["true"]);

            let all = ["sampler", "symbolize", word, "file"];
            let cli = Cli::from_arguments(all.map(OsString::from)).unwrap();
            let Command::Symbolize(args) = cli.command else {
                unreachable!("asked for symbolize")
            };
            assert_eq!(args.debug_servers.debuginfod.as_deref(), Some(expected));
            assert_eq!(args.files, [PathBuf::from("file")]);
        }
    }

    #[test]
    fn the_share_of_walks_to_check_has_a_default() {
        let asked = |arguments: &[&str]| record(arguments).map(|args| args.verify_unwind);
        assert_eq!(asked(&[]).unwrap(), None);
        assert_eq!(asked(&["--verify-unwind"]).unwrap(), Some(16));
        assert_eq!(asked(&["--verify-unwind=1"]).unwrap(), Some(1));
        let command = record(&["--verify-unwind", "--", "true"]).unwrap();
        assert_eq!(command.verify_unwind, Some(16));
        assert!(asked(&["--verify-unwind=0"]).is_err());
    }

    #[test]
    fn what_follows_the_dashes_is_the_command_s() {
        let args = record(&["-F", "999", "--", "sh", "-c", "exit 7", "-F", "1"]).unwrap();
        assert_eq!(args.frequency, 999);
        assert_eq!(args.command, ["sh", "-c", "exit 7", "-F", "1"]);
    }
}
