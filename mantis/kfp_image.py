"""The container image of every component. `mantis pipeline compile --image` replaces it by an image with a digest."""

PIPELINE_IMAGE = "mantis/pipeline:placeholder"
