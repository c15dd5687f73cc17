//! Builds the status from the outcome of a sync. Unchanged conditions keep their message and time,
//! so an unchanged status is not written.

mod conditions;
mod draft;
mod input;
mod messages;
mod store;
#[cfg(test)]
mod tests;

pub use self::{
    draft::report,
    input::{Outcome, Subject, Waiting},
    messages::{MAX_MESSAGE_BYTES, bounded},
    store::store_conditions,
};
