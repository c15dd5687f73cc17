"""Google's own clients against the stand-in for Google Cloud.

Called with the path of a JSON file: the stand-in's address, where a service account's key is, and what was prepared. Every
step asserts values and classes of exceptions, and says its name when it is through.
"""

import datetime
import json
import os
import sys

import google.auth
import google.auth.compute_engine
import google.auth.transport.requests
from google.api_core import exceptions
from google.auth import identity_pool
from google.auth import exceptions as auth_exceptions
from google.cloud import kms_v1, secretmanager_v1
from google.cloud.kms_v1.services.key_management_service.transports import (
    KeyManagementServiceRestTransport,
)
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import (
    SecretManagerServiceRestTransport,
)
from google.oauth2 import service_account

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
ENABLED = secretmanager_v1.SecretVersion.State.ENABLED
DISABLED = secretmanager_v1.SecretVersion.State.DISABLED
DESTROYED = secretmanager_v1.SecretVersion.State.DESTROYED
KEY_STATE = kms_v1.CryptoKeyVersion.CryptoKeyVersionState

with open(sys.argv[1], encoding="utf-8") as settings_file:
    SETTINGS = json.load(settings_file)
HOST = SETTINGS["address"].removeprefix("http://")
PROJECT = "projects/" + SETTINGS["project"]
NUMBERED = "projects/" + SETTINGS["projectNumber"]
REGION = PROJECT + "/locations/" + SETTINGS["location"]


def crc32c(data):
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def key_credentials(**changes):
    info = {**SETTINGS["key"], **changes}
    return service_account.Credentials.from_service_account_info(info, scopes=[SCOPE])


def secrets_with(credentials, **options):
    transport = SecretManagerServiceRestTransport(
        host=HOST, url_scheme="http", credentials=credentials, **options
    )
    return secretmanager_v1.SecretManagerServiceClient(transport=transport)


def keys_with(credentials):
    transport = KeyManagementServiceRestTransport(
        host=HOST, url_scheme="http", credentials=credentials
    )
    return kms_v1.KeyManagementServiceClient(transport=transport)


def refused(kind, call, *arguments, **options):
    """The exception of that kind that the call ends with; nothing is tried twice.

    Over REST, the clients choose the class by the HTTP status alone: `FailedPrecondition` arrives as its parent,
    `BadRequest`, and only the answer tells which of the two it is.
    """
    try:
        call(*arguments, **options, retry=None)
    except exceptions.GoogleAPICallError as error:
        assert type(error) is type(exceptions.from_http_status(kind.code, "")), (kind, error)
        assert issubclass(kind, type(error)), (kind, error)
        assert error.response.json()["error"]["status"] == kind.grpc_status_code.name, (kind, error)
        assert "CANARY" in str(error), error
        return error
    raise AssertionError(f"expected {kind.__name__}")


def add(client, parent, data, checksum=None):
    payload = {"data": data, "data_crc32c": crc32c(data) if checksum is None else checksum}
    return client.add_secret_version(parent=parent, payload=payload)


def create(client, name, parent=PROJECT, **fields):
    secret = {"replication": {"automatic": {}}, **fields} if parent == PROJECT else fields
    return client.create_secret(parent=parent, secret_id=name, secret=secret)


def versions_are_read_by_number_alias_and_latest(client):
    made = create(client, "shop", labels={"team": "shop"}, annotations={"Owner": "Ann"})
    assert made.name == f"{NUMBERED}/secrets/shop", made.name
    secret = f"{PROJECT}/secrets/shop"
    assert add(client, secret, b"first").name == f"{NUMBERED}/secrets/shop/versions/1"
    assert add(client, secret, b"sec\x00nd").client_specified_payload_checksum
    for named, data in [("1", b"first"), ("2", b"sec\x00nd"), ("latest", b"sec\x00nd")]:
        answer = client.access_secret_version(name=f"{secret}/versions/{named}")
        assert answer.payload.data == data, named
        assert answer.payload.data_crc32c == crc32c(data), named
    answer = client.access_secret_version(name=f"{PROJECT}/secrets/aliased/versions/stable")
    assert answer.payload.data == b"behind an alias"
    assert answer.name == f"{NUMBERED}/secrets/aliased/versions/1", answer.name
    found = client.get_secret(name=f"{PROJECT}/secrets/aliased")
    assert dict(found.version_aliases) == {"stable": 1}, found
    found = client.get_secret(name=secret)
    assert dict(found.labels) == {"team": "shop"}, found
    assert dict(found.annotations) == {"Owner": "Ann"}, found
    assert found.replication.automatic is not None and found.etag
    age = datetime.datetime.now(datetime.timezone.utc) - found.create_time
    assert abs(age) < datetime.timedelta(hours=1), age


