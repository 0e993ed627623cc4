"""The gateway's actor: writes in a session, reads, and chunks on their way."""
