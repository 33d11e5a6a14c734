"""What every part shares: settings, errors, object store, manifests, steps, lineage, tracking, progress.

Everything may import it; it imports nothing of this project.
"""
