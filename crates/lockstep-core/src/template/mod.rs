//! Go templates over the keys of a Secret.
