//! Compressed debug information is inflated once, and read from the cache from then on.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libtest_mimic::Trial;
use sampler::cache::Cache;
use sampler::object::{BuildId, FileId, PinnedFile};
use sampler::symbolize::{Names, Options, Symbolizer};
use tempfile::TempDir;

use crate::fixture::{Built, C_SOURCE, build, file_offset, function, in_file, said};
use crate::separate::build_id;
use crate::tool::{Outcome, Stop, fail, run, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("own_dwarf_in_zlib_is_inflated_once", || own("zlib")),
        trial("own_dwarf_in_zstd_is_inflated_once", || own("zstd")),
        trial("a_debug_file_in_zlib_is_inflated_once", || {
            debug_file("zlib")
        }),
        trial("a_debug_file_in_zstd_is_inflated_once", || {
            debug_file("zstd")
        }),
        trial("what_is_kept_reads_as_binutils_inflate_it", as_binutils),
        trial("a_damaged_copy_without_compression_is_made_anew", damaged),
        trial(
            "without_room_for_a_copy_what_is_compressed_is_read",
            no_room,
        ),
        trial("what_inflates_to_something_else_is_not_kept", broken),
    ]
}

/// A program with compressed DWARF, and a cache.
struct Compressed {
    built: Built,
    /// The file that it is in: the program, or its debug file.
    file: PathBuf,
    cache: TempDir,
}

impl Compressed {
    fn build(how: &str) -> Result<Self, Stop> {
        if !run("objcopy", ["--help"])?.contains(how) {
            return Err(Stop::Missing(format!("objcopy knows no {how}")));
        }
        let compress = format!("-Wl,--compress-debug-sections={how}");
        let flags = ["-g3", "-O2", "-Wl,--build-id=sha1", &compress];
        let flags = if how == "zlib" {
            &flags[..]
        } else {
            &flags[..3]
        };
        let built = build("cc", "c", C_SOURCE, flags)?;
        let program = built.program.to_string_lossy().into_owned();
        if how != "zlib" {
            let compress = format!("--compress-debug-sections={how}");
            run("objcopy", [&*compress, &*program])?;
        }
        Ok(Self {
            file: built.program.clone(),
            built,
            cache: TempDir::new()?,
        })
    }

    /// Moves the DWARF to a file beside the program.
    fn separate(mut self) -> Result<Self, Stop> {
        let program = self.built.program.to_string_lossy().into_owned();
        let debug = format!("{program}.debug");
        run("objcopy", ["--only-keep-debug", &*program, &*debug])?;
        run("objcopy", ["--strip-all", &*program])?;
        run(
            "objcopy",
            [&*format!("--add-gnu-debuglink={debug}"), &*program],
        )?;
        self.file = debug.into();
        Ok(self)
    }

    /// Names and lines of the addresses of `outer`, from the first on or from the
    /// second, by a profiler with or without the cache.
    fn said(&self, first: usize, with_cache: bool) -> Result<(Vec<Vec<String>>, Names), Stop> {
        let cache = Arc::new(Cache::open(self.cache.path())?);
        let start = self.start()?;
        let addresses: Vec<u64> = (start..start + 24).skip(first).step_by(2).collect();
        let file = self.pin()?;
        let symbolizer = Symbolizer::spawn(Options {
            cache: with_cache.then_some(cache),
            ..Options::default()
        })?;
        symbolizer.submit(in_file(&file, &addresses));
        let names = symbolizer.finish();
        Ok((said(&names, &file, &addresses), names))
    }

    fn start(&self) -> Result<u64, Stop> {
        // A stripped program has no symbols; its debug file has the same addresses.
        let outer = function(&self.file, "outer")?;
        file_offset(&self.built.program, outer.start)
    }

    /// By its build ID, as the kernel tells it.
    fn pin(&self) -> Result<Arc<PinnedFile>, Stop> {
        let program = &self.built.program;
        let file = File::open(program)?;
        let metadata = file.metadata()?;
        let id = FileId {
            device: metadata.dev(),
            inode: metadata.ino(),
        };
        let hex = build_id(program)?;
        let bytes = (0..hex.len()).step_by(2);
        let bytes = bytes.filter_map(|at| u8::from_str_radix(&hex[at..at + 2], 16).ok());
        let build_id = Some(BuildId(bytes.collect()));
        Ok(Arc::new(PinnedFile::new(
            id,
            program.clone(),
            build_id,
            file,
        )))
    }

