"""The gateway's actor: writes in a session, reads, and transfers of chunks."""
