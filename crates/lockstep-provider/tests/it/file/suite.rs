use std::{
    collections::BTreeMap, fs, os::unix::fs::MetadataExt as _, path::Path, sync::Mutex, time::Duration,
};

use std::sync::Arc;

use async_trait::async_trait;
use lockstep_provider::Provider;
use lockstep_provider_testkit::{Skip, Subject, behaviour};

use super::setup::Files;

fn version(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).unwrap();
    Some(format!(
        "{}.{:09}-{:x}",
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ino()
    ))
}

fn object(fields: &[(&str, &str)]) -> serde_json::Value {
    let fields = fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).into()));
    serde_json::Value::Object(fields.collect())
}

mod folder {
    use super::*;

    struct Folder(Files);

    impl Folder {
        fn store(&self) -> std::path::PathBuf {
            self.0.at("store")
        }
    }

    #[async_trait]
    impl Subject for Folder {
        async fn provider(&self) -> Arc<dyn Provider> {
            self.0.store("store").await.0
        }

        fn skips(&self) -> &'static [&'static str] {
            &[
                "a_pinned_version_is_answered",
                "a_missing_version_is_not_found",
                "a_throttled_request_tells_when_to_come_back",
                "a_hung_backend_ends_in_a_time_out",
                "garbage_is_malformed",
                "metadata_is_answered_as_a_json_object",
                "nothing_found_is_an_empty_list",
                "values_are_found_by_tags",
            ]
        }

        fn finds_nothing(&self) -> Result<(), Skip> {
            Skip::because("an empty or missing folder may be a volume that is not mounted")
        }

        async fn put(&self, key: &str, fields: &[(&str, &str)]) -> Option<String> {
            self.0.write(&format!("store/{key}"), object(fields).to_string());
            version(&self.store().join(key))
        }

        async fn put_raw(&self, key: &str, value: &[u8]) -> Result<(), Skip> {
            self.0.write(&format!("store/{key}"), value);
            Ok(())
        }

        async fn tag(&self, _: &str, _: &str, _: &str) -> Result<(), Skip> {
            Skip::because("files carry no tags")
        }

        async fn delete(&self, key: &str) {
            match fs::remove_file(self.store().join(key)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
                _ => {}
            }
        }

        /// Removes the read permission. Permissions do not apply to root, so for root the file
        /// becomes a link that leads out.
        async fn deny(&self, key: &str) -> Result<(), Skip> {
            use std::os::unix::fs::PermissionsExt as _;
            let path = self.store().join(key);
            if rustix::process::geteuid().is_root() {
                let outside = self.0.outside().join("outside");
                fs::rename(&path, &outside).unwrap();
                std::os::unix::fs::symlink(outside, path).unwrap();
            } else {
                fs::set_permissions(path, fs::Permissions::from_mode(0o0)).unwrap();
            }
            Ok(())
        }

        async fn throttle(&self, _: usize, _: Duration) -> Result<(), Skip> {
            Skip::because("a folder never asks to slow down")
        }

        async fn hang(&self) -> Result<(), Skip> {
            Skip::because("a local disk answers")
        }

        async fn unavailable(&self) -> Result<(), Skip> {
            fs::rename(self.store(), self.0.at("unmounted")).unwrap();
            Ok(())
        }

        async fn garbage(&self) -> Result<(), Skip> {
            Skip::because("any bytes are a value")
        }

        async fn endless(&self, key: &str) -> Result<(), Skip> {
            let file = fs::File::create(self.store().join(key)).unwrap();
            file.set_len(1 << 30).unwrap();
            Ok(())
        }

        async fn heal(&self) {
            if self.0.at("unmounted").exists() {
                fs::rename(self.0.at("unmounted"), self.store()).unwrap();
            }
        }
    }

    behaviour!(async {
        let files = Files::new();
        // a mounted volume without values is not empty
        fs::create_dir_all(files.at("store/..2026")).unwrap();
        Folder(files)
    });
}

mod document {
    use super::*;

    struct Document {
        files: Files,
        fields: Mutex<BTreeMap<String, serde_json::Value>>,
    }

    impl Document {
        fn path(&self) -> std::path::PathBuf {
            self.files.at("values.yaml")
        }

        fn change(&self, change: impl FnOnce(&mut BTreeMap<String, serde_json::Value>)) {
            let mut fields = self.fields.lock().unwrap();
            change(&mut fields);
            let document = serde_yaml_ng::to_string(&*fields).unwrap();
            fs::write(self.files.at("new"), document).unwrap();
            fs::rename(self.files.at("new"), self.path()).unwrap();
        }
    }

    #[async_trait]
    impl Subject for Document {
        async fn provider(&self) -> Arc<dyn Provider> {
            self.files.store("values.yaml").await.0
        }

        fn skips(&self) -> &'static [&'static str] {
            &[
                "binary_values_are_answered_byte_for_byte",
                "a_pinned_version_is_answered",
                "a_missing_version_is_not_found",
                "a_denied_key_is_permission_denied",
                "a_throttled_request_tells_when_to_come_back",
                "a_hung_backend_ends_in_a_time_out",
                "metadata_is_answered_as_a_json_object",
                "values_are_found_by_tags",
            ]
        }

        async fn put(&self, key: &str, fields: &[(&str, &str)]) -> Option<String> {
            self.change(|all| {
                all.insert(key.to_owned(), object(fields));
            });
            version(&self.path())
        }

        async fn put_raw(&self, _: &str, _: &[u8]) -> Result<(), Skip> {
            Skip::because("a document holds text")
        }

        async fn put_many(&self, keys: &[String]) {
            self.change(|all| {
                all.extend(
                    keys.iter()
                        .map(|key| (key.clone(), object(&[("value", "CANARY")]))),
                );
            });
        }

        async fn tag(&self, _: &str, _: &str, _: &str) -> Result<(), Skip> {
            Skip::because("fields carry no tags")
        }

        async fn delete(&self, key: &str) {
            self.change(|all| {
                all.remove(key);
            });
        }

        async fn deny(&self, _: &str) -> Result<(), Skip> {
            Skip::because("fields have no rights of their own")
        }

        async fn throttle(&self, _: usize, _: Duration) -> Result<(), Skip> {
            Skip::because("a document never asks to slow down")
        }

        async fn hang(&self) -> Result<(), Skip> {
            Skip::because("a local disk answers")
        }

        async fn unavailable(&self) -> Result<(), Skip> {
            fs::remove_file(self.path()).unwrap();
            Ok(())
        }

        async fn garbage(&self) -> Result<(), Skip> {
            fs::write(self.path(), "{CANARY: [CANARY").unwrap();
            Ok(())
        }

        async fn endless(&self, _: &str) -> Result<(), Skip> {
            let file = fs::File::create(self.path()).unwrap();
            file.set_len(1 << 30).unwrap();
            Ok(())
        }

        async fn heal(&self) {
            self.change(|_| {});
        }
    }

    behaviour!(async {
        let files = Files::new();
        files.write("values.yaml", "{}");
        Document {
            files,
            fields: Mutex::default(),
        }
    });
}
