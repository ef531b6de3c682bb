"""Jobs of Glue in the local cloud: scripts on Spark, from S3 and back to it."""

from __future__ import annotations

import io
import json
import shutil
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError

from localcloud import glue_jobs
from localcloud.files import Files
from localcloud.glue_catalog import Catalog
from localcloud.jobs import JobFault, Jobs, coming_fault
from localcloud.service import Cloud, Delays
from tests.localcloud.cloud import ROOT, LocalCloud
from tests.localcloud.queries import BUCKET, keys, put

pytestmark = [
    pytest.mark.localcloud,
    pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java 17"),
]

ROLE = "arn:aws:iam::123456789012:role/jobs"
COMMAND = {"Name": "glueetl", "ScriptLocation": f"s3://{BUCKET}/code/script.py", "PythonVersion": "3"}
SCRIPT = """
import argparse, os, sys
import pyarrow as pa
import rates  # of the zip
from pyspark.sql import SparkSession

parser = argparse.ArgumentParser(allow_abbrev=False)
for name in ("input", "output", "then"):
    parser.add_argument("--" + name, default="")
given, others = parser.parse_known_args()
spark = SparkSession.builder.appName("test").getOrCreate()
print("others", " ".join(others))
print("found", [table.name for table in spark.catalog.listTables()], os.environ.get("LEFT"), spark.conf.get("left", "nothing"))

def dearer(batches):
    import rates

    for batch in batches:
        price = pa.array([value.as_py() * rates.RATE for value in batch.column("price")])
        yield pa.RecordBatch.from_arrays([batch.column("id"), price], names=["id", "price"])

rows = spark.read.json(given.input).select("id", "price").mapInArrow(dearer, "id string, price double")
rows.write.mode("overwrite").parquet(given.output)
rows.createOrReplaceTempView("left_behind")
spark.conf.set("left", "something")
os.environ["LEFT"] = "something"
if given.then == "raise":
    raise ValueError("the price is wrong")
if given.then == "exit":
    sys.exit("ERROR: no rows")
if given.then == "die":
    os.kill(os.getpid(), 9)
if given.then == "hang":
    print("hanging", flush=True)
    import time
    time.sleep(600)
print("rows", spark.read.parquet(given.output).count())
spark.stop()
"""


