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
//!                       ▼ Revoke at once            ▼                           ▼
//!                     gone                       ┌───────────────────────────────┐ ──┐ Renew: a pod may
//!                       ▲ Revoke: every target   │              Old              │   │ still use it
//!                       └─ runs on Current ───── └───────────────────────────────┘ ◀─┘
//! ```
//!
//! Each arrow is a change of `status.lease` that is written before the next step, so a restart at
//! any point continues from the status. A credential is written into the Secret only after its
//! lease was recorded: an intent was never in use and is revoked at once; a minted lease may be in
//! use and is treated as if it were. The fields of a credential cannot be read again. If this
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

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use lockstep_api::{
    Generate, Lease, LeaseEnd, LeaseIntent, LeaseStatus, Reason, SourceStatus, StoreRef, SyncedSecretSpec,
    SyncedSecretStatus,
};
use sha2::{Digest as _, Sha256};

use crate::{
    Failure,
    fingerprint::{FingerprintKey, Hasher},
    remote::{ErrorKind, IssuanceToken, LeaseRequest, Minted, Requeue},
    rotation::coverage::{self, Coverage},
    schedule, spec, text,
    time::{later, to_seconds},
};

/// How long a deleted SyncedSecret waits for an unavailable store before its leases are left to
/// expire.
pub const RELEASE_PATIENCE: Duration = Duration::from_secs(600);
/// How long it waits for a store that is missing or invalid, which may return while manifests are
/// applied again.
pub const RELEASE_PATIENCE_GONE: Duration = Duration::from_secs(60);
/// Tolerance in seconds when a renewal is compared with the requested time, for rounding.
const ROUNDING: i64 = 2;
/// A credential that cannot be renewed is replaced in the last tenth of its life, even if windows
/// are closed.
const LAST_CALL: i64 = 10;
/// Minimum time between a credential and the one that replaces it because its lease ends. A store
/// whose leases end at once would otherwise be asked for one credential after another.
pub const MIN_BETWEEN: Duration = Duration::from_secs(30);
/// Number of credentials left to expire at which no other is issued.
const MAX_LEFT: usize = 8;
/// Number of credentials waiting to be revoked at which no other is issued. A sync can add more;
/// the status holds 32.
const MAX_OLD: usize = 24;

/// The next action for a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Renew the lease with this accessor.
    Renew(String),
    /// Revoke the lease with this accessor, which is unused.
    Revoke(String),
    /// Remove a lease that was left to expire and has expired.
    Forget(String),
    /// Leave leases without a valid MAC to expire.
    Disown,
    /// Remove the finalizer, because nothing is left to revoke.
    Release,
}

/// Decides when a replaced credential is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How long the credential is kept if no rollout proves that it is unused.
    pub revoke_after: Duration,
    /// Whether the spec has targets. Then only a rollout shows that the credential is unused.
    pub has_targets: bool,
}

impl Retention {
    /// Reads the retention from a spec.
    pub fn of(spec: &SyncedSecretSpec) -> Self {
        let revoke_after = wanted(spec).map_or_else(
            || lockstep_api::lease::DEFAULT_REVOKE_AFTER.to_std(),
            Generate::revoke_after,
        );
        Self {
            revoke_after,
            has_targets: spec::rollout(spec).is_some(),
        }
    }

    /// Returns the time since which a lease is unused, if known.
    fn unused_at(self, old: &Lease, reach: Option<Coverage>) -> Option<Timestamp> {
        if old.unwritten {
            return Some(Timestamp::MIN);
        }
        let replaced = old.replaced_time?;
        match reach {
            Some(Coverage::Complete) => Some(Timestamp::MIN),
            Some(Coverage::InProgress) => None,
            Some(Coverage::Ended(at)) => Some(later(at.max(replaced), self.revoke_after)),
            None if self.has_targets => None,
            None => Some(later(replaced, self.revoke_after)),
        }
    }
}

