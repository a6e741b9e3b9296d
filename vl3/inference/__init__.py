"""Answers: kept clips and key/value prefixes, prefill, decoding, replays, memory."""
