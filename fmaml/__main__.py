"""`python -m fmaml` is `fmaml`."""

from .cli import main

raise SystemExit(main())
