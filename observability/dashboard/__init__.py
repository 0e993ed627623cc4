"""The Grafana dashboards as code.

::

    python -m observability.dashboard

writes them to `observability/grafana/dashboards`. A test compares the files with this package, and
others run every query against a real cluster.
"""
