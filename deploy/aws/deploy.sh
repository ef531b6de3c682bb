#!/bin/sh
# What is checked out, into the environment of a stack of infrastructure.yaml: images, bundle, deployment.
#   STACK=aileron [MORE_SETTINGS="AILERON_...=..."] sh deploy/aws/deploy.sh
set -eu
: "${STACK:?the name of the stack of deploy/aws/infrastructure.yaml}"
cd "$(dirname "$0")/../.."

output() {
  aws cloudformation describe-stacks --stack-name "$STACK" --output text \
    --query "Stacks[0].Outputs[?OutputKey=='$1'].OutputValue"
}

environment=$(output MwaaEnvironment) repository=$(output JobImages)
mkdir -p .local
{
  output Settings
  printf '%s\n' "${MORE_SETTINGS:-}"
} > .local/settings.env

make bundle TARGET=mwaa SETTINGS=.local/settings.env
aws ecr get-login-password | docker login --username AWS --password-stdin "${repository%%/*}"
.venv/bin/python -m deploy.images mwaa "$repository" > .local/images.env
# A startup script with the image that the jobs are to run in; what images are made of does not change by that.
cat .local/images.env >> .local/settings.env
make bundle TARGET=mwaa SETTINGS=.local/settings.env
make deploy TARGET=mwaa ENV="$environment"
