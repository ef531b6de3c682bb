output "environment" {
  description = "Of Composer"
  value       = google_composer_environment.this.name
}

output "bucket" {
  description = "Where make deploy uploads the bundle"
  value       = google_storage_bucket.bundle.name
}

output "repository" {
  description = "For python -m deploy.images"
  value       = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.jobs.repository_id}"
}

output "settings" {
  description = "The environment of Airflow"
  value       = local.settings
}

output "github" {
  description = "The variables GCP_PROVIDER and GCP_ACCOUNT of the environment of GitHub"
  value = {
    provider = one(google_iam_workload_identity_pool_provider.github[*].name)
    account  = google_service_account.deploy.email
  }
}
