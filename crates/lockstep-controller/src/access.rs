//! What RBAC lets this process do, by its own question to the API server.

use std::time::Duration;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::{Api, Client, api::PostParams};

/// How long the question may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Whether RBAC lets this process do that in the namespace. The API server refuses with the same status what RBAC, an admission
/// policy, a webhook or a quota does not let pass, and what a pod behind its proxy refuses. `None` where it does not say.
pub(crate) async fn may(client: &Client, namespace: &str, attributes: ResourceAttributes) -> Option<bool> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                namespace: Some(namespace.to_owned()),
                ..attributes
            }),
            non_resource_attributes: None,
        },
        ..SelfSubjectAccessReview::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let parameters = PostParams::default();
    let answer = tokio::time::timeout(TIMEOUT, api.create(&parameters, &review)).await;
    Some(answer.ok()?.ok()?.status?.allowed)
}
