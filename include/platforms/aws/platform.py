"""AWS: S3, Athena, Glue and SageMaker, through the operators of the Amazon provider. See `platforms.base.Platform`."""

from __future__ import annotations

from include.platforms.aws.labelling import await_labels, label_answers, queue_labels
from include.platforms.aws.models import manifest_of
from include.platforms.aws.monitoring import evaluate_matured, monitoring_folder, profile, record_figures
from include.platforms.aws.prediction import (
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
from include.platforms.aws.training import (
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
