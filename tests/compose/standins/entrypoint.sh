#!/bin/bash
# What the entry point of apache/airflow does with _AIRFLOW_DB_MIGRATE, _AIRFLOW_WWW_USER_* and a command.
set -euo pipefail
umask 0002
for _ in $(seq 20); do
    airflow db check >/dev/null 2>&1 && break
    sleep 3
done
if [ -n "${_AIRFLOW_DB_MIGRATE:-}" ]; then
    airflow db migrate || true
fi
if [ -n "${_AIRFLOW_WWW_USER_CREATE:-}" ]; then
    airflow users create --username "$_AIRFLOW_WWW_USER_USERNAME" --password "$_AIRFLOW_WWW_USER_PASSWORD" \
        --firstname Airflow --lastname Admin --email airflowadmin@example.com --role Admin || true
fi
case "${1:-}" in
    bash | python) exec "$@" ;;
    airflow) shift ;;
esac
exec airflow "$@"
