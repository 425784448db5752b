"""Rules of the house that no single room can hold."""
