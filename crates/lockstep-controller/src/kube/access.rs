//! Asks the API server whether RBAC allows this process an action.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::{Api, Client, api::PostParams};

use super::request::{READ_TIMEOUT, bounded};

/// Whether RBAC allows this process the action in the namespace; `None` if the API server does not
/// respond. Status 403 alone does not show it: admission policies, webhooks, quotas and pods behind
/// the proxy return it too.
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
    let answer = bounded(READ_TIMEOUT, api.create(&parameters, &review)).await;
    Some(answer.ok()?.status?.allowed)
}
