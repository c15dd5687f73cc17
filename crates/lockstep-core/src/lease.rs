//! The leases of credentials that a store makes for one SyncedSecret.
//!
//! ```text
//!                    intent noted                 lease noted                 Secret written
//!   ┌──────┐  Mint  ┌────────┐  store answers   ┌────────┐                  ┌─────────┐ ──┐ Renew: in its last third
//!   │ none │ ─────▶ │ Intent │ ───────────────▶ │ Minted │ ───────────────▶ │ Current │ ◀─┘
//!   └──────┘        └────────┘                  └────────┘                  └─────────┘
//!                       │ no answer, or             │ lockstep ended before     │ renewal refused or truncated, request
//!                       │ lockstep ended            │ the Secret was known to   │ changed, Secret lost: another one is
//!                       │                           │ hold it: Mint another     │ Current
//!                       ▼ Revoke at once            ▼                           ▼
//!                     gone                       ┌───────────────────────────────┐ ──┐ Renew: somebody may
//!                       ▲ Revoke: every target   │              Old              │   │ still use it
//!                       └─ runs on Current ───── └───────────────────────────────┘ ◀─┘
//! ```
//!
//! Each arrow is a change of `status.lease` that is written before the next begins, so that a restart at any point goes on where the
//! status says. A credential is only ever written into the Secret after its lease was noted: what stands as an intent was never in
//! use, and is revoked at once; what stands as minted may be in use, and is treated as if it were. A credential's fields cannot be
//! read back from anywhere, so what this process no longer remembers is made anew when the Secret has to be written again. As long as
//! the Secret is as it was written, nothing is: its fingerprint stands on the id of the lease.
//!
//! Whoever can write the status could otherwise have any accessor revoked. Beside each lease stands therefore a MAC of the SyncedSecret,
//! the store, the path, the accessor and the id, see [`Issuer`]. A lease without the right one is not lockstep's: it is neither renewed
//! nor revoked, and is left to expire. The same happens to every lease when the fingerprint key is lost.
//!
//! Lives and renewals go by the steady clock: a clock on the wall that is set does not make a lease end unnoticed. Whatever the clocks
//! say, a lease is taken for ended only when the store says so.

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
    remote::{ErrorKind, LeaseRequest, Minted, Requeue, Warrant},
    rotation::coverage::{self, Coverage},
    schedule, text,
    time::{later, to_seconds},
};

/// How long a SyncedSecret that is deleted waits for a store that does not answer, before its leases are left to expire.
pub const RELEASE_PATIENCE: Duration = Duration::from_secs(600);
/// How long it waits for a store that is gone or cannot work, which may come back while an installation is applied anew.
pub const RELEASE_PATIENCE_GONE: Duration = Duration::from_secs(60);
/// How much less than was asked for a renewal may be given, for rounding.
const ROUNDING: i64 = 2;
/// The part of its life, from its end, in which a credential that ends is replaced whatever else has to wait: a tenth.
const LAST_CALL: i64 = 10;
/// How many credentials may be left to expire before no other is made.
const MAX_LEFT: usize = 8;
/// How many may wait to be revoked, whatever for, before no other is made: with what else a sync adds, the status holds 32.
const MAX_OLD: usize = 24;

/// What is due for a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Renew it.
    Renew(String),
    /// Revoke it: nobody uses it.
    Revoke(String),
    /// It was left to expire, and has.
    Forget(String),
    /// Leave to expire what the status names without proof that lockstep noted it.
    Disown,
    /// Nothing is left to revoke: the finalizer goes.
    Release,
}

/// When a credential that was replaced is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How long it is kept where nothing proves that nobody uses it any more.
    pub revoke_after: Duration,
    /// Whether the spec has targets: then no time alone tells that it is no longer used, a rollout does.
    pub has_targets: bool,
}

