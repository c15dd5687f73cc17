//! Examples shown at the end of each `--help`.

/// Examples of `lockstep` itself.
pub(super) const LOCKSTEP: &str = "\
Examples:
  Render the Secrets of a folder of manifests without a cluster:
    lockstep render -f examples/getting-started/quickstart \\
      --values examples/getting-started/quickstart/values

  Encrypt values in a folder of manifests for Git:
    lockstep seal -f deploy/ --store store.yaml

  Estimate API calls per day and their cost:
    lockstep plan -f deploy/

  Install the CustomResourceDefinitions:
    lockstep crds | kubectl apply -f -

  Run the operator against the cluster of a context:
    lockstep run --context kind-dev

Use \"lockstep COMMAND --help\" for details and examples of a command.
Exit code: 0 on success, 1 if something failed or would not sync, 2 for a usage error or unreadable input.";

/// Examples of `lockstep run`.
pub(super) const RUN: &str = "\
Examples:
  In a pod, as in deploy/kustomize/base:
    lockstep run --listen 0.0.0.0:8080 --log-format json

  On your machine, for two namespaces of the cluster of a context:
    lockstep run --context kind-dev --namespaces shop,billing

  With ClusterSecretStores that read files, for example mounted by a CSI driver:
    lockstep run --file-root /mnt/secrets

  Configured with environment variables:
    LOCKSTEP_CONTEXT=kind-dev LOCKSTEP_LOG_LEVEL=debug lockstep run

  Check readiness and metrics:
    curl http://127.0.0.1:8080/readyz
    curl http://127.0.0.1:8080/metrics";

/// Examples of `lockstep render`.
pub(super) const RENDER: &str = "\
Examples:
  Render with values from a folder. The output is masked:
    lockstep render -f examples/getting-started/quickstart \\
      --values examples/getting-started/quickstart/values

  Check manifests in CI and list the remote values they read:
    lockstep render -f deploy/

  Render a kustomize overlay:
    kubectl kustomize overlays/production | lockstep render -f -

  Apply the rendered Secret by hand:
    lockstep render -f database.yaml --values values --show-values | kubectl apply -f -

  Print JSON for scripts:
    lockstep render -f deploy/ --output json";

/// Examples of `lockstep seal`.
pub(super) const SEAL: &str = "\
Examples:
  An unsealed entry in spec.data of the SyncedSecret in database.yaml:
    - secretKey: password
      plaintext: hunter2

  Seal it with the key of its store, such as provider.aws.kms or provider.vault.transit:
    lockstep seal -f database.yaml --store store.yaml

  The sealed entry, which can be committed:
    - secretKey: password
      ciphertext: lockstep:v1:…

  Seal a certificate from a file next to the YAML. Keep that file out of Git:
    - secretKey: tls.crt
      plaintextFile: tls.crt

  Show what would be sealed, and with which key:
    lockstep seal -f deploy/ --dry-run

  Use Vault through a forwarded port:
    VAULT_TOKEN=$(vault print token) lockstep seal -f deploy/ --vault-address https://127.0.0.1:8200

  Trust a KMS endpoint in your own network that a store names:
    lockstep seal -f deploy/ --trust-endpoint kms.example.org:8443

  Check before every commit and in CI, without a KMS. Prints file, line and field, never the value:
    lockstep seal --check -f deploy/";

/// Examples of `lockstep status`.
pub(super) const STATUS: &str = "\
Examples:
  List the SyncedSecrets of a namespace and what each is waiting for:
    lockstep status -n shop

  Describe one and show every change:
    lockstep status database -n shop --watch

  Wait in a script until all are Ready:
    until lockstep status -A > /dev/null; do sleep 5; done

  Print JSON for scripts:
    lockstep status -A --output json
";

/// Examples of `lockstep history`.
pub(super) const HISTORY: &str = "\
Examples:
  Show the latest revisions of a Secret:
    lockstep history database -n shop

  Print JSON for scripts, newest first:
    lockstep history database -n shop --output json
";

/// Examples of `lockstep plan`.
pub(super) const PLAN: &str = "\
Examples:
  Estimate the calls of a team's manifests:
    lockstep plan -f examples/providers/aws/secrets-manager

  Estimate the calls of a kustomize overlay:
    kubectl kustomize overlays/production | lockstep plan -f -

  Estimate the calls of a whole cluster:
    kubectl get syncedsecrets,secretstores,clustersecretstores,namespaces -A -o yaml | lockstep plan -f -

  Assume that each search returns 200 keys:
    lockstep plan -f deploy/ --found 200

  Check a budget in CI:
    lockstep plan -f deploy/ --output json | jq -e '.total.callsADay < 10000'";

/// Examples of `lockstep crds`.
pub(super) const CRDS: &str = "\
Examples:
  Install or update the CustomResourceDefinitions:
    lockstep crds | kubectl apply -f -";

/// Examples of `lockstep completions`.
pub(super) const COMPLETIONS: &str = "\
Examples:
  Enable completion in the current bash session:
    source <(lockstep completions bash)

  Enable completion in every zsh session:
    lockstep completions zsh > \"${fpath[1]}/_lockstep\"";

/// Examples of `lockstep version`.
pub(super) const VERSION: &str = "\
Examples:
  Print the version:
    lockstep version

  Print JSON for scripts:
    lockstep version --output json";
