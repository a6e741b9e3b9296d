"""Messages and their media, whatever their shape: read, found, measured from headers."""
