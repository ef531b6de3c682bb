"""Score features inside Dataflow: Beam's way to do what `include/jobs/score.py` does, in Arrow batches.

`python -m include.jobs.beam_score --features gs://.../*.parquet --artifact gs://.../model.tar.gz --manifest_sha256 ... --key ...
--output gs://.../part --runner=DataflowRunner ...`; what is not its own is an option of Beam. Writes key, partition_date, score
and unseen: the features of a row whose category training did not see, with commas between them. The last line on its output
is {"rows": ...}.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from include.core.artifacts import Artifact, check_golden, load_artifact, read_manifest, unpack
from include.core.features import FeatureSpec, check_columns, unseen_categories
from include.core.scoring import check_rows, score
from include.jobs import pipelines
from include.jobs.runs import ARCHIVE

if TYPE_CHECKING:
    import apache_beam as beam

BATCH_ROWS = 122880


def main(arguments: Sequence[str]) -> int:
    return pipelines.main(arguments, parser(), run)


def run(given: argparse.Namespace, options: list[str]) -> None:
    """Write the scores of all features that match, or nothing. Features and model are looked at before a worker is paid for.

    Raises:
        Refused: if the model is not what was registered, or a row cannot be scored.
    """
    with tempfile.TemporaryDirectory(prefix="model-") as place:
        manifest = read_manifest(unpacked(given.artifact, Path(place)), given.manifest_sha256)
    spec = FeatureSpec.from_json(manifest["features"])
    first = pipelines.first_rows(given.features)
    check_rows(first, given.key)
    check_columns(first, spec.numeric, spec.categorical)
    schema = pa.schema({
        given.key: first.schema.field(given.key).type,
        "partition_date": pa.date32(),
        "score": pa.float64(),
        "unseen": pa.string(),
    })
    pipelines.make_room(given.output)
    counted = pipelines.run(options, lambda pipeline: build(pipeline, given, spec, schema))
    if counted:
        facts = {"rows": counted.get("rows", 0)}
        logging.getLogger(__name__).info("scored %d rows", facts["rows"])
        print(json.dumps(facts), flush=True)


def build(pipeline: beam.Pipeline, given: argparse.Namespace, spec: FeatureSpec, schema: pa.Schema) -> None:
    import apache_beam as beam
    from apache_beam.metrics import Metrics
    from apache_beam.utils.shared import Shared

    class Scoring(beam.DoFn):
        """Scores with a model that is loaded, and verified, once for all threads of a process."""

        def __init__(self, artifact: str, manifest_sha256: str, key: str) -> None:
            self.address, self.manifest_sha256, self.key = artifact, manifest_sha256, key
            self.shared = Shared()

        def setup(self) -> None:
            self.artifact: Artifact = self.shared.acquire(lambda: loaded(self.address, self.manifest_sha256))

        def process(self, table: pa.Table) -> Iterator[pa.Table]:
            for batch in table.to_batches(max_chunksize=BATCH_ROWS):
                made = scored(batch, self.artifact, self.key, schema)
                Metrics.counter(pipelines.COUNTED, "rows").inc(made.num_rows)
                yield made

    _ = (
        pipeline
        | "Read" >> beam.io.ReadFromParquetBatched(given.features, columns=[given.key, "partition_date", *spec.names])
        | "Score" >> beam.ParDo(Scoring(given.artifact, given.manifest_sha256, given.key))
        | "Write" >> beam.io.WriteToParquetBatched(given.output, schema, codec="zstd", file_name_suffix=".parquet")
    )


def scored(batch: pa.RecordBatch, artifact: Artifact, key: str, schema: pa.Schema) -> pa.Table:
    """The scores of a batch, rows in its order, and what training did not see of each."""
    found, _ = score(batch, artifact, key)
    # A text, for a list of Parquet becomes another type in each warehouse; names of features have no comma.
    unseen = pa.array([",".join(names) for names in unseen_categories(batch, artifact.spec)], pa.string())
    return pa.table([*found.columns, unseen], names=[*found.schema.names, "unseen"]).cast(schema)


def loaded(address: str, manifest_sha256: str) -> Artifact:
    """A model to score with, which is what was registered, and scores its golden rows as it did.

    Raises:
        CorruptArtifact: if it is another.
    """
    with tempfile.TemporaryDirectory(prefix="model-") as place:
        artifact = load_artifact(unpacked(address, Path(place)), manifest_sha256)
    # Beam works on as many batches as there are cores: XGBoost's own threads would only stand in each other's way.
    artifact.booster.set_param({"nthread": 1})
    check_golden(artifact)
    return artifact


def unpacked(address: str, place: Path) -> Path:
    """The files of a packed model, from wherever Beam reads.

    Raises:
        UnusableInput: if there is none.
    """
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems

    if not FileSystems.exists(address):
        raise pipelines.UnusableInput(f"{address}: is not there: give the model.tar.gz of a version")
    # As it is: by its name, Beam would unzip it on the way.
    stream = FileSystems.open(address, compression_type=CompressionTypes.UNCOMPRESSED)
    with stream, (place / ARCHIVE).open("wb") as file:
        shutil.copyfileobj(stream, file)
    folder = place / "model"
    folder.mkdir()
    return unpack(place / ARCHIVE, folder)


def parser() -> argparse.ArgumentParser:
    """The arguments of the job, which the template of Dataflow has too."""
    made = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("features", "artifact", "manifest_sha256", "key", "output"):
        made.add_argument(f"--{name}", required=True)
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
