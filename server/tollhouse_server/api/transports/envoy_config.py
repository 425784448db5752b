"""Envoy's configuration: one listener, one filter, which is the Python that runs in it."""

import json
import math
from pathlib import Path
from typing import Any, Final

from tollhouse_server.api.transports.peers import PEER_HEADER
from tollhouse_server.settings import Settings

LISTENER: Final = "grpc"
_TYPE: Final = "type.googleapis.com/envoy.extensions"
_KEEPALIVE: Final = {"interval": "30s", "timeout": "20s"}
# Large enough that one stream fills a fast line, small enough that a thousand do not fill the memory.
_STREAM_WINDOW_BYTES: Final = 1024 * 1024
_CONNECTION_WINDOW_BYTES: Final = 16 * 1024 * 1024
# Envoy turns off by itself, without a word of ours, what is larger than its limits; ours are to be met before.
_METADATA_HEADROOM_KIB: Final = 64
_BODY_HEADROOM_BYTES: Final = 1024 * 1024
_MAX_HEADERS: Final = 1000
_MAX_CONNECTIONS: Final = 20_000
# One connection has many callers, who may give up early (a prompt that is still being typed, the slower of two calls).
# Envoy closes it, with all calls on it, once 250 have done so within two seconds and without an answer, or later half
# of all; its codec (nghttp2) takes 1,000 resets at once and 33 a second beyond. Of the two the codec's bound remains,
# at a third of what a worker serves: streams that are reset at once take no place of `max_concurrent_streams`.
_EARLY_HANG_UPS: Final = 2**31
_RESETS_AT_ONCE: Final = 2_000
_RESETS_PER_SECOND: Final = 500
# Of what the program has freed so much is given back each second: by itself Envoy's allocator keeps it for ever.
_GIVEN_BACK_BYTES: Final = 4 * 1024 * 1024
_LOG_FORMAT: Final = '{"level": "%l", "logger": "envoy.%n", "event": "%j"}'


def arguments(config: dict[str, Any]) -> list[str]:
    """Return Envoy's arguments: one thread for the network, since all else is one thread of Python."""
    return [
        *("--config-yaml", json.dumps(config)),
        *("--concurrency", "1"),
        "--disable-hot-restart",
        # It takes no certificate from a file without them.
        *("--service-node", "worker", "--service-cluster", "tollhouse"),
        *("--drain-strategy", "immediate"),
        *("--log-level", "warning", "--log-format", _LOG_FORMAT),
    ]


def configuration(settings: Settings, *, module: Path, app: str, place: Path) -> dict[str, Any]:
    """Return the configuration of an Envoy that serves `app` (module:attribute) with pyvoy's `module`.

    In `place` are its control socket and what it knows of certificates.
    """
    return {
        "admin": {"address": {"pipe": {"path": str(control_socket(place)), "mode": 0o600}}},
        # Nobody reads them: the server's own metrics say more, and each costs time.
        "stats_config": {"stats_matcher": {"reject_all": True}},
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": f"{_TYPE}.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": _MAX_CONNECTIONS,
                    },
                }
            ]
        },
        "memory_allocator_manager": {"bytes_to_release": _GIVEN_BACK_BYTES, "memory_release_interval": "1s"},
        "layered_runtime": {
            "layers": [
                {
                    "name": "tollhouse",
                    "static_layer": {"overload.premature_reset_total_stream_count": _EARLY_HANG_UPS},
                }
            ]
        },
        "static_resources": {"listeners": [_listener(settings, module, app, place)]},
    }


def control_socket(place: Path) -> Path:
    """Return where Envoy takes commands."""
    return place / "control"


def certificates_file(place: Path) -> Path:
    """Return where Envoy reads its certificate from, as a resource of its own kind."""
    return place / "certificate.json"


def authorities_file(place: Path) -> Path:
    """Return where Envoy reads from who vouches for clients."""
    return place / "authorities.json"


def _listener(settings: Settings, module: Path, app: str, place: Path) -> dict[str, Any]:
    chain: dict[str, Any] = {"filters": [_connection_manager(settings, module, app)]}
    listener: dict[str, Any] = {
        "name": LISTENER,
        "address": _address(settings, settings.grpc_port),
        # The workers' listeners are one port; the kernel shares connections out.
        "enable_reuse_port": True,
        "per_connection_buffer_limit_bytes": settings.max_message_bytes + _BODY_HEADROOM_BYTES,
        "filter_chains": [chain],
    }
    if settings.tls_certificate_file is not None:
        chain["transport_socket"] = _tls(settings, place)
    if settings.mtls_port is not None:
        listener["additional_addresses"] = [{"address": _address(settings, settings.mtls_port)}]
        chain["filters"].insert(0, _only_known_clients_at(settings.mtls_port))
    return listener