/// The cause for a new credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// There is no credential yet.
    First,
    /// The request in the spec changed.
    Requested,
    /// The lease ends and cannot be renewed.
    Ends(LeaseEnd),
    /// An earlier process may have written a credential.
    Unknown,
}

/// Returns the `generate` entry of a spec, if any.
pub fn wanted(spec: &SyncedSecretSpec) -> Option<&Generate> {
    spec::generated(spec).map(|(_, generate)| generate)
}

/// Number of hexadecimal digits of request names in the earlier format, a keyed hash that another
/// key cannot reproduce.
const KEYED_REQUEST_DIGITS: usize = 8;

/// The credential that a plan requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The entry in messages, such as `dataFrom[0].generate`.
    pub entry: String,
    /// The store that issues the credential.
    pub store: StoreRef,
    /// The request to the store.
    pub request: LeaseRequest,
}

/// Returns a short hash that names the request. It uses no key, so a lost key does not make every
/// request look new. The hashed fields are in plain text in the spec of the same object.
pub fn request_name(generation: &Generation) -> String {
    let request = &generation.request;
    let mut hash = Sha256::new();
    let mut field = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    field(generation.store.to_string().as_bytes());
    field(request.path.as_bytes());
    field(format!("{:?}", request.method).as_bytes());
    for (name, value) in &request.parameters {
        field(name.as_bytes());
        field(value.as_bytes());
    }
    let hash = hash.finalize();
    let first = hash.iter().take(8);
    let number = first.fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    format!("{number:016x}")
}

/// Whether a lease belongs to the request. A name in the earlier format matches any request.
fn is_of(lease: &Lease, request: &str) -> bool {
    lease.request == request || lease.request.len() == KEYED_REQUEST_DIGITS
}

/// Computes the MACs of the leases of one SyncedSecret.
#[derive(Debug, Clone, Copy)]
pub struct Issuer<'a> {
    /// The fingerprint key.
    pub key: &'a FingerprintKey,
    /// The uid of the SyncedSecret.
    pub uid: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

impl Issuer<'_> {
    fn hash(&self, lease: &Lease) -> Hasher {
        let mut hash = self.key.hash("lease mac");
        for field in [
            self.uid,
            self.namespace,
            self.name,
            &lease.store.to_string(),
            &lease.server,
            &lease.path,
            &lease.accessor,
            &lease.id,
        ] {
            hash.field(field.as_bytes());
        }
        hash
    }

    /// Sets the MAC of a lease.
    pub fn sign(&self, lease: &mut Lease) {
        lease.mac = Some(self.hash(lease).finish(64));
    }

    /// Whether the MAC proves that lockstep recorded the lease for this SyncedSecret.
    pub fn is_own(&self, lease: &Lease) -> bool {
        let mac = lease.mac.as_deref();
        mac.is_some_and(|mac| self.hash(lease).verify(mac))
    }

    fn is_own_intent(&self, intent: &LeaseIntent) -> bool {
        self.is_own(&lost(intent.clone()))
    }
}

/// Why a lease without a valid MAC is left to expire.
const UNPROVEN: &str = "its MAC is not valid: the status was changed, or the fingerprint key was replaced";

/// Whether a lease was left to expire because its MAC was not valid.
pub fn is_disowned(lease: &Lease) -> bool {
    lease.revocation_message.is_some() && lease.mac.is_none()
}

/// Whether the status contains a lease without a valid MAC that is not yet marked as such.
pub fn has_unproven(status: &LeaseStatus, issuer: &Issuer<'_>) -> bool {
    let mut leases = held(status);
    leases.any(|lease| lease.revocation_message.is_none() && !issuer.is_own(lease))
        || status
            .intent
            .as_ref()
            .is_some_and(|intent| !issuer.is_own_intent(intent))
}

