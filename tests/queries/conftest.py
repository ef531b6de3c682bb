"""A small model that tests write, and the demo's tables in DuckDB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from include.config import ModelConfig, load_model
from include.platforms import local_engine as engine

FEATURES = """
SELECT orders.order_id, orders.partition_date, orders.amount, shops.city
FROM {{ table("orders") }}
LEFT JOIN {{ table("shops") }} ON shops.shop = orders.shop
WHERE orders.partition_date BETWEEN :first_partition AND :last_partition
"""
LABELS = """
SELECT order_id, partition_date, CASE WHEN returned THEN 1 ELSE 0 END AS label
FROM {{ table("returns") }}
WHERE partition_date BETWEEN :first_partition AND :last_partition
"""
MODEL: dict[str, Any] = {
    "name": "orders_back",
    "title": "Returned orders",
    "description": "Will an order come back?",
    "owner": {"team": "shop", "emails": ["shop@example.com"]},
    "start": "2020-01-01",
    "source": {
        "table": "orders",
        "key": "order_id",
        "columns": {"order_id": "integer", "amount": "number", "shop": "string", "paid": "boolean"},
        "lookups": ["shops"],
    },
    "labels": {"table": "returns", "delay_days": 30},
    "features": {"numeric": ["amount"], "categorical": ["city"]},
}

Author = Callable[..., ModelConfig]


@pytest.fixture
def author(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Author:
    """Writes the model's folder: the usual files, with those given in their place; rules and lookups go to model.yaml."""
    monkeypatch.setenv("AILERON_MODELS", str(tmp_path))

    def write(
        files: dict[str, str] | None = None, rules: dict[str, str] | None = None, lookups: list[str] | None = None
    ) -> ModelConfig:
        source = {**MODEL["source"], "row_rules": rules or {}, "lookups": lookups or ["shops"]}
        folder = tmp_path / MODEL["name"]
        folder.mkdir()
        (folder / "model.yaml").write_text(yaml.safe_dump({**MODEL, "source": source}))
        for name, text in {"features.sql": FEATURES, "labels.sql": LABELS, **(files or {})}.items():
            (folder / name).write_text(text)
        return load_model(MODEL["name"])

    return write


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with engine.connected() as connection:  # as the product sets it up
        yield connection