def _address(settings: Settings, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": settings.bind_address, "port_value": port}}


def _connection_manager(settings: Settings, module: Path, app: str) -> dict[str, Any]:
    kib = math.ceil(settings.max_metadata_bytes / 1024) + _METADATA_HEADROOM_KIB
    asks_clients = settings.tls_client_ca_file is not None
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": LISTENER,
            "codec_type": "HTTP2",
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"]}]},
            "generate_request_id": False,
            # The peer is who the connection is with; whether to believe who he speaks for is ours to decide.
            "use_remote_address": True,
            "skip_xff_append": True,
            "forward_client_cert_details": "SANITIZE_SET" if asks_clients else "SANITIZE",
            "set_current_client_cert_details": {"cert": asks_clients},
            # Calls end at their deadlines; a model may think for minutes without a word.
            "stream_idle_timeout": "0s",
            "max_request_headers_kb": kib,
            "common_http_protocol_options": {"max_headers_count": _MAX_HEADERS},
            "http2_protocol_options": {
                "max_concurrent_streams": settings.max_concurrent_streams,
                "initial_stream_window_size": _STREAM_WINDOW_BYTES,
                "initial_connection_window_size": _CONNECTION_WINDOW_BYTES,
                # New in Envoy 1.39.
                "stream_reset_burst": _RESETS_AT_ONCE,
                "stream_reset_rate": _RESETS_PER_SECOND,
                "connection_keepalive": _KEEPALIVE,
            },
            "http_filters": [_peer_header(), _python(module, app)],
        },
    }


def _peer_header() -> dict[str, Any]:
    """Write the peer's address where a caller cannot: pyvoy cuts an IPv6 address at its first colon."""
    return {
        "name": "envoy.filters.http.header_mutation",
        "typed_config": {
            "@type": f"{_TYPE}.filters.http.header_mutation.v3.HeaderMutation",
            "mutations": {
                "request_mutations": [
                    {
                        "append": {
                            "header": {"key": PEER_HEADER, "value": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%"},
                            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                        }
                    }
                ]
            },
        },
    }


def _python(module: Path, app: str) -> dict[str, Any]:
    return {
        "name": "pyvoy",
        "typed_config": {
            "@type": f"{_TYPE}.filters.http.dynamic_modules.v3.DynamicModuleFilter",
            "dynamic_module_config": {"module": {"local": {"filename": str(module)}}},
            "filter_name": "pyvoy",
            "terminal_filter": True,
            "filter_config": {
                "@type": "type.googleapis.com/google.protobuf.StringValue",
                "value": json.dumps({"app": app, "interface": "asgi", "root_path": "", "lifespan": True}),
            },
        },
    }


def _tls(settings: Settings, place: Path) -> dict[str, Any]:
    context: dict[str, Any] = {
        "alpn_protocols": ["h2"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificate_sds_secret_configs": [_secret("certificate", certificates_file(place))],
    }
    if settings.tls_client_ca_file is not None:
        context["validation_context_sds_secret_config"] = _secret("authorities", authorities_file(place))
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TYPE}.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": settings.tls_client_auth == "required",
            "common_tls_context": context,
        },
    }


def _secret(name: str, file: Path) -> dict[str, Any]:
    source = {"path": str(file), "watched_directory": {"path": str(file.parent)}}
    return {"name": name, "sds_config": {"path_config_source": source, "resource_api_version": "V3"}}


def _only_known_clients_at(port: int) -> dict[str, Any]:
    """Close connections to this port whose client has shown no certificate; one that is not vouched for is refused."""
    vouched_for = {
        "name": "envoy.rbac.principals.mtls_authenticated",
        "typed_config": {
            "@type": f"{_TYPE}.rbac.principals.mtls_authenticated.v3.Config",
            "any_validated_client_certificate": True,
        },
    }
    unknown = {"not_id": {"custom": vouched_for}}
    policy = {"permissions": [{"destination_port": port}], "principals": [unknown]}
    return {
        "name": "envoy.filters.network.rbac",
        "typed_config": {
            "@type": f"{_TYPE}.filters.network.rbac.v3.RBAC",
            "stat_prefix": "mtls",
            "rules": {"action": "DENY", "policies": {"unknown": policy}},
        },
    }
