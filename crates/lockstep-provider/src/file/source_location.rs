//! What a store's path leads to at this moment.

use std::path::PathBuf;

use super::{
    beneath::Beneath,
    document::{self, Fields, Format},
    error,
    facts::{Facts, Kind, Trouble},
    folder,
    path::shown,
};
use crate::{ErrorKind, Operation, ProviderError};

/// A store's path below the operator's root.
#[derive(Debug, Clone)]
pub(super) struct SourceLocation {
    pub(super) root: PathBuf,
    /// Checked by [`store_path`](super::path::store_path).
    pub(super) path: String,
}

/// What is there.
pub(super) enum Content {
    Folder(Beneath),
    Document(Fields, Facts),
}

impl SourceLocation {
    /// Opens it. Nothing is kept open between two requests, so that a volume can be mounted anew.
    pub(super) fn open(&self, operation: Operation) -> Result<Content, ProviderError> {
        let failed = |trouble| error::of_store(trouble, &self.path, operation);
        let (parent, name, facts) = self.find().map_err(failed)?;
        match facts.kind {
            Kind::Folder => Ok(Content::Folder(parent.folder(name).map_err(failed)?)),
            Kind::File => self.document(&parent, name, operation),
            Kind::Special => Err(self.invalid("is neither a folder nor a file", operation)),
        }
    }

    /// The folder that holds the store, and what the store's name stands for in it.
    ///
    /// No link leads to a folder: its writer could lead the store to a neighbour's. A document may be a link of the volume
    /// that holds it.
    pub(super) fn find(&self) -> Result<(Beneath, &str, Facts), Trouble> {
        let root = Beneath::root(&self.root)?;
        let (parent, name) = match self.path.rsplit_once('/') {
            Some((parent, name)) => (root.folder(parent)?, name),
            None => (root, self.path.as_str()),
        };
        let facts = parent.facts(name)?;
        Ok((parent, name, facts))
    }

    fn document(&self, parent: &Beneath, name: &str, operation: Operation) -> Result<Content, ProviderError> {
        let Some(format) = Format::of(&self.path) else {
            return Err(self.invalid(
                "is a file whose name does not end in .yaml, .yml or .json",
                operation,
            ));
        };
        let failed = |trouble| error::of_store(trouble, &self.path, operation);
        let what = format!("\"{}\"", shown(&self.path));
        for _ in 0..3 {
            let (file, facts) = parent.file(name).map_err(failed)?;
            let Some(file) = file else {
                return Err(self.invalid("is neither a folder nor a file", operation));
            };
            if let Some(bytes) = folder::content(file, &facts, &what, operation)?
                && parent.facts(name) == Ok(facts)
            {
                let fields = document::parse(bytes.expose(), format, &self.path, operation)?;
                return Ok(Content::Document(fields, facts));
            }
        }
        Err(failed(Trouble::Busy))
    }

    fn invalid(&self, why: &str, operation: Operation) -> ProviderError {
        let message = format!("\"{}\" below the operator's --file-root {why}", shown(&self.path));
        ProviderError::new(ErrorKind::ConfigInvalid, operation, message)
    }
}
