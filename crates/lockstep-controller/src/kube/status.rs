//! Requests about a SyncedSecret itself: its status, its finalizers and its events.

use std::time::Duration;

use http::{HeaderValue, header};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
    core::{PartialObjectMeta, request::Request},
    runtime::events::{Event, EventType, Recorder},
};
use lockstep_api::{SyncedSecret, annotation};
use lockstep_core::reconcile::{CurrentStatus, Notice, Severity, StatusAnswer, StatusPatch};
use serde_json::json;

use super::request::{ErrorKind, METADATA_ONLY, READ_TIMEOUT, WRITE_TIMEOUT, bounded};

/// The field manager of the finalizer.
const FINALIZER_MANAGER: &str = "lockstep-lease";
/// A list of operations that can contain tests.
const JSON_PATCH: HeaderValue = HeaderValue::from_static("application/json-patch+json");
/// Timeout of the publication of an event.
const EVENT_TIMEOUT: Duration = Duration::from_secs(5);

/// A SyncedSecret in the API server.
#[derive(Clone, Copy)]
pub struct StatusClient<'a> {
    /// The client of the API server.
    pub client: &'a Client,
    /// The object as the watch delivered it.
    pub object: &'a SyncedSecret,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its uid.
    pub uid: &'a str,
}

impl std::fmt::Debug for StatusClient<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StatusClient({}/{})", self.namespace, self.name)
    }
}

fn manager(name: &str) -> PatchParams {
    PatchParams {
        field_manager: Some(name.to_owned()),
        ..PatchParams::default()
    }
}

impl StatusClient<'_> {
    fn requests(&self) -> Request {
        Request::new(SyncedSecret::url_path(&(), Some(self.namespace)))
    }

    /// Sends a patch. The response contains only metadata. `kind` is the content type, if the
    /// client does not support it.
    async fn send(
        &self,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
        kind: Option<HeaderValue>,
    ) -> kube::Result<PartialObjectMeta<SyncedSecret>> {
        let mut request = request.map_err(kube::Error::BuildRequest)?;
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static(METADATA_ONLY));
        if let Some(kind) = kind {
            headers.insert(header::CONTENT_TYPE, kind);
        }
        bounded(WRITE_TIMEOUT, self.client.request(request)).await
    }

    /// Patches the status of a version of the object.
    pub async fn write(&self, status: StatusPatch) -> StatusAnswer {
        let mut body = json!({ "status": status.patch });
        if let Some(version) = status.resource_version {
            body["metadata"] = json!({ "resourceVersion": version });
        }
        let (patch, params) = (Patch::Merge(body), manager(annotation::MANAGER));
        let request = self
            .requests()
            .patch_subresource("status", self.name, &params, &patch);
        match self.send(request, None).await {
            Ok(written) => StatusAnswer::Written(written.metadata.resource_version),
            Err(error) => match ErrorKind::of(&error) {
                ErrorKind::NotFound => StatusAnswer::NotFound,
                ErrorKind::Conflict => StatusAnswer::Conflict,
                ErrorKind::Forbidden | ErrorKind::Invalid | ErrorKind::Unavailable => StatusAnswer::Failed,
            },
        }
    }

    /// Reads the status.
    pub async fn read(&self) -> CurrentStatus {
        let api: Api<SyncedSecret> = Api::namespaced(self.client.clone(), self.namespace);
        match bounded(READ_TIMEOUT, api.get_opt(self.name)).await {
            Ok(Some(found)) if found.metadata.uid.as_deref() == Some(self.uid) => CurrentStatus::Found {
                resource_version: found.metadata.resource_version,
                status: found.status.map(Box::new),
            },
            Ok(_) => CurrentStatus::Gone,
            Err(_) => CurrentStatus::Failed,
        }
    }

    /// Adds or removes the finalizer.
    ///
    /// # Errors
    /// Why that failed, without the text of the server.
    pub async fn set_finalizer(&self, present: bool) -> Result<(), String> {
        let done = if present {
            self.add_finalizer().await
        } else {
            self.remove_finalizer().await
        };
        done.map_err(|error| match error {
            kube::Error::Api(error) => format!("status {}", error.code),
            _ => "no response".to_owned(),
        })
    }

    async fn add_finalizer(&self) -> kube::Result<()> {
        let body = json!({
            "apiVersion": SyncedSecret::api_version(&()),
            "kind": SyncedSecret::kind(&()),
            "metadata": {
                "name": self.name, "namespace": self.namespace, "uid": self.uid,
                "finalizers": [annotation::REVOKE_LEASE],
            },
        });
        let params = manager(FINALIZER_MANAGER);
        let request = self.requests().patch(self.name, &params, &Patch::Apply(body));
        self.send(request, None).await.map(drop)
    }

    async fn remove_finalizer(&self) -> kube::Result<()> {
        let finalizers = self.object.metadata.finalizers.as_deref().unwrap_or_default();
        let place = finalizers
            .iter()
            .position(|name| name == annotation::REVOKE_LEASE);
        let Some(place) = place else { return Ok(()) };
        // by its index, which is tested, regardless of the owner of the entry and of other entries
        let path = format!("/metadata/finalizers/{place}");
        let patch = json!([
            { "op": "test", "path": path, "value": annotation::REVOKE_LEASE },
            { "op": "remove", "path": path },
        ]);
        let params = manager(FINALIZER_MANAGER);
        let request = self.requests().patch(self.name, &params, &Patch::Merge(patch));
        self.send(request, Some(JSON_PATCH)).await.map(drop)
    }

    /// Publishes an event. A failure does not matter.
    pub async fn publish(&self, recorder: &Recorder, notice: Notice) {
        let event = Event {
            type_: match notice.severity {
                Severity::Normal => EventType::Normal,
                Severity::Warning => EventType::Warning,
            },
            reason: notice.reason,
            note: Some(notice.note),
            action: notice.action.to_owned(),
            secondary: None,
        };
        let reference = self.object.object_ref(&());
        let published = tokio::time::timeout(EVENT_TIMEOUT, recorder.publish(&event, &reference)).await;
        if !matches!(published, Ok(Ok(()))) {
            tracing::debug!("an event could not be published");
        }
    }
}
