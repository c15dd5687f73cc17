//! Go templates over the keys of a Secret.

mod error;
mod render;

pub use error::TemplateError;
pub use render::{check, render, render_key, render_map};