/// Marks leases without a valid MAC as left to expire. A credential in use is replaced before it
/// ends.
pub fn disowned(status: &LeaseStatus, issuer: &Issuer<'_>, now: Timestamp) -> LeaseStatus {
    let mut next = status.clone();
    let intent = next.intent.take_if(|intent| !issuer.is_own_intent(intent));
    next.old.extend(intent.map(|intent| Lease {
        replaced_time: Some(to_seconds(now)),
        ..lost(intent)
    }));
    let all = next
        .current
        .iter_mut()
        .chain(&mut next.minted)
        .chain(&mut next.old);
    for lease in all.filter(|lease| lease.revocation_message.is_none() && !issuer.is_own(lease)) {
        lease.end_reason.get_or_insert(LeaseEnd::NotRenewable);
        lease.revocation_message = Some(UNPROVEN.to_owned());
        lease.mac = None;
    }
    trim_disowned(&mut next);
    next
}

/// Maximum number of leases without a valid MAC in the status. No action follows from them, and
/// they must leave room for others.
const MAX_DISOWNED: usize = 4;

fn trim_disowned(status: &mut LeaseStatus) {
    let mut listed = 0;
    status.old.retain(|lease| {
        listed += usize::from(is_disowned(lease));
        !is_disowned(lease) || listed <= MAX_DISOWNED
    });
}

/// Maximum length of an accessor.
const MAX_ACCESSOR: usize = 256;
/// The longest name of a lease below its path.
const MAX_ID_NAME: usize = 64;

/// Checks an accessor that a store returned before it is written to the status. The message does
/// not contain it.
///
/// # Errors
/// When it is too long, or not printable ASCII without spaces.
pub fn check_accessor(accessor: &str) -> Result<(), Failure> {
    check_backend_name("accessor", accessor, MAX_ACCESSOR)
}

/// Checks the id of the lease of a credential that was issued at `path`. Ids are shown, so a server
/// could publish a credential as one.
///
/// # Errors
/// When the id is not the path, a slash, and 1 to 64 letters, digits, dots and dashes.
pub fn check_id(id: &str, path: &str) -> Result<(), Failure> {
    let name = id.strip_prefix(path).and_then(|rest| rest.strip_prefix('/'));
    let is_name = |name: &str| {
        name.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
    };
    if name.is_some_and(|name| (1..=MAX_ID_NAME).contains(&name.len()) && is_name(name)) {
        return Ok(());
    }
    let message = format!(
        "the store returned an invalid lease id. lockstep accepts \"{path}/\" with 1 to {MAX_ID_NAME} letters, digits, dots and dashes. Check which server runs at the store's address"
    );
    Err(Failure::new(Reason::Malformed, message).requeued(Requeue::LongBackoff))
}

fn check_backend_name(what: &str, name: &str, longest: usize) -> Result<(), Failure> {
    if text::is_backend_name(name, longest) {
        return Ok(());
    }
    let message = format!(
        "the store returned an invalid {what} ({} bytes). lockstep accepts 1 to {longest} printable ASCII characters without spaces. Check which server runs at the store's address",
        name.len()
    );
    Err(Failure::new(Reason::Malformed, message).requeued(Requeue::LongBackoff))
}

fn third(lease: &Lease) -> Duration {
    Duration::from_secs(u64::try_from(lease.duration_seconds).unwrap_or(0)) / 3
}

/// Returns when to renew a lease, or to replace it if it cannot be renewed: spread over its last
/// third.
fn renew_at(lease: &Lease) -> Timestamp {
    let third = third(lease);
    let fraction = schedule::fraction((&*lease.accessor, lease.expiration_time.as_second()));
    let left = third.saturating_sub((third / 3).mul_f64(fraction));
    earlier(lease.expiration_time, left)
}

/// Returns the stores of all leases in a status.
pub fn stores(status: Option<&LeaseStatus>) -> impl Iterator<Item = &StoreRef> {
    status.into_iter().flat_map(|status| {
        let intent = status.intent.iter().map(|intent| &intent.store);
        held(status).map(|lease| &lease.store).chain(intent)
    })
}

