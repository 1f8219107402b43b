"""A Terraform provider that knows schemas only, for modules whose provider cannot be had.

`terraform test` with a mocked provider needs nothing of a provider but its schema. Where the real one
cannot be downloaded, this serves what the module uses of it, as the provider's documentation has it: so
the module's expressions, references, conditions and tests are run by Terraform itself. It cannot show
that the documentation was read rightly; the real provider does, wherever it is to be had.
"""

import contextlib
import json
import os
from concurrent import futures

import grpc

STRING, BOOL, NUMBER = '"string"', '"bool"', '"number"'
RULESETS = json.dumps(
    [
        "list",
        [
            "object",
            {
                "default_action": "string",
                "public_network_access_enabled": "bool",
                "trusted_service_access_enabled": "bool",
                "virtual_network_rule": [
                    "set",
                    ["object", {"subnet_id": "string", "ignore_missing_virtual_network_service_endpoint": "bool"}],
                ],
                "ip_rule": ["list", ["object", {"ip_mask": "string", "action": "string"}]],
            },
        ],
    ]
)
STRINGS, MAP = '["list","string"]', '["map","string"]'

# An attribute is (type, how): required, optional, computed, or both of the last two. A block is
# (attributes, most): how many of it there may be.
R, O, C, OC = "required", "optional", "computed", "optional computed"


def _attributes(**groups):
    """required="a b", … with every attribute a string, unless it is given by itself."""
    found = {}
    for how, names in groups.items():
        for name in names.split():
            found[name] = (STRING, how.replace("_", " "))
    return found


CONDITION = ({**_attributes(required="title expression", optional="description")}, 1)


def _iam(target):
    return {
        **_attributes(required=f"{target} role member", optional="project", optional_computed="id", computed="etag")
    }


AWS = {
    "provider": {**_attributes(optional="region"), "assume_role": (_attributes(optional="role_arn external_id"), 1)},
    "data": {
        "aws_partition": _attributes(computed="id partition dns_suffix"),
        "aws_region": _attributes(optional_computed="id name", computed="description"),
        "aws_caller_identity": _attributes(computed="id account_id arn user_id"),
        "aws_iam_openid_connect_provider": _attributes(optional_computed="url arn", computed="id"),
        "aws_eks_cluster": {
            **_attributes(required="name", computed="id arn endpoint"),
            "identity": ('["list",["object",{"oidc":["list",["object",{"issuer":"string"}]]}]]', C),
        },
    },
    "resources": {
        "aws_iam_openid_connect_provider": {
            **_attributes(required="url", optional_computed="id", computed="arn"),
            "client_id_list": ('["set","string"]', R),
            "tags": (MAP, O),
        },
        "aws_iam_role": {
            **_attributes(
                required="assume_role_policy",
                optional="path description permissions_boundary",
                optional_computed="id name",
                computed="arn unique_id",
            ),
            "tags": (MAP, O),
        },
        "aws_iam_role_policy": _attributes(required="role policy", optional_computed="id name"),
        "aws_eks_pod_identity_association": {
            **_attributes(
                required="cluster_name namespace service_account role_arn",
                optional_computed="id",
                computed="association_arn association_id",
            ),
            "tags": (MAP, O),
        },
        "aws_kinesis_stream": {
            **_attributes(required="name", optional="encryption_type kms_key_id", optional_computed="id arn"),
            "shard_count": (NUMBER, O),
            "retention_period": (NUMBER, O),
            "stream_mode_details": (_attributes(required="stream_mode"), 1),
            "tags": (MAP, O),
        },
        "aws_cloudwatch_log_subscription_filter": _attributes(
            required="name log_group_name filter_pattern destination_arn",
            optional="distribution",
            optional_computed="id role_arn",
        ),
        "aws_cloudwatch_log_destination": {
            **_attributes(required="name role_arn target_arn", optional_computed="id", computed="arn"),
            "tags": (MAP, O),
        },
        "aws_cloudwatch_log_destination_policy": _attributes(
            required="destination_name access_policy", optional_computed="id"
        ),
    },
}

GOOGLE = {
    "provider": {**_attributes(optional="project region")},
    "data": {"google_project": {**_attributes(optional_computed="id project_id", computed="number name")}},
    "resources": {
        "google_service_account": {
            **_attributes(
                required="account_id",
                optional="display_name description",
                optional_computed="id project",
                computed="email name unique_id member",
            )
        },
        "google_service_account_iam_member": _iam("service_account_id") | {"project": None},
        "google_project_iam_member": {
            **_attributes(required="project role member", optional_computed="id", computed="etag"),
            "condition": CONDITION,
        },
        "google_folder_iam_member": _iam("folder") | {"project": None, "condition": CONDITION},
        "google_organization_iam_member": _iam("org_id") | {"project": None, "condition": CONDITION},
        "google_logging_log_view": _attributes(
            required="name bucket",
            optional="description filter",
            optional_computed="id location parent",
            computed="create_time update_time",
        ),
        "google_pubsub_topic_iam_member": _iam("topic"),
        "google_pubsub_subscription_iam_member": _iam("subscription"),
        "google_pubsub_topic": {
            **_attributes(required="name", optional_computed="id project", optional="message_retention_duration"),
            "labels": (MAP, O),
        },
        "google_logging_project_sink": {
            **_attributes(
                required="name destination",
                optional="filter description",
                optional_computed="id project",
                computed="writer_identity",
            ),
            "unique_writer_identity": (BOOL, O),
            "disabled": (BOOL, O),
        },
        "google_pubsub_subscription": {
            **_attributes(
                required="name topic", optional="message_retention_duration filter", optional_computed="id project"
            ),
            "ack_deadline_seconds": (NUMBER, OC),
            "labels": (MAP, O),
            "expiration_policy": ({"ttl": (STRING, R)}, 1),
            "retry_policy": (_attributes(optional_computed="minimum_backoff maximum_backoff"), 1),
            "dead_letter_policy": (
                {"dead_letter_topic": (STRING, O), "max_delivery_attempts": (NUMBER, O)},
                1,
            ),
        },
    },
}

