"""What the page says and does, without a model; launch.py alone brings one, and Gradio is
known to layout, handlers, page, launch and call_log."""
