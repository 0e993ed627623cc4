"""Everything that carries an actor's effects out: runtime, transports, journal."""
