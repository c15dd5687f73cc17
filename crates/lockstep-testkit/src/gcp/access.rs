//! Who may do what.

use std::collections::BTreeSet;

use super::{Action, Gcp, below_project, lock};

/// What is denied, and to whom. A set of actions holds names of methods and of permissions.
#[derive(Debug, Default)]
pub(super) struct Rights {
    denied_names: BTreeSet<String>,
    denied_names_to: BTreeSet<(String, String)>,
    denied_actions: BTreeSet<String>,
    denied_actions_to: BTreeSet<(String, String)>,
    /// Where it is set, all other actions are denied, but for those that give tokens.
    allowed_actions: Option<BTreeSet<String>>,
}

impl Rights {
    /// Whether that identity may not do this with what holds versions: a secret or a key.
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
    /// Whether nobody at all may do this.
    pub(super) fn deny_anybody(&self, action: &Action) -> bool {
        let allowed =
            |allowed: &BTreeSet<String>| allowed.contains(action.name) || allowed.contains(action.permission);
        self.denied_actions.contains(action.name)
            || self.denied_actions.contains(action.permission)
            || !self.allowed_actions.as_ref().is_none_or(allowed)
    }
}

impl Gcp {
    /// From now on nobody may touch this secret or key.
    pub fn deny_name(&self, name: &str) {
        lock(&self.world).rights.denied_names.insert(below_project(name));
    }

    /// From now on this identity may not touch this secret or key.
    pub fn deny_name_to(&self, identity: &str, name: &str) {
        let denied = (identity.to_owned(), below_project(name));
        lock(&self.world).rights.denied_names_to.insert(denied);
    }

    /// From now on nobody may do this, such as `AccessSecretVersion` or `secretmanager.versions.access`.
    pub fn deny_action(&self, action: &str) {
        lock(&self.world).rights.denied_actions.insert(action.to_owned());
    }

    /// From now on this identity may not do this.
    pub fn deny_action_to(&self, identity: &str, action: &str) {
        let denied = (identity.to_owned(), action.to_owned());
        lock(&self.world).rights.denied_actions_to.insert(denied);
    }

    /// From now on everybody may do this again.
    pub fn allow_action(&self, action: &str) {
        lock(&self.world).rights.denied_actions.remove(action);
    }

    /// From now on nobody may do anything but this, and log in.
    pub fn allow_only(&self, actions: &[&str]) {
        let actions = actions.iter().map(ToString::to_string).collect();
        lock(&self.world).rights.allowed_actions = Some(actions);
    }
}
