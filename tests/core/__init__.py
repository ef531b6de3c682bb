"""Tests of include/core: rules and formats, without Airflow."""
