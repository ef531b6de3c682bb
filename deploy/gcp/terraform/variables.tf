variable "project" {
  description = "Id of the project; it holds one of all this"
  type        = string
}

variable "region" {
  description = "Of everything"
  type        = string
  default     = "us-central1"
}

variable "environment" {
  description = "Ends the name of the environment of Composer, and is a label"
  type        = string
  default     = "production"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,15}$", var.environment))
    error_message = "A short name: a-z, 0-9 and -."
  }
}

variable "lake" {
  description = "Name of the bucket of the lake; <project>-aileron-lake if it is not given"
  type        = string
  default     = ""
}

variable "prefix" {
  description = "Of everything in the lake"
  type        = string
  default     = "aileron"

  validation {
    condition     = can(regex("^[A-Za-z0-9_.-]+$", var.prefix))
    error_message = "Letters, digits, _, . and -; no slashes."
  }
}

variable "dataset" {
  description = "Of BigQuery: source tables, and what the DAGs make"
  type        = string
  default     = "aileron"
}

variable "source_tables" {
  description = "Tables that wake the arrivals DAGs when a job has changed them"
  type        = list(string)
  default     = ["flights"]
}

variable "job_image" {
  description = "Of the jobs of Vertex AI, as python -m deploy.images prints it; the pipelines change it afterwards"
  type        = string
}

variable "image_version" {
  description = "Of Composer"
  type        = string
  default     = "composer-3-airflow-3.3.1-build.0"
}

variable "environment_size" {
  description = "Of Composer"
  type        = string
  default     = "ENVIRONMENT_SIZE_SMALL"
}

variable "subnet" {
  description = "Addresses of the subnetwork of Composer and of Dataflow's workers"
  type        = string
  default     = "10.42.0.0/20"
}

variable "billing_account" {
  description = "That pays for the project: the budget is there"
  type        = string
}

variable "monthly_budget" {
  description = "In the currency of the billing account"
  type        = number
  default     = 500
}

variable "alert_email" {
  description = "Is told of the budget and of alarms"
  type        = string
}

variable "github_repository" {
  description = "owner/name: its deployments may come from GitHub Actions; none if empty"
  type        = string
  default     = ""

  validation {
    condition     = var.github_repository == "" || can(regex("^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$", var.github_repository))
    error_message = "Like owner/name."
  }
}

variable "build_repository" {
  description = "projects/.../locations/.../connections/.../repositories/... of Cloud Build: main is deployed from it; none if empty"
  type        = string
  default     = ""
}
