//! Names the content of a Secret with a short revision that survives a change of the fingerprint
//! key.
//!
//! A revision is a keyed hash of the content. It includes the uid, namespace and name of the
//! SyncedSecret. Equal contents of two SyncedSecrets have different revisions, so nobody can test a
//! guess in a namespace of their own.
//!
//! Pod templates contain the revision in an annotation, and a versioned Secret contains it in its
//! name. A revision must therefore stay the same while the content does, even if the key is lost or
//! the format changes. [`key_id`] in the status identifies the key and the format of its hashes.
//! Under another key:
//!
//! - A hash in the status proves nothing, so [`is_unchanged`] compares the generation of the spec
//!   and the versions of the sources.
//! - Content that is unchanged by this comparison keeps its revision. The status records its hash
//!   under the new key as well.
//! - Content that changed is handled like any other change.
//!
//! If a source has no versions and changes exactly while the key is lost, the change is missed
//! until the next change of that source.

use lockstep_api::{PreviousRevision, RefusedRevision, SourceStatus, SyncedSecretStatus, TargetStatus};

use crate::{
    assemble::erased::Json as _,
    collect::Collected,
    fingerprint::{FingerprintKey, Hasher},
    history::MAX_SOURCES,
    plan::Input,
};

/// The format of revisions. Raise it when the hash of the same content changes.
const FORMAT: u8 = 2;
/// Number of hexadecimal digits of a revision.
pub const LENGTH: usize = 8;

/// Identifies the key and the format of the hashes in a status. It is a keyed hash of a constant
/// and reveals nothing about the key.
pub fn key_id(key: &FingerprintKey) -> String {
    format!("{FORMAT}-{}", key.hash("key id").finish(LENGTH))
}

/// The hashes of the content of a Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    key_id: String,
    hash: String,
    /// The hash in format 1, which did not include the object. Statuses of that format have no key
    /// id.
    unbound: String,
}

impl Content {
    /// Hashes the content that pods see. Ciphertexts must be decrypted already, so that a value
    /// that is only sealed again is not a change.
    pub fn of(input: &Input<'_>, collected: &Collected, key: &FingerprintKey) -> Self {
        let mut unbound = key.hash("revision");
        unbound.field(b"1");
        add_content(&mut unbound, input, collected);
        let mut bound = key.hash("revision");
        bound
            .field(&[FORMAT])
            .field(input.uid.as_bytes())
            .field(input.namespace.as_bytes())
            .field(input.name.as_bytes());
        add_content(&mut bound, input, collected);
        Self {
            key_id: key_id(key),
            hash: bound.finish(LENGTH),
            unbound: unbound.finish(LENGTH),
        }
    }

    /// Whether a name in the status belongs to this content. `None` if its hash was made with
    /// another key and therefore proves nothing.
    fn has_name(&self, name: Name<'_>) -> Option<bool> {
        match name.key_id {
            Some(id) if id == self.key_id => Some(name.hash.unwrap_or(name.revision) == self.hash),
            Some(_) => None,
            None => (name.revision == self.unbound).then_some(true),
        }
    }

    /// Returns the revision of this content: the first of `names` that belongs to it, or a new one.
    pub fn revision<'a>(&self, names: impl IntoIterator<Item = Candidate<'a>>) -> Revision {
        let mut names = names.into_iter();
        let known = names.find(|candidate| self.has_name(candidate.name).unwrap_or(candidate.is_unchanged));
        let name = known.map_or(&*self.hash, |known| known.name.revision);
        Revision {
            name: name.to_owned(),
            hash: (name != self.hash).then(|| self.hash.clone()),
            key_id: self.key_id.clone(),
        }
    }
}

fn add_content(hasher: &mut Hasher, input: &Input<'_>, collected: &Collected) {
    let template = input.spec.target.template.clone().unwrap_or_default();
    hasher
        .values(&collected.values)
        .field(&template.data.bytes())
        .field(&template.template_from.bytes())
        .field(&template.merge_policy.bytes())
        .field(&template.secret_type.bytes());
}

/// A revision as it is recorded in the status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// The name of the revision.
    pub name: String,
    /// The hash under the current key, if the name was made with another key.
    pub hash: Option<String>,
    /// Identifies the current key and format.
    pub key_id: String,
}

impl Revision {
    /// Records the revision in the status of a target.
    pub fn set(self, target: &mut TargetStatus) {
        target.revision = self.name;
        target.revision_hash = self.hash;
        target.key_id = Some(self.key_id);
    }
}

/// A revision in the status, with the key that it was made with.
#[derive(Debug, Clone, Copy)]
pub struct Name<'a> {
    revision: &'a str,
    hash: Option<&'a str>,
    key_id: Option<&'a str>,
}

impl<'a> From<&'a TargetStatus> for Name<'a> {
    fn from(target: &'a TargetStatus) -> Self {
        Self {
            revision: &target.revision,
            hash: target.revision_hash.as_deref(),
            key_id: target.key_id.as_deref(),
        }
    }
}