/// Converts a time of the monotonic clock to the wall clock.
pub fn on_the_wall(at: Timestamp, ahead: SignedDuration) -> Timestamp {
    let end = if ahead.is_negative() {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    };
    if at == Timestamp::MIN {
        at
    } else {
        at.checked_add(ahead).unwrap_or(end)
    }
}

fn earlier(at: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by)
        .ok()
        .and_then(|by| at.checked_sub(by).ok())
        .unwrap_or(Timestamp::MIN)
}

/// Returns every lease that may be in use.
pub(crate) fn held(status: &LeaseStatus) -> impl Iterator<Item = &Lease> {
    status.current.iter().chain(&status.minted).chain(&status.old)
}

/// Returns the lease with the accessor, preferring one that is not left to expire.
pub fn find<'a>(status: &'a LeaseStatus, accessor: &str) -> Option<&'a Lease> {
    let all = held(status).filter(|lease| lease.accessor == accessor);
    all.min_by_key(|lease| lease.revocation_message.is_some())
}

/// Returns the lease to revoke for an accessor. An intent is converted to a lease.
pub fn held_as(status: &LeaseStatus, accessor: &str) -> Option<Lease> {
    let intent = status.intent.as_ref();
    find(status, accessor).cloned().or_else(|| {
        let intent = intent.filter(|intent| intent.accessor == accessor);
        intent.cloned().map(lost)
    })
}

/// Whether the status contains no lease.
pub fn is_empty(status: Option<&LeaseStatus>) -> bool {
    status.is_none_or(|status| *status == LeaseStatus::default())
}

/// Returns the next action and its time on the wall clock, including retries. `ahead` is how far
/// the wall clock is ahead of the monotonic one. A new credential is part of a sync: see
/// [`mint_at`].
pub fn next(
    status: &SyncedSecretStatus,
    retention: Retention,
    retries: &Retries,
    ahead: SignedDuration,
) -> Option<(Timestamp, Action)> {
    let lease = status.lease.as_ref()?;
    let intent = lease
        .intent
        .iter()
        .map(|intent| (Timestamp::MIN, Action::Revoke(intent.accessor.clone())));
    let reach = coverage::of(status);
    let revocations = lease.old.iter().filter_map(|old| {
        let accessor = old.accessor.clone();
        if old.revocation_message.is_some() {
            return Some((on_the_wall(old.expiration_time, ahead), Action::Forget(accessor)));
        }
        let at = retention.unused_at(old, reach)?;
        Some((at, Action::Revoke(accessor)))
    });
    // a lease that is revoked before it ends needs no renewal
    let revoked_in_time = |lease: &Lease| {
        retention
            .unused_at(lease, reach)
            .is_some_and(|at| at <= on_the_wall(lease.expiration_time, ahead))
    };
    let renewals = held(lease)
        .filter(|lease| {
            lease.end_reason.is_none() && lease.revocation_message.is_none() && !revoked_in_time(lease)
        })
        .map(|lease| {
            let at = on_the_wall(renew_at(lease), ahead);
            (at, Action::Renew(lease.accessor.clone()))
        });
    // if several actions are due at the same time, a revocation is first
    intent
        .chain(revocations)
        .chain(renewals)
        .map(|(at, action)| (at.max(on_the_wall(retries.not_before(&action), ahead)), action))
        .min_by_key(|(at, _)| *at)
}

/// Whether it is unknown if the Secret contains a credential that an earlier process issued. Then
/// the Secret may differ from the status, and another credential is issued.
pub fn has_uncertain_credential(status: Option<&LeaseStatus>) -> bool {
    status.is_some_and(|status| status.minted.is_some()) || may_have_written(status)
}

/// Whether an earlier process may have written a credential that has to be replaced.
pub(crate) fn may_have_written(status: Option<&LeaseStatus>) -> bool {
    let written = |old: &Lease| old.replaced_time.is_none() && !old.unwritten;
    status.is_some_and(|status| status.old.iter().any(written))
}

