"""Clusters to break: of processes on this machine, or of containers; and their RabbitMQ."""
