"""What a selection takes on this machine: bytes from the shapes of its arrays, seconds from measured constants."""
