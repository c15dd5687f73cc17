//! Pulls notifications of Secret Manager from a Pub/Sub subscription.
//!
//! Their content: "Event notifications" in the documentation of Secret Manager. How to pull them:
//! `projects.subscriptions.pull` and `.acknowledge` in the REST reference of Pub/Sub v1.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use google_cloud_gax::response::Response;
use jiff::Timestamp;
use lockstep_core::events::VersionHint;
use lockstep_http::HttpError;
use lockstep_provider::{EventKind, EventSource, Message, Operation, ProviderError};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    auth::Caller,
    config::{ProjectRef, Subscription},
    error::{Failed, Purpose},
    name::is_number,
};

/// Maximum number of messages that one call receives.
const MAX_MESSAGES: usize = 100;
/// Maximum number of acknowledgements in one call. A request may have 512 KiB, and an id has about
/// two hundred bytes.
const MOST_IDS: usize = 500;
/// A pull without a response after this time found nothing: the service responds only when there is
/// a message.
const PULL_TIMEOUT: Duration = Duration::from_secs(20);

const CONSUME: &str = "pubsub.subscriptions.consume: grant it roles/pubsub.subscriber on the subscription";

/// Pulls from a subscription.
pub(crate) struct Pulled {
    subscription: Subscription,
    project_ref: ProjectRef,
    caller: Arc<Caller>,
}

