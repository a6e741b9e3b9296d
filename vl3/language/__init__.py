"""Around the language model: attention on a CPU, key/value cache, training loss."""