def zipped(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(f"{name}.py", text)
    return buffer.getvalue()


@pytest.fixture
def glue(cloud: LocalCloud) -> LocalCloud:
    """With rows, a script, modules and a job."""
    cloud.client("s3").create_bucket(Bucket=BUCKET)
    put(cloud, "in/a.json", b'{"id": "a", "price": 1.5}\n{"id": "b", "price": 2.0}\n')
    put(cloud, "code/script.py", SCRIPT.encode())
    put(cloud, "code/2.zip", zipped(rates="RATE = 2.0"))
    put(cloud, "code/3.zip", zipped(rates="RATE = 3.0"))
    defaults = {
        "--input": f"s3://{BUCKET}/in/",
        "--output": f"s3://{BUCKET}/out/",
        "--extra-py-files": f"s3://{BUCKET}/code/2.zip",
    }
    cloud.client("glue").create_job(
        Name="prices",
        Role=ROLE,
        Command=COMMAND,
        DefaultArguments=defaults,
        WorkerType="G.1X",
        NumberOfWorkers=2,
        Tags={"a": "b"},
    )
    return cloud


def started(cloud: LocalCloud, **arguments: str) -> str:
    given = {f"--{name.replace('_', '-')}": value for name, value in arguments.items()}
    run: str = cloud.client("glue").start_job_run(JobName="prices", Arguments=given)["JobRunId"]
    return run


def state(cloud: LocalCloud, run: str) -> dict[str, Any]:
    found: dict[str, Any] = cloud.client("glue").get_job_run(JobName="prices", RunId=run)["JobRun"]
    return found


def ended(cloud: LocalCloud, run: str) -> dict[str, Any]:
    late = time.monotonic() + 120
    while time.monotonic() < late:
        found = state(cloud, run)
        if found["JobRunState"] not in ("STARTING", "RUNNING", "STOPPING"):
            return found
        time.sleep(0.1)
    raise AssertionError(f"the run has not ended: {found}")


def log(cloud: LocalCloud, run: str, kind: str = "output") -> list[str]:
    events = cloud.client("logs").get_log_events(logGroupName=f"/aws-glue/jobs/{kind}", logStreamName=run)["events"]
    return [event["message"] for event in events]


def written(cloud: LocalCloud, prefix: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for key in keys(cloud, prefix):
        if key.endswith(".parquet"):
            body = cloud.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read()
            found += pq.read_table(io.BytesIO(body)).to_pylist()
    return sorted(found, key=lambda row: str(row["id"]) if "id" in row else "")


def test_scripts_run_one_after_the_other_as_if_each_were_alone(glue):
    put(glue, "out/of-yesterday.parquet", b"old")
    first = started(glue)
    found = ended(glue, first)
    assert found["JobRunState"] == "SUCCEEDED", found
    assert first.startswith("jr_") and len(first) == 67
    assert found["MaxCapacity"] == 2.0
    assert found["DPUSeconds"] == 2 * found["ExecutionTime"] > 0
    assert written(glue, "out/") == [{"id": "a", "price": 3.0}, {"id": "b", "price": 4.0}], "and what was overwritten is gone"
    assert "out/_SUCCESS" in keys(glue, "out/")
    assert not [key for key in keys(glue, "") if "_temporary" in key or key.endswith(".crc")]
    said = log(glue, first)
    assert f"--JOB_RUN_ID {first}" in said[0] and "--JOB_NAME prices" in said[0] and "py-files" not in said[0]
    assert said[1:] == ["found [] None nothing", "rows 2"]

    begun = time.monotonic()
    second = started(glue, extra_py_files=f"s3://{BUCKET}/code/3.zip", output=f"s3://{BUCKET}/out3/")
    assert ended(glue, second)["JobRunState"] == "SUCCEEDED"
    assert time.monotonic() - begun < 15, "Spark was warm"
    assert written(glue, "out3/") == [{"id": "a", "price": 4.5}, {"id": "b", "price": 6.0}]
    assert log(glue, second)[1:] == ["found [] None nothing", "rows 2"]


@pytest.mark.parametrize(
    ("then", "message"),
    [
        ("raise", "ValueError: the price is wrong"),
        ("exit", "SystemExit: ERROR: no rows"),
        ("die", "Command failed with signal 9"),
    ],
)
def test_a_script_that_fails_says_why_and_leaves_what_it_wrote(glue, then, message):
    run = started(glue, then=then)
    found = ended(glue, run)
    assert found["JobRunState"] == "FAILED"
    assert found["ErrorMessage"].startswith(message)
    assert len(written(glue, "out/")) == 2
    assert log(glue, run)[-1].startswith("found")
    if then == "raise":
        assert log(glue, run, "error")[-1] == message


def test_a_stopped_run_is_gone_and_the_next_begins_afresh(glue):
    client = glue.client("glue")
    run = started(glue, then="hang")
    late = time.monotonic() + 60
    while "out/_SUCCESS" not in _in_workspaces(glue) and time.monotonic() < late:
        time.sleep(0.2)
    stopped = client.batch_stop_job_run(JobName="prices", JobRunIds=[run, "jr_none"])
    assert [each["JobRunId"] for each in stopped["SuccessfulSubmissions"]] == [run]
    assert [each["ErrorDetail"]["ErrorCode"] for each in stopped["Errors"]] == ["EntityNotFoundException"]
    assert ended(glue, run)["JobRunState"] == "STOPPED"
    assert len(written(glue, "out/")) == 2
    assert "InvalidInputException" in str(client.batch_stop_job_run(JobName="prices", JobRunIds=[run])["Errors"])
    assert ended(glue, started(glue))["JobRunState"] == "SUCCEEDED"


def _in_workspaces(cloud: LocalCloud) -> set[str]:
    """What runs have written and is not in S3 yet."""
    places = (cloud.folder / "state").glob("**/glue/jr_*/s3/*")
    return {path.relative_to(place).as_posix() for place in places for path in place.rglob("*")}


def test_our_own_script_makes_predictions(glue):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as modules:
        for path in [ROOT / "include" / "__init__.py", *(ROOT / "include" / "core").glob("*.py")]:
            modules.write(path, path.relative_to(ROOT))
    put(glue, "code/core.zip", archive.getvalue())
    put(glue, "code/script.py", (ROOT / "include" / "jobs" / "glue_postprocess.py").read_bytes())
    lines = [{"flight_id": "a", "partition_date": "2013-04-01", "score": 0.1 + 0.2, "unseen": []}]
    put(glue, "scores/part.gz.out", "\n".join(map(json.dumps, lines)).encode())
    given = {
        "--scores": f"s3://{BUCKET}/scores/",
        "--output": f"s3://{BUCKET}/predictions/",
        "--key": "flight_id",
        "--key_type": "string",
        "--task": "classification",
        "--threshold": "0.35",
        "--model_version": "3",
        "--run_id": "manual__1",
        "--scored_at": "2013-04-01T00:00:00+00:00",
        "--git_revision": "abc",
        "--extra-py-files": f"s3://{BUCKET}/code/core.zip",
    }
    run = glue.client("glue").start_job_run(JobName="prices", Arguments=given)["JobRunId"]
    found = ended(glue, run)
    assert found["JobRunState"] == "SUCCEEDED", (found, log(glue, run, "error")[-5:])
    assert json.loads(log(glue, run)[-1]) == {"rows": 1, "positive": 0}
    [row] = written(glue, "predictions/")
    assert (row["score"], row["decision"], row["model_version"]) == (0.1 + 0.2, False, "3")


def test_runs_of_a_job_are_counted(glue):
    glue.fault("hang", "glue", "StartJobRun")
    first = started(glue)
    with pytest.raises(ClientError, match="ConcurrentRunsExceededException"):
        started(glue)
    glue.client("glue").batch_stop_job_run(JobName="prices", JobRunIds=[first])
    assert ended(glue, first)["JobRunState"] == "STOPPED"
    glue.fault("fail", "glue", "StartJobRun", reason="Out of capacity")
    second = started(glue)
    assert ended(glue, second)["ErrorMessage"] == "Out of capacity"
    runs = glue.client("glue").get_job_runs(JobName="prices")["JobRuns"]
    assert [each["Id"] for each in runs] == [second, first]
    assert [(job["instance_type"], job["instance_count"], job["tags"]) for job in glue.jobs("glue-run")] == [
        ("G.1X", 2, {"a": "b"})
    ] * 2


def test_a_script_that_is_not_there_fails_the_run(glue):
    glue.client("s3").delete_object(Bucket=BUCKET, Key="code/script.py")
    assert "File not found: s3://lake/code/script.py" in ended(glue, started(glue))["ErrorMessage"]


def test_a_job_is_defined_changed_and_tagged(glue):
    client = glue.client("glue")
    found = client.get_job(JobName="prices")["Job"]
    assert (found["Command"], found["ExecutionProperty"], found["GlueVersion"]) == (COMMAND, {"MaxConcurrentRuns": 1}, "5.0")
    change = {"Role": ROLE, "Command": COMMAND, "MaxCapacity": 3.0, "ExecutionProperty": {"MaxConcurrentRuns": 2}}
    client.update_job(JobName="prices", JobUpdate=change)
    found = client.get_job(JobName="prices")["Job"]
    assert (found["MaxCapacity"], found["DefaultArguments"]) == (3.0, {}), "what is not said again is forgotten"
    arn = "arn:aws:glue:us-east-1:123456789012:job/prices"
    client.tag_resource(ResourceArn=arn, TagsToAdd={"c": "d"})
    client.untag_resource(ResourceArn=arn, TagsToRemove=["a"])
    assert client.get_tags(ResourceArn=arn)["Tags"] == {"c": "d"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"Name": "prices"}, "AlreadyExistsException"),
        ({"WorkerType": "G.1X"}, "InvalidInputException"),
        ({"MaxCapacity": 2.0, "WorkerType": "G.1X", "NumberOfWorkers": 2}, "InvalidInputException"),
        ({"GlueVersion": "3.0"}, "NotImplemented"),
        ({"Command": {**COMMAND, "Name": "pythonshell"}}, "NotImplemented"),
        ({"Connections": {"Connections": ["db"]}}, "NotImplemented"),
        ({"MaxRetries": 1}, "NotImplemented"),
        ({"Timeout": 0}, "ValidationException"),
    ],
)
def test_what_a_job_cannot_be(glue, change, code):
    with pytest.raises(ClientError) as caught:
        glue.client("glue").create_job(**{"Name": "other", "Role": ROLE, "Command": COMMAND, **change})
    assert caught.value.response["Error"]["Code"] == code


