"""Tests: unit, integration, cluster, kfp and gpu, one folder each."""
