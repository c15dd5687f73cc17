//! Detects whether someone changed the Secret, without reading it.

use lockstep_api::{RefreshPolicy, TargetStatus};

use super::{effect::Record, run::Run};
use crate::{Failure, secret_write::Drift};

impl Run {
    /// Whether the Secret was changed since it was written and has to be written again. `false` if
    /// that is not known.
    pub(super) async fn has_drifted(&mut self, known: &TargetStatus) -> Result<bool, Failure> {
        if self.check_may_write().is_err() {
            // a detected edit could not be repaired
            self.memory.probe_failed(self.moment().wall);
            return Ok(false);
        }
        let name = self.facts.current_name(Some(known)).to_owned();
        let (label, drifted) = match self.find_drift(&name, known).await {
            Ok(Drift::None) => ("unchanged", false),
            Ok(Drift::Edited) => {
                let once = self.facts.object.spec.refresh_policy == RefreshPolicy::CreatedOnce;
                ("edited", !once)
            }
            Ok(Drift::Gone) => ("gone", true),
            Err(error) => {
                let is_foreign = error.label() == "foreign";
                let label = if is_foreign { "foreign" } else { "error" };
                self.record(Record::Probe(label)).await;
                if error.is_transient() {
                    // no drift is known, and there was nothing to write
                    self.memory.probe_failed(self.moment().wall);
                    return Ok(false);
                }
                if error.is_foreign() {
                    self.memory.drifted();
                }
                return Err(error.failure(&self.facts.owner_of(&name)));
            }
        };
        self.record(Record::Probe(label)).await;
        if drifted {
            self.memory.drifted();
        } else {
            self.note_probed();
        }
        Ok(drifted)
    }
}
