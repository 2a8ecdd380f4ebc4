//! The list: what each program is there for, and how it comes into being.

use crate::generated;
use crate::judge::Base;
use crate::measure::Unmeasured;
use crate::prepared::{AMOUNT, Prepared, REPEATED, Unit};
use crate::workshop::{Workshop, rustc, source, tool};
use anyhow::Context as _;
use std::ffi::OsStr;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A program of the corpus.
pub struct Program {
    /// In tables and on command lines.
    pub name: &'static str,
    /// Why it is left out of the mean and of what is asked for.
    pub excepted: Option<&'static str>,
    pub(crate) base: Base,
    pub(crate) prepare: fn(&Workshop) -> Result<Prepared, Unmeasured>,
}

const fn program(
    name: &'static str,
    prepare: fn(&Workshop) -> Result<Prepared, Unmeasured>,
) -> Program {
    Program {
        name,
        excepted: None,
        base: Base::General,
        prepare,
    }
}

/// All of them.
pub const PROGRAMS: &[Program] = &[
    program("c-O2", |shop| chain(shop, "gcc", &["-O2"])),
    program("c-O3", |shop| chain(shop, "gcc", &["-O3"])),
    program("c++-lto", |shop| {
        let flags = ["-O2", "-flto", "-fomit-frame-pointer"];
        own(shop, "g++", &flags, &["exceptions.cpp"])
    }),
    program("rust", |shop| rust(shop, &[])),
    program("rust-abort", |shop| rust(shop, &["-Cpanic=abort"])),
    program("rust-frames", |shop| {
        let flags = ["-Cpanic=abort", "-Cforce-unwind-tables=no"];
        rust(
            shop,
            &[&flags[..], &["-Cforce-frame-pointers=yes"]].concat(),
        )
    }),
    program("go", go),
    program("static", |shop| chain(shop, "gcc", &["-O2", "-static"])),
    program("static-pie", |shop| {
        chain(shop, "gcc", &["-O2", "-static-pie"])
    }),
    program("musl", |shop| chain(shop, "musl-gcc", &["-O2"])),
    program("musl-static", |shop| {
        chain(shop, "musl-gcc", &["-O2", "-static"])
    }),
    program("plug-in", plug_in),
    program("altstack", |shop| altstack(shop, "3")),
    program("altstack-deep", |shop| altstack(shop, "300")),
    program("timer-signal", |shop| c(shop, &["interval.c"])),
    Program {
        base: Base::Context("context_start"),
        ..program("contexts", |shop| c(shop, &["contexts.c"]))
    },
    program("vdso", |shop| c(shop, &["vdso.c"])),
    program("plt", plt),
    program("avx2", avx2),
    program("openssl", openssl),
    program("dash", |_| shell("dash")),
    program("bash", |_| shell("bash")),
    program("perl", |_| script("perl", "burn.pl")),
    program("python3", |_| script("python3", "burn.py")),
    program("node", |_| script("node", "burn.js")),
    Program {
        excepted: Some("code that is made at run time has no tables"),
        ..program("java", |_| script("java", "Burn.java"))
    },
    program("sqlite3", sqlite3),
    program("xz", xz),
    program("git", git),
    program("gcc", gcc),
    program("rustc", rustc_itself),
];

fn own(
    shop: &Workshop,
    compiler: &str,
    flags: &[&str],
    sources: &[&str],
) -> Result<Prepared, Unmeasured> {
    let name = format!(
        "{compiler}{}-{}",
        flags.concat(),
        sources[0].replace('.', "-")
    );
    let program = shop.compile(&tool(compiler)?, flags, sources, &name)?;
    Ok(Prepared::new(Unit::CpuSeconds, &program, &[&AMOUNT]))
}

fn chain(shop: &Workshop, compiler: &str, flags: &[&str]) -> Result<Prepared, Unmeasured> {
    let flags = [flags, &["-fomit-frame-pointer"]].concat();
    own(shop, compiler, &flags, &["chain.c"])
}

fn c(shop: &Workshop, sources: &[&str]) -> Result<Prepared, Unmeasured> {
    own(shop, "gcc", &["-O2", "-fomit-frame-pointer"], sources)
}

fn rust(shop: &Workshop, flags: &[&str]) -> Result<Prepared, Unmeasured> {
    let flags = [&["--edition=2024", "-O"], flags].concat();
    let name = format!("work{}", flags.len());
    let program = shop.compile(&rustc(shop)?, &flags, &["work.rs"], &name)?;
    Ok(Prepared::new(Unit::CpuSeconds, &program, &[&AMOUNT]))
}

fn go(shop: &Workshop) -> Result<Prepared, Unmeasured> {
    let program = shop.join("goroutines");
    let cache = shop.join("go-cache");
    let mut build = Command::new(tool("go")?);
    build.args(["build", "-o"]).arg(&program);
    build.arg(source("goroutines.go"));
    build.env("GOCACHE", cache).env("GOFLAGS", "");
    shop.run(&mut build)?;
    Ok(Prepared::new(Unit::CpuSeconds, &program, &[&AMOUNT]))
}

fn plug_in(shop: &Workshop) -> Result<Prepared, Unmeasured> {
    let gcc = tool("gcc")?;
    let flags = ["-O2", "-fomit-frame-pointer"];
    let shared = [&flags[..], &["-shared", "-fPIC"]].concat();
    let plug_in = shop.compile(&gcc, &shared, &["plugin.c"], "plugin.so")?;
    let host = shop.compile(&gcc, &flags, &["plugin_host.c"], "plugin-host")?;
    Ok(Prepared::new(Unit::CpuSeconds, &host, &[&AMOUNT, &plug_in]))
}

