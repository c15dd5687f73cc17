//! A store with one value, an engine that issues credentials, and a queue of messages.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use lockstep_api::{StoreKind, StoreRef};
use lockstep_core::{
    collect::Fetched,
    events::VersionHint,
    plan::{Plan, Read, Search},
    reconcile::{LeaseSupport, SourcesRead, VersionMessage},
    remote::{
        ErrorKind, IssuanceToken, LeaseHandle, Location, Locator, Minted, Operation, ProviderError,
        RemoteRef, RemoteSecret, SecretValue, Verbatim,
    },
};

/// The key of the value.
pub const KEY: &str = "shop/database";
/// The key of the second value.
const SECOND_KEY: &str = "shop/second";
/// The path that issues credentials.
pub const LEASE_PATH: &str = "database/creds/shop";
/// Lifetime of a lease unless it is renewed.
const LEASE_SECONDS: i64 = 60;
/// Maximum lifetime of a lease.
const LEASE_MAXIMUM: i64 = 400;
/// How long a late credential takes, in seconds.
const LATE_SECONDS: i64 = 60;
const SERVER: &str = "https://vault";

/// A lease that is neither revoked nor expired.
#[derive(Debug, Clone, Copy)]
struct FakeLease {
    issued: Timestamp,
    expires: Timestamp,
}

/// A message about a version of the value.
#[derive(Debug, Clone, Copy)]
pub struct FakeMessage {
    /// The version of the value.
    pub version: usize,
    /// When the version was written.
    pub at: Timestamp,
    pub(super) refuted: bool,
}

/// A store in memory. Its value is a JSON object with the properties `username` and `password`,
/// both made from the name of the content.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fault that a test turns on and off"
)]
pub struct FakeStore {
    /// The content of each version. The last version is the current one.
    pub versions: Vec<String>,
    /// The path of the store's spec. The value is at the empty path.
    pub path: String,
    /// Whether the value is deleted.
    pub deleted: bool,
    /// Whether the store does not respond.
    pub down: bool,
    /// Whether reads of the current version still return the previous one.
    pub lags: bool,
    /// Whether there is a second value, which never changes.
    pub has_second: bool,
    /// Whether searches do not find the first value, because the store hides its name.
    pub hides_names: bool,
    /// Whether the store issues credentials a minute after the request timed out.
    pub issues_late: bool,
    /// Whether the store rejects renewals of leases.
    pub denies_renewal: bool,
    /// The unacknowledged messages.
    pub messages: BTreeMap<u64, FakeMessage>,
    /// The number of credentials issued.
    pub issued: usize,
    sent: u64,
    tokens: usize,
    leases: BTreeMap<String, FakeLease>,
    /// When credentials are issued whose request timed out, by accessor.
    late: BTreeMap<String, Timestamp>,
}

pub(super) fn no_answer() -> ProviderError {
    ProviderError::new(ErrorKind::Unavailable, Operation::Read, "no answer")
}

/// Returns the result of reads that all get no response.
pub(super) fn unavailable(plan: &Plan) -> SourcesRead {
    let reads = plan.reads.iter();
    let searches = plan.searches.iter();
    SourcesRead {
        fetched: Fetched {
            reads: reads.map(|read| (read.clone(), Err(no_answer()))).collect(),
            found: searches.map(|search| (search.entry, Err(no_answer()))).collect(),
            ..Fetched::default()
        },
        large: false,
        messages: Vec::new(),
    }
}

impl FakeStore {
    /// Returns the store as a SyncedSecret names it.
    pub fn reference() -> StoreRef {
        StoreRef {
            name: "vault".to_owned(),
            kind: StoreKind::SecretStore,
        }
    }

    /// Returns the content of the credential with this accessor.
    pub fn content_of(accessor: &str) -> String {
        format!("lease-{accessor}")
    }

    /// Writes a new version of the value.
    pub fn put(&mut self, content: &str) {
        self.versions.push(content.to_owned());
        self.deleted = false;
    }

    /// Returns the content of the current version.
    pub fn current(&self) -> Option<&str> {
        self.versions.last().filter(|_| !self.deleted).map(String::as_str)
    }

    /// Sends a message about the current version, or falsely about the next one.
    pub fn notify(&mut self, falsely: bool, at: Timestamp) {
        self.notify_of(self.versions.len() + usize::from(falsely), at);
    }

    /// Sends a message about a version.
    pub fn notify_of(&mut self, version: usize, at: Timestamp) {
        self.sent += 1;
        let message = FakeMessage {
            version,
            at,
            refuted: false,
        };
        self.messages.insert(self.sent, message);
    }

    pub(super) fn refute(&mut self, message: u64) {
        if let Some(message) = self.messages.get_mut(&message) {
            message.refuted = true;
        }
    }

    pub(super) fn version_messages(&self) -> Vec<VersionMessage> {
        let believed = self.messages.iter().filter(|(_, message)| !message.refuted);
        let message = |(number, message): (&u64, &FakeMessage)| VersionMessage {
            number: *number,
            store: Self::reference(),
            hint: Arc::new(VersionHint {
                keys: vec![KEY.to_owned()],
                version: message.version.to_string(),
                read_version: message.version.to_string(),
                at: Some(message.at),
            }),
        };
        believed.map(message).collect()
    }

    /// Issues late credentials, although their tokens may be revoked, and removes expired leases.
    pub(super) fn expire(&mut self, now: Timestamp) {
        let is_due = |at: &Timestamp| *at <= now;
        for (accessor, issued) in self.late.extract_if(.., |_, at| is_due(at)) {
            let expires = after(issued, LEASE_SECONDS);
            self.leases.insert(accessor, FakeLease { issued, expires });
        }
        self.leases.retain(|_, lease| lease.expires > now);
    }

