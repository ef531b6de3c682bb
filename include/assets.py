"""Every asset of a model, in one place: the asset graph of the UI is the architecture diagram.

Assets have names, no URIs: the first URI makes Airflow load the handlers of every provider, more than a second at
each parse. Where the data is stands in the `extra` of every event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import Asset

if TYPE_CHECKING:
    from airflow.sdk import AssetWatcher

    from include.config import ModelConfig

GROUP = "aileron"


def landed(model: ModelConfig, watchers: list[AssetWatcher]) -> Asset:
    """Something has arrived in the source of the model. A wake-up only: what arrived is looked up, never believed."""
    return Asset(name=f"{model.name}.landed", group=GROUP, watchers=watchers)


def predictions(model: ModelConfig) -> Asset:
    """The published predictions, partitioned by day."""
    return Asset(name=f"{model.name}.predictions", group=GROUP)


def champion(model: ModelConfig) -> Asset:
    """The version that scores; an event is a promotion."""
    return Asset(name=f"{model.name}.champion", group=GROUP)
