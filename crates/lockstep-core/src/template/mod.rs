//! Renders Go templates over the keys of a Secret.
//!
//! The engine implements Go's syntax. lockstep implements the functions, the rules for missing
//! values and every message. A template passes through [`scan`] (its words), [`source`] (checks and
//! preparation), [`render`] (evaluation) and, if it fails, [`diagnose`] (the message).

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
mod values;

pub use budget::{Budget, TOGETHER};
pub use error::TemplateError;
pub use functions::{FUNCTIONS, Function, functions_markdown};
pub use limits::MAX_OUTPUT;
pub use render::{check, render, render_key, render_map};
pub use values::Values;