impl<'a> From<&'a PreviousRevision> for Name<'a> {
    fn from(previous: &'a PreviousRevision) -> Self {
        Self {
            revision: &previous.revision,
            hash: previous.revision_hash.as_deref(),
            key_id: previous.key_id.as_deref(),
        }
    }
}

impl<'a> From<&'a RefusedRevision> for Name<'a> {
    fn from(refused: &'a RefusedRevision) -> Self {
        Self {
            revision: &refused.revision,
            hash: refused.revision_hash.as_deref(),
            key_id: refused.key_id.as_deref(),
        }
    }
}

/// A revision that may belong to a content.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    name: Name<'a>,
    is_unchanged: bool,
}

impl<'a> Candidate<'a> {
    /// Creates a candidate. `is_unchanged` decides if the hash of the name proves nothing.
    pub fn new(name: impl Into<Name<'a>>, is_unchanged: bool) -> Self {
        Self {
            name: name.into(),
            is_unchanged,
        }
    }
}

/// Whether the Secret contains what was read, as far as this can be determined without hashes: the
/// generation of the spec is that of the last sync, and the same remote values have the same
/// versions.
pub fn is_unchanged(status: &SyncedSecretStatus, generation: Option<i64>, sources: &[SourceStatus]) -> bool {
    let waits = status
        .rotation
        .as_ref()
        .is_some_and(|rotation| rotation.pending_revision.is_some());
    let have_versions = sources.iter().all(|source| source.version.is_some());
    has_same_spec(status, generation) && are_the_same(status, sources) && (!waits || have_versions)
}

/// Whether the Secret was last in sync with this generation of the spec.
pub fn has_same_spec(status: &SyncedSecretStatus, generation: Option<i64>) -> bool {
    let Some(target) = &status.target else {
        return false;
    };
    match target.generation {
        Some(synced) => generation == Some(synced),
        // an earlier version of lockstep recorded no generation
        None => is_synced(status) && generation == status.observed_generation,
    }
}

fn is_synced(status: &SyncedSecretStatus) -> bool {
    use lockstep_api::{ConditionType, Reason};
    let waits = status
        .rotation
        .as_ref()
        .is_some_and(|rotation| rotation.pending_revision.is_some());
    let ready = status.condition(ConditionType::Ready);
    !waits && ready.is_some_and(|ready| ready.holds(ConditionType::Ready) && ready.has_reason(Reason::Synced))
}

