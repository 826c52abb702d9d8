"""What Omniglot and the built-in glyphs have in common. Imports no torch: the config check reads it."""

CLASSES = {"train": 1100, "val": 100, "test": 423}  # characters before rotation, as in the original MAML code
DRAWINGS = 20  # of each character
SIZE = 28  # height and width in pixels, one channel
