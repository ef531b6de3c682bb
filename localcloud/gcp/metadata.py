"""The metadata server, by which Google's libraries find their credentials on Composer: nobody needs a key."""

from __future__ import annotations

import json
from dataclasses import dataclass

ROOT = "/computeMetadata/v1/"
FLAVOR = ("Metadata-Flavor", "Google")
# What clients of the local cloud show, which opens nothing anywhere else.
TOKEN = "localcloud"  # noqa: S105
SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]


@dataclass(frozen=True)
class Metadata:
    project: str
    region: str

    @property
    def account(self) -> str:
        return f"composer@{self.project}.iam.gserviceaccount.com"

    def answer(self, path: str, flavor: str | None) -> tuple[int, str, bytes]:
        """Status, type and body. Refuses who does not say that it means to ask: a page in a browser cannot."""
        if flavor != FLAVOR[1]:
            return 403, "text/plain", b"Missing Metadata-Flavor:Google header."
        found = {"/": "computeMetadata/", ROOT: "", **self._values()}.get(path)
        if found is None:
            return 404, "text/plain", f"the metadata server of the local cloud has no {path}".encode()
        if isinstance(found, str):
            return 200, "application/text", found.encode()
        return 200, "application/json", json.dumps(found).encode()

    def _values(self) -> dict[str, str | dict[str, object]]:
        values: dict[str, str | dict[str, object]] = {
            f"{ROOT}project/project-id": self.project,
            f"{ROOT}project/numeric-project-id": "1",
            f"{ROOT}universe/universe-domain": "googleapis.com",
            f"{ROOT}instance/zone": f"projects/1/zones/{self.region}-a",
        }
        for name in ("default", self.account):
            root = f"{ROOT}instance/service-accounts/{name}/"
            values |= {
                root: {"aliases": ["default"], "email": self.account, "scopes": SCOPES},
                f"{root}email": self.account,
                f"{root}scopes": "\n".join(SCOPES),
                f"{root}token": {"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"},
            }
        return values
