//! Go templates over the keys of a Secret.
//!
//! The engine knows Go's syntax; the functions, what may be missing, and every message are ours. A template goes
//! through [`scan`] (its words), [`source`] (checks and preparation), [`render`] (evaluation) and, when it fails,
//! [`diagnose`] (the message).

mod budget;
mod diagnose;
mod error;
mod functions;
mod limits;
mod literal;
mod map;
mod position;
mod render;
mod scan;
mod session;
mod source;

pub use budget::{Budget, TOGETHER};
pub use error::TemplateError;
pub use functions::{FUNCTIONS, Function, functions_markdown};
pub use limits::MAX_OUTPUT;
pub use render::{check, render, render_key, render_map};
