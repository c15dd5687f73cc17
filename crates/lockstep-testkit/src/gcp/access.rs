//! Permissions of identities.

use std::collections::BTreeSet;

use super::{Action, Gcp, below_project};

/// The denied actions and names, and to whom they are denied. A set of actions contains names of
/// methods and of permissions.
#[derive(Debug, Default)]
pub(super) struct Rights {
    denied_names: BTreeSet<String>,
    denied_names_to: BTreeSet<(String, String)>,
    denied_actions: BTreeSet<String>,
    denied_actions_to: BTreeSet<(String, String)>,
    /// If set, all other actions are denied, except those for tokens.
    allowed_actions: Option<BTreeSet<String>>,
}

impl Rights {
    /// Whether the action on a secret or key is denied to this identity.
    pub(super) fn deny(&self, identity: &str, action: &Action, holder: &str) -> bool {
        let names = [action.name, action.permission];
        let any = |holds: &dyn Fn(&str) -> bool| names.into_iter().any(holds);
        self.denied_names.contains(holder)
            || self
                .denied_names_to
                .contains(&(identity.to_owned(), holder.to_owned()))
            || any(&|name| self.denied_actions.contains(name))
            || any(&|name| {
                self.denied_actions_to
                    .contains(&(identity.to_owned(), name.to_owned()))
            })
            || self
                .allowed_actions
                .as_ref()
                .is_some_and(|allowed| !any(&|name| allowed.contains(name)))
    }
}

impl Rights {
    /// Whether this action is denied to everyone.
    pub(super) fn deny_anybody(&self, action: &Action) -> bool {
        let allowed =
            |allowed: &BTreeSet<String>| allowed.contains(action.name) || allowed.contains(action.permission);
        self.denied_actions.contains(action.name)
            || self.denied_actions.contains(action.permission)
            || !self.allowed_actions.as_ref().is_none_or(allowed)
    }
}

impl Gcp {
    /// Denies access to this secret or key to everyone.
    pub fn deny_name(&self, name: &str) {
        self.world.lock().rights.denied_names.insert(below_project(name));
    }

    /// Denies access to this secret or key to this identity.
    pub fn deny_name_to(&self, identity: &str, name: &str) {
        let denied = (identity.to_owned(), below_project(name));
        self.world.lock().rights.denied_names_to.insert(denied);
    }

    /// Denies this action to everyone, such as `AccessSecretVersion` or
    /// `secretmanager.versions.access`.
    pub fn deny_action(&self, action: &str) {
        self.world.lock().rights.denied_actions.insert(action.to_owned());
    }

    /// Denies this action to this identity.
    pub fn deny_action_to(&self, identity: &str, action: &str) {
        let denied = (identity.to_owned(), action.to_owned());
        self.world.lock().rights.denied_actions_to.insert(denied);
    }

    /// Allows this action to everyone again.
    pub fn allow_action(&self, action: &str) {
        self.world.lock().rights.denied_actions.remove(action);
    }

    /// Denies everything except these actions and logins.
    pub fn allow_only(&self, actions: &[&str]) {
        let actions = actions.iter().map(ToString::to_string).collect();
        self.world.lock().rights.allowed_actions = Some(actions);
    }
}