impl Retention {
    /// What a spec says.
    pub fn of(spec: &SyncedSecretSpec) -> Self {
        let revoke_after = wanted(spec).map_or_else(
            || lockstep_api::lease::DEFAULT_REVOKE_AFTER.to_std(),
            Generate::revoke_after,
        );
        let rollout = spec
            .rotation
            .as_ref()
            .and_then(|rotation| rotation.rollout.as_ref());
        Self {
            revoke_after,
            has_targets: rollout.is_some(),
        }
    }

    /// Since when nobody uses a lease any more, as far as it is known.
    fn unused_at(self, old: &Lease, reach: Option<Coverage>) -> Option<Timestamp> {
        if old.unwritten {
            return Some(Timestamp::MIN);
        }
        let replaced = time(old.replaced.as_deref()?);
        match reach {
            Some(Coverage::Complete) => Some(Timestamp::MIN),
            Some(Coverage::InProgress) => None,
            Some(Coverage::Ended(at)) => Some(later(at.max(replaced), self.revoke_after)),
            None if self.has_targets => None,
            None => Some(later(replaced, self.revoke_after)),
        }
    }
}

/// What makes a new credential due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// There is none.
    First,
    /// Another one is asked for.
    Requested,
    /// The lease ends for good.
    Ends(LeaseEnd),
    /// An earlier process may have written one, or not.
    Unknown,
}

/// The entry that generates, where there is one.
pub fn wanted(spec: &SyncedSecretSpec) -> Option<&Generate> {
    spec.data_from.iter().find_map(|entry| entry.generate.as_ref())
}

/// How many hexadecimal digits the name of a request had while it was a keyed hash, which another key cannot make again.
const KEYED_REQUEST_DIGITS: usize = 8;

/// The credential of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The entry of `dataFrom` that wants it.
    pub entry: usize,
    /// The store that makes it.
    pub store: StoreRef,
    /// What is asked for.
    pub request: LeaseRequest,
}

/// The short name of what is asked for. It is a hash without a key, so that a lost key does not make every request look new. What it
/// hashes is in the spec of the same object, in the clear.
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

/// Whether a lease is of this request. The name of an earlier format proves nothing, and makes no new credential due.
fn is_of(lease: &Lease, request: &str) -> bool {
    lease.request == request || lease.request.len() == KEYED_REQUEST_DIGITS
}

/// The SyncedSecret that leases are noted for, and the key that proves it.
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
            &lease.store,
            &lease.server,
            &lease.path,
            &lease.accessor,
            &lease.id,
        ] {
            hash.field(field.as_bytes());
        }
        hash
    }

    /// Adds the MAC to a lease.
    pub fn sign(&self, lease: &mut Lease) {
        lease.mac = Some(self.hash(lease).finish(64));
    }

    /// Whether lockstep noted the lease for this SyncedSecret.
    pub fn is_own(&self, lease: &Lease) -> bool {
        let mac = lease.mac.as_deref();
        mac.is_some_and(|mac| self.hash(lease).verify(mac))
    }

    fn is_own_intent(&self, intent: &LeaseIntent) -> bool {
        self.is_own(&lost(intent.clone()))
    }
}

/// Why a lease is left to expire that has no right MAC.
const UNPROVEN: &str = "its MAC does not prove that lockstep noted it: the status was changed, or the fingerprint key was replaced";

/// Whether a lease was left to expire because nothing proves that lockstep noted it.
pub fn is_disowned(lease: &Lease) -> bool {
    lease.left.is_some() && lease.mac.is_none()
}

/// Whether the status names a lease without proof that lockstep noted it, and does not say so yet.
pub fn has_unproven(status: &LeaseStatus, issuer: &Issuer<'_>) -> bool {
    let mut leases = held(status);
    leases.any(|lease| lease.left.is_none() && !issuer.is_own(lease))
        || status
            .intent
            .as_ref()
            .is_some_and(|intent| !issuer.is_own_intent(intent))
}

