"""Send runs, metrics and models to MLflow."""