def regional_secrets_are_apart(client):
    made = create(client, "regional", parent=REGION)
    assert made.name == REGION.replace(PROJECT, NUMBERED) + "/secrets/regional", made.name
    add(client, f"{REGION}/secrets/regional", b"near")
    name = f"{REGION}/secrets/regional/versions/latest"
    assert client.access_secret_version(name=name).payload.data == b"near"
    refused(exceptions.NotFound, client.get_secret, name=f"{PROJECT}/secrets/regional")
    assert [secret.name for secret in client.list_secrets(parent=REGION)] == [made.name]


def lists_have_pages_and_filters(client):
    for number in range(7):
        labels = {"tier": "gold" if number % 2 else "silver", "team": "lists"}
        create(client, f"list-{number}", labels=labels)

    def ids(text, size=None):
        request = {"parent": PROJECT, "filter": text, "page_size": size or 0}
        pages = list(client.list_secrets(request=request).pages)
        names = [secret.name.rsplit("/", 1)[1] for page in pages for secret in page.secrets]
        return names, len(pages), pages[0].total_size

    everything = [f"list-{number}" for number in reversed(range(7))]
    assert ids("name:list-") == (everything, 1, 0)
    assert ids("name:LIST-", 3) == (everything, 3, 0)
    assert ids("name:list- AND labels.tier=gold")[0] == ["list-5", "list-3", "list-1"]
    assert ids("labels.team:list labels.tier:gol", 2)[:2] == (["list-5", "list-3", "list-1"], 2)
    assert ids("name:list-1 OR name:list-2")[0] == ["list-2", "list-1"]
    assert ids("labels.tier=bronze")[0] == []
    names, _, total = ids("")
    assert total == len(names) > 7, (total, names)
    refused(exceptions.InvalidArgument, client.list_secrets,
            request={"parent": PROJECT, "filter": "no filter"})


def versions_are_listed_newest_first(client):
    create(client, "many")
    secret = f"{PROJECT}/secrets/many"
    for number in range(4):
        add(client, secret, b"%d" % number)
    client.disable_secret_version(name=f"{secret}/versions/3")

    def numbers(text):
        request = {"parent": secret, "filter": text, "page_size": 2}
        return [int(found.name.rsplit("/", 1)[1]) for found in client.list_secret_versions(request=request)]

    assert numbers("") == [4, 3, 2, 1]
    assert numbers("state:ENABLED") == [4, 2, 1]
    assert numbers("state:DISABLED") == [3]
    found = client.get_secret_version(name=f"{secret}/versions/3")
    assert found.state == DISABLED, found


def states_decide(client):
    create(client, "states")
    secret = f"{PROJECT}/secrets/states"
    add(client, secret, b"one")
    add(client, secret, b"two")
    assert client.disable_secret_version(name=f"{secret}/versions/2").state == DISABLED
    # `latest` does not look for one that is enabled
    for named in ["2", "latest"]:
        refused(exceptions.FailedPrecondition, client.access_secret_version,
                name=f"{secret}/versions/{named}")
    assert client.access_secret_version(name=f"{secret}/versions/1").payload.data == b"one"
    assert client.enable_secret_version(name=f"{secret}/versions/2").state == ENABLED
    assert client.access_secret_version(name=f"{secret}/versions/latest").payload.data == b"two"
    destroyed = client.destroy_secret_version(name=f"{secret}/versions/2")
    assert destroyed.state == DESTROYED and destroyed.destroy_time
    for call in [client.access_secret_version, client.enable_secret_version]:
        refused(exceptions.FailedPrecondition, call, name=f"{secret}/versions/2")


