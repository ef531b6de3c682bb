output "bucket" {
  description = "Where make deploy uploads the bundle"
  value       = google_storage_bucket.bundle.name
}

output "settings" {
  description = "The environment of Airflow"
  value       = local.settings
}

output "github" {
  description = "The variables of the environment of GitHub"
  value = {
    GCP_PROVIDER    = one(google_iam_workload_identity_pool_provider.github[*].name)
    GCP_ACCOUNT     = google_service_account.deploy.email
    GCP_PROJECT     = var.project
    GCP_LOCATION    = var.region
    GCP_ENVIRONMENT = google_composer_environment.this.name
    GCP_REPOSITORY  = local.repository
    GCP_TEMPLATES   = local.settings.AILERON_GCP_TEMPLATES
  }
}
