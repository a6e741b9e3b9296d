"""Checkpoints in and out: finding, loading, quantizing, exporting."""
