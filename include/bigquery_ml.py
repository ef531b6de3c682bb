"""A model of BigQuery ML, for teams that have SQL alone: learned, measured and asked by statements of GoogleSQL.

The features, labels, rules and days are those of the model's folder, so what is learned from is what the DAGs learn from.
What the DAGs give besides, such as gates, reports and drift, it does not have. The statements are compiled, and checked by
Google's analyser; none of them was run: BigQuery ML cannot be had on this machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from include import queries
from include.config import ModelConfig
from include.queries import Query

DATASET = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]\.[A-Za-z_][A-Za-z0-9_]{0,200}")  # project.dataset
KINDS = {"classification": "BOOSTED_TREE_CLASSIFIER", "regression": "BOOSTED_TREE_REGRESSOR"}


@dataclass(frozen=True)
class Statements:
    """create: learns from the window but its holdout. evaluate: measures on the holdout. predict: scores a partition."""

    create: str
    evaluate: str
    predict: str


def statements(model: ModelConfig, dataset: str, as_of: date, partition: date) -> Statements:
    """
    Args:
        dataset: project.dataset, where the source tables are and the model will be.
        as_of: the day to learn as of; labels are known to `labels.delay_days` before it.
        partition: the day to predict.

    Raises:
        ValueError: if the dataset cannot be one.
        InvalidQuery: if the model's SQL is not usable.
    """
    if not DATASET.fullmatch(dataset):
        raise ValueError(f"{dataset!r} cannot be a dataset of BigQuery: give project.dataset")
    tables = {name: f"`{dataset}.{name}`" for name in queries.table_names(model)}
    first, last = model.window(as_of)
    held_out = last - timedelta(days=model.training.holdout_days - 1)
    if first >= held_out:
        raise ValueError(f"{model.name}: as of {as_of} there is no day to learn from before the holdout, which begins {held_out}")
    learned = _between(queries.training_set(model, "bigquery", tables), first, held_out - timedelta(days=1))
    measured = _between(queries.training_set(model, "bigquery", tables), held_out, last)
    offered = _between(queries.accepted_features(model, "bigquery", tables), partition, partition)
    target = f"`{dataset}.{model.name}_bigquery_ml`"
    told = ",\n  ".join(f"{name} = {value}" for name, value in _options(model).items())
    return Statements(
        create=f"CREATE OR REPLACE MODEL {target}\nOPTIONS (\n  {told}\n) AS\n{_without_key(model, learned)}",
        evaluate=f"SELECT *\nFROM ML.EVALUATE(MODEL {target}, (\n{_without_key(model, measured)}\n))",
        predict=_prediction(model, target, offered),
    )


def _options(model: ModelConfig) -> Mapping[str, str]:
    """Near to what `core.training` begins with; the days that are held out are not for BigQuery to choose."""
    return {
        "model_type": f"'{KINDS[model.task]}'",
        "input_label_cols": "['label']",
        "data_split_method": "'NO_SPLIT'",
        "early_stop": "FALSE",
        "max_iterations": str(min(model.training.max_trees, 200)),
        "learn_rate": "0.1",
        "max_tree_depth": "6",
        "subsample": "0.8",
        "tree_method": "'HIST'",
        "model_registry": "'VERTEX_AI'",
        "vertex_ai_model_id": f"'{model.name.replace('_', '-')}-bigquery-ml'",
    }


def _prediction(model: ModelConfig, target: str, offered: str) -> str:
    """Key, day, score and decision, as the DAGs publish them."""
    key = model.source.key
    if model.task == "regression":
        score = "predicted_label"
        decision = f"predicted_label >= {model.prediction.decision_threshold!r}"
    else:
        score = "(SELECT prob FROM UNNEST(predicted_label_probs) WHERE label = 1)"
        decision = f"{score} >= {model.prediction.decision_threshold!r}"
    return (
        f"SELECT `{key}`, partition_date, {score} AS score, {decision} AS decision\n"
        f"FROM ML.PREDICT(MODEL {target}, (\n{offered}\n))"
    )


def _without_key(model: ModelConfig, select: str) -> str:
    return f"SELECT * EXCEPT (`{model.source.key}`, partition_date)\nFROM (\n{select}\n)"


def _between(query: Query, first: date, last: date) -> str:
    """With its days written out: a statement that makes a model takes no parameters."""
    days = {"first_partition": first, "last_partition": last}
    return re.sub(r"@(first_partition|last_partition)\b", lambda found: f"DATE '{days[found[1]]}'", query.sql)