/// Returns when a new credential is due and why, on the monotonic clock. `None` while the current
/// one lives on. `waits` means that a change waits for a window or a rollout: then the new
/// credential is due with that change, or shortly before the current one ends.
pub fn mint_at(status: Option<&LeaseStatus>, waits: bool) -> Option<(Timestamp, Cause)> {
    if has_uncertain_credential(status) {
        return (!waits).then_some((Timestamp::MIN, Cause::Unknown));
    }
    let Some(current) = status.and_then(|status| status.current.as_ref()) else {
        return (!waits).then_some((Timestamp::MIN, Cause::First));
    };
    let ends = current.end_reason?;
    let at = match ends {
        _ if waits => last_call(current),
        LeaseEnd::NotRenewable => renew_at(current),
        LeaseEnd::RenewalRefused | LeaseEnd::MaximumReached => Timestamp::MIN,
    };
    Some((at.max(replaceable_at(current)), Cause::Ends(ends)))
}

/// Returns why another credential has to be issued; `None` if the existing one is sufficient.
/// `remembered` is the id of the lease whose fields this process holds.
pub fn cause(
    status: Option<&LeaseStatus>,
    request: &str,
    remembered: Option<&str>,
    now: Timestamp,
) -> Option<Cause> {
    let minted = status.and_then(|status| status.minted.as_ref());
    if let Some(minted) = minted.filter(|minted| remembered == Some(&*minted.id)) {
        if !is_of(minted, request) {
            return Some(Cause::Requested);
        }
        return ending(minted, now);
    }
    if has_uncertain_credential(status) {
        return Some(Cause::Unknown);
    }
    let Some(current) = status.and_then(|status| status.current.as_ref()) else {
        return Some(Cause::First);
    };
    if !is_of(current, request) {
        return Some(Cause::Requested);
    }
    let (at, cause) = mint_at(status, false)?;
    (now >= at).then_some(cause)
}

/// Returns why a minted credential is too close to its end to be written.
fn ending(minted: &Lease, now: Timestamp) -> Option<Cause> {
    let expires = minted.expiration_time;
    let (at, end) = match minted.end_reason {
        Some(LeaseEnd::NotRenewable) => (renew_at(minted).min(expires), LeaseEnd::NotRenewable),
        Some(end) => (Timestamp::MIN, end),
        None => (expires, LeaseEnd::RenewalRefused),
    };
    (now >= at).then_some(Cause::Ends(end))
}

/// Returns the lease whose credential belongs in the Secret while no new one is due.
pub fn in_use(status: Option<&LeaseStatus>) -> Option<&Lease> {
    let status = status?;
    status.minted.as_ref().or(status.current.as_ref())
}

/// Returns when a lease that ends may be replaced, by the status, so that a restart keeps it.
fn replaceable_at(lease: &Lease) -> Timestamp {
    later(lease.issued_time, MIN_BETWEEN)
}

/// Returns why a credential that ends is not replaced before it expires, if that is so.
pub fn explain_gap(lease: &Lease) -> Option<String> {
    let at = replaceable_at(lease);
    let expires_first = lease.end_reason.is_some() && lease.expiration_time < at;
    expires_first.then(|| {
        format!(
            "lockstep waits until {at} to issue another, at least {} seconds after the last one. Issue leases that live longer",
            MIN_BETWEEN.as_secs()
        )
    })
}

/// Returns when a credential that ends is replaced even if windows are closed.
fn last_call(lease: &Lease) -> Timestamp {
    let part = Duration::from_secs(u64::try_from(lease.duration_seconds / LAST_CALL).unwrap_or(0));
    earlier(lease.expiration_time, part)
}

/// Whether a new credential cannot wait for a window or a rollout, because the current one is about
/// to end.
pub fn is_replacement_urgent(status: Option<&LeaseStatus>, now: Timestamp) -> bool {
    let current = status.and_then(|status| status.current.as_ref());
    current.is_some_and(|current| current.end_reason.is_some() && now >= last_call(current))
}

