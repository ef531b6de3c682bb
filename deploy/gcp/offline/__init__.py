"""Terraform without a network: checks deploy/gcp/terraform, `.venv-deploy/bin/python -m deploy.gcp.offline`."""
