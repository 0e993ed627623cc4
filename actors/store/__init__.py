"""The store: votes, contents, reads, and how it joins the view."""
