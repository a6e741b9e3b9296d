"""What transformers wants to know of these classes: loading, generate(), templates, Auto."""
