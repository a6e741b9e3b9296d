"""Checkpoint families: tensor names, configurations and settings, in and out."""
