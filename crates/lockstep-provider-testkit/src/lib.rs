//! A behaviour suite that every provider must pass.
//!
//! A provider's tests pass a [`Subject`] to the suite: an empty backend, a client of that backend,
//! and functions that store values in it and break it. [`behaviour!`] creates a test for each case:
//!
//! ```ignore
//! // tests/it/behaviour.rs of a provider's crate
//! struct Memory(MemoryBackend);
//!
//! #[async_trait]
//! impl Subject for Memory { /* … */ }
//!
//! lockstep_provider_testkit::behaviour!(async { Memory(MemoryBackend::new()) });
//! ```
//!
//! # Requirements
//!
//! - There is one result per reference, in order, including duplicates.
//! - Everything that [`Capability`](lockstep_provider::Capability) promises works. Everything that
//!   it excludes returns `Unsupported`.
//! - Each fault is reported with its kind, and the message names the key as the user wrote it.
//! - No error and no log line contains a value or a field that the user did not name. All values
//!   that the suite stores contain [`CANARY`]; no message and no log line may.
//!
//! # Skips
//!
//! A case may need a fault or a feature that a subject does not have: a folder never throttles. The
//! subject then returns [`Skip`] with the reason, which is printed. [`Subject::skips`] lists the
//! cases that may be skipped. A case fails if it is skipped but not listed, or listed but not
//! skipped, so the suite cannot shrink unnoticed.

#![expect(clippy::panic, reason = "a case of the suite fails as a test does")]

mod assert;
mod canary;
pub mod cases;
pub mod grants;
pub mod keys;
mod location;
mod logs;
mod objects;
mod quiet;
mod run;
mod subject;

pub use canary::CANARY;
pub use keys::KeySubject;
pub use location::at;
pub use objects::Objects;
pub use quiet::Quiet;
pub use run::run;
pub use subject::{Skip, Subject};

/// Creates one test for each case. The argument is an expression that returns a future of a new
/// [`Subject`]. It is evaluated once per case, so that a broken backend does not affect other
/// cases.
#[macro_export]
macro_rules! behaviour {
    ($subject:expr) => {
        $crate::behaviour_cases! { $subject;
            values_are_answered_with_all_their_fields,
            properties_can_be_taken_out_of_a_value,
            unicode_values_are_answered_unchanged,
            empty_values_are_answered_empty,
            binary_values_are_answered_byte_for_byte,
            unicode_keys_are_found,
            large_values_are_answered_or_refused_cleanly,
            results_are_one_per_reference_in_order,
            many_references_are_answered_at_once,
            the_current_version_is_answered,
            a_pinned_version_is_answered,
            a_missing_version_is_not_found,
            a_missing_key_is_not_found,
            a_deleted_key_is_not_found,
            keys_that_lead_elsewhere_are_refused,
            a_denied_key_is_permission_denied,
            a_throttled_request_tells_when_to_come_back,
            a_hung_backend_ends_in_a_time_out,
            an_unavailable_backend_is_told_and_heals,
            garbage_is_malformed,
            an_endless_answer_is_an_error,
            metadata_is_answered_as_a_json_object,
            values_are_found_by_path,
            values_are_found_by_name,
            values_are_found_by_tags,
            what_is_found_can_be_read,
            nothing_found_is_an_empty_list,
            a_pattern_that_is_none_is_refused,
            a_thousand_and_two_hundred_keys_are_found,
            what_the_capability_denies_is_unsupported,
            a_working_store_passes_its_check,
        }
    };
}

/// Implements [`behaviour!`].
#[doc(hidden)]
#[macro_export]
macro_rules! behaviour_cases {
    ($subject:expr; $($case:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $case() {
                $crate::run(stringify!($case), async { $subject.await }, async |subject| {
                    $crate::cases::$case(subject).await
                })
                .await;
            }
        )*

        #[test]
        fn every_case_of_the_suite_is_run() {
            assert_eq!($crate::cases::NAMES, [$(stringify!($case)),*]);
        }
    };
}
