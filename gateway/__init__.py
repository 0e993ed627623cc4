"""Every door to a cluster: HTTP, command line, client library and web page."""