fn altstack(shop: &Workshop, depth: &str) -> Result<Prepared, Unmeasured> {
    let program = c(shop, &["altstack.c"])?;
    Ok(program.with(depth))
}

fn plt(shop: &Workshop) -> Result<Prepared, Unmeasured> {
    let gcc = tool("gcc")?;
    let shared = [
        "-O2",
        "-fomit-frame-pointer",
        "-shared",
        "-fPIC",
        "-Wl,-z,lazy",
    ];
    for name in ["there", "back"] {
        let library = format!("libplt_{name}.so");
        shop.compile(&gcc, &shared, &[&format!("plt_{name}.c")], &library)?;
    }
    let flags = [
        "-O2",
        "-fomit-frame-pointer",
        "-Wl,-z,lazy",
        "-L.",
        "-Wl,-rpath,$ORIGIN",
    ];
    let sources = ["plt_main.c", "-lplt_there", "-lplt_back"];
    let program = shop.compile(&gcc, &flags, &sources, "plt")?;
    Ok(Prepared::new(Unit::CpuSeconds, &program, &[&AMOUNT]))
}

fn avx2(shop: &Workshop) -> Result<Prepared, Unmeasured> {
    if !std::is_x86_feature_detected!("avx2") {
        return Err(Unmeasured::Impossible("this CPU has no AVX2".into()));
    }
    let flags = ["-O2", "-mavx2", "-fomit-frame-pointer"];
    own(shop, "gcc", &flags, &["realigned.c"])
}

/// A hash, a signature and its verification, each a third of the time.
fn openssl(_: &Workshop) -> Result<Prepared, Unmeasured> {
    let script = "exec openssl speed -seconds \"$1\" -bytes 16384 sha256 rsa2048";
    tool("openssl")?;
    // Its seconds have to be whole, as rounds are.
    Ok(Prepared::new(
        Unit::Rounds,
        &tool("sh")?,
        &[&"-c", &script, &"sh", &AMOUNT],
    ))
}

fn shell(name: &str) -> Result<Prepared, Unmeasured> {
    let line = "exec \"$2\" \"$3\" $(($1 * 20000))";
    let (shell, script) = (tool(name)?, source("burn.sh"));
    Ok(Prepared::new(
        Unit::Rounds,
        &tool("sh")?,
        &[&"-c", &line, &"sh", &AMOUNT, &shell, &script],
    ))
}

fn script(interpreter: &str, name: &str) -> Result<Prepared, Unmeasured> {
    let interpreter = tool(interpreter)?;
    Ok(Prepared::new(
        Unit::CpuSeconds,
        &interpreter,
        &[&source(name), &AMOUNT],
    ))
}

fn sqlite3(_: &Workshop) -> Result<Prepared, Unmeasured> {
    let line = "exec \"$2\" :memory: \"WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL SELECT x + 1 FROM c \
                WHERE x < $1 * 100000) SELECT sum(length(x || 'th') * x % 7) FROM c\"";
    let sqlite3 = tool("sqlite3")?;
    Ok(Prepared::new(
        Unit::Rounds,
        &tool("sh")?,
        &[&"-c", &line, &"sh", &AMOUNT, &sqlite3],
    ))
}

fn xz(shop: &Workshop) -> Result<Prepared, Unmeasured> {
    let file = shop.write("words", generated::words(300_000))?;
    let xz = tool("xz")?;
    Ok(Prepared::new(
        Unit::Rounds,
        &xz,
        &[&"-k", &"-c", &"-T1", &REPEATED, &file],
    ))
}

fn git(shop: &Workshop) -> Result<Prepared, Unmeasured> {
    let git = tool("git")?;
    let repository = shop.join("repository");
    shop.run(
        Command::new(&git)
            .args(["init", "-q", "-b", "main"])
            .arg(&repository),
    )?;
    let mut import = Command::new(&git)
        .args(["fast-import", "--quiet"])
        .current_dir(&repository)
        .stdin(Stdio::piped())
        .spawn()
        .context("git fast-import")?;
    if let Some(stdin) = &mut import.stdin {
        stdin
            .write_all(generated::repository(300).as_bytes())
            .context("git fast-import")?;
    }
    let status = import.wait().context("git fast-import")?;
    if !status.success() {
        return Err(anyhow::anyhow!("git fast-import: {status}").into());
    }
    Prepared::repeated(&[&git, &"-C", &repository, &"log", &"-p"])
}

fn gcc(shop: &Workshop) -> Result<Prepared, Unmeasured> {
    let file = shop.write("big.c", generated::c_source())?;
    let object: PathBuf = shop.join("big.o");
    Prepared::repeated(&[&tool("gcc")?, &"-O2", &"-c", &"-o", &object, &file])
}

fn rustc_itself(shop: &Workshop) -> Result<Prepared, Unmeasured> {
    let file = shop.write("big.rs", generated::rust_source())?;
    let arguments: [&dyn AsRef<OsStr>; 8] = [
        &rustc(shop)?,
        &"--crate-type=lib",
        &"--edition=2024",
        &"-Copt-level=2",
        &"-Cdebuginfo=0",
        &"--out-dir",
        &shop.path(),
        &file,
    ];
    Prepared::repeated(&arguments)
}
