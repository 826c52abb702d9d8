"""The console of every table, progress bar and line that rich prints."""

import sys
from collections.abc import Iterable
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from .plain_text import printable


class CleanConsole(Console):
    """A console that shows text as it is: no markup, emoji or highlights, and no control characters.

    So names in data can neither format the output nor control the terminal.
    """

    def __init__(self, *, file: IO[str] | None = None, stderr: bool = False, **options: Any) -> None:
        """The options are those of `rich.console.Console`.

        Colours and the cursor go to the stream below those that replace control characters. rich looks one stream
        below, and a progress bar puts one more above.
        """
        stream: Any = file or (sys.stderr if stderr else sys.stdout)
        while (below := getattr(stream, "rich_proxied_file", None)) is not None:
            stream = below
        super().__init__(file=stream, markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Convert text of a line or a cell. It is cleaned here too, before its width is measured."""
        return super().render_str(printable(text, "\t\n"), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as segments of text. Only rich's own segments have control characters: colours and the cursor."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text, "\t\n"))