    /// What the cache holds of this kind, and nothing that is half written.
    fn kept(&self) -> Result<Vec<PathBuf>, Stop> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(self.cache.path())? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') {
                return fail(format!("{name} stayed behind"));
            }
            if name.starts_with("decompressed-") {
                kept.push(entry.path());
            }
        }
        Ok(kept)
    }

    /// Overwrites the compressed content of `.debug_info`, of a file that keeps its
    /// size and its time.
    fn ruin(&self) -> Outcome {
        let (offset, bytes) = section(&self.file, ".debug_info")?;
        let file = File::options().write(true).open(&self.file)?;
        let modified = file.metadata()?.modified()?;
        // Behind what is said of the compression.
        file.write_all_at(&vec![0xa5; bytes as usize - 24], offset + 24)?;
        file.set_modified(modified)?;
        Ok(())
    }
}

/// Where a section is in a file, and its size.
fn section(file: &Path, name: &str) -> Result<(u64, u64), Stop> {
    let listing = run("readelf", ["-SW".as_ref(), file.as_os_str()])?;
    let line = listing.lines().find(|line| line.contains(name));
    let fields = line.and_then(|line| line.split_once(']'));
    let fields: Vec<&str> = fields
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
    let number = |at: usize| u64::from_str_radix(fields.get(at).unwrap_or(&""), 16);
    Ok((number(3)?, number(4)?))
}

fn has_lines(said: &[Vec<String>]) -> bool {
    let is_right = |frames: &Vec<String>| {
        let outermost = frames.last();
        outermost.is_some_and(|frame| frame.starts_with("outer:") && !frame.ends_with(":0"))
    };
    !said.is_empty() && said.iter().all(is_right) && said.iter().any(|frames| frames.len() == 3)
}

fn own(how: &str) -> Outcome {
    inflated_once(&Compressed::build(how)?)
}

fn debug_file(how: &str) -> Outcome {
    inflated_once(&Compressed::build(how)?.separate()?)
}

fn inflated_once(program: &Compressed) -> Outcome {
    let (without, _) = program.said(0, false)?;
    let (others, _) = program.said(1, false)?;
    if !has_lines(&without) || !has_lines(&others) {
        return fail(format!("{without:?}, {others:?}"));
    }
    let (first, names) = program.said(0, true)?;
    if first != without || names.stats().files_without_debug_info != 0 {
        return fail(format!("{first:?} with a cache is not {without:?}"));
    }
    drop(names);
    let [kept] = &program.kept()?[..] else {
        return fail(format!("{:?} is kept", program.kept()?));
    };
    let inode = fs::metadata(kept)?.ino();

    // Nobody looks at what is compressed any more.
    program.ruin()?;
    let (broken, _) = program.said(1, false)?;
    if has_lines(&broken) {
        return fail(format!("{broken:?} from ruins"));
    }
    let (second, names) = program.said(1, true)?;
    if second != others || names.stats().kept != 0 {
        return fail(format!("{second:?} from what was kept is not {others:?}"));
    }
    drop(names);
    if fs::metadata(kept)?.ino() != inode {
        return fail("what was kept was made anew");
    }
    Ok(())
}

