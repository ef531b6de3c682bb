# What a Google Cloud project needs for platform gcp and for Cloud Composer; docs/infrastructure.md says how it is created.
terraform {
  required_version = ">= 1.9"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 8.7"
    }
  }

  # terraform init -backend-config=bucket=...
  backend "gcs" {
    prefix = "aileron"
  }
}

provider "google" {
  project               = var.project
  region                = var.region
  billing_project       = var.project
  user_project_override = true # budgets are asked for in the name of a project

  default_labels = {
    environment = var.environment
    owner       = "aileron"
  }
}
