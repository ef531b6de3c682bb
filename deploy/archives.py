"""Files as one file, byte for byte the same whenever and wherever it is made: sorted, of one time, one owner and one mode."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping

Files = Mapping[str, bytes]  # by their paths, as /-separated names

TIME = (2020, 1, 1, 0, 0, 0)
SECONDS = 1_577_836_800  # the same


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def zipped(files: Files) -> bytes:
    """Nothing is compressed: what a compressor gives differs between its versions."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, TIME)
            entry.create_system = 3  # Unix, so that the mode counts
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[name])
    return made.getvalue()


def tarred(files: Files) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = len(files[name]), SECONDS, 0o644
            archive.addfile(entry, io.BytesIO(files[name]))
    return made.getvalue()


def untarred(content: bytes) -> dict[str, bytes]:
    """What `tarred` was given. Nothing is written anywhere, so names can do no harm."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for entry in archive:
            if not entry.isfile() or (file := archive.extractfile(entry)) is None:
                raise ValueError(f"{entry.name} is no file: this archive was not made by a build")
            found[entry.name] = file.read()
    return found
