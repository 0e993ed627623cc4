"""`synod bench`: throughput and latency beside the limits of what lies below, in one run."""
