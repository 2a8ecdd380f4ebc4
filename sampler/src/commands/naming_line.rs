//! How far naming is, on stderr, while somebody waits for it.

use std::io::{self, IsTerminal as _, Write as _};

use crate::symbolize::Waiting;

/// Where nothing can be rewritten, a line is printed this often, in seconds.
const LINE_EVERY_S: u64 = 5;

/// Shows it: one line on a terminal, rewritten in place; elsewhere a line now and
/// then.
pub fn show(waiting: Waiting) {
    let mut stderr = io::stderr().lock();
    if let Some(text) = text(waiting, stderr.is_terminal()) {
        let _reader_gone = stderr.write_all(text.as_bytes());
    }
}

/// What is written, if anything is.
fn text(waiting: Waiting, is_terminal: bool) -> Option<String> {
    let Waiting::For {
        waited,
        answered,
        asked,
    } = waiting
    else {
        return is_terminal.then(|| "\r\x1b[K".to_owned());
    };
    let line = format!(
        "naming: {} of {} addresses",
        grouped(answered),
        grouped(asked)
    );
    if is_terminal {
        Some(format!("\r{line}\x1b[K"))
    } else {
        let is_due = waited.as_secs().is_multiple_of(LINE_EVERY_S);
        is_due.then(|| format!("{line}\n"))
    }
}

/// A number with its digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn after(seconds: u64) -> Waiting {
        Waiting::For {
            waited: Duration::from_millis(seconds * 1000 + 3),
            answered: 1234,
            asked: 1_005_678,
        }
    }

    #[test]
    fn a_terminal_has_one_line_that_goes_in_the_end() {
        for second in 1..12 {
            let expected = "\rnaming: 1,234 of 1,005,678 addresses\x1b[K";
            assert_eq!(text(after(second), true).as_deref(), Some(expected));
        }
        assert_eq!(text(Waiting::Over, true).as_deref(), Some("\r\x1b[K"));
    }

    #[test]
    fn a_file_has_a_line_now_and_then() {
        let said: Vec<String> = (1..12)
            .filter_map(|second| text(after(second), false))
            .collect();
        let line = "naming: 1,234 of 1,005,678 addresses\n";
        assert_eq!(said, [line, line]);
        assert_eq!(text(Waiting::Over, false), None);
    }

    #[test]
    fn digits_come_in_threes() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (123_456, "123,456"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
