//! An SQS queue.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{ACCOUNT, Aws, Refusal, Shared, World};

/// Maximum number of messages in one call.
const MOST: usize = 10;
/// Maximum wait of one call, in seconds.
const LONGEST_WAIT: u64 = 20;
/// How often a waiting call checks for messages.
const LOOK: Duration = Duration::from_millis(2);
/// The name of the queue.
const NAME: &str = "changes";

#[derive(Debug)]
pub(crate) struct Queue {
    messages: Vec<Message>,
    /// How long a delivered message is invisible.
    visibility: Duration,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            messages: Vec::new(),
            visibility: Duration::from_secs(30),
        }
    }
}

#[derive(Debug)]
struct Message {
    id: String,
    body: String,
    sent: std::time::SystemTime,
    /// The receipt that deletes it: the last one.
    receipt: Option<String>,
    hidden_until: Option<Instant>,
    received: u32,
}

impl Aws {
    /// Returns the URL of the queue, for `queueUrl`.
    pub fn queue_url(&self) -> String {
        format!("{}/{ACCOUNT}/{NAME}", self.address())
    }

    /// Puts a message into the queue.
    pub fn send(&self, body: &Value) {
        let mut world = self.world.lock();
        let id = format!("message-{}", world.next());
        world.queue.messages.push(Message {
            id,
            body: match body {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            },
            sent: std::time::SystemTime::now(),
            receipt: None,
            hidden_until: None,
            received: 0,
        });
    }

    /// Puts the event of EventBridge about the current version of a secret into the queue.
    ///
    /// # Errors
    /// When the secret does not exist.
    pub fn tell(&self, name: &str) -> anyhow::Result<()> {
        use anyhow::Context as _;
        let version = self
            .world
            .lock()
            .secrets
            .get(name)
            .and_then(|secret| secret.current_id().map(str::to_owned))
            .context("no such secret")?;
        self.send(&Self::label_updated(name, &version));
        Ok(())
    }

    /// Sets how long a delivered message is invisible before it is delivered again, until it is
    /// deleted.
    pub fn visibility(&self, visibility: Duration) {
        self.world.lock().queue.visibility = visibility;
    }

    /// Returns how often each message that is still in the queue was delivered.
    pub fn queued(&self) -> Vec<u32> {
        let world = self.world.lock();
        world
            .queue
            .messages
            .iter()
            .map(|message| message.received)
            .collect()
    }

    /// Returns the event of Secrets Manager about a version that became the current one.
    pub fn label_updated(name: &str, version: &str) -> Value {
        json!({
            "version": "0", "id": "1", "source": "aws.secretsmanager", "detail-type": "Secret Label Updated",
            "account": ACCOUNT, "region": super::REGION, "resources": [],
            "time": now(),
            "detail": { "name": name, "labelUpdated": "AWSCURRENT", "versionId": version },
        })
    }
}

/// Returns the current time in whole seconds, as EventBridge writes it.
fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Waits, as a call can request, until there is a message to deliver.
pub(crate) async fn wait(shared: &Shared, text: &str) {
    let request: Value = serde_json::from_str(text).unwrap_or_default();
    let seconds = request["WaitTimeSeconds"].as_u64().unwrap_or(0).min(LONGEST_WAIT);
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until {
        let now = Instant::now();
        {
            let world = shared.lock();
            let allowed = world.allowed_actions.as_ref();
            let denied = world.denied_actions.contains("ReceiveMessage")
                || allowed.is_some_and(|allowed| !allowed.contains("ReceiveMessage"));
            let messages = &world.queue.messages;
            if world.trouble.is_some() || denied || messages.iter().any(|message| message.is_visible(now)) {
                return;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

impl Message {
    fn is_visible(&self, now: Instant) -> bool {
        self.hidden_until.is_none_or(|until| now >= until)
    }
}

pub(crate) fn call(world: &mut World, action: &str, request: &Value) -> Result<Value, Refusal> {
    let url = request["QueueUrl"].as_str().unwrap_or_default();
    if !url.ends_with(&format!("/{ACCOUNT}/{NAME}")) {
        return Err(Refusal::new("QueueDoesNotExist", "CANARY"));
    }
    match action {
        "ReceiveMessage" => receive(world, request),
        "DeleteMessageBatch" => delete(world, request),
        _ => Err(Refusal::new("UnknownOperationException", "CANARY")),
    }
}

fn receive(world: &mut World, request: &Value) -> Result<Value, Refusal> {
    let most = usize::try_from(request["MaxNumberOfMessages"].as_u64().unwrap_or(1)).unwrap_or(0);
    if most == 0 || most > MOST {
        return Err(Refusal::new("InvalidParameterValue", "CANARY"));
    }
    let count = world.next();
    let Queue { messages, visibility } = &mut world.queue;
    let now = Instant::now();
    let given: Vec<Value> = messages
        .iter_mut()
        .filter(|message| message.is_visible(now))
        .take(most)
        .map(|message| {
            let receipt = format!("receipt-{count}-{}", message.id);
            message.receipt = Some(receipt.clone());
            message.hidden_until = Some(now + *visibility);
            message.received += 1;
            json!({
                "MessageId": message.id, "ReceiptHandle": receipt, "Body": message.body,
                "Attributes": { "SentTimestamp": format!("{:.0}", super::seconds(message.sent) * 1000.0) },
            })
        })
        .collect();
    Ok(if given.is_empty() {
        json!({})
    } else {
        json!({ "Messages": given })
    })
}

fn delete(world: &mut World, request: &Value) -> Result<Value, Refusal> {
    let entries = request["Entries"].as_array().cloned().unwrap_or_default();
    if entries.is_empty() || entries.len() > MOST {
        return Err(Refusal::new("TooManyEntriesInBatchRequest", "CANARY"));
    }
    let done = entries.iter().map(|entry| {
        let receipt = entry["ReceiptHandle"].as_str();
        world
            .queue
            .messages
            .retain(|message| message.receipt.as_deref() != receipt);
        json!({ "Id": entry["Id"] })
    });
    let done: Vec<Value> = done.collect();
    Ok(json!({ "Successful": done, "Failed": [] }))
}
