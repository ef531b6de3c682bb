locals {
  repository = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.jobs.repository_id}"
}

# GitHub Actions: deployments of this repository's environments, without a key.

resource "google_iam_workload_identity_pool" "github" {
  count = var.github_repository == "" ? 0 : 1

  workload_identity_pool_id = "aileron-github"

  depends_on = [google_project_service.this]
}

resource "google_iam_workload_identity_pool_provider" "github" {
  count = var.github_repository == "" ? 0 : 1

  workload_identity_pool_id          = google_iam_workload_identity_pool.github[0].workload_identity_pool_id
  workload_identity_pool_provider_id = "github"

  attribute_mapping = {
    "google.subject" = "assertion.sub"
  }
  attribute_condition = "assertion.repository == \"${var.github_repository}\""

  oidc {
    issuer_uri = "https://token.actions.githubusercontent.com"
  }
}

# Jobs of one environment of GitHub only: who must agree to those is said there.
resource "google_service_account_iam_member" "github" {
  count = var.github_repository == "" ? 0 : 1

  service_account_id = google_service_account.deploy.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "principal://iam.googleapis.com/${google_iam_workload_identity_pool.github[0].name}/subject/repo:${var.github_repository}:environment:${var.environment}-composer"
}

# Cloud Build: main, by cloudbuild.yaml, once somebody agrees.

resource "google_cloudbuild_trigger" "main" {
  count = var.build_repository == "" ? 0 : 1

  name            = "aileron-${var.environment}"
  location        = var.region
  filename        = "cloudbuild.yaml"
  service_account = google_service_account.deploy.id

  repository_event_config {
    repository = var.build_repository
    push {
      branch = "^main$"
    }
  }

  approval_config {
    approval_required = true
  }

  substitutions = {
    _ENV        = google_composer_environment.this.name
    _LOCATION   = var.region
    _REPOSITORY = local.repository
    _TEMPLATES  = local.settings.AILERON_GCP_TEMPLATES
  }
}