AZURE = {
    "provider": {**_attributes(optional="subscription_id"), "features": ({}, 1)},
    "data": {
        "azurerm_kubernetes_cluster": _attributes(
            required="name resource_group_name", optional_computed="id", computed="location oidc_issuer_url"
        )
    },
    "resources": {
        "azurerm_eventhub_namespace": {
            **_attributes(
                required="name resource_group_name location sku", optional="minimum_tls_version", optional_computed="id"
            ),
            "capacity": (NUMBER, O),
            "auto_inflate_enabled": (BOOL, O),
            "maximum_throughput_units": (NUMBER, OC),
            "local_authentication_enabled": (BOOL, O),
            "public_network_access_enabled": (BOOL, O),
            # A block that is written as an attribute.
            "network_rulesets": (RULESETS, OC),
            "tags": (MAP, O),
        },
        "azurerm_private_endpoint": {
            **_attributes(required="name resource_group_name location subnet_id", optional_computed="id"),
            "tags": (MAP, O),
            "private_service_connection": (
                {
                    **_attributes(required="name", optional="private_connection_resource_id"),
                    "is_manual_connection": (BOOL, R),
                    "subresource_names": (STRINGS, O),
                },
                1,
            ),
            "private_dns_zone_group": (
                {**_attributes(required="name", computed="id"), "private_dns_zone_ids": (STRINGS, R)},
                1,
            ),
        },
        "azurerm_eventhub": {
            **_attributes(required="name", optional="namespace_id status", optional_computed="id"),
            "partition_count": (NUMBER, R),
            "message_retention": (NUMBER, O),
        },
        "azurerm_eventhub_consumer_group": _attributes(
            required="name namespace_name eventhub_name resource_group_name",
            optional="user_metadata",
            optional_computed="id",
        ),
        "azurerm_eventhub_namespace_authorization_rule": {
            **_attributes(
                required="name namespace_name resource_group_name",
                optional_computed="id",
                computed="primary_key primary_connection_string",
            ),
            "listen": (BOOL, O),
            "send": (BOOL, O),
            "manage": (BOOL, O),
        },
        "azurerm_monitor_diagnostic_setting": {
            **_attributes(
                required="name target_resource_id",
                optional="eventhub_name eventhub_authorization_rule_id log_analytics_workspace_id storage_account_id",
                optional_computed="id",
            ),
            "enabled_log": ({"category": (STRING, O), "category_group": (STRING, O)}, 0),
        },
        "azurerm_user_assigned_identity": {
            **_attributes(
                required="name resource_group_name location",
                optional_computed="id",
                computed="client_id principal_id tenant_id",
            ),
            "tags": (MAP, O),
        },
        "azurerm_federated_identity_credential": {
            **_attributes(required="name resource_group_name parent_id issuer subject", optional_computed="id"),
            "audience": (STRINGS, R),
        },
        "azurerm_role_assignment": _attributes(
            required="scope principal_id",
            optional="description condition",
            optional_computed="id name role_definition_id role_definition_name principal_type",
        ),
    },
}
PROVIDERS = {"eks": ("hashicorp/aws", AWS), "gke": ("hashicorp/google", GOOGLE), "aks": ("hashicorp/azurerm", AZURE)}


# The few messages of Terraform's plugin protocol 6 that are needed, encoded by hand: tag, then value.
def _varint(number):
    out = b""
    while number > 0x7F:
        out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
    return out + bytes([number])


def _field(number, value):
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value) if value else b""
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _block(members):
    out = b""
    for name, member in members.items():
        if member is None:
            continue
        what, how = member
        if isinstance(what, dict):
            # Google's blocks are lists of at most one, Azure's enabled_log is a set.
            nesting = 2 if how else 3
            out += _field(3, _field(1, name) + _field(2, _block(what)) + _field(3, nesting) + _field(5, how))
        else:
            flags = [_field(at, int(word in how.split())) for at, word in [(4, R), (5, O), (6, C)]]
            out += _field(2, _field(1, name) + _field(2, what) + b"".join(flags))
    return out


def _schema(members):
    return _field(2, _block(members))


def _entries(number, schemas):
    return b"".join(_field(number, _field(1, name) + _field(2, _schema(members))) for name, members in schemas.items())


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, schema):
        self.answers = {
            "GetProviderSchema": _field(1, _schema(schema["provider"]))
            + _entries(2, schema["resources"])
            + _entries(3, schema["data"]),
        }
        # Empty answers: no diagnostics, so all is valid.
        empty = ["ValidateProviderConfig", "ValidateResourceConfig", "ValidateDataResourceConfig", "StopProvider"]
        self.answers |= dict.fromkeys(empty, b"")

    def service(self, details):
        answer = self.answers.get(details.method.rpartition("/")[2])
        if answer is None:
            return None
        return grpc.unary_unary_rpc_method_handler(lambda *_: answer)


@contextlib.contextmanager
def stand_in(bridge):
    """Serves a provider; gives the environment with which Terraform finds it."""
    source, schema = PROVIDERS[bridge]
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[_Handler(schema)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    address = {"Network": "tcp", "String": f"127.0.0.1:{port}"}
    config = {"Protocol": "grpc", "ProtocolVersion": 6, "Pid": os.getpid(), "Test": True, "Addr": address}
    try:
        yield {"TF_REATTACH_PROVIDERS": json.dumps({source: config})}
    finally:
        server.stop(0).wait()
