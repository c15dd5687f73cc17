//! Who this process is to the API server, so that what it advises and what it proves are about the right account.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::{Api, Client, api::PostParams};
use lockstep_core::text::shell_quote;

const TIMEOUT: Duration = Duration::from_secs(15);
/// The ServiceAccount that `deploy/kustomize/base` installs.
const INSTALLED: &str = "lockstep";

/// The account that the API server sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// A ServiceAccount: the rule.
    ServiceAccount {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A person or a certificate, when the operator runs outside of a cluster.
    User(String),
}

impl Account {
    /// The account that `deploy/kustomize/base` installs: the answer where the API server does not say.
    pub fn installed(operator_namespace: &str) -> Self {
        Self::ServiceAccount {
            namespace: operator_namespace.to_owned(),
            name: INSTALLED.to_owned(),
        }
    }

    /// The account of a user name, as the API server has it.
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

    /// Asks the API server. Everybody may, unless the cluster took that right away; then it is taken to be the account
    /// that is installed.
    pub async fn ask(client: &Client, operator_namespace: &str) -> Self {
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

    /// Namespace and name of the operator's ServiceAccount: its own, or the installed one where it runs as a user.
    pub fn service_account(&self, operator_namespace: &str) -> (String, String) {
        match self {
            Self::ServiceAccount { namespace, name } => (namespace.clone(), name.clone()),
            Self::User(_) => (operator_namespace.to_owned(), INSTALLED.to_owned()),
        }
    }

    /// The option of `kubectl create rolebinding` that names it.
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
    fn accounts_are_named_as_kubectl_wants_them() {
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
