"""The store: votes, contents, reads, and its way into the view."""
