//! Pull subscriptions of Pub/Sub
//! (`cloud.google.com/pubsub/docs/reference/rest/v1/projects.subscriptions`), and the messages that
//! Secret Manager publishes ("Event notifications" in its documentation).

use std::time::{Duration, Instant, SystemTime};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{Action, Asked, Gcp, PROJECT, PROJECT_NUMBER, Refusal, Shared, World, now, route::Resource};

/// How long a pull without messages waits.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How often a waiting pull checks for messages.
const LOOK: Duration = Duration::from_millis(2);
/// The only subscription.
pub const SUBSCRIPTION: &str = "lockstep";

#[derive(Debug)]
pub(super) struct Subscription {
    messages: Vec<Message>,
    /// How long a delivered message is not delivered again.
    deadline: Duration,
}

impl Default for Subscription {
    fn default() -> Self {
        Self {
            messages: Vec::new(),
            deadline: Duration::from_secs(10),
        }
    }
}

#[derive(Debug)]
struct Message {
    id: String,
    attributes: Value,
    data: String,
    published: SystemTime,
    ack_id: Option<String>,
    hidden_until: Option<Instant>,
    received: u32,
}

impl Gcp {
    /// Publishes the message of Secret Manager about an event of a secret, and about a version if
    /// there is one.
    pub fn tell(&self, event: &str, secret: &str, version: Option<u64>) {
        let full = format!("projects/{PROJECT}/secrets/{secret}");
        let mut attributes = json!({
            "eventType": event, "secretId": full, "dataFormat": "JSON_API_V1", "timestamp": now(),
        });
        let mut name = format!("projects/{PROJECT_NUMBER}/secrets/{secret}");
        if let Some(version) = version {
            attributes["versionId"] = format!("{full}/versions/{version}").into();
            name = format!("{name}/versions/{version}");
        }
        self.publish(&attributes, &json!({ "name": name }).to_string());
    }

    /// Publishes a message.
    pub fn publish(&self, attributes: &Value, data: &str) {
        let mut world = self.world.lock();
        let id = world.next().to_string();
        world.subscription.messages.push(Message {
            id,
            attributes: attributes.clone(),
            data: BASE64_STANDARD.encode(data),
            published: SystemTime::now(),
            ack_id: None,
            hidden_until: None,
            received: 0,
        });
    }

    /// Sets how long a delivered message is not delivered again, until it is acknowledged.
    pub fn ack_deadline(&self, deadline: Duration) {
        self.world.lock().subscription.deadline = deadline;
    }

    /// Returns how often each unacknowledged message was delivered.
    pub fn unacknowledged(&self) -> Vec<u32> {
        let world = self.world.lock();
        let messages = world.subscription.messages.iter();
        messages.map(|message| message.received).collect()
    }
}

impl Message {
    fn is_visible(&self, now: Instant) -> bool {
        self.hidden_until.is_none_or(|until| now >= until)
    }
}

/// Waits, as the service does for a pull, until there is a message.
pub(super) async fn wait(shared: &Shared) {
    let until = Instant::now() + LONGEST_WAIT;
    while Instant::now() < until {
        let now = Instant::now();
        {
            let world = shared.lock();
            let messages = &world.subscription.messages;
            if world.trouble.is_some()
                || world.rights.deny_anybody(&Action::PULL)
                || messages.iter().any(|message| message.is_visible(now))
            {
                return;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

pub(super) fn call(
    world: &mut World,
    action: &Action,
    resource: &Resource,
    asked: &Asked,
) -> Result<Value, Refusal> {
    if resource.rest.get(1).map(String::as_str) != Some(SUBSCRIPTION) {
        return Err(Refusal::missing("subscription"));
    }
    let request = asked.json();
    match *action {
        Action::PULL => pull(world, &request),
        Action::ACKNOWLEDGE => {
            let ids: Vec<&str> = request["ackIds"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            if ids.is_empty() {
                return Err(Refusal::new("INVALID_ARGUMENT", "CANARY"));
            }
            world
                .subscription
                .messages
                .retain(|message| !message.ack_id.as_deref().is_some_and(|id| ids.contains(&id)));
            Ok(json!({}))
        }
        _ => Err(Refusal::new("UNIMPLEMENTED", "CANARY")),
    }
}

fn pull(world: &mut World, request: &Value) -> Result<Value, Refusal> {
    let most = request["maxMessages"]
        .as_u64()
        .filter(|most| *most > 0)
        .and_then(|most| usize::try_from(most).ok())
        .ok_or_else(|| Refusal::new("INVALID_ARGUMENT", "CANARY"))?;
    let count = world.next();
    let Subscription { messages, deadline } = &mut world.subscription;
    let at = Instant::now();
    let given: Vec<Value> = messages
        .iter_mut()
        .filter(|message| message.is_visible(at))
        .take(most)
        .map(|message| {
            let ack_id = format!("ack-{count}-{}", message.id);
            message.ack_id = Some(ack_id.clone());
            message.hidden_until = Some(at + *deadline);
            message.received += 1;
            let published = jiff::Timestamp::try_from(message.published).unwrap_or_default();
            json!({ "ackId": ack_id, "message": {
                "messageId": message.id, "attributes": message.attributes, "data": message.data,
                "publishTime": published.to_string(),
            } })
        })
        .collect();
    Ok(if given.is_empty() {
        json!({})
    } else {
        json!({ "receivedMessages": given })
    })
}
