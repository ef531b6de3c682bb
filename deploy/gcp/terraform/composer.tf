resource "google_compute_network" "this" {
  name                    = "aileron"
  auto_create_subnetworks = false

  depends_on = [google_project_service.this]
}

# Composer and the workers of Dataflow have no public address: they reach Google's services from here.
resource "google_compute_subnetwork" "this" {
  name                     = "aileron"
  region                   = var.region
  network                  = google_compute_network.this.id
  ip_cidr_range            = var.subnet
  private_ip_google_access = true
}

# Workers of Dataflow among themselves.
resource "google_compute_firewall" "dataflow" {
  name      = "aileron-dataflow"
  network   = google_compute_network.this.id
  direction = "INGRESS"

  allow {
    protocol = "tcp"
    ports    = ["12345", "12346"]
  }

  source_tags = ["dataflow"]
  target_tags = ["dataflow"]
}

locals {
  # Of the environment of Airflow, by the names that docs/platforms/gcp.md has for them.
  settings = {
    AILERON_PLATFORM            = "gcp"
    AILERON_ENVIRONMENT         = var.environment
    AILERON_REGISTRY            = "vertex://aileron"
    AILERON_LEDGER              = "gs://${google_storage_bucket.lake.name}/${var.prefix}/ledger"
    AILERON_OUTBOX              = "gs://${google_storage_bucket.lake.name}/${var.prefix}/outbox"
    AILERON_PAGES               = "gs://${google_storage_bucket.lake.name}/${var.prefix}"
    AILERON_GCP_PROJECT         = var.project
    AILERON_GCP_LAKE            = "gs://${google_storage_bucket.lake.name}/${var.prefix}"
    AILERON_GCP_DATASET         = google_bigquery_dataset.this.dataset_id
    AILERON_GCP_LOCATION        = google_bigquery_dataset.this.location
    AILERON_GCP_REGION          = var.region
    AILERON_GCP_IMAGE           = var.job_image
    AILERON_GCP_TEMPLATES       = "gs://${google_storage_bucket.lake.name}/${var.prefix}/templates"
    AILERON_GCP_SERVICE_ACCOUNT = google_service_account.jobs.email
    AILERON_GCP_KMS_KEY         = google_kms_crypto_key.this.id
    AILERON_GCP_SUBNETWORK      = "regions/${var.region}/subnetworks/${google_compute_subnetwork.this.name}"
    AILERON_GCP_SUBSCRIPTION    = google_pubsub_subscription.landed.name
  }
}

resource "google_composer_environment" "this" {
  name   = "aileron-${var.environment}"
  region = var.region

  storage_config {
    bucket = google_storage_bucket.bundle.name
  }

  config {
    environment_size           = var.environment_size
    enable_private_environment = true

    software_config {
      image_version = var.image_version
      env_variables = local.settings

      airflow_config_overrides = {
        core-dags_are_paused_at_creation = "True"
      }
    }

    node_config {
      network         = google_compute_network.this.id
      subnetwork      = google_compute_subnetwork.this.id
      service_account = google_service_account.airflow.email
    }

    encryption_config {
      kms_key_name = google_kms_crypto_key.this.id
    }

    # Tasks wait deferred.
    workloads_config {
      triggerer {
        count     = 2
        cpu       = 0.5
        memory_gb = 1
      }
    }

    maintenance_window {
      start_time = "2026-01-04T03:30:00Z"
      end_time   = "2026-01-04T07:30:00Z"
      recurrence = "FREQ=WEEKLY;BYDAY=SA,SU,WE"
    }
  }

  lifecycle {
    # `make deploy` changes the one, the pipelines the other.
    ignore_changes = [
      config[0].software_config[0].pypi_packages,
      config[0].software_config[0].env_variables["AILERON_GCP_IMAGE"],
    ]
  }

  depends_on = [
    google_project_iam_member.composer,
    google_kms_crypto_key_iam_member.agents,
  ]
}
