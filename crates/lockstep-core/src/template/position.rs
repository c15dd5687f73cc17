//! Positions in the text of a template.

use std::ops::Range;

use super::TemplateError;

/// Creates an error at a byte of the text.
pub(super) fn at(text: &str, offset: usize, message: impl Into<String>) -> TemplateError {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    TemplateError {
        line: Some(before.matches('\n').count() + 1),
        column: Some(before[line_start..].chars().count() + 1),
        message: message.into(),
    }
}

/// Returns the byte at a line and column. Both start at 1; the column counts bytes.
pub(super) fn offset(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    (start + column.saturating_sub(1)).min(text.len())
}

/// One change of a text.
#[derive(Debug)]
pub(super) struct Edit {
    /// The replaced range; empty for an insertion.
    pub(super) span: Range<usize>,
    pub(super) text: String,
}

/// An edited text that maps each byte to its original position.
#[derive(Debug)]
pub(super) struct Rewritten {
    pub(super) text: String,
    edits: Vec<Edit>,
}

impl Rewritten {
    /// Applies edits, which must not overlap.
    pub(super) fn new(original: &str, mut edits: Vec<Edit>) -> Self {
        edits.sort_by_key(|edit| (edit.span.start, edit.span.end));
        let mut text = String::with_capacity(original.len());
        let mut copied = 0;
        for edit in &edits {
            text.push_str(&original[copied..edit.span.start]);
            text.push_str(&edit.text);
            copied = edit.span.end;
        }
        text.push_str(&original[copied..]);
        Self { text, edits }
    }

    /// Returns the original position of a byte. For a byte of an edit, it is the start of the edit.
    pub(super) fn original(&self, offset: usize) -> usize {
        let (mut new, mut old) = (0, 0);
        for edit in &self.edits {
            let unchanged = edit.span.start - old;
            if offset < new + unchanged {
                break;
            }
            if offset < new + unchanged + edit.text.len() {
                return edit.span.start;
            }
            new += unchanged + edit.text.len();
            old = edit.span.end;
        }
        old + (offset - new)
    }
}