/// Checks that the unrevoked credentials leave room for another one.
///
/// # Errors
/// When there are too many. Otherwise the number of credentials in the store would be unlimited.
pub fn check_room(status: Option<&LeaseStatus>) -> Result<(), Failure> {
    let old = status.map_or(&[][..], |status| &status.old);
    let left = old
        .iter()
        .filter(|lease| lease.revocation_message.is_some() && !is_disowned(lease));
    let message = if left.clone().count() >= MAX_LEFT {
        let first = left.map(|lease| lease.expiration_time).min().unwrap_or_default();
        format!(
            "Not issuing another credential: {MAX_LEFT} unused credentials could not be revoked. The first expires at {first}. Give the store's login the right to auth/token/revoke-accessor. The condition LeaseUnrevoked contains the cause"
        )
    } else if old.iter().filter(|lease| !is_disowned(lease)).count() >= MAX_OLD {
        format!(
            "Not issuing another credential: {MAX_OLD} credentials are waiting to be revoked. Check that the store is available and that the rollout is not held"
        )
    } else {
        return Ok(());
    };
    Err(Failure::new(Reason::LeaseLeft, message).requeued(Requeue::LongBackoff))
}

/// Converts an intent to a lease that has to be revoked.
fn lost(intent: LeaseIntent) -> Lease {
    Lease {
        id: intent.accessor.clone(),
        accessor: intent.accessor,
        store: intent.store,
        server: intent.server,
        path: intent.path,
        mac: intent.mac,
        issued_time: intent.recorded_time,
        expiration_time: intent.expiration_time,
        end_reason: Some(LeaseEnd::NotRenewable),
        unwritten: true,
        ..Lease::default()
    }
}

/// Returns the status to write before a credential is requested.
pub fn intend(
    status: Option<&LeaseStatus>,
    generation: &Generation,
    issuance_token: &IssuanceToken,
    issuer: &Issuer<'_>,
    now: Timestamp,
) -> LeaseStatus {
    let mut next = status.cloned().unwrap_or_default();
    // a credential that an earlier process may have written is in use until another one is
    next.old.extend(next.minted.take());
    next.old.extend(next.intent.take().map(lost));
    trim_disowned(&mut next);
    let mut intent = LeaseIntent {
        store: generation.store.clone(),
        server: issuance_token.server.clone(),
        path: generation.request.path.to_string(),
        accessor: issuance_token.accessor.clone(),
        recorded_time: to_seconds(now),
        expiration_time: to_seconds(later(now, issuance_token.lives)),
        mac: None,
    };
    let mut lease = lost(intent.clone());
    issuer.sign(&mut lease);
    intent.mac = lease.mac;
    next.intent = Some(intent);
    next
}

/// Returns the status after a credential was issued, before it is written. `asked` is when the
/// request was sent; the lease starts no earlier.
pub fn minted(
    status: &LeaseStatus,
    request: String,
    minted: &Minted,
    issuer: &Issuer<'_>,
    asked: Timestamp,
) -> LeaseStatus {
    let mut next = status.clone();
    let Some(intent) = next.intent.take() else {
        return next;
    };
    let expires = later(asked, minted.lives).min(intent.expiration_time);
    let mut lease = Lease {
        id: minted.id.clone().unwrap_or_else(|| intent.accessor.clone()),
        request,
        issued_time: to_seconds(asked),
        expiration_time: to_seconds(expires),
        duration_seconds: expires.as_second().saturating_sub(asked.as_second()),
        renewable: minted.renewable,
        end_reason: (!minted.renewable).then_some(LeaseEnd::NotRenewable),
        unwritten: false,
        mac: None,
        ..lost(intent)
    };
    issuer.sign(&mut lease);
    next.minted = Some(lease);
    next
}