impl fmt::Debug for Pulled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pulled").field(&self.subscription.name).finish()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    #[serde(default)]
    received_messages: Vec<Received>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Received {
    ack_id: String,
    #[serde(default)]
    message: Published,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Published {
    #[serde(default)]
    message_id: String,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    #[serde(default)]
    data: String,
    publish_time: Option<String>,
}

impl Pulled {
    pub(crate) fn new(subscription: Subscription, project_ref: ProjectRef, caller: Arc<Caller>) -> Self {
        Self {
            subscription,
            project_ref,
            caller,
        }
    }

    fn purpose(&self, doing: &str) -> Purpose {
        let name = &self.subscription.name;
        Purpose {
            operation: Operation::Listen,
            doing: format!("{doing} \"{name}\""),
            identity: self.caller.identity(),
            missing: format!("subscription \"{name}\" does not exist"),
            role: CONSUME,
        }
    }

    async fn post(&self, method: &str, body: &Value) -> Result<Value, Failed> {
        let path = format!("v1/{}:{method}", self.subscription.name);
        self.caller
            .call(&self.subscription.endpoint, |transport| {
                let path = path.clone();
                async move { transport.post(&path, body).await.map(Response::into_body) }
            })
            .await
    }
}

#[async_trait]
impl EventSource for Pulled {
    async fn receive(&self) -> Result<Vec<Message>, ProviderError> {
        let began = Instant::now();
        let answer = match self.post("pull", &json!({ "maxMessages": MAX_MESSAGES })).await {
            Err(Failed::Http(HttpError::NotAnsweredInTime)) if began.elapsed() >= PULL_TIMEOUT => {
                return Ok(Vec::new());
            }
            answer => answer.map_err(|failed| failed.error(&self.purpose("pulling from subscription")))?,
        };
        let answer: Answer = serde_json::from_value(answer)
            .map_err(|_| Failed::garbage(200).error(&self.purpose("pulling from subscription")))?;
        let message = |received: Received| {
            let (kind, at) = event_kind(&received.message, &self.project_ref);
            let published = received.message.publish_time.as_deref();
            Message {
                id: received.message.message_id,
                receipt: Some(received.ack_id),
                kind,
                at: at.or_else(|| published?.parse().ok()),
            }
        };
        Ok(answer.received_messages.into_iter().map(message).collect())
    }

    async fn acknowledge(&self, receipts: &[String]) -> Result<(), ProviderError> {
        for ids in receipts.chunks(MOST_IDS) {
            self.post("acknowledge", &json!({ "ackIds": ids }))
                .await
                .map_err(|failed| failed.error(&self.purpose("acknowledging to subscription")))?;
        }
        Ok(())
    }
}

/// Returns what a message reports to a store of this project, and when it happened.
fn event_kind(message: &Published, project_ref: &ProjectRef) -> (EventKind, Option<Timestamp>) {
    let attribute = |name: &str| message.attributes.get(name).map(String::as_str);
    let at: Option<Timestamp> = attribute("timestamp").and_then(|text| text.parse().ok());
    let Some(event) = attribute("eventType") else {
        return (EventKind::Malformed, at);
    };
    let changes = matches!(
        event,
        "SECRET_CREATE"
            | "SECRET_UPDATE"
            | "SECRET_DELETE"
            | "SECRET_VERSION_ADD"
            | "SECRET_VERSION_ENABLE"
            | "SECRET_VERSION_DISABLE"
            | "SECRET_VERSION_DESTROY"
            | "SECRET_VERSION_DESTROY_SCHEDULED"
    );
    if !changes {
        // SECRET_ROTATE (a rotation is due) is for the rotating service. Other types may be added.
        return (EventKind::Irrelevant, at);
    }
    let Some(secret) = attribute("secretId") else {
        return (EventKind::Malformed, at);
    };
    // The attributes can contain the project id, and the data its number.
    let data = BASE64_STANDARD.decode(&message.data).unwrap_or_default();
    let data: Value = serde_json::from_slice(&data).unwrap_or_default();
    let mut keys = Vec::new();
    for name in [Some(secret), data["name"].as_str()].into_iter().flatten() {
        match of_secret(name, project_ref) {
            Some(names) => keys.extend(names),
            None if name == secret => return (EventKind::Malformed, at),
            None => {}
        }
    }
    keys.sort();
    keys.dedup();
    if keys.is_empty() {
        return (EventKind::Irrelevant, at);
    }
    let version = attribute("versionId").and_then(|name| name.rsplit('/').next());
    let kind = match version.filter(|number| event == "SECRET_VERSION_ADD" && is_number(number)) {
        // The newest version is the current one.
        Some(number) => EventKind::VersionChanged(VersionHint {
            keys,
            version: number.to_owned(),
            read_version: number.to_owned(),
            at,
        }),
        None => EventKind::Changed(keys),
    };
    (kind, at)
}

/// Returns every form in which a reference of the store can name a secret. The list is empty for a
/// secret in another project or region. `None` means that the text is not a name.
fn of_secret(name: &str, project_ref: &ProjectRef) -> Option<Vec<String>> {
    let parts: Vec<&str> = name.split('/').collect();
    let (project, location, id) = match parts.as_slice() {
        ["projects", project, "secrets", id, ..] => (*project, None, *id),
        ["projects", project, "locations", location, "secrets", id, ..] => (*project, Some(*location), *id),
        _ => return None,
    };
    if location != project_ref.location.as_deref() {
        return Some(Vec::new());
    }
    let full = |project: &str| match location {
        Some(location) => format!("projects/{project}/locations/{location}/secrets/{id}"),
        None => format!("projects/{project}/secrets/{id}"),
    };
    let mut names = vec![full(project)];
    // Whether a number is that of the store's project can only be found out with a permission that
    // lockstep does not require.
    if project == project_ref.project || is_number(project) || is_number(&project_ref.project) {
        names.extend([id.to_owned(), full(&project_ref.project)]);
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project_ref(location: Option<&str>) -> ProjectRef {
        ProjectRef {
            project: "shop-prod".to_owned(),
            location: location.map(str::to_owned),
            endpoint: "https://secretmanager.googleapis.com".parse().unwrap(),
        }
    }

    fn message(attributes: &Value, data: &str) -> Published {
        Published {
            attributes: serde_json::from_value(attributes.clone()).unwrap(),
            data: BASE64_STANDARD.encode(data),
            ..Published::default()
        }
    }

    fn keys(kind: &EventKind) -> Vec<&str> {
        kind.keys().iter().map(String::as_str).collect()
    }

    #[test]
    fn added_version_is_named_with_every_form_of_its_secret() {
        let attributes = json!({
            "eventType": "SECRET_VERSION_ADD", "dataFormat": "JSON_API_V1",
            "secretId": "projects/shop-prod/secrets/database",
            "versionId": "projects/shop-prod/secrets/database/versions/7",
            "timestamp": "2026-11-27T07:00:00.5Z",
        });
        let data = r#"{"name":"projects/123456789012/secrets/database/versions/7","state":"ENABLED"}"#;
        let (kind, at) = event_kind(&message(&attributes, data), &project_ref(None));
        assert_eq!(
            keys(&kind),
            [
                "database",
                "projects/123456789012/secrets/database",
                "projects/shop-prod/secrets/database"
            ]
        );
        let EventKind::VersionChanged(hint) = kind else {
            panic!("{kind:?}")
        };
        assert_eq!((hint.version.as_str(), hint.read_version.as_str()), ("7", "7"));
        assert_eq!(at, Some("2026-11-27T07:00:00.5Z".parse().unwrap()));
        assert_eq!(hint.at, at);
    }

    #[test]
    fn other_changes_name_the_secret_without_a_version() {
        for event in [
            "SECRET_UPDATE",
            "SECRET_DELETE",
            "SECRET_VERSION_DISABLE",
            "SECRET_VERSION_ENABLE",
        ] {
            let attributes = json!({
                "eventType": event, "secretId": "projects/shop-prod/secrets/database",
                "versionId": "projects/shop-prod/secrets/database/versions/7",
            });
            let (kind, _) = event_kind(&message(&attributes, ""), &project_ref(None));
            assert!(matches!(&kind, EventKind::Changed(_)), "{event}: {kind:?}");
            assert!(keys(&kind).contains(&"database"));
        }
    }

    #[test]
    fn secret_of_another_project_or_region_is_ignored() {
        let of = |secret: &str, location| {
            let attributes = json!({ "eventType": "SECRET_UPDATE", "secretId": secret });
            event_kind(&message(&attributes, ""), &project_ref(location)).0
        };
        let other = of("projects/other/secrets/database", None);
        assert_eq!(keys(&other), ["projects/other/secrets/database"]);
        let west = "projects/shop-prod/locations/europe-west3/secrets/database";
        assert_eq!(of(west, None), EventKind::Irrelevant);
        assert!(keys(&of(west, Some("europe-west3"))).contains(&"database"));
        assert_eq!(
            of("projects/shop-prod/secrets/a", Some("europe-west3")),
            EventKind::Irrelevant
        );
    }

    #[test]
    fn irrelevant_and_malformed_notifications_are_distinguished() {
        for event in ["SECRET_ROTATE", "TOPIC_CONFIGURED", "SOMETHING_NEW"] {
            let attributes = json!({ "eventType": event });
            assert_eq!(
                event_kind(&message(&attributes, ""), &project_ref(None)).0,
                EventKind::Irrelevant
            );
        }
        for attributes in [
            json!({}),
            json!({ "eventType": "SECRET_UPDATE" }),
            json!({ "eventType": "SECRET_UPDATE", "secretId": "" }),
            json!({ "eventType": "SECRET_UPDATE", "secretId": "../../x" }),
        ] {
            let forged = message(&attributes, "CANARY");
            assert_eq!(
                event_kind(&forged, &project_ref(None)).0,
                EventKind::Malformed,
                "{attributes}"
            );
        }
    }
}