/// The leases once those without proof are left to expire. A credential that the Secret holds is replaced before it ends.
pub fn disowned(status: &LeaseStatus, issuer: &Issuer<'_>, now: Timestamp) -> LeaseStatus {
    let mut next = status.clone();
    let intent = next.intent.take_if(|intent| !issuer.is_own_intent(intent));
    next.old.extend(intent.map(|intent| Lease {
        replaced: Some(to_seconds(now)),
        ..lost(intent)
    }));
    let all = next
        .current
        .iter_mut()
        .chain(&mut next.minted)
        .chain(&mut next.old);
    for lease in all.filter(|lease| lease.left.is_none() && !issuer.is_own(lease)) {
        lease.ends.get_or_insert(LeaseEnd::NotRenewable);
        lease.left = Some(UNPROVEN.to_owned());
        lease.mac = None;
    }
    trim_disowned(&mut next);
    next
}

/// How many leases without proof the status goes on to list. Nothing is ever done for them, and they must leave room for others.
const MAX_DISOWNED: usize = 4;

fn trim_disowned(status: &mut LeaseStatus) {
    let mut listed = 0;
    status.old.retain(|lease| {
        listed += usize::from(is_disowned(lease));
        !is_disowned(lease) || listed <= MAX_DISOWNED
    });
}

/// The longest accessor that a store may give.
const MAX_ACCESSOR: usize = 256;
/// The longest lease id that a store may give.
const MAX_ID: usize = 1024;

/// Checks the accessor that a store gave, before it goes into the status. The message does not show it.
///
/// # Errors
/// When it is no name: printable ASCII of a bounded length, without blanks.
pub fn check_accessor(accessor: &str) -> Result<(), Failure> {
    check_given("accessor", accessor, MAX_ACCESSOR)
}

/// Checks the lease id that a store gave, in the same way.
///
/// # Errors
/// When it is no name.
pub fn check_id(id: &str) -> Result<(), Failure> {
    check_given("lease id", id, MAX_ID)
}

fn check_given(what: &str, name: &str, longest: usize) -> Result<(), Failure> {
    if text::is_backend_name(name, longest) {
        return Ok(());
    }
    let message = format!(
        "the store gave an invalid {what} ({} bytes): lockstep accepts 1 to {longest} printable ASCII characters without blanks. Check what answers at the store's address",
        name.len()
    );
    Err(Failure::new(Reason::Malformed, message).requeued(Requeue::LongBackoff))
}

/// The store that a status names.
pub fn store(text: &str) -> Option<StoreRef> {
    let (kind, name) = text.split_once('/')?;
    serde_json::from_value(serde_json::json!({ "kind": kind, "name": name })).ok()
}

fn time(text: &str) -> Timestamp {
    // what cannot be read is long ago: then the store is asked
    text.parse().unwrap_or(Timestamp::MIN)
}

fn third(lease: &Lease) -> Duration {
    Duration::from_secs(u64::try_from(lease.seconds).unwrap_or(0)) / 3
}

/// When a lease is renewed, or replaced where it cannot be: in its last third, each at a time of its own.
fn renew_at(lease: &Lease) -> Timestamp {
    let third = third(lease);
    let fraction = schedule::fraction((&*lease.accessor, &*lease.expires));
    let left = third.saturating_sub((third / 3).mul_f64(fraction));
    earlier(time(&lease.expires), left)
}

/// A time of the steady clock, on the wall.
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

/// Every lease that may be in use.
fn held(status: &LeaseStatus) -> impl Iterator<Item = &Lease> {
    status.current.iter().chain(&status.minted).chain(&status.old)
}

/// The lease with that accessor; of several, one that is not left to expire.
pub fn find<'a>(status: &'a LeaseStatus, accessor: &str) -> Option<&'a Lease> {
    let all = held(status).filter(|lease| lease.accessor == accessor);
    all.min_by_key(|lease| lease.left.is_some())
}

/// What is to be revoked by that accessor: a lease, or an intent as one.
pub fn held_as(status: &LeaseStatus, accessor: &str) -> Option<Lease> {
    let intent = status.intent.as_ref();
    find(status, accessor).cloned().or_else(|| {
        let intent = intent.filter(|intent| intent.accessor == accessor);
        intent.cloned().map(lost)
    })
}

