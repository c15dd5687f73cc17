//! Helpers that the cases share.

use std::{collections::BTreeMap, sync::Arc};

use lockstep_provider::{
    Context, ErrorKind, FindQuery, Operation, Provider, ProviderError, RemoteRef, RemoteSecret,
};

use crate::{CANARY, Subject};

/// A client under test, with assertions on its results.
pub(crate) struct Client(pub(crate) Arc<dyn Provider>);

impl Client {
    /// Fetches the references and checks that there is one result for each and that no error
    /// contains a value.
    pub(crate) async fn fetch(&self, refs: &[RemoteRef]) -> Vec<Result<RemoteSecret, ProviderError>> {
        let results = self.0.fetch(&Context::default(), refs).await;
        assert_eq!(results.len(), refs.len(), "one result per reference");
        for result in &results {
            assert!(!format!("{result:?}").contains(CANARY), "a result shows a value");
        }
        results
            .iter()
            .filter_map(|result| result.as_ref().err())
            .for_each(assert_clean);
        results
    }

    /// Returns the value of a reference, which must be readable.
    pub(crate) async fn read(&self, reference: &RemoteRef) -> RemoteSecret {
        let result = self.fetch(std::slice::from_ref(reference)).await.remove(0);
        result.unwrap_or_else(|error| panic!("\"{}\" must be readable: {error}", reference.key))
    }

    /// Returns the error of a reference, which must have the given kind.
    pub(crate) async fn refuse(&self, reference: &RemoteRef, kind: ErrorKind) -> ProviderError {
        let result = self.fetch(std::slice::from_ref(reference)).await.remove(0);
        let Err(error) = result else {
            panic!("\"{}\" must fail with {}", reference.key, kind.label())
        };
        assert_eq!(error.kind.label(), kind.label(), "{error}");
        assert_eq!(error.operation, Operation::Read);
        error
    }

    /// Returns the keys that a query finds.
    pub(crate) async fn find(&self, query: &FindQuery) -> Vec<String> {
        let found = self.0.find(&Context::default(), query).await;
        let found = found
            .inspect_err(assert_clean)
            .unwrap_or_else(|error| panic!("the search must succeed: {error}"));
        let keys: Vec<_> = found.into_iter().map(|meta| meta.key.to_string()).collect();
        assert!(keys.is_sorted(), "what is found is sorted by key");
        keys
    }

    /// Returns the error of a query, which must have the given kind.
    pub(crate) async fn refuse_find(&self, query: &FindQuery, kind: ErrorKind) -> ProviderError {
        let Err(error) = self.0.find(&Context::default(), query).await else {
            panic!("the search must fail with {}", kind.label())
        };
        assert_clean(&error);
        assert_eq!(error.kind.label(), kind.label(), "{error}");
        error
    }
}

/// Asserts that an error is a sentence and contains no value.
pub(crate) fn assert_clean(error: &ProviderError) {
    let told = format!("{error} {error:?}");
    assert!(
        !told.contains(CANARY),
        "an error of kind {} shows a value",
        error.kind.label()
    );
    assert!(!error.message.trim().is_empty(), "an error says something");
    assert!(
        error.message.len() < 1024,
        "an error is a sentence, not {} bytes",
        error.message.len()
    );
    assert!(!error.message.contains('\n'), "an error is one line: {error}");
}

/// Asserts that an error names what the user wrote.
pub(crate) fn assert_names(error: &ProviderError, what: &str) {
    assert!(
        error.to_string().contains(what),
        "the error must name \"{what}\": {error}"
    );
}

/// Parses the fields of a value.
pub(crate) fn fields(secret: &RemoteSecret) -> BTreeMap<String, String> {
    // the parser's own message can contain its input
    let fields = serde_json::from_slice(secret.value.expose()).ok();
    let length = secret.value.len();
    fields.unwrap_or_else(|| panic!("the value must be a JSON object of texts ({length} bytes)"))
}

/// Converts pairs to the form in which fields are compared.
pub(crate) fn expected(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// Compares fields without printing them.
pub(crate) fn assert_fields(secret: &RemoteSecret, pairs: &[(&str, &str)]) {
    assert!(
        fields(secret) == expected(pairs),
        "the fields must be those that were stored"
    );
}

/// Creates a client of the subject.
pub(crate) async fn client(subject: &impl Subject) -> Client {
    Client(subject.provider().await)
}