/// Lines and units, as `readelf` tells them of what is kept, and of what `objcopy`
/// makes of the same file; symbols and notes of the file itself.
fn as_binutils() -> Outcome {
    let program = Compressed::build("zlib")?;
    program.said(0, true)?;
    let kept = program.kept()?;
    let [kept] = &kept[..] else {
        return fail(format!("{kept:?} is kept"));
    };
    let theirs = program.cache.path().join("theirs");
    run(
        "objcopy",
        [
            "--decompress-debug-sections".as_ref(),
            program.file.as_os_str(),
            theirs.as_os_str(),
        ],
    )?;
    let both = |what: &str, of: &Path| -> Outcome {
        let told = |file: &Path| -> Result<Vec<String>, Stop> {
            let told = run("readelf", [what.as_ref(), file.as_os_str()])?;
            let file = file.to_string_lossy().into_owned();
            // Where a section is in the file may differ, and what it is called.
            let is_content = |line: &&str| {
                !line.contains(&file) && !line.contains("starting at offset") && !line.is_empty()
            };
            let lines = told.lines().filter(is_content);
            // Of which version a symbol is stands elsewhere.
            let lines = lines.map(|line| line.split('@').next().unwrap_or_default());
            Ok(lines.map(str::to_owned).collect())
        };
        let (ours, theirs) = (told(kept)?, told(of)?);
        if ours != theirs || ours.len() < 3 {
            return fail(format!("readelf {what}: {ours:#?} is not {theirs:#?}"));
        }
        Ok(())
    };
    for what in ["-wi", "-wL", "-wa", "-wr", "-ws"] {
        both(what, &theirs)?;
    }
    // `objcopy` puts symbols in another order.
    for what in ["-sW", "-n"] {
        both(what, &program.file)?;
    }
    Ok(())
}

fn damaged() -> Outcome {
    let program = Compressed::build("zlib")?;
    let (first, names) = program.said(0, true)?;
    drop(names);
    let kept = program.kept()?;
    for bytes in [0, 100, fs::metadata(&kept[0])?.len() - 1] {
        for entry in fs::read_dir(program.cache.path())? {
            let entry = entry?.path();
            if entry == kept[0] {
                File::options().write(true).open(entry)?.set_len(bytes)?;
            } else {
                fs::remove_file(entry)?;
            }
        }
        let (again, names) = program.said(0, true)?;
        drop(names);
        if again != first || !has_lines(&again) {
            return fail(format!("{again:?} is not {first:?}"));
        }
        if fs::metadata(&kept[0])?.len() < 1000 {
            return fail("it was not replaced");
        }
    }
    Ok(())
}

fn no_room() -> Outcome {
    let program = Compressed::build("zlib")?;
    let cache = Arc::new(Cache::open(program.cache.path())?);
    // Nothing can be made in it any more.
    fs::remove_dir_all(program.cache.path())?;
    let file = program.pin()?;
    let addresses = [program.start()?, program.start()? + 4];
    let symbolizer = Symbolizer::spawn(Options {
        cache: Some(cache),
        ..Options::default()
    })?;
    symbolizer.submit(in_file(&file, &addresses));
    let names = symbolizer.finish();
    let said = said(&names, &file, &addresses);
    if said
        .iter()
        .any(|frames| frames.last().is_none_or(|frame| frame.ends_with(":0")))
    {
        return fail(format!("{said:?}"));
    }
    Ok(())
}

/// Sections that hold more or less than they promise, in zlib, and what is no zlib.
fn broken() -> Outcome {
    let zeros = |bytes: usize| -> Result<Vec<u8>, Stop> {
        let level = flate2::Compression::best();
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
        encoder.write_all(&vec![0; bytes])?;
        Ok(encoder.finish()?)
    };
    for content in [zeros(64 << 20)?, zeros(1)?, b"no zlib".to_vec()] {
        let program = Compressed::build("zlib")?;
        let (offset, bytes) = section(&program.file, ".debug_info")?;
        let mut content = content;
        // A bomb is larger than the section here; what is behind it follows, then.
        content.truncate(bytes as usize - 24);
        let file = File::options().write(true).open(&program.file)?;
        file.write_all_at(&content, offset + 24)?;
        let (said, names) = program.said(0, true)?;
        let stats = names.stats();
        drop(names);
        if said.iter().any(|frames| *frames != ["outer:0"]) {
            return fail(format!("{said:?}"));
        }
        if (stats.files_without_debug_info, stats.parser_deaths) != (1, 0) {
            return fail(format!("{stats:?}"));
        }
        if !program.kept()?.is_empty() {
            return fail("it was kept");
        }
    }
    Ok(())
}