/// Whether nothing is held.
pub fn is_empty(status: Option<&LeaseStatus>) -> bool {
    status.is_none_or(|status| *status == LeaseStatus::default())
}

/// What is due next, and when by the clock on the wall, with what has to be tried again in its time. `ahead` is how far that clock is
/// ahead of the steady one. A new credential is not among it: that is part of a sync, see [`mint_at`].
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
        if old.left.is_some() {
            return Some((on_the_wall(time(&old.expires), ahead), Action::Forget(accessor)));
        }
        let at = retention.unused_at(old, reach)?;
        Some((at, Action::Revoke(accessor)))
    });
    // what is revoked before it ends needs no renewal
    let revoked_in_time = |lease: &Lease| {
        retention
            .unused_at(lease, reach)
            .is_some_and(|at| at <= on_the_wall(time(&lease.expires), ahead))
    };
    let renewals = held(lease)
        .filter(|lease| lease.ends.is_none() && lease.left.is_none() && !revoked_in_time(lease))
        .map(|lease| {
            let at = on_the_wall(renew_at(lease), ahead);
            (at, Action::Renew(lease.accessor.clone()))
        });
    // of what is due at once, a revocation goes first
    intent
        .chain(revocations)
        .chain(renewals)
        .map(|(at, action)| (at.max(on_the_wall(retries.not_before(&action), ahead)), action))
        .min_by_key(|(at, _)| *at)
}

/// Whether an earlier process made a credential of which nobody knows whether the Secret holds it. Then the Secret is not taken to be
/// as the status says, and another one is made.
pub fn in_doubt(status: Option<&LeaseStatus>) -> bool {
    status.is_some_and(|status| status.minted.is_some()) || may_have_written(status)
}

/// Whether an earlier process may have written a credential, in whose place another one is made.
pub(crate) fn may_have_written(status: Option<&LeaseStatus>) -> bool {
    let written = |old: &Lease| old.replaced.is_none() && !old.unwritten;
    status.is_some_and(|status| status.old.iter().any(written))
}

/// When a new credential is due, and why; `None` while the one that there is goes on. `waits` says that it was found to have to wait
/// for a window or a rollout: then it comes in its time, or when the one that there is would end. By the steady clock.
pub fn mint_at(status: Option<&LeaseStatus>, waits: bool) -> Option<(Timestamp, Cause)> {
    if in_doubt(status) {
        return (!waits).then_some((Timestamp::MIN, Cause::Unknown));
    }
    let Some(current) = status.and_then(|status| status.current.as_ref()) else {
        return (!waits).then_some((Timestamp::MIN, Cause::First));
    };
    let ends = current.ends?;
    let at = match ends {
        _ if waits => last_call(current),
        LeaseEnd::NotRenewable => renew_at(current),
        LeaseEnd::RenewalRefused | LeaseEnd::MaximumReached => Timestamp::MIN,
    };
    Some((at, Cause::Ends(ends)))
}

