"""Real credentials and the local cloud do not go together: a client that misses it would call the real one, and pay."""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from pathlib import Path

# What clients of the local cloud sign with: these, and nothing that looks real.
DUMMIES = {
    "AWS_ACCESS_KEY_ID": ("test", "testing", "local", "localcloud", "dummy", "x"),
    "AWS_SECRET_ACCESS_KEY": ("test", "testing", "local", "localcloud", "dummy", "x"),
}
SOURCES = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_SSO_SESSION",
    "AWS_BEARER_TOKEN_BEDROCK",
)
# Of Google's, what names credentials, and the files of the gcloud command that have some.
GOOGLE_SOURCES = (
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_API_KEY",
    "GOOGLE_API_CERTIFICATE_CONFIG",
    "GOOGLE_OAUTH_ACCESS_TOKEN",
)
GOOGLE_PREFIX = "CLOUDSDK_AUTH_"
GCLOUD_FILES = ("application_default_credentials.json", "credentials.db", "access_tokens.db")
FILES = {"AWS_SHARED_CREDENTIALS_FILE": ".aws/credentials", "AWS_CONFIG_FILE": ".aws/config"}


def in_sight(environment: Mapping[str, str], home: Path) -> list[str]:
    """Names of what could be real credentials, never their values."""
    found = [name for name, dummies in DUMMIES.items() if environment.get(name) and environment[name] not in dummies]
    found += [name for name in SOURCES if environment.get(name)]
    for name, usual in FILES.items():
        path = Path(environment[name]).expanduser() if environment.get(name) else home / usual
        found += _in_file(path)
    return found


def google_in_sight(environment: Mapping[str, str], home: Path) -> list[str]:
    """The same of Google's."""
    found = [name for name, value in environment.items() if value and (name in GOOGLE_SOURCES or name.startswith(GOOGLE_PREFIX))]
    named = environment.get("CLOUDSDK_CONFIG")
    if named == "":  # then Google's libraries look nowhere
        return sorted(found)
    folder = Path(named).expanduser() if named else home / ".config" / "gcloud"
    return sorted(found) + [str(path) for path in (folder / name for name in GCLOUD_FILES) if path.is_file()]


def _in_file(path: Path) -> list[str]:
    if not path.is_file():
        return []
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(path.read_text())
    except (configparser.Error, OSError, UnicodeDecodeError):
        return [f"{path} (which cannot be read)"]
    # A region or an output format alone is no way to sign in.
    harmless = {"region", "output", "cli_pager", "retry_mode", "max_attempts"}
    return [f"{path} [{name}]" for name in parser.sections() if set(parser[name]) - harmless]