def what_is_wrong_with_secrets_is_said(client):
    create(client, "errors")
    secret = f"{PROJECT}/secrets/errors"
    read = client.access_secret_version
    for name in [f"{PROJECT}/secrets/none/versions/1", f"{secret}/versions/latest"]:
        refused(exceptions.NotFound, read, name=name)
    denied = refused(exceptions.PermissionDenied, read,
                     name=f"{PROJECT}/secrets/forbidden/versions/latest")
    assert denied.reason == "IAM_PERMISSION_DENIED", denied.reason
    assert denied.metadata["permission"] == "secretmanager.versions.access", denied.metadata
    refused(exceptions.PermissionDenied, read, name="projects/another/secrets/shop/versions/1")
    refused(exceptions.AlreadyExists, client.create_secret, parent=PROJECT, secret_id="errors",
            secret={"replication": {"automatic": {}}})
    refused(exceptions.InvalidArgument, client.create_secret, parent=PROJECT, secret_id="no/id",
            secret={"replication": {"automatic": {}}})
    refused(exceptions.InvalidArgument, client.create_secret, parent=PROJECT, secret_id="none",
            secret={})
    refused(exceptions.InvalidArgument, client.add_secret_version, parent=secret,
            payload={"data": b"value", "data_crc32c": 1})
    add(client, secret, b"x" * 65536)
    refused(exceptions.InvalidArgument, client.add_secret_version, parent=secret,
            payload={"data": b"x" * 65537})
    client.delete_secret(name=secret)
    refused(exceptions.NotFound, client.get_secret, name=secret)


def keys_encrypt_and_decrypt(keys):
    key = SETTINGS["kmsKey"]
    found = keys.get_crypto_key(name=key)
    assert found.purpose == kms_v1.CryptoKey.CryptoKeyPurpose.ENCRYPT_DECRYPT, found
    assert found.primary.state == KEY_STATE.ENABLED, found
    plaintext, place = b"pl\x00ain", b"namespace/name/key"
    sealed = keys.encrypt(request={
        "name": key, "plaintext": plaintext, "plaintext_crc32c": crc32c(plaintext),
        "additional_authenticated_data": place,
        "additional_authenticated_data_crc32c": crc32c(place),
    })
    assert sealed.verified_plaintext_crc32c
    assert sealed.verified_additional_authenticated_data_crc32c
    assert sealed.ciphertext_crc32c == crc32c(sealed.ciphertext)
    assert sealed.name == f"{key}/cryptoKeyVersions/1", sealed.name
    assert sealed.protection_level == kms_v1.ProtectionLevel.SOFTWARE
    assert plaintext not in sealed.ciphertext
    request = {"name": key, "ciphertext": sealed.ciphertext,
               "ciphertext_crc32c": crc32c(sealed.ciphertext),
               "additional_authenticated_data": place}
    opened = keys.decrypt(request=request)
    assert opened.plaintext == plaintext
    assert opened.plaintext_crc32c == crc32c(plaintext)
    assert opened.used_primary
    again = keys.encrypt(name=key, plaintext=plaintext)
    assert again.ciphertext != sealed.ciphertext and not again.verified_plaintext_crc32c
    empty = keys.decrypt(name=key, ciphertext=keys.encrypt(name=key, plaintext=b"").ciphertext)
    assert empty.plaintext == b"" and empty.plaintext_crc32c == 0

    wrong = exceptions.InvalidArgument
    garbled = sealed.ciphertext[:-1] + bytes([sealed.ciphertext[-1] ^ 1])
    for changes in [
        {"additional_authenticated_data": b"elsewhere"},
        {"additional_authenticated_data": b""},
        {"name": SETTINGS["otherKmsKey"]},
        {"ciphertext": garbled, "ciphertext_crc32c": crc32c(garbled)},
        {"ciphertext": b"none", "ciphertext_crc32c": crc32c(b"none")},
        {"ciphertext_crc32c": 1},
        {"additional_authenticated_data_crc32c": 1},
    ]:
        refused(wrong, keys.decrypt, request={**request, **changes})
    refused(wrong, keys.encrypt, request={"name": key, "plaintext": b"x", "plaintext_crc32c": 1})
    keys.encrypt(name=key, plaintext=b"x" * 65536)
    refused(wrong, keys.encrypt, name=key, plaintext=b"x" * 65537)
    refused(exceptions.NotFound, keys.decrypt, request={**request, "name": key + "-none"})
    refused(exceptions.PermissionDenied, keys.decrypt, name=SETTINGS["deniedKmsKey"], ciphertext=b"x")


