//! The cases of the suite, one function each. [`behaviour!`](crate::behaviour) creates a test for
//! each.

mod faults;
mod find;
mod metadata;
mod missing;
mod results;
mod values;
mod versions;

pub use faults::*;
pub use find::*;
pub use metadata::*;
pub use missing::*;
pub use results::*;
pub use values::*;
pub use versions::*;

/// The names of all cases, in the order of [`behaviour!`](crate::behaviour).
pub const NAMES: [&str; 31] = [
    "values_are_answered_with_all_their_fields",
    "properties_can_be_taken_out_of_a_value",
    "unicode_values_are_answered_unchanged",
    "empty_values_are_answered_empty",
    "binary_values_are_answered_byte_for_byte",
    "unicode_keys_are_found",
    "large_values_are_answered_or_refused_cleanly",
    "results_are_one_per_reference_in_order",
    "many_references_are_answered_at_once",
    "the_current_version_is_answered",
    "a_pinned_version_is_answered",
    "a_missing_version_is_not_found",
    "a_missing_key_is_not_found",
    "a_deleted_key_is_not_found",
    "keys_that_lead_elsewhere_are_refused",
    "a_denied_key_is_permission_denied",
    "a_throttled_request_tells_when_to_come_back",
    "a_hung_backend_ends_in_a_time_out",
    "an_unavailable_backend_is_told_and_heals",
    "garbage_is_malformed",
    "an_endless_answer_is_an_error",
    "metadata_is_answered_as_a_json_object",
    "values_are_found_by_path",
    "values_are_found_by_name",
    "values_are_found_by_tags",
    "what_is_found_can_be_read",
    "nothing_found_is_an_empty_list",
    "a_pattern_that_is_none_is_refused",
    "a_thousand_and_two_hundred_keys_are_found",
    "what_the_capability_denies_is_unsupported",
    "a_working_store_passes_its_check",
];
