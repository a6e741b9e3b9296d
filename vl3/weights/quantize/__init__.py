"""Weights in 4 and 8 bits: through bitsandbytes, rows in int8, and NF4 on a CPU."""
