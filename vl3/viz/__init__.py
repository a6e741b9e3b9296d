"""Pictures of what happens inside: arrays in, plain data for the browser or image files out.

A view's data is made here and drawn by assets/web/views, in the app, in notebooks and in the
one-file page of vl3.viz.export. Nothing here sees a model.
"""
