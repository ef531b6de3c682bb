"""BigQuery Storage: rows of a table in Arrow, read as they were when the session was made."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from google.cloud.bigquery_storage_v1 import types as messages

from localcloud.gcp import bigquery_statements, bigquery_writes
from localcloud.gcp.bigquery import BigQuery, arrow_rows
from localcloud.gcp.bigquery_tables import LOCATION, Name, Store, Table
from localcloud.gcp.service import Cloud, Method, Methods
from localcloud.service import NotHonoured, Refused

SERVICE = "/google.cloud.bigquery.storage.v1.BigQueryRead"
SESSIONS = 50  # that are kept
HOURS = 6
ROWS_OF_BATCH = 4096
ROWS_OF_STREAM = 10_000
COMPRESSIONS = {"COMPRESSION_UNSPECIFIED": None, "LZ4_FRAME": "lz4", "ZSTD": "zstd"}


@dataclass(frozen=True)
class Stream:
    rows: pa.Table
    compression: str | None


@dataclass
class _Reader:
    store: Store
    streams: OrderedDict[str, Stream] = field(default_factory=OrderedDict)

    def create(self, request: Any) -> Any:
        asked, options = request.read_session, request.read_session.read_options
        if asked.data_format != messages.DataFormat.ARROW:
            raise NotHonoured(f"data_format {messages.DataFormat(asked.data_format).name} of read sessions")
        if asked.table_modifiers.snapshot_time or options.sample_percentage or asked.trace_id.startswith("\0"):
            raise NotHonoured("snapshots and samples of read sessions")
        if options.response_compression_codec:
            raise NotHonoured("response_compression_codec of read sessions")
        codec = messages.ArrowSerializationOptions.CompressionCodec(options.arrow_serialization_options.buffer_compression)
        name = _name(asked.table)
        with self.store.reading() as session:
            table = session.table(name)
            if options.row_restriction:
                rows = self._restricted(session, table, options.row_restriction)
            else:
                rows = arrow_rows(session, table, session.condition(table, name.partition))
            size = sum(each.bytes for each in session.partitions(table))
        if options.selected_fields:
            rows = rows.select(_selected(rows, options.selected_fields))
        session_name = f"projects/{name.project}/locations/{LOCATION.lower()}/sessions/{uuid.uuid4().hex}"
        streams = self._keep(session_name, rows, request.max_stream_count, COMPRESSIONS[codec.name])
        return messages.ReadSession(
            name=session_name,
            expire_time=datetime.now(UTC) + timedelta(hours=HOURS),
            data_format=messages.DataFormat.ARROW,
            arrow_schema=messages.ArrowSchema(serialized_schema=rows.schema.serialize().to_pybytes()),
            table=asked.table,
            read_options=options,
            streams=[messages.ReadStream(name=each) for each in streams],
            estimated_row_count=rows.num_rows,
            estimated_total_bytes_scanned=size,
        )

    def _restricted(self, session: Any, table: Table, condition: str) -> pa.Table:
        """The rows that meet a condition of SQL."""
        name = table.name
        query = f"SELECT * FROM `{name.project}.{name.dataset}.{name.table}` WHERE {condition}"
        statement = bigquery_statements.prepared(session, {"query": query})
        answer = Table(Name(name.project, "", "restricted_"), {"schema": {"fields": statement.fields}})
        bigquery_statements.answered(session, statement, "restricted_")
        rows = session.arrow("SELECT * FROM restricted_")
        return rows.cast(_schema(answer))

    def _keep(self, session: str, rows: pa.Table, most: int, compression: str | None) -> list[str]:
        if not rows.num_rows:
            return []
        number = 2 if most != 1 and rows.num_rows > ROWS_OF_STREAM else 1
        cut = -(-rows.num_rows // number)
        names = []
        for place in range(number):
            names.append(f"{session}/streams/{place}")
            self.streams[names[-1]] = Stream(rows.slice(place * cut, cut), compression)
        while len(self.streams) > SESSIONS:
            self.streams.popitem(last=False)
        return names

    def read(self, request: Any) -> Iterator[Any]:
        stream = self.streams.get(request.read_stream)
        if stream is None:
            raise Refused("notFound", f"Not found: stream {request.read_stream}", 404)
        if request.offset > stream.rows.num_rows:
            raise Refused("outOfRange", f"The offset {request.offset} is beyond the rows of the stream", 400)
        schema = messages.ArrowSchema(serialized_schema=stream.rows.schema.serialize().to_pybytes())
        rows = stream.rows.slice(request.offset).combine_chunks()
        for number, batch in enumerate(rows.to_batches(max_chunksize=ROWS_OF_BATCH)):
            yield messages.ReadRowsResponse(
                row_count=batch.num_rows,
                arrow_record_batch=messages.ArrowRecordBatch(
                    serialized_record_batch=_message(batch, stream.compression), row_count=batch.num_rows
                ),
                **({} if number else {"arrow_schema": schema}),
            )


def _schema(table: Table) -> pa.Schema:
    from localcloud.gcp.bigquery_parquet import arrow

    return pa.schema([pa.field(each["name"], arrow(each)) for each in table.fields])


def _selected(rows: pa.Table, wanted: Any) -> list[str]:
    known = {name.lower(): name for name in rows.column_names}
    if strange := [name for name in wanted if name.lower() not in known]:
        raise Refused("invalid", f"The following selected fields do not exist in the table schema: {', '.join(strange)}", 400)
    # In the order of the table, whatever that of the request.
    return [name for name in rows.column_names if name.lower() in {each.lower() for each in wanted}]


def _message(batch: pa.RecordBatch, compression: str | None) -> bytes:
    """A batch without its schema."""
    if compression is None:
        return bytes(batch.serialize().to_pybytes())
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_batch(batch)
    reader = pa.ipc.MessageReader.open_stream(sink.getvalue())
    reader.read_next_message()  # the schema
    return bytes(reader.read_next_message().serialize().to_pybytes())


def _name(path: str) -> Name:
    parts = path.split("/")
    if len(parts) != 6 or parts[::2] != ["projects", "datasets", "tables"]:
        raise Refused("invalid", f"Invalid table name {path}", 400)
    return bigquery_writes.named({"projectId": parts[1], "datasetId": parts[3], "tableId": parts[5]})


def methods(cloud: Cloud) -> Methods:
    assert isinstance(cloud.tables, BigQuery)
    cloud.tables.store.project = cloud.project
    reader = _Reader(cloud.tables.store)
    return {
        f"{SERVICE}/CreateReadSession": Method(messages.CreateReadSessionRequest, reader.create),
        f"{SERVICE}/ReadRows": Method(messages.ReadRowsRequest, reader.read, streams=True),
    }
