"""Which platform a model runs on."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from include.config import InvalidModel, ModelConfig, settings

if TYPE_CHECKING:
    from include.platforms.base import Platform

# A cloud's operators are imported only where a model asks for that cloud: they cost seconds of every parse.
MODULES = {"local": "include.platforms.local", "aws": "include.platforms.aws.platform", "gcp": "include.platforms.gcp.platform"}


def platform_for(model: ModelConfig) -> Platform:
    """The platform of a model: its own choice, else AILERON_PLATFORM.

    Raises:
        InvalidModel: if there is no such platform.
    """
    name = model.platform or settings().platform
    if name not in MODULES:
        raise InvalidModel(
            f"{model.name}: platform {name!r} is not one of {', '.join(MODULES)}; set AILERON_PLATFORM to one of them"
        )
    return cast("Platform", import_module(MODULES[name]))
