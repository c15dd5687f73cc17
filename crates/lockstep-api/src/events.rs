//! Sources of change events, so that a store is read as soon as a value changes.

use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// StoreEvents configures exactly one source of change events. An event is only
/// a hint that a value may have changed: lockstep then reads it with the
/// credentials of the store. The refreshInterval of SyncedSecrets still
/// applies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "[has(self.sqs), has(self.pubsub), has(self.vault)].filter(x, x).size() == 1",
        "events must contain exactly one of sqs, pubsub, vault"
    )
)]
pub struct StoreEvents {
    /// sqs receives changes of Secrets Manager or Parameter Store from an Amazon
    /// SQS queue, which EventBridge fills. Requires provider `aws` with a service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqs: Option<SqsEvents>,
    /// pubsub receives notifications of Secret Manager from a Google Pub/Sub
    /// subscription. Requires provider `gcp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pubsub: Option<PubsubEvents>,
    /// vault subscribes to the events of Vault Enterprise. Requires provider
    /// `vault`. OpenBao and the community edition of Vault have no events. The
    /// policy needs `read` on `sys/events/subscribe/kv*` and `subscribe` on the
    /// paths of the values. It has no fields: `vault: {}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault: Option<VaultEvents>,
}

/// SqsEvents receives events from an Amazon SQS queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct SqsEvents {
    /// queueUrl is the URL of the queue, for example
    /// `https://sqs.eu-central-1.amazonaws.com/123456789012/lockstep`. It must be
    /// in the region of the store. Each message is delivered to one reader only, so
    /// no other operator or store may read from it. The identity of the store needs
    /// `sqs:ReceiveMessage` and `sqs:DeleteMessage`. At most 2048 characters.
    #[x_kube(validation = (
        "self.matches('^https?://[^/?#@\\\\s]+(/[^/?#\\\\s]+)+$')",
        "queueUrl must be the http or https URL of a queue, without credentials, query or fragment"
    ))]
    #[schemars(length(min = 1, max = 2048))]
    pub queue_url: String,
}

/// PubsubEvents receives events from a Google Pub/Sub pull subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct PubsubEvents {
    /// subscription is the pull subscription:
    /// `projects/PROJECT/subscriptions/NAME`, or a name in the project of the
    /// store. Each message is delivered to one reader only, so no other operator or
    /// store may pull from it. The identity of the store needs
    /// `pubsub.subscriptions.consume`. 3 to 512 characters.
    #[x_kube(validation = (
        "self.matches('^(projects/[a-z0-9:.-]+/subscriptions/)?[A-Za-z][A-Za-z0-9._~+%-]{2,254}$')",
        "subscription must be projects/PROJECT/subscriptions/NAME, or the bare name of a subscription"
    ))]
    #[schemars(length(min = 3, max = 512))]
    pub subscription: String,
    /// endpoint is the URL of Pub/Sub, for example that of a Private Service
    /// Connect endpoint. Defaults to the endpoint of Google. A SecretStore requires
    /// `https`. At most 2048 characters.
    #[x_kube(validation = (
        "self.matches('^https?://[^/?#@\\\\s]+(/[^?#\\\\s]*)?$')",
        "pubsub.endpoint must be an http or https URL with a host and without credentials, query or fragment"
    ))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub endpoint: Option<String>,
}

/// VaultEvents subscribes to the events of the key/value engine of Vault
/// Enterprise (`sys/events/subscribe`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VaultEvents {}
