locals {
  lake = var.lake != "" ? var.lake : "${var.project}-aileron-lake"

  services = toset([
    "aiplatform.googleapis.com",
    "artifactregistry.googleapis.com",
    "bigquery.googleapis.com",
    "bigquerystorage.googleapis.com",
    "billingbudgets.googleapis.com",
    "cloudbuild.googleapis.com",
    "cloudkms.googleapis.com",
    "composer.googleapis.com",
    "compute.googleapis.com",
    "dataflow.googleapis.com",
    "iam.googleapis.com",
    "iamcredentials.googleapis.com",
    "logging.googleapis.com",
    "monitoring.googleapis.com",
    "pubsub.googleapis.com",
    "storage.googleapis.com",
    "sts.googleapis.com",
  ])

  # Google's own accounts, which read and write for us with our key.
  agents = {
    artifacts = "service-${data.google_project.this.number}@gcp-sa-artifactregistry.iam.gserviceaccount.com"
    bigquery  = "bq-${data.google_project.this.number}@bigquery-encryption.iam.gserviceaccount.com"
    composer  = "service-${data.google_project.this.number}@cloudcomposer-accounts.iam.gserviceaccount.com"
    compute   = "service-${data.google_project.this.number}@compute-system.iam.gserviceaccount.com"
    dataflow  = "service-${data.google_project.this.number}@dataflow-service-producer-prod.iam.gserviceaccount.com"
    pubsub    = "service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
    storage   = "service-${data.google_project.this.number}@gs-project-accounts.iam.gserviceaccount.com"
    vertex    = "service-${data.google_project.this.number}@gcp-sa-aiplatform.iam.gserviceaccount.com"
  }
}

data "google_project" "this" {
  project_id = var.project
}

resource "google_project_service" "this" {
  for_each = local.services

  service            = each.value
  disable_on_destroy = false
}

# One key for all that is kept.
resource "google_kms_key_ring" "this" {
  name     = "aileron"
  location = var.region

  depends_on = [google_project_service.this]
}

resource "google_kms_crypto_key" "this" {
  name            = "aileron"
  key_ring        = google_kms_key_ring.this.id
  rotation_period = "7776000s" # 90 days

  lifecycle {
    prevent_destroy = true
  }
}

resource "google_kms_crypto_key_iam_member" "agents" {
  for_each = local.agents

  crypto_key_id = google_kms_crypto_key.this.id
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = "serviceAccount:${each.value}"
}

resource "google_storage_bucket" "lake" {
  name                        = local.lake
  location                    = var.region
  uniform_bucket_level_access = true # rights are given by folder
  public_access_prevention    = "enforced"

  versioning {
    enabled = true
  }

  encryption {
    default_kms_key_name = google_kms_crypto_key.this.id
  }

  # All of these can be made again.
  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age            = 7
      matches_prefix = [for folder in ["staging", "dataflow"] : "${var.prefix}/${folder}/"]
    }
  }

  # What was written over or removed can be brought back for so long.
  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      days_since_noncurrent_time = 90
    }
  }

  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }
    condition {
      age = 7
    }
  }

  lifecycle {
    prevent_destroy = true
  }

  depends_on = [google_kms_crypto_key_iam_member.agents]
}

# What `make deploy` uploads and Composer reads.
resource "google_storage_bucket" "bundle" {
  name                        = "${var.project}-aileron-composer"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  versioning {
    enabled = true
  }

  encryption {
    default_kms_key_name = google_kms_crypto_key.this.id
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      days_since_noncurrent_time = 90
    }
  }

  depends_on = [google_kms_crypto_key_iam_member.agents]
}

resource "google_bigquery_dataset" "this" {
  dataset_id                 = var.dataset
  location                   = var.region
  delete_contents_on_destroy = false

  default_encryption_configuration {
    kms_key_name = google_kms_crypto_key.this.id
  }

  lifecycle {
    prevent_destroy = true
  }

  depends_on = [google_kms_crypto_key_iam_member.agents]
}

resource "google_artifact_registry_repository" "jobs" {
  repository_id = "aileron"
  location      = var.region
  format        = "DOCKER"
  kms_key_name  = google_kms_crypto_key.this.id

  docker_config {
    immutable_tags = true
  }

  # An image that a model names is not to go.
  cleanup_policies {
    id     = "untagged"
    action = "DELETE"
    condition {
      tag_state  = "UNTAGGED"
      older_than = "1209600s" # 14 days
    }
  }

  depends_on = [google_kms_crypto_key_iam_member.agents]
}

# Who tells of a landed day: what a message says is not read, only that one came.
resource "google_pubsub_topic" "landed" {
  name         = "aileron-landed"
  kms_key_name = google_kms_crypto_key.this.id

  depends_on = [google_kms_crypto_key_iam_member.agents]
}

resource "google_pubsub_subscription" "landed" {
  name                       = "aileron-landed"
  topic                      = google_pubsub_topic.landed.id
  message_retention_duration = "345600s" # 4 days

  expiration_policy {
    ttl = "" # never
  }
}

resource "google_logging_project_sink" "landed" {
  name                   = "aileron-landed"
  destination            = "pubsub.googleapis.com/${google_pubsub_topic.landed.id}"
  unique_writer_identity = true

  filter = join(" ", [
    "protoPayload.metadata.tableDataChange.reason=\"JOB\"",
    "protoPayload.resourceName=(${join(" OR ", [
      for table in var.source_tables : "\"projects/${var.project}/datasets/${var.dataset}/tables/${table}\""
    ])})",
  ])
}

resource "google_pubsub_topic_iam_member" "sink" {
  topic  = google_pubsub_topic.landed.id
  role   = "roles/pubsub.publisher"
  member = google_logging_project_sink.landed.writer_identity
}
