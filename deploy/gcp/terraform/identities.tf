# Who may do what. Roles and folders are those of deploy/gcp/roles and deploy/gcp/folders.json, which are made of the recorded calls.
locals {
  roles   = { for file in fileset("${path.module}/../roles", "*.yaml") : trimsuffix(file, ".yaml") => yamldecode(file("${path.module}/../roles/${file}")) }
  folders = jsondecode(file("${path.module}/../folders.json"))

  accounts = {
    airflow = google_service_account.airflow
    jobs    = google_service_account.jobs
  }

  # A role on objects, for an account, in some folders of the lake.
  on_objects = merge([
    for account, roles in local.folders : {
      for role, folders in roles : "${account} ${role}" => { account = account, role = role, folders = folders }
    }
  ]...)
}

resource "google_service_account" "airflow" {
  account_id   = "aileron-airflow"
  display_name = "Aileron: Cloud Composer"
}

resource "google_service_account" "jobs" {
  account_id   = "aileron-jobs"
  display_name = "Aileron: jobs of Vertex AI and Dataflow"
}

resource "google_service_account" "deploy" {
  account_id   = "aileron-deploy"
  display_name = "Aileron: deployments"
}

resource "google_project_iam_custom_role" "this" {
  for_each = local.roles

  role_id     = "aileron_${each.key}"
  title       = each.value.title
  description = each.value.description
  stage       = each.value.stage
  permissions = each.value.includedPermissions
}

# Airflow

resource "google_project_iam_member" "airflow" {
  project = var.project
  role    = google_project_iam_custom_role.this["airflow_project"].id
  member  = google_service_account.airflow.member
}

# Composer will not run with less.
resource "google_project_iam_member" "composer" {
  project = var.project
  role    = "roles/composer.worker"
  member  = google_service_account.airflow.member
}

resource "google_bigquery_dataset_iam_member" "airflow" {
  dataset_id = google_bigquery_dataset.this.dataset_id
  role       = google_project_iam_custom_role.this["airflow_dataset"].id
  member     = google_service_account.airflow.member
}

resource "google_pubsub_subscription_iam_member" "airflow" {
  subscription = google_pubsub_subscription.landed.id
  role         = google_project_iam_custom_role.this["airflow_subscription"].id
  member       = google_service_account.airflow.member
}

# The jobs

resource "google_project_iam_member" "jobs" {
  project = var.project
  role    = google_project_iam_custom_role.this["jobs_project"].id
  member  = google_service_account.jobs.member
}

resource "google_artifact_registry_repository_iam_member" "jobs" {
  repository = google_artifact_registry_repository.jobs.id
  role       = "roles/artifactregistry.reader"
  member     = google_service_account.jobs.member
}

# Both: the lake, by folder, and jobs that run as the jobs' account.

resource "google_storage_bucket_iam_member" "names" {
  for_each = local.accounts

  bucket = google_storage_bucket.lake.name
  role   = google_project_iam_custom_role.this["bucket"].id
  member = each.value.member
}

resource "google_storage_bucket_iam_member" "objects" {
  for_each = local.on_objects

  bucket = google_storage_bucket.lake.name
  role   = google_project_iam_custom_role.this[each.value.role].id
  member = local.accounts[each.value.account].member

  condition {
    title = "aileron_${each.value.role}"
    expression = join(" || ", [
      for folder in each.value.folders :
      "resource.name.startsWith(\"projects/_/buckets/${google_storage_bucket.lake.name}/objects/${var.prefix}/${folder}/\")"
    ])
  }
}

resource "google_service_account_iam_member" "jobs" {
  for_each = local.accounts

  service_account_id = google_service_account.jobs.name
  role               = google_project_iam_custom_role.this["account"].id
  member             = each.value.member
}

# Deployments: images, the bundle, the specs of the Flex Templates, and the environment of Composer.

resource "google_artifact_registry_repository_iam_member" "deploy" {
  repository = google_artifact_registry_repository.jobs.id
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.deploy.member
}

resource "google_storage_bucket_iam_member" "deploy" {
  bucket = google_storage_bucket.bundle.name
  role   = "roles/storage.objectAdmin"
  member = google_service_account.deploy.member
}

resource "google_storage_bucket_iam_member" "templates" {
  bucket = google_storage_bucket.lake.name
  role   = "roles/storage.objectAdmin"
  member = google_service_account.deploy.member

  condition {
    title      = "aileron_templates"
    expression = "resource.name.startsWith(\"projects/_/buckets/${google_storage_bucket.lake.name}/objects/${var.prefix}/templates/\")"
  }
}

# The requirements and variables of the environment; and its Airflow API.
resource "google_project_iam_custom_role" "deploy" {
  role_id = "aileron_deploy"
  title   = "Aileron: deployments"

  permissions = [
    "composer.environments.get",
    "composer.environments.update",
    "composer.operations.get",
  ]
}

resource "google_project_iam_member" "deploy" {
  for_each = {
    environment = google_project_iam_custom_role.deploy.id
    airflow     = "roles/composer.user"
    logs        = "roles/logging.logWriter"
  }

  project = var.project
  role    = each.value
  member  = google_service_account.deploy.member
}

resource "google_service_account_iam_member" "deploy" {
  service_account_id = google_service_account.airflow.name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.deploy.member
}