def states_of_keys_decide(keys):
    key = SETTINGS["otherKmsKey"]
    sealed = keys.encrypt(name=key, plaintext=b"value")
    version = sealed.name

    def enter(state):
        return keys.update_crypto_key_version(
            crypto_key_version={"name": version, "state": state}, update_mask={"paths": ["state"]}
        ).state

    assert enter(KEY_STATE.DISABLED) == KEY_STATE.DISABLED
    refused(exceptions.FailedPrecondition, keys.decrypt, name=key, ciphertext=sealed.ciphertext)
    refused(exceptions.FailedPrecondition, keys.encrypt, name=key, plaintext=b"value")
    assert keys.get_crypto_key_version(name=version).state == KEY_STATE.DISABLED
    assert enter(KEY_STATE.ENABLED) == KEY_STATE.ENABLED
    assert keys.decrypt(name=key, ciphertext=sealed.ciphertext).plaintext == b"value"
    gone = keys.destroy_crypto_key_version(name=version)
    assert gone.state == KEY_STATE.DESTROY_SCHEDULED
    refused(exceptions.FailedPrecondition, keys.decrypt, name=key, ciphertext=sealed.ciphertext)


def jwts_are_exchanged_or_sent_as_they_are():
    name = f"{PROJECT}/secrets/aliased/versions/1"
    for credentials, options in [
        (key_credentials(), {}),
        (key_credentials(), {"always_use_jwt_access": True}),
        (key_credentials().with_always_use_jwt_access(True), {}),
    ]:
        client = secrets_with(credentials, **options)
        assert client.access_secret_version(name=name).payload.data == b"behind an alias"
    for changes in [{"client_email": "nobody@example.com"}, {"private_key": SETTINGS["anotherKey"]}]:
        request = google.auth.transport.requests.Request()
        try:
            key_credentials(**changes).refresh(request)
        except auth_exceptions.RefreshError as error:
            assert error.args[1]["error"] == "invalid_grant", error.args
        else:
            raise AssertionError(f"a JWT was taken that is wrong in {list(changes)}")
        wrong = secrets_with(key_credentials(**changes), always_use_jwt_access=True)
        refused(exceptions.Unauthenticated, wrong.access_secret_version, name=name)


def workloads_exchange_their_tokens():
    class Supplier(identity_pool.SubjectTokenSupplier):
        def get_subject_token(self, context, request):
            assert context.audience == SETTINGS["workloadIdentityProvider"]
            return SETTINGS["subjectToken"]

    def credentials(email=None):
        impersonation = f"{SETTINGS['address']}/v1/projects/-/serviceAccounts/{email}:generateAccessToken"
        return identity_pool.Credentials(
            audience=SETTINGS["workloadIdentityProvider"],
            subject_token_type="urn:ietf:params:oauth:token-type:jwt",
            token_url=SETTINGS["address"] + "/v1/token",
            subject_token_supplier=Supplier(),
            service_account_impersonation_url=impersonation if email else None,
            scopes=[SCOPE],
        )

    name = f"{PROJECT}/secrets/aliased/versions/1"
    for email in [None, SETTINGS["key"]["client_email"]]:
        client = secrets_with(credentials(email))
        assert client.access_secret_version(name=name).payload.data == b"behind an alias"
    try:
        credentials("nobody@example.com").refresh(google.auth.transport.requests.Request())
    except auth_exceptions.RefreshError as error:
        assert "PERMISSION_DENIED" in str(error), error
    else:
        raise AssertionError("a stranger's service account was impersonated")


def the_metadata_server_hands_out_tokens():
    assert os.environ["GCE_METADATA_HOST"] == HOST
    credentials = google.auth.compute_engine.Credentials()
    client = secrets_with(credentials)
    name = f"{PROJECT}/secrets/aliased/versions/1"
    assert client.access_secret_version(name=name).payload.data == b"behind an alias"
    assert credentials.service_account_email == SETTINGS["node"], credentials.service_account_email


SECRETS = secrets_with(key_credentials())
KEYS = keys_with(key_credentials())
STEPS = [
    (versions_are_read_by_number_alias_and_latest, SECRETS),
    (regional_secrets_are_apart, SECRETS),
    (lists_have_pages_and_filters, SECRETS),
    (versions_are_listed_newest_first, SECRETS),
    (states_decide, SECRETS),
    (what_is_wrong_with_secrets_is_said, SECRETS),
    (keys_encrypt_and_decrypt, KEYS),
    (states_of_keys_decide, KEYS),
    (jwts_are_exchanged_or_sent_as_they_are,),
    (workloads_exchange_their_tokens,),
    (the_metadata_server_hands_out_tokens,),
]
for step, *given in STEPS:
    step(*given)
    print(step.__name__, flush=True)
