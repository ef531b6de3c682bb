"""What a platform does not do as the others: (platform, test) → why. Such a test must fail; if it passes, the gap has closed."""

from __future__ import annotations

GAPS = {
    ("local", "test_who_defers_waits_in_a_trigger_and_who_does_not_waits_in_a_worker"): "its jobs are processes of the worker",
    ("local", "test_each_job_was_done_once_at_its_first_attempt"): "it rents no machines",
    ("local", "test_what_is_asked_of_the_services_is_what_was_agreed"): "it asks no service",
    ("local", "test_another_way_to_score_gives_the_same_scores"): "there is one way",
    ("aws", "test_another_way_to_score_gives_the_same_scores"): "there is one way: batch transform",
}