/// Why the credential that is asked for has to be made; `None` where the one that there is will do. `remembered` is the id of the
/// lease whose fields this process has at hand.
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
    if in_doubt(status) {
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

/// Why one that is about to be written is not worth it any more.
fn ending(minted: &Lease, now: Timestamp) -> Option<Cause> {
    let expires = time(&minted.expires);
    let (at, end) = match minted.ends {
        Some(LeaseEnd::NotRenewable) => (renew_at(minted).min(expires), LeaseEnd::NotRenewable),
        Some(end) => (Timestamp::MIN, end),
        None => (expires, LeaseEnd::RenewalRefused),
    };
    (now >= at).then_some(Cause::Ends(end))
}

/// The lease whose credential the Secret has to hold, while no new one is due.
pub fn in_use(status: Option<&LeaseStatus>) -> Option<&Lease> {
    let status = status?;
    status.minted.as_ref().or(status.current.as_ref())
}

/// When a credential that ends is replaced whatever else has to wait.
fn last_call(lease: &Lease) -> Timestamp {
    let part = Duration::from_secs(u64::try_from(lease.seconds / LAST_CALL).unwrap_or(0));
    earlier(time(&lease.expires), part)
}

/// Whether a new credential must not wait for a window or a rollout: the one that there is ends before.
pub fn cannot_wait(status: Option<&LeaseStatus>, now: Timestamp) -> bool {
    let current = status.and_then(|status| status.current.as_ref());
    current.is_some_and(|current| current.ends.is_some() && now >= last_call(current))
}

/// Checks that what was not revoked leaves room for another one.
///
/// # Errors
/// When there is too much of it: nothing bounds then what lives in the store.
pub fn check_room(status: Option<&LeaseStatus>) -> Result<(), Failure> {
    let old = status.map_or(&[][..], |status| &status.old);
    let left = old
        .iter()
        .filter(|lease| lease.left.is_some() && !is_disowned(lease));
    let message = if left.clone().count() >= MAX_LEFT {
        let first = left.map(|lease| &*lease.expires).min().unwrap_or_default();
        format!(
            "{MAX_LEFT} credentials that nobody uses could not be revoked, and no other is made beside them before the first ends at {first}. Give the store's login the right to auth/token/revoke-accessor; the condition LeaseUnrevoked says why one was not revoked"
        )
    } else if old.iter().filter(|lease| !is_disowned(lease)).count() >= MAX_OLD {
        format!(
            "{MAX_OLD} credentials wait to be revoked, and no other is made beside them. Check that the store answers, and that the rollout is not held"
        )
    } else {
        return Ok(());
    };
    Err(Failure::new(Reason::LeaseLeft, message).requeued(Requeue::LongBackoff))
}

/// An intent, as one of the leases that are to be revoked.
fn lost(intent: LeaseIntent) -> Lease {
    Lease {
        id: intent.accessor.clone(),
        accessor: intent.accessor,
        store: intent.store,
        server: intent.server,
        path: intent.path,
        mac: intent.mac,
        issued: intent.since,
        expires: intent.expires,
        ends: Some(LeaseEnd::NotRenewable),
        unwritten: true,
        ..Lease::default()
    }
}

/// The status before a credential is made.
pub fn intend(
    status: Option<&LeaseStatus>,
    generation: &Generation,
    warrant: &Warrant,
    issuer: &Issuer<'_>,
    now: Timestamp,
) -> LeaseStatus {
    let mut next = status.cloned().unwrap_or_default();
    // what an earlier process may have written is in use until another is
    next.old.extend(next.minted.take());
    next.old.extend(next.intent.take().map(lost));
    trim_disowned(&mut next);
    let mut intent = LeaseIntent {
        store: generation.store.to_string(),
        server: warrant.server.clone(),
        path: generation.request.path.to_string(),
        accessor: warrant.accessor.clone(),
        since: to_seconds(now),
        expires: to_seconds(later(now, warrant.lives)),
        mac: None,
    };
    let mut lease = lost(intent.clone());
    issuer.sign(&mut lease);
    intent.mac = lease.mac;
    next.intent = Some(intent);
    next
}

/// The status once a credential was made, and before it is written. `asked` is when the store was asked: it began to count no earlier.
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
    let expires = later(asked, minted.lives).min(time(&intent.expires));
    let seconds = expires.as_second().saturating_sub(asked.as_second());
    let mut lease = Lease {
        id: minted.id.clone().unwrap_or_else(|| intent.accessor.clone()),
        accessor: intent.accessor,
        store: intent.store,
        server: intent.server,
        path: intent.path,
        request,
        issued: to_seconds(asked),
        expires: to_seconds(expires),
        seconds,
        renewable: minted.renewable,
        ends: (!minted.renewable).then_some(LeaseEnd::NotRenewable),
        ..Lease::default()
    };
    issuer.sign(&mut lease);
    next.minted = Some(lease);
    next
}

