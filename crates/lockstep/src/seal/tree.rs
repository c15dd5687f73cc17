//! Positions of all nodes in a text, so that one can be replaced without touching anything else.

use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, Span};
use lockstep_provider::SecretValue;

/// A node and its range of bytes.
#[derive(Debug)]
pub(super) struct Node {
    /// Range of bytes. For a block scalar (`|`, `>`) it starts after the header, at its content.
    pub(super) bytes: Range<usize>,
    /// Line in which it starts, from 1.
    pub(super) line: usize,
    /// Whether it has an anchor (`&name`), so that an alias can repeat it.
    pub(super) anchored: bool,
    /// Whether it has a tag (`!name`).
    pub(super) tagged: bool,
    pub(super) kind: Kind,
}

/// Kind of a node.
#[derive(Debug)]
pub(super) enum Kind {
    /// A scalar, which may be secret.
    Scalar(SecretValue, ScalarStyle),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    /// A reference to another node by its anchor.
    Alias,
}

/// Why a node cannot be replaced on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shared {
    /// It or one of its parents has an anchor.
    Anchor,
    /// It comes from an alias or a merge key.
    Alias,
}

/// One step from a node to a child.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step<'a> {
    Field(&'a str),
    Item(usize),
}

/// Returns the non-empty documents of a text.
///
/// # Errors
/// Returns the line at which the text is no longer valid YAML.
pub(super) fn documents(text: &str) -> Result<Vec<Node>, usize> {
    // parse the end of a text as libyaml does, and therefore Kubernetes
    let options = granit_parser::options! { block_scalar_eof_without_line_feed: true };
    let mut open: Vec<Node> = Vec::new();
    let mut done = Vec::new();
    let mut documents = Vec::new();
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| error.marker().line())?;
        let node = match event {
            Event::Scalar(value, style, anchor, tag) => {
                let value = SecretValue::new(value.as_bytes());
                node(&span, anchor, tag.is_some(), Kind::Scalar(value, style))
            }
            Event::Alias(_) => node(&span, 0, false, Kind::Alias),
            Event::SequenceStart(_, anchor, tag) => {
                open.push(node(&span, anchor, tag.is_some(), Kind::List(Vec::new())));
                done.push(Vec::new());
                continue;
            }
            Event::MappingStart(_, anchor, tag) => {
                open.push(node(&span, anchor, tag.is_some(), Kind::Map(Vec::new())));
                done.push(Vec::new());
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let (Some(mut node), Some(inner)) = (open.pop(), done.pop()) else {
                    return Err(span.start.line());
                };
                match &mut node.kind {
                    Kind::List(items) => *items = inner,
                    Kind::Map(fields) => *fields = pairs(inner),
                    Kind::Scalar(..) | Kind::Alias => {}
                }
                node
            }
            _ => continue,
        };
        match done.last_mut() {
            Some(siblings) => siblings.push(node),
            None if node.is_nothing() => {}
            None => documents.push(node),
        }
    }
    Ok(documents)
}

fn node(span: &Span, anchor: usize, tagged: bool, kind: Kind) -> Node {
    let at = |offset: Option<usize>| offset.unwrap_or_default();
    Node {
        bytes: at(span.start.byte_offset())..at(span.end.byte_offset()),
        line: span.start.line(),
        anchored: anchor != 0,
        tagged,
        kind,
    }
}

fn pairs(nodes: Vec<Node>) -> Vec<(Node, Node)> {
    let mut pairs = Vec::with_capacity(nodes.len() / 2);
    let mut nodes = nodes.into_iter();
    while let (Some(key), Some(value)) = (nodes.next(), nodes.next()) {
        pairs.push((key, value));
    }
    pairs
}

impl Node {
    /// Whether it is null.
    fn is_nothing(&self) -> bool {
        match &self.kind {
            Kind::Scalar(value, ScalarStyle::Plain) => {
                !self.tagged && matches!(value.expose(), b"" | b"~" | b"null" | b"Null" | b"NULL")
            }
            _ => false,
        }
    }

    /// Returns its text if it is a scalar.
    pub(super) fn text(&self) -> Option<&SecretValue> {
        match &self.kind {
            Kind::Scalar(value, _) => Some(value),
            _ => None,
        }
    }

    /// Returns the key and value of a field.
    pub(super) fn field(&self, name: &str) -> Option<(&Node, &Node)> {
        let Kind::Map(fields) = &self.kind else {
            return None;
        };
        let mut fields = fields.iter().map(|(key, value)| (key, value));
        fields.find(|(key, _)| key.text().is_some_and(|key| key.expose() == name.as_bytes()))
    }

    /// Returns the node at the end of a path, which nothing else shares.
    ///
    /// # Errors
    /// Reports why the node is shared.
    pub(super) fn descend(&self, path: &[Step<'_>]) -> Result<&Node, Shared> {
        let mut node = self;
        for step in path {
            if node.anchored {
                return Err(Shared::Anchor);
            }
            let inner = match (step, &node.kind) {
                (Step::Field(name), _) => node.field(name).map(|(_, value)| value),
                (Step::Item(index), Kind::List(items)) => items.get(*index),
                (Step::Item(_), _) => None,
            };
            node = inner.ok_or(Shared::Alias)?;
        }
        match &node.kind {
            Kind::Alias => Err(Shared::Alias),
            _ if node.anchored => Err(Shared::Anchor),
            _ => Ok(node),
        }
    }

    /// Returns the line of the innermost node of a path that can be found.
    pub(super) fn line_of(&self, path: &[Step<'_>]) -> usize {
        let mut node = self;
        let mut line = self.line;
        for step in path {
            let inner = match (step, &node.kind) {
                (Step::Field(name), _) => node.field(name).map(|(key, value)| (key.line, value)),
                (Step::Item(index), Kind::List(items)) => items.get(*index).map(|item| (item.line, item)),
                (Step::Item(_), _) => None,
            };
            let Some((at, inner)) = inner else {
                break;
            };
            (line, node) = (at, inner);
        }
        line
    }
}
