"""A server on Kubernetes as objects: Deployment, Service and policies, or an InferenceService of KServe."""
