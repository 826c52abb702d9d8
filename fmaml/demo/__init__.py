"""`fmaml demo`: a page on this computer where a trained model learns what one draws, or photographs.

The page is plain HTML and JavaScript on the standard library's HTTP server, so it needs nothing besides fmaml. Gradio
was tried in its place (6.31, without a network): it contacts no other host, but it installs 33 more packages of 199 MB,
takes 9 s to import on two busy cores, and on its sketchpad one selects a tool before the first stroke.
"""
