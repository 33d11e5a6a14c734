"""Check a machine and a cluster, with a remedy for each finding."""
