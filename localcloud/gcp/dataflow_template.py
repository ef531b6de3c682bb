"""Flex templates: files in Cloud Storage that say which image runs, and which parameters it takes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localcloud.gcp.service import Cloud
from localcloud.honoured import honoured
from localcloud.service import NotHonoured, Refused

check_spec = honoured(
    "a container spec",
    """
    image sdkInfo defaultEnvironment metadata.name metadata.description metadata.streaming=False
    metadata.parameters.name metadata.parameters.label metadata.parameters.helpText metadata.parameters.isOptional
    metadata.parameters.regexes metadata.parameters.paramType metadata.parameters.defaultValue
    """,
)
check_known = honoured(
    "environment of flexTemplates.launch",
    """
    tempLocation stagingLocation machineType numWorkers maxWorkers serviceAccountEmail additionalUserLabels network subnetwork
    ipConfiguration kmsKeyName launcherMachineType workerRegion sdkContainerImage diskSizeGb
    """,
)


@dataclass(frozen=True)
class Template:
    image: str
    parameters: Mapping[str, Mapping[str, Any]] | None  # by name; none: anything goes
    environment: Mapping[str, Any]

    def check(self, given: Mapping[str, str]) -> None:
        """Raises Refused, naming all that is missing, unknown, or not as it must be."""
        if self.parameters is None:
            return
        wrong = [
            f"Missing required parameter: {name}"
            for name, known in self.parameters.items()
            if not known.get("isOptional") and name not in given
        ]
        wrong += [f"Unrecognized parameter: {name}" for name in given if name not in self.parameters]
        wrong += [
            f"Parameter {name} does not match {pattern}: {given[name]!r}"
            for name, known in self.parameters.items()
            for pattern in known.get("regexes", ())
            if name in given and not re.fullmatch(pattern, given[name])
        ]
        if wrong:
            raise Refused("badRequest", f"The template parameters are invalid. Details: {'; '.join(wrong)}", 400)


def template(cloud: Cloud, uri: str) -> Template:
    """Raises Refused if there is none, or its image is not there."""
    try:
        spec = json.loads(cloud.objects.read(uri))
    except FileNotFoundError:
        raise Refused("notFound", f"Unable to open template file: {uri}.", 404) from None
    except ValueError as error:
        raise Refused("badRequest", f"The template file {uri} is not JSON: {error}", 400) from None
    check_spec(spec)
    if spec.get("image") not in cloud.images:
        raise Refused("badRequest", f"The image {spec.get('image')} of {uri} is not found: it is not in images.json.", 400)
    listed = spec.get("metadata", {}).get("parameters")
    parameters = None if listed is None else {each["name"]: each for each in listed}
    return Template(spec["image"], parameters, spec.get("defaultEnvironment", {}))


def check_environment(settings: Mapping[str, Any], image: str, region: str) -> None:
    """Raises NotHonoured, naming what of a launch's environment has no meaning here."""
    check_known(settings)
    if settings.get("workerRegion", region) != region:
        raise NotHonoured(f"workerRegion {settings['workerRegion']}: this local cloud is {region}")
    if settings.get("sdkContainerImage", image) != image:
        raise NotHonoured(f"sdkContainerImage {settings['sdkContainerImage']}, another than the template's: one image does both")
    for name in ("tempLocation", "stagingLocation"):
        if name in settings and not settings[name].startswith("gs://"):
            raise Refused("badRequest", f"{name} {settings[name]!r} must begin with gs://.", 400)
