//! Runs the behaviour suite for the memory provider.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use lockstep_provider::{ErrorKind, MemoryBackend, Provider};
use lockstep_provider_testkit::{Skip, Subject, behaviour};

struct Memory(MemoryBackend);

#[async_trait]
impl Subject for Memory {
    async fn provider(&self) -> Arc<dyn Provider> {
        self.0.provider()
    }

    fn skips(&self) -> &'static [&'static str] {
        &["an_endless_answer_is_an_error"]
    }

    async fn put(&self, key: &str, fields: &[(&str, &str)]) -> Option<String> {
        Some(self.0.put_fields(key, fields))
    }

    async fn put_raw(&self, key: &str, value: &[u8]) -> Result<(), Skip> {
        self.0.put(key, lockstep_provider::SecretValue::new(value));
        Ok(())
    }

    async fn tag(&self, key: &str, name: &str, value: &str) -> Result<(), Skip> {
        self.0.tag(key, name, value);
        Ok(())
    }

    async fn delete(&self, key: &str) {
        self.0.delete(key);
    }

    async fn deny(&self, key: &str) -> Result<(), Skip> {
        self.0.set_denied(key, true);
        Ok(())
    }

    async fn throttle(&self, requests: usize, retry_after: Duration) -> Result<(), Skip> {
        self.0
            .fail_next(requests, ErrorKind::RateLimited, Some(retry_after));
        Ok(())
    }

    async fn hang(&self) -> Result<(), Skip> {
        self.0.set_hung(true);
        Ok(())
    }

    async fn unavailable(&self) -> Result<(), Skip> {
        self.0
            .fail_next(usize::from(u16::MAX), ErrorKind::Unavailable, None);
        Ok(())
    }

    async fn garbage(&self) -> Result<(), Skip> {
        self.0
            .fail_next(usize::from(u16::MAX), ErrorKind::Malformed, None);
        Ok(())
    }

    async fn endless(&self, _: &str) -> Result<(), Skip> {
        Skip::because("a value in memory has an end")
    }

    async fn heal(&self) {
        self.0.heal();
    }
}

behaviour!(async { Memory(MemoryBackend::new()) });
