//! Names do not depend on how many files are looked into at a time, nor on how
//! little memory there is for it.

use std::num::NonZeroUsize;
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use sampler::symbolize::{Names, Options, Query, Symbolizer};

use crate::fixture::{Built, C_SOURCE, build, file_offset, function, in_file, pin, said};
use crate::tool::{Outcome, Stop, fail, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("several_files_at_a_time_have_their_names", several_files),
        trial("a_parser_that_never_stays_open_names_all", without_room),
    ]
}

/// The addresses of `outer`, byte by byte.
fn addresses(program: &Built) -> Result<Vec<u64>, Stop> {
    let outer = function(&program.program, "outer")?;
    let start = file_offset(&program.program, outer.start)?;
    Ok((start..start + (outer.end - outer.start)).collect())
}

fn several_files() -> Outcome {
    let sources: Vec<String> = (0..6)
        .map(|number| C_SOURCE.replace("outer", &format!("outer{number}")))
        .collect();
    let mut files = Vec::new();
    for source in &sources {
        let built = build("cc", "c", source, &["-g", "-O2"])?;
        files.push((pin(&built.program)?, addresses(&built)?));
    }
    let asked: Vec<Query> = files
        .iter()
        .flat_map(|(file, addresses)| in_file(file, addresses))
        .collect();
    let named = |at_a_time| -> Result<Names, Stop> {
        let symbolizer = Symbolizer::spawn(Options {
            at_a_time,
            ..Options::default()
        })?;
        // As drains do: some of each, again and again.
        for part in asked.chunks(7).chain(asked.chunks(5)) {
            symbolizer.submit(part.to_vec());
        }
        Ok(symbolizer.finish())
    };
    let (one, three) = (
        named(NonZeroUsize::MIN)?,
        named(NonZeroUsize::MIN.saturating_add(2))?,
    );
    for (number, (file, addresses)) in files.iter().enumerate() {
        let (one, three) = (said(&one, file, addresses), said(&three, file, addresses));
        let outer = format!("outer{number}:");
        let is_right =
            |frames: &Vec<String>| frames.last().is_some_and(|frame| frame.starts_with(&outer));
        if one != three || !one.iter().all(is_right) {
            return fail(format!("{one:?} is not {three:?}"));
        }
    }
    let (one, three) = (one.stats(), three.stats());
    let counts = |stats: sampler::symbolize::Stats| {
        (stats.named, stats.unnamed, stats.unanswered, stats.files)
    };
    if counts(one) != counts(three) || one.files != 6 || one.unanswered != 0 {
        return fail(format!("{one:?} is not {three:?}"));
    }
    Ok(())
}

fn without_room() -> Outcome {
    let source = C_SOURCE.replace("- 7", "- middle(x + 2) - middle(x + 3)");
    let built = build("cc", "c", &source, &["-g", "-O0"])?;
    let (file, addresses) = (pin(&built.program)?, addresses(&built)?);
    if addresses.len() < 70 {
        return fail(format!("too few addresses: {}", addresses.len()));
    }
    let named = |options: Options| -> Result<Names, Stop> {
        let symbolizer = Symbolizer::spawn(options)?;
        // All of them at once, so that they are asked for in parts; then again,
        // when the file has become one to be asked seldom.
        symbolizer.submit(in_file(&file, &addresses[..70]));
        for part in addresses.chunks(10) {
            thread::sleep(Duration::from_millis(10));
            symbolizer.submit(in_file(&file, part));
        }
        Ok(symbolizer.finish())
    };
    let roomy = named(Options::default())?;
    let tight = named(Options {
        rss_bytes: || 1 << 40,
        max_rss_bytes: 1 << 20,
        ..Options::default()
    })?;
    let (with_room, without) = (
        said(&roomy, &file, &addresses),
        said(&tight, &file, &addresses),
    );
    if with_room != without || with_room.iter().any(Vec::is_empty) {
        return fail(format!("{with_room:?} is not {without:?}"));
    }
    let (deaths, unanswered) = (tight.stats().parser_deaths, tight.stats().unanswered);
    if (deaths, unanswered) != (0, 0) {
        return fail(format!("{:?}", tight.stats()));
    }
    Ok(())
}
