//! A flame graph as one SVG file that a browser opens.

use std::io::{self, Write};

use inferno::flamegraph::{self, Options};

use super::{folded, safe};
use crate::profile::Profile;

/// Draws sample type `value` (its place in the header) under `title`.
///
/// Colours follow the names, so the same profile gives the same file and a
/// function keeps its colour from one graph to the next. A profile without
/// such samples is a picture that says so.
pub fn write(profile: &Profile, value: usize, title: &str, mut out: impl Write) -> io::Result<()> {
    let lines: Vec<String> = folded::lines(profile, value)
        .into_iter()
        .map(|(stack, sum)| format!("{stack} {sum}"))
        .collect();
    if lines.is_empty() {
        return write_empty(title, out);
    }
    let mut options = options(profile, value, title);
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut out)?;
    out.flush()
}

fn options(profile: &Profile, value: usize, title: &str) -> Options<'static> {
    let mut options = Options::default();
    options.title = safe::terminal(title);
    options.deterministic = true;
    if let Some(value_type) = profile.header().sample_types.get(value) {
        let name = match value_type.unit.as_str() {
            "count" => &value_type.kind,
            unit => unit,
        };
        options.count_name = safe::terminal(name);
    }
    options
}

/// inferno refuses to draw nothing; a file without a picture would look
/// like a failure.
fn write_empty(title: &str, mut out: impl Write) -> io::Result<()> {
    let title = escaped(&safe::terminal(title));
    writeln!(
        out,
        r#"<?xml version="1.0" standalone="no"?>
<svg version="1.1" width="1200" height="80" viewBox="0 0 1200 80" xmlns="http://www.w3.org/2000/svg">
<rect width="100%" height="100%" fill="rgb(240,240,240)"/>
<text x="600" y="30" text-anchor="middle" font-family="monospace" font-size="17">{title}</text>
<text x="600" y="60" text-anchor="middle" font-family="monospace" font-size="12">no samples</text>
</svg>"#
    )?;
    out.flush()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed expectation is a failed test
    use super::*;
    use crate::format::example;
    use crate::profile::Header;
    use proptest::prelude::*;

    fn svg(profile: &Profile, value: usize, title: &str) -> String {
        let mut out = Vec::new();
        write(profile, value, title, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// The frames as a person sees them: what the `<title>`s say.
    fn frame_titles(svg: &str) -> Vec<&str> {
        svg.split("<title>")
            .skip(1)
            .map(|rest| rest.split_once("</title>").unwrap().0)
            .collect()
    }

    #[test]
    fn each_frame_is_drawn_with_its_share() {
        let graph = svg(&example::typical(), 0, "spin (7)");
        let titles = frame_titles(&graph);
        assert!(titles.contains(&"all (6 samples, 100%)"), "{titles:?}");
        assert!(titles.contains(&"main (6 samples, 100.00%)"));
        assert!(titles.contains(&"inner (5 samples, 83.33%)"));
        assert!(titles.contains(&"[libc.so.6+0x29d8f] (1 samples, 16.67%)"));
        assert!(graph.contains(">spin (7)</text>"));
    }

    #[test]
    fn values_other_than_counts_are_named_by_their_unit() {
        let graph = svg(&example::typical(), 1, "t");
        assert!(frame_titles(&graph).contains(&"all (60,606,060 nanoseconds, 100%)"));
    }

    #[test]
    fn the_same_profile_gives_the_same_file() {
        let profile = example::typical();
        assert_eq!(svg(&profile, 0, "t"), svg(&profile, 0, "t"));
    }

    #[test]
    fn markup_in_names_is_text() {
        let profile = example::named("</title><script>alert(1)</script>&\"'");
        let title = "<b>&\u{1b}[31m";
        for graph in [
            svg(&profile, 0, title),
            svg(&Profile::new(Header::cpu(1, 0, 0)), 0, title),
        ] {
            assert!(!graph.contains("<script>"), "{graph}");
            assert!(!graph.contains("<b>"));
            assert!(graph.contains("&lt;b&gt;&amp;\\x1b[31m"));
        }
        let graph = svg(&profile, 0, title);
        assert!(graph.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    }

    #[test]
    fn a_profile_without_samples_is_a_picture_that_says_so() {
        let graph = svg(&Profile::new(Header::cpu(1, 0, 0)), 0, "idle");
        assert!(graph.contains(">no samples</text>"));
        assert!(graph.trim_end().ends_with("</svg>"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn nothing_but_printable_text_reaches_the_file(
            profile in example::any_profile(),
            title: String,
        ) {
            let graph = svg(&profile, 0, &title);
            for line in graph.lines() {
                // inferno's own script and style use tabs.
                let line = line.replace('\t', "");
                prop_assert_eq!(safe::terminal(&line), line);
            }
            let opened = graph.matches("<g>").count();
            prop_assert_eq!(graph.matches("</g>").count(), opened);
            prop_assert_eq!(graph.matches("<script").count(), usize::from(opened > 0));
        }
    }
}
