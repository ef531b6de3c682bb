"""Tests of include/registry against real MLflow stores."""
