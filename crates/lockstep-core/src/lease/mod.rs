//! Manages the leases of credentials that a store issues for one SyncedSecret.
//!
//! ```text
//!                    intent saved                 lease saved                 Secret written
//!   ┌──────┐  Mint  ┌────────┐  store replies   ┌────────┐                  ┌─────────┐ ──┐ Renew: in its last third
//!   │ none │ ─────▶ │ Intent │ ───────────────▶ │ Minted │ ───────────────▶ │ Current │ ◀─┘
//!   └──────┘        └────────┘                  └────────┘                  └─────────┘
//!                       │ no reply, or              │ lockstep ended before     │ renewal refused or truncated, request
//!                       │ lockstep ended            │ the Secret was known to   │ changed, Secret lost: another one is
//!                       │                           │ hold it: Mint another     │ Current
//!                       ▼ Revoke                    ▼                           ▼
//!                     gone                       ┌───────────────────────────────┐ ──┐ Renew: a pod may
//!                       ▲ Revoke: every target   │              Old              │   │ still use it
//!                       └─ runs on Current ───── └───────────────────────────────┘ ◀─┘
//! ```
//!
//! Each arrow is a change of `status.lease` that is written before the next step, so a restart at
//! any point continues from the status. A credential is written into the Secret only after its
//! lease was recorded: an intent was never in use; a minted lease may be in use and is treated as
//! if it were. An intent without an answer is revoked when the server can issue no credential for
//! it any more, because one that is issued after the revocation would stay. The fields of a credential cannot be read again. If this
//! process no longer holds them and the Secret has to be written, another credential is issued.
//! While the Secret is unchanged, none is: the fingerprint depends on the lease id.
//!
//! Someone who can write the status must not be able to have any accessor revoked. Each lease
//! therefore has a MAC of the SyncedSecret, the store, the path, the accessor and the id. See
//! [`Issuer`]. A lease without a valid MAC is neither renewed nor revoked, and expires. If the
//! fingerprint key is lost, this applies to every lease.
//!
//! Lifetimes and renewals use the monotonic clock, so a change of the wall clock cannot make a
//! lease expire unnoticed. A lease counts as ended only when the store reports it.

mod action;
mod checks;
mod credential;
mod due;
mod leases;
mod proof;
mod request;
mod times;
mod transitions;

pub use self::{
    action::{Action, Retries},
    checks::{check_accessor, check_id, check_room},
    credential::{
        Cause, MIN_BETWEEN, cause, explain_gap, has_uncertain_credential, is_replacement_urgent, mint_at,
    },
    due::{RELEASE_PATIENCE, RELEASE_PATIENCE_GONE, Retention, next, release},
    leases::{expiry, find, in_use, is_empty, lease_to_revoke, stores, unrevoked, unrevoked_paths},
    proof::{Issuer, disowned, has_unproven, is_disowned},
    request::{Generation, request_name, wanted},
    times::to_wall_clock,
    transitions::{intend, minted, renewal_failed, renewed, revocation_failed, revoked, written},
};
pub(crate) use self::{credential::may_have_written, leases::held};
