#!/bin/sh
# Makes the roles beside this file in a project, and grants them. Made by python -m deploy.gcp.roles: do not edit.
#   PROJECT=... BUCKET=lake PREFIX=aileron DATASET=aileron REPOSITORY=aileron REGION=us-central1 \
#   AIRFLOW=composer@... JOBS=aileron-jobs@... [SUBSCRIPTION=aileron-landed] sh deploy/gcp/grant.sh
set -eu
: "${PROJECT:?}" "${BUCKET:?}" "${PREFIX:?}" "${DATASET:?}" "${REPOSITORY:?}" "${REGION:?}" "${AIRFLOW:?}" "${JOBS:?}"
cd "$(dirname "$0")/roles"

for role in account airflow_dataset airflow_project airflow_subscription bucket jobs_project read replace write; do
  gcloud iam roles update "aileron_$role" --project="$PROJECT" --file="$role.yaml" --quiet ||
    gcloud iam roles create "aileron_$role" --project="$PROJECT" --file="$role.yaml" --quiet
done

role() { echo "projects/$PROJECT/roles/aileron_$1"; }
in_project() { gcloud projects add-iam-policy-binding "$PROJECT" --member="serviceAccount:$1" --role="$2" --condition=None --quiet; }
in_bucket() { gcloud storage buckets add-iam-policy-binding "gs://$BUCKET" --member="serviceAccount:$1" --role="$(role "$2")" "--condition=$3" --quiet; }
as_jobs() { gcloud iam service-accounts add-iam-policy-binding "$JOBS" --project="$PROJECT" --member="serviceAccount:$1" --role="$(role account)" --quiet; }
below() { echo "resource.name.startsWith(\"projects/_/buckets/$BUCKET/objects/$PREFIX/$1/\")"; }
folders() {  # a condition: one of these folders of the lake
  title=$1; told=$(below "$2"); shift 2
  for folder in "$@"; do told="$told || $(below "$folder")"; done
  echo "title=$title,expression=$told"
}

# Airflow
in_project "$AIRFLOW" "$(role airflow_project)"
bq query --project_id="$PROJECT" --use_legacy_sql=false \
  "GRANT \`$(role airflow_dataset)\` ON SCHEMA \`$PROJECT\`.$DATASET TO \"serviceAccount:$AIRFLOW\""
in_bucket "$AIRFLOW" bucket None
in_bucket "$AIRFLOW" read "$(folders aileron_read evaluations label_queue ledger models monitoring outbox staging templates training)"
in_bucket "$AIRFLOW" write "$(folders aileron_write evaluations label_queue ledger models monitoring outbox staging training validations)"
in_bucket "$AIRFLOW" replace "$(folders aileron_replace evaluations label_queue models monitoring staging training validations)"
as_jobs "$AIRFLOW"
if [ -n "${SUBSCRIPTION:-}" ]; then
  gcloud pubsub subscriptions add-iam-policy-binding "$SUBSCRIPTION" --project="$PROJECT" \
    --member="serviceAccount:$AIRFLOW" --role="$(role airflow_subscription)"
fi

# The jobs
in_project "$JOBS" "$(role jobs_project)"
gcloud artifacts repositories add-iam-policy-binding "$REPOSITORY" --project="$PROJECT" --location="$REGION" \
  --member="serviceAccount:$JOBS" --role=roles/artifactregistry.reader
in_bucket "$JOBS" bucket None
in_bucket "$JOBS" read "$(folders aileron_read dataflow models staging templates training)"
in_bucket "$JOBS" write "$(folders aileron_write dataflow staging)"
in_bucket "$JOBS" replace "$(folders aileron_replace dataflow staging)"
as_jobs "$JOBS"