/// Returns the leases after the Secret was written from `sources`.
pub fn written(
    status: Option<&LeaseStatus>,
    sources: &[SourceStatus],
    now: Timestamp,
) -> Option<LeaseStatus> {
    let mut next = status?.clone();
    let holds = |lease: &Option<Lease>| {
        lease.as_ref().is_some_and(|lease| {
            sources
                .iter()
                .any(|source| source.version.as_ref() == Some(&lease.id))
        })
    };
    if holds(&next.minted) {
        next.old.extend(next.current.take());
        next.current = next.minted.take();
    } else if !holds(&next.current) {
        next.old.extend(next.minted.take());
        next.old.extend(next.current.take());
    }
    // while a minted credential exists, it is unknown whether the old ones were replaced
    if next.minted.is_none() {
        for old in next.old.iter_mut().filter(|old| old.replaced_time.is_none()) {
            old.replaced_time = Some(to_seconds(now));
        }
    }
    settled(next)
}

fn settled(status: LeaseStatus) -> Option<LeaseStatus> {
    (status != LeaseStatus::default()).then_some(status)
}

fn change(status: &LeaseStatus, accessor: &str, change: impl FnOnce(&mut Lease)) -> LeaseStatus {
    let mut next = status.clone();
    let mut all = next
        .current
        .iter_mut()
        .chain(&mut next.minted)
        .chain(&mut next.old);
    if let Some(lease) = all.find(|lease| lease.accessor == accessor) {
        change(lease);
    }
    next
}

/// Returns the leases after one was renewed.
pub fn renewed(status: &LeaseStatus, accessor: &str, given: Duration, asked: Timestamp) -> LeaseStatus {
    let expires = to_seconds(later(asked, given));
    change(status, accessor, |lease| {
        let given = i64::try_from(given.as_secs()).unwrap_or(i64::MAX);
        let truncated = given.saturating_add(ROUNDING) < lease.duration_seconds;
        lease.expiration_time = expires;
        lease.renewed_time = Some(to_seconds(asked));
        if truncated {
            lease.end_reason = Some(LeaseEnd::MaximumReached);
        }
    })
}

/// Returns the leases after the store refused to renew one; `None` if the request failed and is
/// retried.
pub fn renewal_failed(
    status: &LeaseStatus,
    accessor: &str,
    kind: ErrorKind,
    message: &str,
) -> Option<LeaseStatus> {
    let refused = matches!(
        kind,
        ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::Unsupported
    );
    refused.then(|| {
        change(status, accessor, |lease| {
            lease.end_reason = Some(LeaseEnd::RenewalRefused);
            lease.refusal_message = Some(message.to_owned());
        })
    })
}

/// Returns the leases after one was revoked or expired.
pub fn revoked(status: &LeaseStatus, accessor: &str) -> Option<LeaseStatus> {
    let mut next = status.clone();
    next.intent.take_if(|intent| intent.accessor == accessor);
    next.current.take_if(|lease| lease.accessor == accessor);
    next.minted.take_if(|lease| lease.accessor == accessor);
    next.old.retain(|lease| lease.accessor != accessor);
    settled(next)
}

/// Returns the leases after the store refused to revoke one, which is left to expire; `None` if the
/// request failed and is retried.
pub fn revocation_failed(
    status: &LeaseStatus,
    accessor: &str,
    kind: ErrorKind,
    message: &str,
    now: Timestamp,
) -> Option<LeaseStatus> {
    if !matches!(kind, ErrorKind::PermissionDenied | ErrorKind::Unsupported) {
        return None;
    }
    let mut next = status.clone();
    let found = next.intent.take_if(|intent| intent.accessor == accessor);
    next.old.extend(found.map(|intent| Lease {
        replaced_time: Some(to_seconds(now)),
        ..lost(intent)
    }));
    Some(change(&next, accessor, |lease| {
        lease.revocation_message = Some(message.to_owned());
    }))
}

