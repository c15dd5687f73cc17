//! The only module that writes to standard output and standard error. Names from a cluster or a
//! file reach a terminal only as escaped text, see [`lockstep_core::text`].

use std::io::{self, IsTerminal as _, Write};

use lockstep_core::text;

/// Clears a terminal and moves the cursor to the top left.
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

/// Writes human-readable lines to standard output. Characters that control a terminal or are
/// invisible are escaped.
pub(crate) fn print(lines: &str) -> io::Result<()> {
    write(&text::escape_lines(lines))
}

/// Replaces the content of the terminal with human-readable lines.
pub(crate) fn print_in_place(lines: &str) -> io::Result<()> {
    write(&format!("{CLEAR}{}", text::escape_lines(lines)))
}

/// Writes JSON to standard output. Characters that control a terminal or are invisible become JSON
/// escapes, which keeps every value.
pub(crate) fn print_json(json: &str) -> io::Result<()> {
    write(&text::escape_json(json))
}

/// Writes a document for another program to standard output, unchanged unless standard output is a
/// terminal.
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

/// Writes a line to standard error. Errors are ignored: nobody is reading.
pub(crate) fn print_error(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", text::escape(line));
}

/// Writes lines to standard error and escapes characters that control a terminal.
pub(crate) fn print_error_lines(lines: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", text::escape_lines(lines));
}
