"""The container image that every component runs in; `mantis pipeline compile --image` puts a digest in its place."""

PIPELINE_IMAGE = "mantis/pipeline:placeholder"
