//! Secrets in the API server, with the admission policy `lockstep-secrets`.

use std::collections::BTreeMap;

use lockstep_core::{
    assemble::DesiredSecret,
    reconcile::SecretRequest,
    secret_write::{Answer, Request, SecretIdentity, WriteError},
};

use super::{FakeCluster, NAME};

/// A Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeSecret {
    /// The uid of the Secret.
    pub uid: String,
    /// The resourceVersion of the Secret.
    pub resource_version: String,
    /// The SyncedSecret that its annotation names.
    pub owner: Option<String>,
    /// Whether it is immutable.
    pub immutable: bool,
    /// The values by key.
    pub data: BTreeMap<String, String>,
}

impl FakeSecret {
    fn identity(&self) -> SecretIdentity {
        SecretIdentity {
            uid: self.uid.clone(),
            resource_version: self.resource_version.clone(),
        }
    }

    /// Returns the content that all its keys have; `None` if they differ.
    pub fn content(&self) -> Option<&str> {
        let mut values = self.data.values();
        let first = values.next()?;
        values.all(|value| value == first).then_some(first.as_str())
    }

    fn is_ours(&self) -> bool {
        self.owner.as_deref() == Some(NAME)
    }
}

/// The Secrets of the namespace.
#[derive(Debug, Default)]
pub struct FakeSecrets {
    /// The Secrets by name.
    pub all: BTreeMap<String, FakeSecret>,
    last_version: u64,
    last_uid: u64,
}

fn text(desired: &DesiredSecret) -> BTreeMap<String, String> {
    let data = desired.data.iter();
    data.map(|(key, value)| (key.clone(), String::from_utf8_lossy(value.expose()).into_owned()))
        .collect()
}

impl FakeSecrets {
    fn next_version(&mut self) -> String {
        self.last_version += 1;
        self.last_version.to_string()
    }

    /// Simulates an edit of a Secret by someone else.
    pub fn edit(&mut self, name: &str) {
        let version = self.next_version();
        if let Some(secret) = self.all.get_mut(name).filter(|secret| !secret.immutable) {
            secret.data.insert("edited".to_owned(), "by someone".to_owned());
            secret.resource_version = version;
        }
    }

    /// Returns the names of the Secrets with this content.
    pub(super) fn holders(&self, content: &str) -> Vec<String> {
        let holds = |secret: &FakeSecret| secret.data.values().any(|value| value == content);
        let all = self.all.iter().filter(|(_, secret)| holds(secret));
        all.map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn perform(&mut self, request: &SecretRequest) -> Answer<WriteError> {
        let name = &request.name;
        let stored = self.all.get(name);
        match &request.request {
            Request::Create => match (&request.desired, stored) {
                (Some(desired), None) => self.create(name, desired),
                (_, Some(_)) => Answer::AlreadyExists,
                (None, None) => Answer::Unguarded,
            },
            Request::Replace { uid, sealed } => match &request.desired {
                Some(desired) => self.replace(name, desired, uid.as_deref(), *sealed),
                None => Answer::Unguarded,
            },
            Request::Prove => match stored {
                None => Answer::NotFound,
                Some(stored) if stored.immutable => Answer::Immutable,
                Some(_) => Answer::Denied,
            },
            Request::ProveCreate => Answer::Denied,
            Request::Claim => match stored {
                None => Answer::NotFound,
                Some(stored) if stored.immutable => Answer::Immutable,
                Some(stored) if stored.is_ours() => Answer::Written(stored.identity()),
                Some(_) => Answer::Denied,
            },
            Request::Rehearse => Answer::Written(SecretIdentity {
                uid: "rehearsal".to_owned(),
                resource_version: String::new(),
            }),
            Request::Delete(expected) | Request::Probe(expected) => {
                let answer = match stored {
                    None => Answer::NotFound,
                    Some(stored) if stored.identity() != *expected => Answer::Conflict,
                    Some(stored) if stored.owner.is_none() => Answer::Denied,
                    Some(_) => Answer::Deleted,
                };
                if answer == Answer::Deleted && matches!(request.request, Request::Delete(_)) {
                    self.all.remove(name);
                }
                answer
            }
        }
    }

    fn create(&mut self, name: &str, desired: &DesiredSecret) -> Answer<WriteError> {
        self.last_uid += 1;
        let secret = FakeSecret {
            uid: format!("uid-{}", self.last_uid),
            resource_version: self.next_version(),
            owner: Some(NAME.to_owned()),
            immutable: false,
            data: text(desired),
        };
        let identity = secret.identity();
        self.all.insert(name.to_owned(), secret);
        Answer::Written(identity)
    }

    fn replace(
        &mut self,
        name: &str,
        desired: &DesiredSecret,
        uid: Option<&str>,
        sealed: bool,
    ) -> Answer<WriteError> {
        let version = self.next_version();
        let Some(stored) = self.all.get_mut(name) else {
            return Answer::NotFound;
        };
        if uid.is_some_and(|uid| uid != stored.uid) {
            return Answer::Conflict;
        }
        let data = text(desired);
        if stored.immutable && (!sealed || stored.data != data) {
            return Answer::Immutable;
        }
        if !stored.is_ours() {
            return Answer::Denied;
        }
        if stored.immutable != sealed || stored.data != data {
            stored.immutable = sealed;
            stored.data = data;
            stored.resource_version = version;
        }
        Answer::Written(stored.identity())
    }

    pub(super) fn merge(&mut self, desired: &DesiredSecret) -> Result<SecretIdentity, WriteError> {
        let version = self.next_version();
        let stored = self.all.get_mut(&desired.name).ok_or(WriteError::Missing)?;
        let data = text(desired);
        if data
            .iter()
            .any(|(key, value)| stored.data.get(key) != Some(value))
        {
            stored.data.extend(data);
            stored.resource_version = version;
        }
        Ok(stored.identity())
    }

    pub(super) fn find_merged(&self, name: &str) -> Result<SecretIdentity, WriteError> {
        let stored = self.all.get(name).ok_or(WriteError::Missing)?;
        Ok(stored.identity())
    }
}

impl FakeCluster {
    /// Checks that a Secret is written as a whole and from one version of the value.
    pub(super) fn check_content(&mut self, request: &Request, desired: Option<&DesiredSecret>) {
        let (Request::Create | Request::Replace { .. }, Some(desired)) = (request, desired) else {
            return;
        };
        let data = text(desired);
        let keys: Vec<_> = data.keys().map(String::as_str).collect();
        let mut values = data.values();
        let first = values.next();
        if keys != ["password", "username"] || values.any(|value| Some(value) != first) {
            self.violations.push(format!("half a Secret: {data:?}"));
        }
    }
}
