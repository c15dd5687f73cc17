//! Examples of ciphertexts: what is in `unsealed.yaml` goes through `lockstep seal` before it is applied, as whoever tries the
//! example would do it.

use std::{fs, path::Path, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use lockstep_testkit::{Scratch, binaries, example::Replacements};
use serde::Deserialize as _;
use serde_json::Value;
use tokio::process::Command;

use crate::ciphertext::trust;

/// What whoever seals has in the environment.
pub(super) type Environment = Vec<(&'static str, String)>;

/// The manifests of `unsealed.yaml`, sealed; `None` where there is no such file.
pub(super) async fn seal(
    folder: &Path,
    manifests: &str,
    replacements: &Replacements,
    environment: &Environment,
) -> Result<Option<String>> {
    let unsealed = folder.join("unsealed.yaml");
    if !unsealed.exists() {
        return Ok(None);
    }
    let place = Scratch::new("example")?;
    let (file, stores) = (
        place.path().join("unsealed.yaml"),
        place.path().join("manifests.yaml"),
    );
    fs::copy(&unsealed, &file)?;
    let (mut texts, mut trusted) = (String::new(), Vec::new());
    for document in serde_yaml_ng::Deserializer::from_str(manifests) {
        let mut value = Value::deserialize(document)?;
        replacements.fill_in(&mut value);
        trusted.extend(trust(&value));
        texts.push_str("---\n");
        texts.push_str(&serde_yaml_ng::to_string(&value)?);
    }
    fs::write(&stores, texts)?;
    let output = Command::new(binaries::lockstep()?)
        .arg("seal")
        .args(trusted)
        .arg("--file")
        .arg(&file)
        .arg("--store")
        .arg(&stores)
        .env_clear()
        .env("HOME", place.path())
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("run lockstep seal")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "lockstep seal: {said}");
    let sealed = fs::read_to_string(&file)?;
    ensure!(sealed.contains("ciphertext: lockstep:v1:"), "nothing was sealed");
    Ok(Some(sealed))
}
