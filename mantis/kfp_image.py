"""The container image of every component. `mantis pipeline compile --image` replaces it by an image with a digest.

No registry has this image: names below `.invalid` never resolve (RFC 2606). Kubernetes shows the name in its message.
"""

PIPELINE_IMAGE = "unbound.invalid/run:mantis-pipeline-compile--image"
