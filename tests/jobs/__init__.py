"""Tests of include/jobs: each job as the process it is in production."""