@pytest.fixture
def in_process(tmp_path: Path) -> Iterator[Mapping[str, Any]]:
    """The operations themselves, with minutes of a second."""
    delays = Delays(start_seconds=0.0, job_seconds=0.0)
    jobs = Jobs(delays)
    cloud = Cloud("us-east-1", "1", "http://127.0.0.1:1", tmp_path, Files("", "us-east-1", tmp_path), jobs, {}, delays)
    yield glue_jobs.operations(cloud, Catalog(tmp_path / "catalog.json", "1"), minute=1.0)
    jobs.close()


def test_a_run_that_takes_too_long_is_ended(in_process):
    in_process["CreateJob"]({"Name": "prices", "Role": ROLE, "Command": COMMAND, "Timeout": 1})
    token = coming_fault.set(lambda: JobFault("hang"))
    run = in_process["StartJobRun"]({"JobName": "prices"})["JobRunId"]
    coming_fault.reset(token)
    late = time.monotonic() + 20
    while (found := in_process["GetJobRun"]({"JobName": "prices", "RunId": run})["JobRun"])["JobRunState"] != "TIMEOUT":
        assert time.monotonic() < late, found
        time.sleep(0.1)
    assert found["ErrorMessage"] == "Job run exceeded its timeout"


def test_spark_ends_with_the_cloud_however_that_ends(tmp_path_factory):
    with LocalCloud(tmp_path_factory.mktemp("cloud"), start_seconds=0, job_seconds=0) as cloud:
        cloud.client("s3").create_bucket(Bucket=BUCKET)
        put(
            cloud,
            "code/script.py",
            b"from pyspark.sql import SparkSession\nSparkSession.builder.getOrCreate().range(3).count()\n",
        )
        cloud.client("glue").create_job(Name="prices", Role=ROLE, Command=COMMAND)
        assert ended(cloud, started(cloud))["JobRunState"] == "SUCCEEDED"
        assert cloud.process is not None
        family = psutil.Process(cloud.process.pid).children(recursive=True)
        assert "java" in " ".join(process.name() for process in family)
        cloud.process.kill()
        _, left = psutil.wait_procs(family, timeout=20)
        assert not left
