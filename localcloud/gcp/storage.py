"""Cloud Storage's JSON API over the objects on disk: what of it our DAGs and their clients ask."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import proto

from localcloud.gcp.service import Answer, Asked, Cloud, Method, Methods, Operations, pages
from localcloud.gcp.stored_objects import Condition, Stored, StoredObjects, digests, missing
from localcloud.honoured import honoured
from localcloud.service import NotHonoured, Refused

ROOT = "https://storage.googleapis.com"
KIND = "application/octet-stream"
RANGE = re.compile(r"bytes=(?:(\d+)-(\d*)|-(\d+))")
BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
SYSTEM = " alt=json|media fields prettyPrint uploadType upload_id"
CONDITIONS = " ifGenerationMatch ifGenerationNotMatch ifMetagenerationMatch ifMetagenerationNotMatch"
# Metadata of an object that are kept with it and given back; what only Google sets is checked or left to it.
KEPT = "contentType contentEncoding contentLanguage contentDisposition cacheControl customTime metadata"

check_bucket_insert = honoured(
    "buckets.insert",
    """name location locationType storageClass labels iamConfiguration.uniformBucketLevelAccess.enabled
    iamConfiguration.publicAccessPrevention iamConfiguration.bucketPolicyOnly.enabled hierarchicalNamespace.enabled=False
    versioning.enabled=False""",
)
check_bucket_insert_params = honoured("buckets.insert", "project projection=noAcl" + SYSTEM)
check_bucket_get = honoured("buckets.get", "bucket projection=noAcl" + SYSTEM)
check_insert = honoured("objects.insert", "name bucket md5Hash crc32c storageClass=STANDARD " + KEPT)
check_copy_body = honoured("the metadata of a copy", "name bucket md5Hash crc32c storageClass=STANDARD kmsKeyName " + KEPT)
check_insert_params = honoured("objects.insert", "bucket name kmsKeyName projection=noAcl" + SYSTEM + CONDITIONS)
check_get = honoured("objects.get", "bucket object generation projection=noAcl" + SYSTEM + CONDITIONS)
check_delete = honoured("objects.delete", "bucket object generation" + SYSTEM + CONDITIONS)
check_list = honoured(
    "objects.list",
    """bucket prefix delimiter includeTrailingDelimiter startOffset endOffset maxResults pageToken versions=False
    projection=noAcl includeFoldersAsPrefixes"""
    + SYSTEM,
)
check_copy = honoured(
    "a copy of an object",
    """sourceBucket sourceObject destinationBucket destinationObject sourceGeneration projection=noAcl rewriteToken
    destinationKmsKeyName
    ifSourceGenerationMatch ifSourceGenerationNotMatch ifSourceMetagenerationMatch ifSourceMetagenerationNotMatch"""
    + SYSTEM
    + CONDITIONS,
)


def operations(cloud: Cloud, objects: StoredObjects) -> Operations:
    service = _Storage(cloud.region, objects)
    return {
        "buckets.insert": service.insert_bucket,
        "buckets.get": service.get_bucket,
        "objects.insert": service.insert,
        "objects.get": service.get,
        "objects.list": service.list,
        "objects.delete": service.delete,
        "objects.copy": service.copy,
        "objects.rewrite": service.rewrite,
    }


def methods(objects: StoredObjects) -> Methods:
    """What gcsfs asks of a bucket first: is it one with folders?"""

    def layout(asked: GetStorageLayoutRequest) -> StorageLayout:
        name = asked.name.removesuffix("/storageLayout").rpartition("/")[2]
        resource = objects.bucket(name)
        kind = "region" if "-" in resource["location"] else "multi-region"
        return StorageLayout(name=asked.name, location=resource["location"], location_type=kind)

    return {"/google.storage.control.v2.StorageControl/GetStorageLayout": Method(GetStorageLayoutRequest, layout)}


class GetStorageLayoutRequest(proto.Message):
    """As in google/storage/control/v2/storage_control.proto, whose library nothing else here needs."""

    name = proto.Field(proto.STRING, number=1)
    prefix = proto.Field(proto.STRING, number=2)
    request_id = proto.Field(proto.STRING, number=3)


class StorageLayout(proto.Message):
    """The same; without the message of folders it says that there are none."""

    name = proto.Field(proto.STRING, number=1)
    location = proto.Field(proto.STRING, number=2)
    location_type = proto.Field(proto.STRING, number=3)


class _Storage:
    def __init__(self, region: str, objects: StoredObjects) -> None:
        self._region, self._objects = region, objects

    def insert_bucket(self, asked: Asked) -> dict[str, Any]:
        check_bucket_insert_params(asked.params)
        check_bucket_insert(asked.body)
        name = asked.body.get("name", "")
        if not BUCKET.fullmatch(name) or "goog" in name:
            raise Refused("invalid", f"Invalid bucket name: '{name}'")
        now = _rfc3339(datetime.now(UTC))
        resource = {
            "kind": "storage#bucket",
            "id": name,
            "selfLink": f"{ROOT}/storage/v1/b/{name}",
            "storageClass": "STANDARD",
            **asked.body,
            "location": asked.body.get("location", "US").upper(),
            "projectNumber": "1",
            "timeCreated": now,
            "updated": now,
            "metageneration": "1",
            "etag": "CAE=",
        }
        self._objects.add_bucket(name, resource)
        return resource

    def get_bucket(self, asked: Asked) -> dict[str, Any]:
        check_bucket_get(asked.params)
        return self._objects.bucket(asked.params["bucket"])

    def insert(self, asked: Asked) -> dict[str, Any]:
        check_insert_params(asked.params)
        check_insert(asked.body)
        bucket, name = asked.params["bucket"], asked.body.get("name", "")
        if "uploadType" not in asked.params:
            raise NotHonoured("objects.insert without content")
        if not name:
            raise Refused("required", "Required object name")
        if asked.body.get("bucket", bucket) != bucket:
            raise Refused("invalid", f"the bucket is {bucket} in the address, and {asked.body['bucket']} in the metadata")
        _check_digests(asked)
        metadata = {key: value for key, value in asked.body.items() if key in KEPT.split()} | _key(asked.params.get("kmsKeyName"))
        return _resource(self._objects.put(bucket, name, asked.content, metadata, _condition(asked.params)))

    def get(self, asked: Asked) -> dict[str, Any] | Answer:
        check_get(asked.params)
        found = self._found(asked.params["bucket"], asked.params["object"], asked.params)
        _condition(asked.params).check(found, reading=True)
        if found is None:
            raise missing(asked.params["bucket"], asked.params["object"])
        if asked.params.get("alt") != "media":
            return _resource(found)
        try:
            content = self._objects.file(found).read_bytes()
        except FileNotFoundError:  # it was replaced or deleted since
            return self.get(asked)
        return _media(found, content, asked.headers.get("range", ""))

    def delete(self, asked: Asked) -> Answer:
        check_delete(asked.params)
        bucket, name = asked.params["bucket"], asked.params["object"]
        if "generation" in asked.params and self._found(bucket, name, asked.params) is None:
            raise missing(bucket, name)
        self._objects.remove(bucket, name, _condition(asked.params))
        return Answer(b"", 204)

    def list(self, asked: Asked) -> dict[str, Any]:
        check_list(asked.params)
        params = asked.params
        self._objects.bucket(params["bucket"])
        prefix, delimiter = params.get("prefix", ""), params.get("delimiter", "")
        begin, end = params.get("startOffset", ""), params.get("endOffset", "")
        found: dict[str, Stored | None] = {}  # None: what stands for all objects that begin so
        for stored in self._objects.listed(params["bucket"], prefix):
            if stored.name < begin or (end and stored.name >= end):
                continue
            head, cut, tail = stored.name[len(prefix) :].partition(delimiter) if delimiter else (stored.name, "", "")
            if cut:
                found[prefix + head + cut] = None
                if tail or not params.get("includeTrailingDelimiter"):
                    continue
                found[stored.name] = stored
            else:
                found[stored.name] = stored
        page, token = pages(sorted(found.items()), min(params.get("maxResults", 1000), 1000), params.get("pageToken"))
        answer: dict[str, Any] = {"kind": "storage#objects"}
        if items := [_resource(stored) for _, stored in page if stored]:
            answer["items"] = items
        if prefixes := [name for name, stored in page if stored is None]:
            answer["prefixes"] = prefixes
        return {**answer, "nextPageToken": token} if token else answer

    def copy(self, asked: Asked) -> dict[str, Any]:
        return _resource(self._copied(asked))

    def rewrite(self, asked: Asked) -> dict[str, Any]:
        made = self._copied(asked)
        size = str(made.size)
        return {
            "kind": "storage#rewriteResponse",
            "totalBytesRewritten": size,
            "objectSize": size,
            "done": True,
            "resource": _resource(made),
        }

    def _copied(self, asked: Asked) -> Stored:
        check_copy(asked.params)
        check_copy_body(asked.body)
        params = asked.params
        bucket, name = params["sourceBucket"], params["sourceObject"]
        found = self._found(bucket, name, {"generation": params.get("sourceGeneration")})
        _condition(params, "ifSource").check(found)
        if found is None:
            self._objects.bucket(bucket)
            raise missing(bucket, name)
        content = self._objects.file(found).read_bytes()
        given = {key: value for key, value in asked.body.items() if key in KEPT.split()}
        # Given metadata take the place of all that the source has, but for its key, which is never that of the copy.
        kept = given or {key: value for key, value in found.metadata.items() if key != "kmsKeyName"}
        kept |= _key(params.get("destinationKmsKeyName"))
        return self._objects.put(params["destinationBucket"], params["destinationObject"], content, kept, _condition(params))

    def _found(self, bucket: str, name: str, params: Mapping[str, Any]) -> Stored | None:
        """The generation that is asked for. Only the newest one is there: buckets keep no others."""
        found = self._objects.find(bucket, name)
        if found is None:
            self._objects.bucket(bucket)
        wanted = params.get("generation")
        return found if found and wanted in (None, found.generation) else None


def _key(name: str | None) -> dict[str, str]:
    """The key that an object is encrypted with, as it is told of: by its version. Nothing is encrypted here."""
    return {"kmsKeyName": f"{name}/cryptoKeyVersions/1"} if name else {}


def _condition(params: Mapping[str, Any], prefix: str = "if") -> Condition:
    names = ("GenerationMatch", "GenerationNotMatch", "MetagenerationMatch", "MetagenerationNotMatch")
    return Condition(*(params.get(prefix + name) for name in names))


def _check_digests(asked: Asked) -> None:
    """Content that came as it was not meant is not kept."""
    md5, crc32c = digests(asked.content)
    given = dict(part.strip().split("=", 1) for part in asked.headers.get("x-goog-hash", "").split(",") if "=" in part)
    for said, true, name in (
        (asked.body.get("md5Hash"), md5, "MD5 hash"),
        (asked.body.get("crc32c"), crc32c, "CRC32C"),
        (given.get("md5"), md5, "MD5 hash"),
        (given.get("crc32c"), crc32c, "CRC32C"),
    ):
        if said is not None and said != true:
            raise Refused("invalid", f'Provided {name} "{said}" doesn\'t match calculated {name} "{true}".')


def _media(found: Stored, content: bytes, wanted: str) -> Answer:
    headers = {
        "Content-Type": found.metadata.get("contentType", KIND),
        "ETag": _etag(found),
        "Accept-Ranges": "bytes",
        "X-Goog-Generation": str(found.generation),
        "X-Goog-Metageneration": str(found.metageneration),
        "X-Goog-Hash": f"crc32c={found.crc32c},md5={found.md5}",
        "X-Goog-Storage-Class": "STANDARD",
        "X-Goog-Stored-Content-Length": str(found.size),
        "X-Goog-Stored-Content-Encoding": found.metadata.get("contentEncoding", "identity"),
    }
    if encoding := found.metadata.get("contentEncoding"):
        headers["Content-Encoding"] = encoding
    match = RANGE.fullmatch(wanted)
    if not match:
        return Answer(content, headers=headers)
    first, last, tail = match.groups()
    begin = int(first) if first is not None else max(0, found.size - int(tail))
    end = min(int(last) + 1, found.size) if last else found.size
    if begin >= end:
        # Clients look here for the size: so they see that an object is empty.
        return Answer(b"Request range not satisfiable", 416, {"Content-Range": f"bytes */{found.size}"})
    headers["Content-Range"] = f"bytes {begin}-{end - 1}/{found.size}"
    return Answer(content[begin:end], 206, headers)


def _resource(stored: Stored) -> dict[str, Any]:
    bucket, name = stored.bucket, quote(stored.name, safe="")
    return {
        "contentType": KIND,
        **stored.metadata,
        "kind": "storage#object",
        "id": f"{bucket}/{stored.name}/{stored.generation}",
        "selfLink": f"{ROOT}/storage/v1/b/{bucket}/o/{name}",
        "mediaLink": f"{ROOT}/download/storage/v1/b/{bucket}/o/{name}?generation={stored.generation}&alt=media",
        "name": stored.name,
        "bucket": bucket,
        "generation": str(stored.generation),
        "metageneration": str(stored.metageneration),
        "storageClass": "STANDARD",
        "size": str(stored.size),
        "md5Hash": stored.md5,
        "crc32c": stored.crc32c,
        "etag": _etag(stored),
        "timeCreated": stored.created,
        "updated": stored.created,
        "timeStorageClassUpdated": stored.created,
    }


def _etag(stored: Stored) -> str:
    return f"{stored.generation}/{stored.metageneration}"


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
