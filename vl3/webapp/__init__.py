"""The web application without a model; launch.py alone loads one, and Gradio is
known to layout, handlers, page, launch and call_log."""