/// Returns the next action for a SyncedSecret that is being deleted, and its time on the wall
/// clock. Leases without a valid MAC do not delay the deletion.
pub fn release(
    status: Option<&LeaseStatus>,
    issuer: &Issuer<'_>,
    deleted: Timestamp,
    retries: &Retries,
    ahead: SignedDuration,
    now: Timestamp,
) -> (Timestamp, Action) {
    let intents = status
        .iter()
        .filter_map(|status| status.intent.as_ref())
        .filter(|intent| issuer.is_own_intent(intent));
    let leases = status
        .into_iter()
        .flat_map(held)
        .filter(|lease| lease.revocation_message.is_none() && issuer.is_own(lease));
    let accessors = intents
        .map(|intent| &intent.accessor)
        .chain(leases.map(|lease| &lease.accessor));
    let next = accessors
        .map(|accessor| Action::Revoke(accessor.clone()))
        .min_by_key(|action| retries.not_before(action));
    let not_before = |action: &Action| on_the_wall(retries.not_before(action), ahead);
    let release = || (not_before(&Action::Release), Action::Release);
    let Some(action) = next else {
        return release();
    };
    let patience = if retries.is_gone(&action) {
        RELEASE_PATIENCE_GONE
    } else {
        RELEASE_PATIENCE
    };
    let end = later(deleted, patience);
    if now >= end {
        return release();
    }
    (not_before(&action).min(end), action)
}

/// The lease actions that failed, and when they are retried.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retries(Vec<Retry>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Retry {
    action: Action,
    at: Timestamp,
    attempt: u32,
    /// Whether the store does not exist or is invalid.
    gone: bool,
}

impl Retries {
    fn of(&self, action: &Action) -> Option<&Retry> {
        self.0.iter().find(|retry| retry.action == *action)
    }

    /// Returns when the action may be retried, on the monotonic clock.
    pub fn not_before(&self, action: &Action) -> Timestamp {
        self.of(action).map_or(Timestamp::MIN, |retry| retry.at)
    }

    fn is_gone(&self, action: &Action) -> bool {
        self.of(action).is_some_and(|retry| retry.gone)
    }

    /// Records that the action succeeded.
    pub fn done(&mut self, action: &Action) {
        self.0.retain(|retry| retry.action != *action);
    }

    /// Records that the action failed. `gone` means that the store does not exist or is invalid.
    pub fn failed(&mut self, action: &Action, gone: bool, uid: &str, now: Timestamp) {
        let attempt = self.of(action).map_or(0, |retry| retry.attempt.saturating_add(1));
        let wait = schedule::retry(Requeue::Backoff, Duration::ZERO, None, uid, attempt);
        self.done(action);
        self.0.push(Retry {
            action: action.clone(),
            at: later(now, wait),
            attempt,
            gone,
        });
    }
}

/// Returns the paths of the leases that were not revoked, and when the last of them ends.
pub fn left(status: Option<&LeaseStatus>) -> Option<(Vec<&str>, Timestamp)> {
    let status = status?;
    let mut paths: Vec<&str> = held(status).map(|lease| &*lease.path).collect();
    paths.extend(status.intent.iter().map(|intent| &*intent.path));
    paths.sort_unstable();
    paths.dedup();
    let ends = held(status).map(|lease| lease.expiration_time);
    let last = ends
        .chain(status.intent.iter().map(|intent| intent.expiration_time))
        .max()?;
    Some((paths, last))
}

/// Returns when the credential in the Secret ends unless it is renewed.
pub fn expiry(status: Option<&LeaseStatus>) -> Option<Timestamp> {
    Some(status?.current.as_ref()?.expiration_time)
}

/// Returns a lease that is left to expire and the reason, if any.
pub fn unrevoked(status: Option<&LeaseStatus>) -> Option<(&Lease, &str)> {
    held(status?).find_map(|lease| Some((lease, lease.revocation_message.as_deref()?)))
}
