//! Prices and quotas from the pages of AWS.

use lockstep_api::aws::{AwsProvider, AwsService};
use lockstep_provider::costs::{Backend, Call, Costs, Kept, MicroUsd, Published, Quota};

use crate::{parameter_store, secrets_manager};

/// The month in which these figures were looked up.
const AS_OF: &str = "2026-11";
const SECRETS_MANAGER_PRICES: &str = "aws.amazon.com/secrets-manager/pricing";
const SECRETS_MANAGER_QUOTAS: &str = "\"AWS Secrets Manager quotas\" in the AWS Secrets Manager User Guide";
const SYSTEMS_MANAGER_PRICES: &str = "aws.amazon.com/systems-manager/pricing";
const SYSTEMS_MANAGER_QUOTAS: &str =
    "\"AWS Systems Manager endpoints and quotas\" in the AWS General Reference";
const KMS_PRICES: &str = "aws.amazon.com/kms/pricing";
const PARAMETER_READS: &str = "GetParameter, GetParameters and GetParametersByPath";
const FREE: MicroUsd = MicroUsd(0);

/// Returns the costs of a store.
pub(crate) fn costs(provider: &AwsProvider) -> Costs {
    let mut costs = match provider.service {
        Some(AwsService::SecretsManager) => secrets_manager(),
        Some(AwsService::ParameterStore) => parameter_store(),
        None => Costs::uncharged("AWS KMS"),
    };
    costs.as_of = Some(AS_OF);
    if provider.kms.is_some() {
        // $0.03 for 10,000.
        costs.decrypt = call("KMS Decrypt", MicroUsd(3), KMS_PRICES, None);
        costs.notes.push(
            "a KMS key costs 1.00 USD a month, and 20,000 requests to KMS a month are free for an account (aws.amazon.com/kms/pricing): neither is counted; KMS has quotas that differ by region",
        );
    }
    costs
}

fn secrets_manager() -> Costs {
    // $0.05 for 10,000 calls of any operation.
    let charged = |operation, a_second| {
        let quota = Some((operation, a_second, SECRETS_MANAGER_QUOTAS));
        call(operation, MicroUsd(5), SECRETS_MANAGER_PRICES, quota)
    };
    Costs {
        backend: Backend {
            batch: secrets_manager::BATCH,
            versions_in_batches: false,
            page: keys(secrets_manager::PAGE),
        },
        read: charged("BatchGetSecretValue", 100),
        metadata: charged("DescribeSecret", 40_000),
        find: charged("ListSecrets", 100),
        kept: Some(Kept {
            unit: "secret",
            price: Published {
                value: MicroUsd(400_000),
                source: SECRETS_MANAGER_PRICES,
            },
        }),
        notes: vec![
            "BatchGetSecretValue is counted as one call, and has to be granted; without it each value is a GetSecretValue",
        ],
        ..Costs::uncharged("AWS Secrets Manager")
    }
}

fn parameter_store() -> Costs {
    let shared = Some((PARAMETER_READS, 40, SYSTEMS_MANAGER_QUOTAS));
    let free = |operation, quota| call(operation, FREE, SYSTEMS_MANAGER_PRICES, quota);
    Costs {
        backend: Backend {
            batch: parameter_store::BATCH,
            versions_in_batches: true,
            page: keys(parameter_store::PAGE_BY_PATH),
        },
        read: free("GetParameters", shared),
        metadata: free("ListTagsForResource", None),
        find: free("GetParametersByPath", shared),
        notes: vec![
            "Parameter Store is counted with standard throughput and standard parameters, which are free; with higher throughput each parameter that is read costs 0.000005 USD (aws.amazon.com/systems-manager/pricing)",
        ],
        ..Costs::uncharged("AWS Parameter Store")
    }
}

fn keys(page: i32) -> usize {
    usize::try_from(page).unwrap_or(1)
}

fn call(
    operation: &'static str,
    price: MicroUsd,
    source: &'static str,
    a_second: Option<(&'static str, u64, &'static str)>,
) -> Call {
    Call {
        operation,
        price: Some(Published { value: price, source }),
        quota: a_second.map(|(operations, calls, source)| Published {
            value: Quota {
                operations,
                calls,
                seconds: 1,
                of_each: "account and region",
            },
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(more: &serde_json::Value) -> Costs {
        let mut spec = json!({ "region": "eu-central-1" });
        for (field, value) in more.as_object().unwrap() {
            spec[field] = value.clone();
        }
        costs(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn ten_thousand_calls_cost_the_published_price() {
        let all = of(&json!({ "service": "SecretsManager", "kms": { "keyId": "alias/shop" } }));
        let price = |call: Call| call.price.unwrap().value.times(10_000).to_string();
        for call in [all.read, all.metadata, all.find] {
            assert_eq!(price(call), "0.05", "{}", call.operation);
        }
        assert_eq!(price(all.decrypt), "0.03");
        assert_eq!(all.kept.unwrap().price.value.to_string(), "0.40");
        let parameters = of(&json!({ "service": "ParameterStore" }));
        assert_eq!(price(parameters.read), "0.00");
        assert_eq!(parameters.decrypt.price, None);
    }

    #[test]
    fn every_figure_has_its_source_and_date() {
        for service in ["SecretsManager", "ParameterStore"] {
            let all = of(&json!({ "service": service, "kms": { "keyId": "alias/shop" } }));
            assert_eq!(all.as_of, Some(AS_OF));
            for call in [all.read, all.metadata, all.find, all.decrypt] {
                assert!(call.price.unwrap().source.contains("aws.amazon.com"));
                assert!(call.quota.is_none_or(|quota| quota.source.contains("quotas")));
            }
        }
    }
}
