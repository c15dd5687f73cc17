//! Where a store hears that something changed, so that it need not be polled for it.

use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the store hears of changes: exactly one. What is heard is a hint that it is time to read, and nothing else: it is
/// read with the store's own credentials, and `refreshInterval` goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "[has(self.sqs), has(self.pubsub), has(self.vault)].filter(x, x).size() == 1",
        "events must hold exactly one of sqs, pubsub, vault"
    )
)]
pub struct StoreEvents {
    /// A queue of Amazon SQS that EventBridge puts the changes of Secrets Manager or Parameter Store into. For provider
    /// `aws`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqs: Option<SqsEvents>,
    /// A subscription of Google Pub/Sub to the topic that the secrets name for their notifications. For provider `gcp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pubsub: Option<PubsubEvents>,
    /// The events of Vault itself, which are a part of Vault Enterprise. For provider `vault`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault: Option<VaultEvents>,
}

/// A queue of Amazon SQS. The store's identity needs `sqs:ReceiveMessage` and `sqs:DeleteMessage` on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct SqsEvents {
    /// The queue's URL, such as `https://sqs.eu-central-1.amazonaws.com/123456789012/lockstep`. It must be in the store's
    /// region, and no other operator and no other store may read from it: each message comes to one reader alone.
    #[x_kube(validation = (
        "self.matches('^https?://[^/?#@\\\\s]+(/[^/?#\\\\s]+)+$')",
        "queueUrl must be the http or https URL of a queue, without credentials, query or fragment"
    ))]
    #[schemars(length(min = 1, max = 2048))]
    pub queue_url: String,
}

/// A subscription of Google Pub/Sub, of the kind that is pulled. The store's identity needs
/// `pubsub.subscriptions.consume` on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct PubsubEvents {
    /// The subscription: `projects/PROJECT/subscriptions/NAME`, or a bare name in the store's project. No other operator
    /// and no other store may pull from it: each message comes to one reader alone.
    #[x_kube(validation = (
        "self.matches('^(projects/[a-z0-9:.-]+/subscriptions/)?[A-Za-z][A-Za-z0-9._~+%-]{2,254}$')",
        "subscription must be projects/PROJECT/subscriptions/NAME, or the bare name of a subscription"
    ))]
    #[schemars(length(min = 3, max = 512))]
    pub subscription: String,
    /// Address of Pub/Sub in place of Google's own, such as that of a Private Service Connect endpoint.
    #[x_kube(validation = (
        "self.matches('^https?://[^/?#@\\\\s]+(/[^?#\\\\s]*)?$')",
        "pubsub.endpoint must be an http or https URL with a host and without credentials, query or fragment"
    ))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub endpoint: Option<String>,
}

/// The events of Vault Enterprise (`sys/events/subscribe`), of the KV engine that the store reads. The store's identity
/// needs the capability `read` on `sys/events/subscribe/kv*`, and the capability `subscribe` on the paths of the values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VaultEvents {}
