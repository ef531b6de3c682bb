#!/bin/sh
# What is checked out, into an environment of Cloud Composer: bundle, images, templates, variables, deployment.
#   PROJECT=... LOCATION=us-central1 ENV=aileron-production REPOSITORY=... TEMPLATES=gs://... sh deploy/gcp/deploy.sh [step]
# The steps are images, environment and bundle, in this order; without one, all of them.
set -eu
: "${PROJECT:?}" "${LOCATION:?}" "${ENV:?the name of the environment}" "${REPOSITORY:?of Artifact Registry}" "${TEMPLATES:?gs://...}"
cd "$(dirname "$0")/../.."

deploy() {
  make deploy TARGET=composer ENV="$ENV" PROJECT="$PROJECT" LOCATION="$LOCATION" "$@"
}

images() {
  make bundle TARGET=composer
  .venv/bin/python -m deploy.images composer "$REPOSITORY" > .local/images.env
  # A deployment is refused, with this advice, where packages of the bundle are not there.
  rm -f .local/packages.txt
  if ! deploy DRY_RUN=1 2> .local/refused.txt; then
    grep -e --update-pypi-packages-from-file .local/refused.txt || { cat .local/refused.txt >&2; exit 1; }
    cp .local/bundles/composer/requirements.txt .local/packages.txt
  fi
}

composer() {
  verb=$1; shift
  gcloud composer environments "$verb" "$ENV" --project="$PROJECT" --location="$LOCATION" "$@"
}

environment() {
  # shellcheck source=/dev/null
  . ./.local/images.env
  for name in postprocess score; do
    gcloud dataflow flex-template build "$TEMPLATES/$name.json" --project="$PROJECT" --image="$AILERON_DATAFLOW_IMAGE" \
      --sdk-language=PYTHON --metadata-file=".local/bundles/composer/jobs/$name.json"
  done
  # Each of the two takes minutes, so only if it is another than before.
  if [ "$(composer describe --format='value(config.softwareConfig.envVariables.AILERON_GCP_IMAGE)')" != "$AILERON_GCP_IMAGE" ]; then
    composer update --update-env-variables="AILERON_GCP_IMAGE=$AILERON_GCP_IMAGE"
  fi
  if [ -e .local/packages.txt ]; then composer update --update-pypi-packages-from-file=.local/packages.txt; fi
}

bundle() {
  deploy
}

case "${1:-all}" in
  images | environment | bundle) "$1" ;;
  all) images; environment; bundle ;;
  *) echo "$1: is not one of images, environment, bundle" >&2; exit 1 ;;
esac
