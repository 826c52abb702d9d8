"""`fmaml demo`: a local page where a trained model learns your drawings or photographs.

The page is plain HTML and JavaScript on the standard library's HTTP server, so it needs no other package. Gradio 6.31
also works without a network. But it installs 33 packages of 199 MB, and imports in 9 s on two busy cores. Its sketchpad
needs a tool to be selected before the first stroke.
"""
