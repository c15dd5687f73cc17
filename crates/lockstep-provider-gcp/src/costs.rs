//! Prices and quotas from the pages of Google.

use lockstep_api::GcpProvider;
use lockstep_provider::costs::{Backend, Call, Costs, Kept, MicroUsd, Published, Quota};

use crate::secret_manager::PAGE;

/// The month in which these figures were looked up.
const AS_OF: &str = "2026-11";
const PRICES: &str = "cloud.google.com/secret-manager/pricing";
const QUOTAS: &str = "cloud.google.com/secret-manager/quotas";
const KMS_PRICES: &str = "cloud.google.com/kms/pricing";
const FREE: MicroUsd = MicroUsd(0);

/// Returns the costs of a store.
pub(crate) fn costs(provider: &GcpProvider) -> Costs {
    let mut costs = if provider.project_id.is_some() {
        secret_manager()
    } else {
        Costs::uncharged("Google Cloud KMS")
    };
    costs.as_of = Some(AS_OF);
    if provider.kms.is_some() {
        // $0.03 for 10,000.
        costs.decrypt = call("Cloud KMS Decrypt", MicroUsd(3), KMS_PRICES, None);
        costs.notes.push(
            "a version of a KMS key costs 0.06 USD a month in software and 1.00 USD in an HSM (cloud.google.com/kms/pricing): it is not counted; KMS has quotas of the calling project and of the project of the key (cloud.google.com/kms/quotas)",
        );
    }
    costs
}

fn secret_manager() -> Costs {
    let metadata = Some(("all calls but AccessSecretVersion that change nothing", 600));
    let free = |operation| call(operation, FREE, PRICES, metadata);
    Costs {
        backend: Backend {
            batch: 1,
            versions_in_batches: false,
            page: usize::try_from(PAGE).unwrap_or(1),
        },
        // $0.03 for 10,000.
        read: call(
            "AccessSecretVersion",
            MicroUsd(3),
            PRICES,
            Some(("AccessSecretVersion", 90_000)),
        ),
        metadata: free("GetSecret"),
        find: free("ListSecrets"),
        kept: Some(Kept {
            unit: "active secret version and location",
            price: Published {
                value: MicroUsd(60_000),
                source: PRICES,
            },
        }),
        notes: vec![
            "6 active secret versions and 10,000 calls of AccessSecretVersion a month are free for a billing account (cloud.google.com/secret-manager/pricing): neither is counted",
        ],
        ..Costs::uncharged("Google Secret Manager")
    }
}

fn call(
    operation: &'static str,
    price: MicroUsd,
    source: &'static str,
    a_minute: Option<(&'static str, u64)>,
) -> Call {
    Call {
        operation,
        price: Some(Published { value: price, source }),
        quota: a_minute.map(|(operations, calls)| Published {
            value: Quota {
                operations,
                calls,
                seconds: 60,
                of_each: "project",
            },
            source: QUOTAS,
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(spec: serde_json::Value) -> Costs {
        costs(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn ten_thousand_calls_cost_the_published_price() {
        let kms = json!({ "key": "projects/p/locations/l/keyRings/r/cryptoKeys/k" });
        let all = of(json!({ "projectID": "shop-prod", "kms": kms }));
        let price = |call: Call| call.price.unwrap().value.times(10_000).to_string();
        assert_eq!(price(all.read), "0.03");
        assert_eq!(price(all.decrypt), "0.03");
        assert_eq!(
            (price(all.metadata), price(all.find)),
            ("0.00".into(), "0.00".into())
        );
        assert_eq!(all.kept.unwrap().price.value.to_string(), "0.06");
        let alone = of(json!({ "kms": kms }));
        assert_eq!((alone.read.price, alone.kept), (None, None));
        assert_eq!(price(alone.decrypt), "0.03");
    }

    #[test]
    fn every_figure_has_its_source_and_date() {
        let all = of(json!({ "projectID": "shop-prod" }));
        assert_eq!(all.as_of, Some(AS_OF));
        for call in [all.read, all.metadata, all.find] {
            assert!(call.price.unwrap().source.contains("cloud.google.com"));
            assert!(call.quota.unwrap().source.contains("quotas"));
        }
        let minute = |call: Call| call.quota.unwrap().value.calls;
        assert_eq!((minute(all.read), minute(all.metadata)), (90_000, 600));
    }
}