/// The leases once the Secret holds what `sources` say.
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
    // nothing was written while one is in doubt
    if next.minted.is_none() {
        for old in next.old.iter_mut().filter(|old| old.replaced.is_none()) {
            old.replaced = Some(to_seconds(now));
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

/// The leases after one was renewed.
pub fn renewed(status: &LeaseStatus, accessor: &str, given: Duration, asked: Timestamp) -> LeaseStatus {
    let expires = to_seconds(later(asked, given));
    change(status, accessor, |lease| {
        let given = i64::try_from(given.as_secs()).unwrap_or(i64::MAX);
        let truncated = given.saturating_add(ROUNDING) < lease.seconds;
        lease.expires = expires;
        lease.renewed = Some(to_seconds(asked));
        if truncated {
            lease.ends = Some(LeaseEnd::MaximumReached);
        }
    })
}

/// The leases after the store refused to renew one; `None` where it only could not be asked, and is asked again.
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
            lease.ends = Some(LeaseEnd::RenewalRefused);
            lease.refusal = Some(message.to_owned());
        })
    })
}

/// The leases after one was revoked, or has expired.
pub fn revoked(status: &LeaseStatus, accessor: &str) -> Option<LeaseStatus> {
    let mut next = status.clone();
    next.intent.take_if(|intent| intent.accessor == accessor);
    next.current.take_if(|lease| lease.accessor == accessor);
    next.minted.take_if(|lease| lease.accessor == accessor);
    next.old.retain(|lease| lease.accessor != accessor);
    settled(next)
}

/// The leases after the store refused to revoke one, for good: it is left to expire. `None` where it only could not be asked.
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
        replaced: Some(to_seconds(now)),
        ..lost(intent)
    }));
    Some(change(&next, accessor, |lease| {
        lease.left = Some(message.to_owned());
    }))
}

/// What is due for the leases of a SyncedSecret that is being deleted, and when by the clock on the wall. Those without proof that
/// lockstep noted them hold nothing up.
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
        .filter(|lease| lease.left.is_none() && issuer.is_own(lease));
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

/// What could not be done for a lease, and when it is tried again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retries(Vec<Retry>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Retry {
    action: Action,
    at: Timestamp,
    attempt: u32,
    /// Whether the store does not exist, or cannot work as it is.
    gone: bool,
}

impl Retries {
    fn of(&self, action: &Action) -> Option<&Retry> {
        self.0.iter().find(|retry| retry.action == *action)
    }

    /// When it may be tried again, by the steady clock.
    pub fn not_before(&self, action: &Action) -> Timestamp {
        self.of(action).map_or(Timestamp::MIN, |retry| retry.at)
    }

    fn is_gone(&self, action: &Action) -> bool {
        self.of(action).is_some_and(|retry| retry.gone)
    }

    /// Notes that it was done.
    pub fn done(&mut self, action: &Action) {
        self.0.retain(|retry| retry.action != *action);
    }

    /// Notes that it failed. `gone` says that the store does not exist, or cannot work as it is.
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

/// The paths of the leases that were not revoked, and when the last of them ends.
pub fn left(status: Option<&LeaseStatus>) -> Option<(Vec<&str>, &str)> {
    let status = status?;
    let mut paths: Vec<&str> = held(status).map(|lease| &*lease.path).collect();
    paths.extend(status.intent.iter().map(|intent| &*intent.path));
    paths.sort_unstable();
    paths.dedup();
    let ends = held(status).map(|lease| &*lease.expires);
    let last = ends
        .chain(status.intent.iter().map(|intent| &*intent.expires))
        .max()?;
    Some((paths, last))
}

/// When the credential that the Secret holds ends unless it is renewed.
pub fn expiry(status: Option<&LeaseStatus>) -> Option<Timestamp> {
    let current = status?.current.as_ref()?;
    current.expires.parse().ok()
}

/// The lease that is left to expire, and why, where there is one.
pub fn unrevoked(status: Option<&LeaseStatus>) -> Option<(&Lease, &str)> {
    held(status?).find_map(|lease| Some((lease, lease.left.as_deref()?)))
}
