resource "google_monitoring_notification_channel" "email" {
  display_name = "Aileron"
  type         = "email"

  labels = {
    email_address = var.alert_email
  }

  depends_on = [google_project_service.this]
}

resource "google_billing_budget" "this" {
  billing_account = var.billing_account
  display_name    = "aileron-${var.environment}"

  budget_filter {
    projects = ["projects/${data.google_project.this.number}"]
  }

  amount {
    specified_amount {
      units = tostring(var.monthly_budget)
    }
  }

  threshold_rules {
    threshold_percent = 0.8
  }

  threshold_rules {
    threshold_percent = 1.0
    spend_basis       = "FORECASTED_SPEND"
  }

  all_updates_rule {
    monitoring_notification_channels = [google_monitoring_notification_channel.email.id]
  }
}

resource "google_monitoring_alert_policy" "nobody_schedules" {
  display_name          = "Aileron: Composer is not healthy"
  combiner              = "OR"
  notification_channels = [google_monitoring_notification_channel.email.id]

  conditions {
    display_name = "less than half of a quarter of an hour"

    condition_threshold {
      filter          = "resource.type = \"cloud_composer_environment\" AND resource.labels.environment_name = \"${google_composer_environment.this.name}\" AND metric.type = \"composer.googleapis.com/environment/healthy\""
      comparison      = "COMPARISON_LT"
      threshold_value = 0.5
      duration        = "900s"

      aggregations {
        alignment_period   = "300s"
        per_series_aligner = "ALIGN_FRACTION_TRUE"
      }
    }
  }
}

resource "google_monitoring_alert_policy" "nobody_listens" {
  display_name          = "Aileron: days have landed, and arrivals has not read of it for two hours"
  combiner              = "OR"
  notification_channels = [google_monitoring_notification_channel.email.id]

  conditions {
    display_name = "oldest message"

    condition_threshold {
      filter          = "resource.type = \"pubsub_subscription\" AND resource.labels.subscription_id = \"${google_pubsub_subscription.landed.name}\" AND metric.type = \"pubsub.googleapis.com/subscription/oldest_unacked_message_age\""
      comparison      = "COMPARISON_GT"
      threshold_value = 7200
      duration        = "900s"

      aggregations {
        alignment_period   = "300s"
        per_series_aligner = "ALIGN_MAX"
      }
    }
  }
}