/// Whether the sources are those of the status, at the same versions.
fn are_the_same(status: &SyncedSecretStatus, sources: &[SourceStatus]) -> bool {
    let count = i64::try_from(sources.len()).ok();
    let listed = sources.iter().take(MAX_SOURCES);
    let same = |(one, other): (&SourceStatus, &SourceStatus)| {
        (&one.store, &one.key, &one.version) == (&other.store, &other.key, &other.version)
    };
    count == status.source_count
        && listed.len() == status.sources.len()
        && status.sources.iter().zip(listed).all(same)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lockstep_api::{RotationStatus, SyncedSecretSpec};

    use super::*;
    use crate::remote::SecretValue;

    fn key(byte: u8) -> FingerprintKey {
        FingerprintKey::new(vec![byte; 32]).unwrap()
    }

    fn hashed<T>(
        [uid, namespace, name]: [&str; 3],
        value: &str,
        hash: impl FnOnce(&Input<'_>, &Collected) -> T,
    ) -> T {
        let spec = SyncedSecretSpec::default();
        let input = Input {
            name,
            namespace,
            uid,
            spec: &spec,
            stores: &BTreeMap::new(),
            rival: None,
        };
        let collected = Collected {
            values: BTreeMap::from([("password".to_owned(), SecretValue::from(value))]),
            ..Collected::default()
        };
        hash(&input, &collected)
    }

    fn content_of(object: [&str; 3], value: &str, byte: u8) -> Content {
        hashed(object, value, |input, collected| {
            Content::of(input, collected, &key(byte))
        })
    }

    fn content(value: &str, byte: u8) -> Content {
        content_of(["uid", "shop", "database"], value, byte)
    }

    fn target(revision: &Revision) -> TargetStatus {
        let mut target = TargetStatus::default();
        revision.clone().set(&mut target);
        target
    }

    #[test]
    fn equal_values_of_two_objects_have_different_revisions() {
        let here = content("hunter2", 1).revision([]);
        for other in [
            ["uid2", "shop", "database"],
            ["uid", "mallory", "database"],
            ["uid", "shop", "other"],
            ["uids", "hop", "database"],
        ] {
            let there = content_of(other, "hunter2", 1).revision([]);
            assert_ne!(here.name, there.name, "{other:?}");
        }
        assert_eq!(content("hunter2", 1).revision([]), here);
        assert_ne!(content("hunter3", 1).revision([]).name, here.name);
    }

    /// Guards the format of hashes in statuses: a change restarts every workload after an upgrade.
    #[test]
    fn hash_format_in_statuses_is_stable() {
        let content = content("hunter2", 7);
        assert_eq!(content.key_id, KNOWN_KEY_ID);
        assert_eq!(content.hash, KNOWN_HASH);
        assert_eq!(content.unbound, KNOWN_UNBOUND);
        let fingerprint = hashed(["uid", "shop", "database"], "hunter2", |input, collected| {
            crate::assemble::fingerprint(input, collected, &key(7))
        });
        assert_eq!(fingerprint, KNOWN_FINGERPRINT);
    }

    const KNOWN_KEY_ID: &str = "2-3bffff45";
    const KNOWN_HASH: &str = "47856bc8";
    const KNOWN_FINGERPRINT: &str = "54daf0738efd85fee363e89a18685b63c6356ac5d911c1cd4eff93ef27724940";
    const KNOWN_UNBOUND: &str = "3b9f0500";

    #[test]
    fn revision_name_survives_a_key_change() {
        let first = target(&content("a", 1).revision([]));
        // the key is lost, so the hash of the name proves nothing
        let adopted = content("a", 2).revision([Candidate::new(&first, true)]);
        assert_eq!(adopted.name, first.revision);
        assert!(adopted.hash.is_some());
        assert_ne!(Some(&adopted.key_id), first.key_id.as_ref());
        // afterwards the hash identifies it, whatever else changed
        let kept = target(&adopted);
        assert_eq!(content("a", 2).revision([Candidate::new(&kept, false)]), adopted);
        let changed = content("b", 2).revision([Candidate::new(&kept, true)]);
        assert_ne!(changed.name, first.revision);
        assert_eq!(changed.hash, None);
        // the lost key comes back
        let back = content("a", 1).revision([Candidate::new(&kept, true)]);
        assert_eq!((back.name.as_str(), back.hash), (&*first.revision, None));
    }

    #[test]
    fn rollback_under_another_key_keeps_its_name() {
        let good = target(&content("good", 1).revision([]));
        let bad = target(&content("bad", 1).revision([]));
        let pinned = PreviousRevision {
            revision: good.revision.clone(),
            key_id: good.key_id.clone(),
            ..PreviousRevision::default()
        };
        let refused = RefusedRevision {
            revision: bad.revision.clone(),
            key_id: bad.key_id.clone(),
            ..RefusedRevision::default()
        };
        // pods that stayed on the good revision are not restarted
        let back = content("good", 2).revision([Candidate::new(&bad, false), Candidate::new(&pinned, true)]);
        assert_eq!(back.name, good.revision);
        // a refused content is recognized only under the key that refused it
        let known = |byte| content("bad", byte).revision([Candidate::new(&refused, false)]);
        assert_eq!(known(1).name, bad.revision);
        assert_ne!(known(2).name, bad.revision);
    }

    #[test]
    fn name_of_the_first_format_is_kept_under_the_same_key() {
        let old = TargetStatus {
            revision: content("a", 1).unbound,
            ..TargetStatus::default()
        };
        let kept = content("a", 1).revision([Candidate::new(&old, false)]);
        assert_eq!(kept.name, old.revision);
        assert_ne!(
            content("b", 1).revision([Candidate::new(&old, false)]).name,
            old.revision
        );
    }

    fn source(version: Option<&str>) -> SourceStatus {
        SourceStatus {
            store: lockstep_api::StoreRef::new(lockstep_api::StoreKind::SecretStore, "vault"),
            key: "shop/database".to_owned(),
            version: version.map(str::to_owned),
            created_time: None,
        }
    }

    fn synced(version: Option<&str>) -> SyncedSecretStatus {
        SyncedSecretStatus {
            target: Some(TargetStatus {
                generation: Some(1),
                ..TargetStatus::default()
            }),
            sources: vec![source(version)],
            source_count: Some(1),
            ..SyncedSecretStatus::default()
        }
    }

    fn pending(mut status: SyncedSecretStatus) -> SyncedSecretStatus {
        let rotation = crate::rotation::complete(Some(&lockstep_api::Rotation::default()), None, None);
        status.rotation = rotation.map(|rotation| RotationStatus {
            pending_revision: Some("9c41".to_owned()),
            ..rotation
        });
        status
    }

    #[test]
    fn generation_and_versions_show_whether_content_changed() {
        let one = || vec![source(Some("1"))];
        let none = || vec![source(None)];
        for (case, status, generation, sources, unchanged) in [
            ("same", synced(Some("1")), 1, one(), true),
            ("another version", synced(Some("2")), 1, one(), false),
            ("another spec", synced(Some("1")), 2, one(), false),
            ("one more", synced(Some("1")), 1, [one(), one()].concat(), false),
            ("no versions", synced(None), 1, none(), true),
            ("a change waits", pending(synced(None)), 1, none(), false),
            ("it was taken back", pending(synced(Some("1"))), 1, one(), true),
            ("never written", SyncedSecretStatus::default(), 1, one(), false),
        ] {
            assert_eq!(
                is_unchanged(&status, Some(generation), &sources),
                unchanged,
                "{case}"
            );
        }
    }
}
