"""Google Cloud: Cloud Storage, BigQuery, Dataflow and Vertex AI, through the operators of the Google provider. See
`platforms.base.Platform`."""

from __future__ import annotations

from include.platforms.gcp.labelling import await_labels, label_answers, queue_labels
from include.platforms.gcp.models import manifest_of
from include.platforms.gcp.monitoring import evaluate_matured, monitoring_folder, profile, record_figures
from include.platforms.gcp.prediction import (
    await_source,
    build_features,
    dataset,
    declared_rows,
    deliver,
    find_predictions,
    fingerprint,
    landed,
    landing_watchers,
    marker,
    postprocess,
    publish,
    report_page,
    restore,
    score,
)
from include.platforms.gcp.training import (
    evaluate,
    evaluation_folder,
    inspect_training_set,
    labelled_until,
    register,
    shadow_score,
    snapshot_manifest,
    snapshot_training_set,
    train,
    tune,
)

__all__ = [
    "await_labels",
    "await_source",
    "build_features",
    "dataset",
    "declared_rows",
    "deliver",
    "evaluate",
    "evaluate_matured",
    "evaluation_folder",
    "find_predictions",
    "fingerprint",
    "inspect_training_set",
    "label_answers",
    "labelled_until",
    "landed",
    "landing_watchers",
    "manifest_of",
    "marker",
    "monitoring_folder",
    "postprocess",
    "profile",
    "publish",
    "queue_labels",
    "record_figures",
    "register",
    "report_page",
    "restore",
    "score",
    "shadow_score",
    "snapshot_manifest",
    "snapshot_training_set",
    "train",
    "tune",
]
