//! The examples below every `--help`.

/// Of `lockstep` itself.
pub(super) const LOCKSTEP: &str = "\
Examples:
  See the Secrets of a folder of manifests, without a cluster:
    lockstep render -f examples/quickstart --values examples/quickstart/values

  Encrypt values in a folder of manifests for Git:
    lockstep seal -f deploy/ --store store.yaml

  See how many calls a day they come to, and what those cost:
    lockstep plan -f deploy/

  Install the CustomResourceDefinitions:
    lockstep crds | kubectl apply -f -

  Run the operator against the cluster of a context:
    lockstep run --context kind-dev

\"lockstep COMMAND --help\" explains a command, with examples.
Exit code: 0 when all is well, 1 when something failed or would not sync, 2 when the command is wrong.";

/// Of `lockstep run`.
pub(super) const RUN: &str = "\
Examples:
  In a pod, as deploy/kustomize/base does it:
    lockstep run --listen 0.0.0.0:8080 --log-format json

  On your own machine, against the cluster of a context, for two namespaces:
    lockstep run --context kind-dev --namespaces shop,billing

  With ClusterSecretStores that read files (mounted by a CSI driver, for instance):
    lockstep run --file-root /mnt/secrets

  The same by environment variables:
    LOCKSTEP_CONTEXT=kind-dev LOCKSTEP_LOG_LEVEL=debug lockstep run

  See what is missing, and what it does:
    curl http://127.0.0.1:8080/readyz
    curl http://127.0.0.1:8080/metrics";

/// Of `lockstep render`.
pub(super) const RENDER: &str = "\
Examples:
  With values from a folder; they are masked:
    lockstep render -f examples/quickstart --values examples/quickstart/values

  Check manifests in CI, and see which remote values they read:
    lockstep render -f deploy/

  What a kustomize overlay makes:
    kubectl kustomize overlays/production | lockstep render -f -

  The Secret itself, applied by hand:
    lockstep render -f database.yaml --values values --show-values | kubectl apply -f -

  For machines:
    lockstep render -f deploy/ --output json";

/// Of `lockstep seal`.
pub(super) const SEAL: &str = "\
Examples:
  Before, in database.yaml, an entry of spec.data of a SyncedSecret:
    - secretKey: password
      plaintext: hunter2

  Seal it with the key of its store, provider.aws.kms or provider.vault.transit:
    lockstep seal -f database.yaml --store store.yaml

  After it, what can be committed:
    - secretKey: password
      ciphertext: lockstep:v1:…

  A certificate, from a file beside the YAML that stays out of Git:
    - secretKey: tls.crt
      plaintextFile: tls.crt

  See what would be sealed, where and with which key:
    lockstep seal -f deploy/ --dry-run

  With Vault, through a port that is forwarded:
    VAULT_TOKEN=$(vault print token) lockstep seal -f deploy/ --vault-address https://127.0.0.1:8200

  With a KMS endpoint of your own network, which a store names:
    lockstep seal -f deploy/ --trust-endpoint kms.example.org:8443

  Before every commit and in CI, without a KMS; it prints the file, the line and the field, never the value:
    lockstep seal --check -f deploy/";

/// Of `lockstep plan`.
pub(super) const STATUS: &str = "\
Examples:
  All of a namespace, and what each waits for:
    lockstep status -n shop

  Everything about one, shown anew at each change:
    lockstep status database -n shop --watch

  Wait in a script until all are Ready:
    until lockstep status -A > /dev/null; do sleep 5; done

  For machines:
    lockstep status -A --output json
";

pub(super) const HISTORY: &str = "\
Examples:
  What happened to the Secret lately:
    lockstep history database -n shop

  For machines, the newest first:
    lockstep history database -n shop --output json
";

pub(super) const PLAN: &str = "\
Examples:
  What the manifests of a team come to:
    lockstep plan -f examples/aws-secrets-manager

  What a kustomize overlay comes to:
    kubectl kustomize overlays/production | lockstep plan -f -

  What everything in a cluster comes to:
    kubectl get syncedsecrets,secretstores,clustersecretstores,namespaces -A -o yaml | lockstep plan -f -

  With searches that find about 200 keys:
    lockstep plan -f deploy/ --found 200

  For machines, such as a check of a budget in CI:
    lockstep plan -f deploy/ --output json | jq -e '.total.callsADay < 10000'";

/// Of `lockstep crds`.
pub(super) const CRDS: &str = "\
Examples:
  Install or update them:
    lockstep crds | kubectl apply -f -";

/// Of `lockstep completions`.
pub(super) const COMPLETIONS: &str = "\
Examples:
  For this bash session:
    source <(lockstep completions bash)

  For every zsh session:
    lockstep completions zsh > \"${fpath[1]}/_lockstep\"";

/// Of `lockstep version`.
pub(super) const VERSION: &str = "\
Examples:
  For people:
    lockstep version

  For machines:
    lockstep version --output json";
