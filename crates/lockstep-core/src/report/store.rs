//! Builds the conditions of a store.

use jiff::Timestamp;
use lockstep_api::{Condition, ConditionStatus, ConditionType, Reason};

use super::{conditions::condition, messages::bounded};
use crate::Failure;

/// Returns the conditions of a store. A store that works can add a notice for its owner.
pub fn store_conditions(
    old: &[Condition],
    result: Result<Option<&str>, &Failure>,
    generation: i64,
    now: Timestamp,
) -> Vec<Condition> {
    let one =
        |kind, holds, reason, message: String| condition(old, kind, holds, reason, &message, generation, now);
    match result {
        Ok(notice) => {
            let mut message = "connected and authenticated".to_owned();
            if let Some(notice) = notice {
                message = bounded(format!("{message}; {notice}"));
            }
            vec![one(
                ConditionType::Ready,
                ConditionStatus::True,
                Reason::StoreReady,
                message,
            )]
        }
        Err(failure) => {
            let message = bounded(failure.message.clone());
            let kind = if failure.is_stalled() {
                ConditionType::Stalled
            } else {
                ConditionType::Reconciling
            };
            vec![
                one(
                    ConditionType::Ready,
                    ConditionStatus::False,
                    failure.reason,
                    message.clone(),
                ),
                one(kind, ConditionStatus::True, failure.reason, message),
            ]
        }
    }
}
