//! Receives the changes that EventBridge puts into an SQS queue.

mod parse;

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_sqs::{
    Client,
    types::{DeleteMessageBatchRequestEntry, MessageSystemAttributeName},
};
use jiff::Timestamp;
use lockstep_api::{SqsEvents, aws::AwsService};
use lockstep_provider::{ErrorKind, EventSource, Message, Operation, ProviderError};
use url::Url;

use crate::{
    auth::Caller,
    client::Http,
    config::Config,
    error::{Failed, Purpose},
    sdk::{common, send},
};

/// How long one call waits for a message, in seconds: the maximum that the service allows.
const WAIT: i32 = 20;
/// Maximum number of messages that one call receives or deletes.
const BATCH: usize = 10;

/// An SQS queue.
pub(crate) struct Queue {
    client: Client,
    caller: Arc<Caller>,
    url: String,
    service: AwsService,
    prefix: String,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Queue").field(&self.url).finish()
    }
}

impl Queue {
    /// Creates a client of the queue in the store's spec.
    ///
    /// # Errors
    /// `ConfigInvalid`, naming the field below `spec.events.sqs`.
    pub(crate) fn new(
        spec: &SqsEvents,
        config: &Config,
        caller: Arc<Caller>,
        http: &Http,
    ) -> Result<Self, ProviderError> {
        let Some(service) = config.service else {
            return Err(invalid("spec.events.sqs needs spec.provider.aws.service"));
        };
        // The service is at the host of the queue, also behind a VPC endpoint or in another
        // partition.
        let endpoint = endpoint(&spec.queue_url)?;
        let settings = common!(aws_sdk_sqs, &config.region, Some(endpoint.as_str()), http);
        Ok(Self {
            client: Client::from_conf(settings.build()),
            caller,
            url: spec.queue_url.clone(),
            service,
            prefix: config.prefix.clone(),
        })
    }

    fn purpose(&self, doing: &str, action: &'static str) -> Purpose {
        Purpose {
            operation: Operation::Listen,
            doing: format!("{doing} queue \"{}\"", self.url),
            identity: self.caller.identity(),
            missing: format!("queue \"{}\" does not exist", self.url),
            action,
        }
    }

    async fn delete(&self, receipts: &[String]) -> Result<(), Failed> {
        let entries = receipts.iter().enumerate().map(|(number, receipt)| {
            DeleteMessageBatchRequestEntry::builder()
                .id(number.to_string())
                .receipt_handle(receipt)
                .build()
                .map_err(|_| Failed::NotSent)
        });
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        let answer = self
            .caller
            .call(|key| {
                let request = self
                    .client
                    .delete_message_batch()
                    .queue_url(&self.url)
                    .set_entries(Some(entries.clone()));
                send!(aws_sdk_sqs, request, key)
            })
            .await?;
        // A receipt at fault is only outdated: its message is delivered again with a new one.
        match answer.failed().iter().find(|failed| !failed.sender_fault()) {
            Some(failed) => Err(Failed::of_part(Some(failed.code()), failed.message())),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl EventSource for Queue {
    async fn receive(&self) -> Result<Vec<Message>, ProviderError> {
        let answer = self
            .caller
            .call(|key| {
                let request = self
                    .client
                    .receive_message()
                    .queue_url(&self.url)
                    .wait_time_seconds(WAIT)
                    .max_number_of_messages(i32::try_from(BATCH).unwrap_or(1))
                    .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp);
                send!(aws_sdk_sqs, request, key)
            })
            .await;
        let purpose = || self.purpose("receiving from", "sqs:ReceiveMessage on the queue");
        let answer = answer.map_err(|failed| failed.error(&purpose()))?;
        let messages = answer.messages.unwrap_or_default();
        Ok(messages
            .into_iter()
            .filter_map(|message| {
                let sent = message
                    .attributes()
                    .and_then(|all| all.get(&MessageSystemAttributeName::SentTimestamp))
                    .and_then(|text| Timestamp::from_millisecond(text.parse().ok()?).ok());
                let event = parse::parse(message.body().unwrap_or_default(), self.service, &self.prefix);
                Some(Message {
                    id: message.message_id?,
                    receipt: Some(message.receipt_handle?),
                    at: event.at.or(sent),
                    kind: event.kind,
                })
            })
            .collect())
    }

    async fn acknowledge(&self, receipts: &[String]) -> Result<(), ProviderError> {
        for batch in receipts.chunks(BATCH) {
            let purpose = || self.purpose("deleting from", "sqs:DeleteMessage on the queue");
            self.delete(batch)
                .await
                .map_err(|failed| failed.error(&purpose()))?;
        }
        Ok(())
    }
}

fn invalid(message: &str) -> ProviderError {
    ProviderError::new(ErrorKind::ConfigInvalid, Operation::Configure, message)
}

/// Returns the endpoint of a queue's service.
fn endpoint(queue: &str) -> Result<String, ProviderError> {
    let bad = || invalid("spec.events.sqs.queueUrl is not the http or https URL of a queue");
    let url = Url::parse(queue).map_err(|_| bad())?;
    let is_plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !is_plain || url.path().len() < 2 {
        return Err(bad());
    }
    Ok(url.origin().ascii_serialization())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_of_a_queue_is_its_own_host() {
        for (queue, wanted) in [
            (
                "https://sqs.eu-central-1.amazonaws.com/123456789012/lockstep",
                "https://sqs.eu-central-1.amazonaws.com",
            ),
            ("http://127.0.0.1:4566/123456789012/q", "http://127.0.0.1:4566"),
        ] {
            assert_eq!(endpoint(queue).unwrap(), wanted);
        }
        for queue in [
            "",
            "lockstep",
            "https://sqs.example",
            "https://sqs.example/",
            "ftp://sqs.example/1/q",
            "https://user:pass@sqs.example/1/q",
            "https://sqs.example/1/q?Action=x",
            "https://sqs.example/1/q#x",
        ] {
            let error = endpoint(queue).unwrap_err();
            assert_eq!(error.kind, ErrorKind::ConfigInvalid);
            assert!(error.to_string().contains("spec.events.sqs.queueUrl"), "{error}");
        }
    }
}
