"""`python -m tests.aws.seldom <day>`: what is asked of AWS only when something is killed, published again, or has failed.

It works where the environment says.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from datetime import date
from email.message import EmailMessage

from botocore.exceptions import ClientError

from demo.aws_cloud import SENDER


def seldom(day: date) -> None:
    """What is asked only when a task is killed, a day is published again, an old version is removed, or something has failed."""
    from include import publications
    from include.config import load_model
    from include.platforms.aws import tables
    from include.platforms.aws.jobs import KINDS, client_of

    for kind, asked in KINDS.items():
        ref = {"glue": "aileron-x-y/jr_1", "athena": "11111111-1111-1111-1111-111111111111"}.get(kind, "nothing-of-this-name")
        ref = "11111111-1111-1111-1111-111111111111" if kind == "redshift" else ref
        for ask in (asked.look, asked.stop):
            with suppress(ClientError):
                ask(client_of(kind, "aws_default"), ref)
    model = load_model("flight_delays")
    tables.point(tables.predictions(model), day, publications.history(model.name, day)[-1].body["location"])
    again()


def again() -> None:
    """What is asked when a thing is there already, and has changed; and what an old version, or a mail, asks."""
    from airflow.providers.amazon.aws.hooks.glue import GlueJobHook

    from include import couriers
    from include.platforms.aws import lake, tables
    from include.registry import registry

    registry().alias("flight_delays", "champion")
    for number in (2, 3):
        tables.describe_files(
            {"name": "flight_delays_again", "location": lake.place("staging", str(number))}, {"a": "date"}, tables.PARQUET
        )
        GlueJobHook(
            job_name="aileron-flight-delays-again",
            desc="again",
            iam_role_arn=os.environ["AILERON_AWS_ROLE"],
            script_location=lake.place("code", "again.py"),
            create_job_kwargs={"GlueVersion": "5.0", "WorkerType": "G.1X", "NumberOfWorkers": number, "Tags": {"n": str(number)}},
            update_config=True,
        ).create_or_update_glue_job()
    tables.forget("flight_delays_again")
    for folder in ("staging", "versions", "label_queue", "monitoring"):
        lake.write(lake.place(folder, "flight_delays", "old", "file"), b"1")
        lake.remove(lake.place(folder, "flight_delays", "old"))

    def message(sender: str) -> EmailMessage:
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = sender or SENDER, "oncall@example.com", "a test"
        mail.set_content("a test")
        return mail

    with couriers.opened() as deliver:
        deliver(message)


if __name__ == "__main__":
    seldom(date.fromisoformat(sys.argv[1]))
