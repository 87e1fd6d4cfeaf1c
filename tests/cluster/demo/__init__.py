"""`make cluster-demo`: a cluster on one machine, used as cluster/README.md says."""
