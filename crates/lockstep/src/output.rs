//! Standard output and standard error: the one place that writes to them. Names from a cluster or a file never reach a terminal as
//! anything but text, see [`lockstep_core::text`].

use std::io::{self, IsTerminal as _, Write};

use lockstep_core::text;

/// Clears a terminal, and goes to its first line.
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

/// Writes lines for people to standard output. What a terminal would act on or hide is escaped.
pub(crate) fn print(lines: &str) -> io::Result<()> {
    write(&text::escape_lines(lines))
}

/// Writes lines for people in the place of what the terminal shows.
pub(crate) fn print_in_place(lines: &str) -> io::Result<()> {
    write(&format!("{CLEAR}{}", text::escape_lines(lines)))
}

/// Writes JSON to standard output. What a terminal would act on or hide is escaped as JSON has it, which keeps every value.
pub(crate) fn print_json(json: &str) -> io::Result<()> {
    write(&text::escape_json(json))
}

/// Writes a document for another program to standard output. It is written as it is, unless it goes to a terminal.
pub(crate) fn print_document(document: &str) -> io::Result<()> {
    if io::stdout().is_terminal() {
        print(document)
    } else {
        write(document)
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Writes a line to standard error. When nobody reads it there is nothing left to be done.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", text::escape(line));
}

/// Writes lines to standard error, each of which is safe to show except for what a terminal would act on.
pub(crate) fn complain_lines(lines: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", text::escape_lines(lines));
}
