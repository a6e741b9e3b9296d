"""What the page says and does, without Gradio and without a model: app.py only lays it out."""
