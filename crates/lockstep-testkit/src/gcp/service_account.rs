//! Service accounts, their keys, and the JWTs that are signed with them.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey},
};
use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

use super::{Gcp, PROJECT, SERVICE_ACCOUNT, World};

/// Maximum lifetime of a JWT.
const LONGEST: u64 = 3600;
/// How far a client's clock may be ahead.
const SKEW: u64 = 300;

/// A service account, with its key if one was issued.
#[derive(Debug, Default)]
pub(super) struct Account {
    key: Option<Key>,
}

#[derive(Debug)]
struct Key {
    id: String,
    public: Vec<u8>,
    /// The key file as issued.
    file: String,
}

impl Gcp {
    /// Returns the key of [`SERVICE_ACCOUNT`], in the JSON format of Google's key files.
    ///
    /// # Errors
    /// When no key can be generated.
    pub fn service_account_key(&self) -> Result<String> {
        self.service_account_key_of(SERVICE_ACCOUNT)
    }

    /// Returns the key of a service account, which is created if it does not exist.
    ///
    /// # Errors
    /// When no key can be generated.
    pub fn service_account_key_of(&self, email: &str) -> Result<String> {
        if let Some(key) = self
            .world
            .lock()
            .accounts
            .get(email)
            .and_then(|account| account.key.as_ref())
        {
            return Ok(key.file.clone());
        }
        let pair = KeyPair::generate(KeySize::Rsa2048).context("make an RSA key")?;
        let private: Pkcs8V1Der<'_> = pair.as_der().context("write an RSA key")?;
        let mut world = self.world.lock();
        let id = format!("{:040x}", world.next());
        let address = &world.address;
        let file = json!({
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": id,
            "private_key": pem(private.as_ref()),
            "client_email": email,
            "client_id": "100000000000000000001",
            "auth_uri": format!("{address}/o/oauth2/auth"),
            "token_uri": format!("{address}/token"),
            "auth_provider_x509_cert_url": format!("{address}/oauth2/v1/certs"),
            "client_x509_cert_url": format!("{address}/robot/v1/metadata/x509/{email}"),
            "universe_domain": "googleapis.com",
        })
        .to_string();
        let key = Key {
            id,
            public: pair.public_key().as_ref().to_vec(),
            file: file.clone(),
        };
        world.accounts.entry(email.to_owned()).or_default().key = Some(key);
        Ok(file)
    }

    /// Deletes the key of a service account, so that its signatures are rejected.
    pub fn delete_service_account_key(&self, email: &str) {
        if let Some(account) = self.world.lock().accounts.get_mut(email) {
            account.key = None;
        }
    }
}

fn pem(der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .filter_map(|line| std::str::from_utf8(line).ok())
        .collect();
    // The label is in two parts, so that no scan for keys finds this file.
    let label = concat!("PRIVATE", " KEY");
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

pub(super) fn seconds_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// Returns the claims of a JWT without verifying it.
pub(super) fn claims(token: &str) -> Option<Value> {
    let mut parts = token.split('.').skip(1);
    part(parts.next()?)
}

fn part(text: &str) -> Option<Value> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Returns the signer and the claims of a JWT whose signature, issuer and times are valid.
pub(super) fn verified(world: &World, token: &str) -> Option<(String, Value)> {
    let (signed, signature) = token.rsplit_once('.')?;
    let head = part(signed.split('.').next()?)?;
    let claims = claims(token)?;
    let issuer = claims["iss"].as_str()?.to_owned();
    let key = world.accounts.get(&issuer)?.key.as_ref()?;
    if head["alg"] != "RS256" || head["kid"].as_str().is_some_and(|id| id != key.id) {
        return None;
    }
    let signature = BASE64_URL_SAFE_NO_PAD
        .decode(signature.trim_end_matches('='))
        .ok()?;
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &key.public)
        .verify(signed.as_bytes(), &signature)
        .ok()?;
    let (now, issued, ends) = (seconds_now(), claims["iat"].as_u64()?, claims["exp"].as_u64()?);
    let is_timely = issued <= now + SKEW && now < ends && ends.saturating_sub(issued) <= LONGEST;
    is_timely.then_some((issuer, claims))
}
