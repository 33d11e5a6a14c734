"""The pipelines in the hands of Kubeflow: compiled, executed on this machine by kfp.local, or submitted."""
