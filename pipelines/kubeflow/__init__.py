"""Hand pipelines to Kubeflow: compile them, execute them locally with kfp.local, or submit them."""
