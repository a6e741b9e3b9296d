"""What lies between a file on disk and a sample: formats, rules, readers, reports."""
