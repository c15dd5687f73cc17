//! The account of this process at the API server. Advice and proofs must be about the right
//! account.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::{Api, Client, api::PostParams};
use lockstep_core::text::shell_quote;

const TIMEOUT: Duration = Duration::from_secs(15);
/// The ServiceAccount that `deploy/kustomize/base` installs.
const INSTALLED: &str = "lockstep";

/// The account as the API server identifies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// A ServiceAccount, which is the normal case.
    ServiceAccount {
        /// The namespace of the ServiceAccount.
        namespace: String,
        /// The name of the ServiceAccount.
        name: String,
    },
    /// A user or a client certificate, if the operator runs outside of a cluster.
    User(String),
}

impl Account {
    /// Returns the account that `deploy/kustomize/base` installs. It is the default if the API
    /// server does not return the account.
    pub fn installed(operator_namespace: &str) -> Self {
        Self::ServiceAccount {
            namespace: operator_namespace.to_owned(),
            name: INSTALLED.to_owned(),
        }
    }

    /// Parses a user name of the API server.
    pub fn of(user: &str) -> Self {
        match user
            .strip_prefix("system:serviceaccount:")
            .and_then(|account| account.split_once(':'))
        {
            Some((namespace, name)) => Self::ServiceAccount {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            },
            None => Self::User(user.to_owned()),
        }
    }

    /// Asks the API server for the account. Every account may do so unless the cluster revoked that
    /// right; then the installed account is assumed.
    pub async fn look_up(client: &Client, operator_namespace: &str) -> Self {
        let api: Api<SelfSubjectReview> = Api::all(client.clone());
        let parameters = PostParams::default();
        let review = SelfSubjectReview::default();
        let answer = tokio::time::timeout(TIMEOUT, api.create(&parameters, &review)).await;
        let user = answer
            .ok()
            .and_then(Result::ok)
            .and_then(|review| review.status?.user_info?.username);
        if let Some(user) = user {
            Self::of(&user)
        } else {
            tracing::debug!("the API server does not say who this is");
            Self::installed(operator_namespace)
        }
    }

    /// Returns namespace and name of the operator's ServiceAccount: its own, or the installed one
    /// if it runs as a user.
    pub fn service_account(&self, operator_namespace: &str) -> (String, String) {
        match self {
            Self::ServiceAccount { namespace, name } => (namespace.clone(), name.clone()),
            Self::User(_) => (operator_namespace.to_owned(), INSTALLED.to_owned()),
        }
    }

    /// Returns the option of `kubectl create rolebinding` for this account.
    pub fn kubectl_option(&self) -> String {
        match self {
            Self::ServiceAccount { namespace, name } => {
                format!("--serviceaccount={}", shell_quote(&format!("{namespace}:{name}")))
            }
            Self::User(name) => format!("--user={}", shell_quote(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_become_kubectl_options() {
        for (user, option) in [
            (
                "system:serviceaccount:lockstep-system:lockstep",
                "--serviceaccount=lockstep-system:lockstep",
            ),
            ("jane@example.org", "--user=jane@example.org"),
            ("it's me", "--user=\"it's me\""),
            ("system:serviceaccount:odd", "--user=system:serviceaccount:odd"),
            ("$(id); rm -rf ~", "--user='$(id); rm -rf ~'"),
        ] {
            assert_eq!(Account::of(user).kubectl_option(), option);
        }
    }
}
