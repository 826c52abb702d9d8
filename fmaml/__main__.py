"""`python -m fmaml` is `fmaml`."""

from .cli.main import main

raise SystemExit(main())