    pub(super) fn read_all(&self, plan: &Plan) -> Result<SourcesRead, ProviderError> {
        let mut read = unavailable(plan);
        let fetched = &mut read.fetched;
        for search in &plan.searches {
            let found = self.search(search);
            for location in found.iter().flatten() {
                let found = Read {
                    store: search.store.clone(),
                    reference: RemoteRef::current(location.clone()),
                };
                fetched.reads.insert(found, Err(no_answer()));
            }
            fetched.found.insert(search.entry, found);
        }
        for (one, answer) in &mut fetched.reads {
            *answer = self.read(&one.reference);
        }
        Ok(read)
    }

    fn search(&self, search: &Search) -> Result<Vec<Location>, ProviderError> {
        self.answers()?;
        let first = (self.current().is_some() && !self.hides_names).then_some(KEY);
        let second = self.has_second.then_some(SECOND_KEY);
        let keys = first.into_iter().chain(second);
        let located = keys.filter_map(|key| Some(Verbatim.locate(key, None).ok()?.location));
        Ok(located.filter(|location| search.grant.allows(location)).collect())
    }

    pub(super) fn read(&self, reference: &RemoteRef) -> Result<RemoteSecret, ProviderError> {
        if self.down {
            return Err(no_answer());
        }
        let missing = || ProviderError::new(ErrorKind::NotFound, Operation::Read, "no such value");
        if *reference.key == *SECOND_KEY && self.has_second && reference.version.is_none() {
            return Ok(RemoteSecret {
                value: value("second"),
                version: Some("1".to_owned()),
                created: None,
                fresh_for: None,
            });
        }
        if *reference.key != *KEY || !self.path.is_empty() {
            return Err(missing());
        }
        let number = match &reference.version {
            Some(version) => version.parse::<usize>().map_err(|_| missing())?,
            None if self.deleted => return Err(missing()),
            None if self.lags => self.versions.len().saturating_sub(1).max(1),
            None => self.versions.len(),
        };
        let content = number.checked_sub(1).and_then(|index| self.versions.get(index));
        let content = content.ok_or_else(missing)?;
        Ok(RemoteSecret {
            value: value(content),
            version: Some(number.to_string()),
            created: i64::try_from(number)
                .ok()
                .map(|number| after(Timestamp::UNIX_EPOCH, number)),
            fresh_for: None,
        })
    }

    pub(super) fn lease_support(&self) -> Result<LeaseSupport, ProviderError> {
        self.answers().map(|()| LeaseSupport {
            provider: "vault",
            leases: true,
        })
    }

    fn answers(&self) -> Result<(), ProviderError> {
        if self.down { Err(no_answer()) } else { Ok(()) }
    }

    pub(super) fn issue_token(&mut self) -> Result<IssuanceToken, ProviderError> {
        self.answers()?;
        self.tokens += 1;
        Ok(IssuanceToken {
            server: SERVER.to_owned(),
            accessor: format!("a{}", self.tokens),
            token: SecretValue::from("token"),
            lives: Duration::from_secs(86_400),
        })
    }

    pub(super) fn issue_credential(
        &mut self,
        token: &IssuanceToken,
        now: Timestamp,
    ) -> Result<Minted, ProviderError> {
        self.answers()?;
        self.issued += 1;
        if self.issues_late {
            self.late.insert(token.accessor.clone(), after(now, LATE_SECONDS));
            return Err(ProviderError::new(
                ErrorKind::Timeout,
                Operation::Mint,
                "no answer in time",
            ));
        }
        let lease = FakeLease {
            issued: now,
            expires: after(now, LEASE_SECONDS),
        };
        self.leases.insert(token.accessor.clone(), lease);
        Ok(Minted {
            id: Some(format!("{LEASE_PATH}/{}", token.accessor)),
            value: value(&Self::content_of(&token.accessor)),
            lives: Duration::from_secs(LEASE_SECONDS.unsigned_abs()),
            renewable: true,
        })
    }

    pub(super) fn renew(&mut self, lease: &LeaseHandle, now: Timestamp) -> Result<Duration, ProviderError> {
        self.answers()?;
        let denies = self.denies_renewal;
        let held = self.leases.get_mut(&lease.accessor).filter(|_| !denies);
        let Some(held) = held else {
            return Err(ProviderError::new(
                ErrorKind::NotFound,
                Operation::RenewLease,
                "no such lease",
            ));
        };
        held.expires = after(now, LEASE_SECONDS).min(after(held.issued, LEASE_MAXIMUM));
        Ok(Duration::try_from(held.expires.duration_since(now)).unwrap_or_default())
    }

    pub(super) fn revoke(&mut self, lease: &LeaseHandle) -> Result<(), ProviderError> {
        self.answers()?;
        self.leases.remove(&lease.accessor);
        Ok(())
    }

    /// Returns the accessors of the active leases.
    pub fn leases(&self) -> Vec<&str> {
        self.leases.keys().map(String::as_str).collect()
    }
}

fn after(now: Timestamp, seconds: i64) -> Timestamp {
    now.saturating_add(SignedDuration::from_secs(seconds))
        .unwrap_or(now)
}

fn value(content: &str) -> SecretValue {
    let json = format!(r#"{{"username":"{content}","password":"{content}"}}"#);
    SecretValue::from(json.as_str())
}
