"""A stand-in for the Google provider: it knows the schema, and makes and changes nothing. Terraform starts it.

A plan of it says what the real one would be asked. What only Google knows is unknown; what a data source reads is its own name.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import threading
from concurrent import futures
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import msgpack
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

HERE = Path(__file__).resolve().parent
SCHEMAS = "AILERON_PROVIDER_SCHEMAS"  # a file
UNKNOWN = msgpack.ExtType(0, b"\0")
EXAMPLES = {"string": lambda name: name, "number": lambda _: 1, "bool": lambda _: True}

sys.path.insert(0, str(HERE))
messages, services = grpc.protos_and_services("plugin.proto")


class Provider(services.ProviderServicer):  # type: ignore[name-defined]
    """Answers Terraform. `stopped` is set when it has no more questions."""

    def __init__(self, schemas: dict[str, Any]) -> None:
        self.schemas = schemas

    def GetSchema(self, request: Any, context: Any) -> Any:
        resources = {name: one for name, one in self.schemas.items() if name.startswith("google_")}
        data = {name.removeprefix("data."): one for name, one in self.schemas.items() if name.startswith("data.")}
        return messages.Schemas(
            provider=_schema(self.schemas["provider"]),
            resource_schemas={name: _schema(one) for name, one in resources.items()},
            data_source_schemas={name: _schema(one) for name, one in data.items()},
        )

    def PrepareProviderConfig(self, request: Any, context: Any) -> Any:
        return messages.Prepared(prepared_config=request.config)

    def ValidateResourceTypeConfig(self, request: Any, context: Any) -> Any:
        return messages.Checked()

    def ValidateDataSourceConfig(self, request: Any, context: Any) -> Any:
        return messages.Checked()

    def Configure(self, request: Any, context: Any) -> Any:
        return messages.Checked()

    def PlanResourceChange(self, request: Any, context: Any) -> Any:
        wanted = _read(request.proposed_new_state)
        if wanted is not None:
            for name, one in self.schemas[request.type_name]["attributes"].items():
                if one["computed"] and wanted.get(name) is None:
                    wanted[name] = UNKNOWN
        return messages.Planned(planned_state=_written(wanted), legacy_type_system=True)

    def ReadDataSource(self, request: Any, context: Any) -> Any:
        found = _read(request.config)
        for name, one in self.schemas[f"data.{request.type_name}"]["attributes"].items():
            if found.get(name) is None and (example := EXAMPLES.get(str(one["type"]))):
                found[name] = example(name)
        return messages.Read(state=_written(found))

    def Stop(self, request: Any, context: Any) -> Any:
        return messages.Stopped()


def _schema(one: dict[str, Any]) -> Any:
    return messages.Schema(block=_block(one))


def _block(one: dict[str, Any]) -> Any:
    attributes = [
        messages.Schema.Attribute(
            name=name,
            type=json.dumps(each["type"]).encode(),
            required=each["required"],
            optional=not each["required"] and not each.get("only"),
            computed=each["computed"],
        )
        for name, each in one["attributes"].items()
    ]
    blocks = [
        messages.Schema.NestedBlock(
            type_name=name, block=_block(each), nesting=each["nesting"], min_items=int(each["required"] and each["nesting"] != 1)
        )
        for name, each in one["blocks"].items()
    ]
    return messages.Schema.Block(attributes=attributes, block_types=blocks)


def _read(value: Any) -> Any:
    return json.loads(value.json) if value.json else msgpack.unpackb(value.msgpack, strict_map_key=False)


def _written(value: Any) -> Any:
    return messages.DynamicValue(msgpack=msgpack.packb(value))


def certificate() -> tuple[bytes, bytes, bytes]:
    """Of this server, for this run: key and certificate as PEM, and the certificate as DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")]), datetime.now(UTC)
    made = (
        x509
        .CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return secret, made.public_bytes(serialization.Encoding.PEM), made.public_bytes(serialization.Encoding.DER)


def main() -> None:
    schemas = json.loads(Path(os.environ[SCHEMAS]).read_text())
    secret, pem, der = certificate()
    over = threading.Event()

    def shut_down(request: bytes, context: Any) -> bytes:
        over.set()
        return b""

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    services.add_ProviderServicer_to_server(Provider(schemas), server)
    handlers = {"Shutdown": grpc.unary_unary_rpc_method_handler(shut_down)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("plugin.GRPCController", handlers)])
    # Who calls need not prove who it is: there is nothing here to be had.
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(secret, pem)]))
    server.start()
    print(f"1|5|tcp|127.0.0.1:{port}|grpc|{base64.b64encode(der).decode().rstrip('=')}", flush=True)
    over.wait()
    server.stop(grace=1).wait()


if __name__ == "__main__":
    main()
