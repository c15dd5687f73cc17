//! The transport for Google's client libraries: their messages over our HTTP client.
//!
//! Paths are those of the REST references of Secret Manager v1, Cloud KMS v1 and Pub/Sub v1.

use std::fmt;

use google_cloud_gax::{error::Error, options::RequestOptions, response::Response};
use google_cloud_kms_v1::{model as kms, stub::KeyManagementService};
use google_cloud_secretmanager_v1::{model as secrets, stub::SecretManagerService};
use reqwest::{Method, header::HeaderValue};
use serde::{Serialize, de::DeserializeOwned};
use url::Url;
use zeroize::Zeroizing;

use crate::{
    client::{Body, Http, address},
    error::Failed,
};

/// Sends calls to one service with one token.
#[derive(Clone)]
pub(crate) struct Transport {
    pub(crate) http: Http,
    pub(crate) base: Url,
    pub(crate) token: HeaderValue,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transport({})", self.base.origin().ascii_serialization())
    }
}

impl Transport {
    async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Response<T>, Error> {
        self.send(Method::GET, address(&self.base, path, query), Body::None)
            .await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        message: &impl Serialize,
    ) -> Result<Response<T>, Error> {
        let body = serde_json::to_vec(message).map_err(|_| Error::io(Failed::NotSent))?;
        let body = Body::Json(Zeroizing::new(body));
        self.send(Method::POST, address(&self.base, path, &[]), body)
            .await
    }

    /// Sends a request. The library passes our error through as the source of its own, where
    /// [`Failed::of`] finds it.
    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        url: Url,
        body: Body,
    ) -> Result<Response<T>, Error> {
        let answer = self.http.send(method, url, Some(&self.token), body).await;
        let message = answer.and_then(|answer| {
            if answer.status != 200 {
                return Err(Failed::refused(&answer));
            }
            // The parser's own message can contain its input.
            serde_json::from_slice(&answer.body).map_err(|_| Failed::garbage(answer.status))
        });
        message.map(Response::from).map_err(Error::io)
    }
}

/// Returns the parameters of a list.
fn page<'a>(size: &'a str, token: &'a str, filter: &'a str) -> Vec<(&'a str, &'a str)> {
    let all = [("pageSize", size), ("pageToken", token), ("filter", filter)];
    all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

impl SecretManagerService for Transport {
    async fn access_secret_version(
        &self,
        request: secrets::AccessSecretVersionRequest,
        _: RequestOptions,
    ) -> Result<Response<secrets::AccessSecretVersionResponse>, Error> {
        self.get(&format!("v1/{}:access", request.name), &[]).await
    }

    async fn get_secret(
        &self,
        request: secrets::GetSecretRequest,
        _: RequestOptions,
    ) -> Result<Response<secrets::Secret>, Error> {
        self.get(&format!("v1/{}", request.name), &[]).await
    }

    async fn list_secrets(
        &self,
        request: secrets::ListSecretsRequest,
        _: RequestOptions,
    ) -> Result<Response<secrets::ListSecretsResponse>, Error> {
        let size = request.page_size.to_string();
        let query = page(&size, &request.page_token, &request.filter);
        self.get(&format!("v1/{}/secrets", request.parent), &query).await
    }

    async fn list_secret_versions(
        &self,
        request: secrets::ListSecretVersionsRequest,
        _: RequestOptions,
    ) -> Result<Response<secrets::ListSecretVersionsResponse>, Error> {
        let size = request.page_size.to_string();
        let query = page(&size, &request.page_token, &request.filter);
        self.get(&format!("v1/{}/versions", request.parent), &query).await
    }
}

impl KeyManagementService for Transport {
    async fn decrypt(
        &self,
        mut request: kms::DecryptRequest,
        _: RequestOptions,
    ) -> Result<Response<kms::DecryptResponse>, Error> {
        let path = format!("v1/{}:decrypt", request.name);
        // The name is already in the path.
        request.name.clear();
        self.post(&path, &request).await
    }

    async fn encrypt(
        &self,
        mut request: kms::EncryptRequest,
        _: RequestOptions,
    ) -> Result<Response<kms::EncryptResponse>, Error> {
        let path = format!("v1/{}:encrypt", request.name);
        request.name.clear();
        self.post(&path, &request).await
    }
}
