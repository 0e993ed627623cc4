"""A console of rich that shows text as text. A module of its own, because rich is slow to load."""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from observability.safe_text import visible


class SafeConsole(Console):
    """Escapes, in all output, control characters that a terminal would obey and that are not rich's
    own.
    """

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """See `Console.render`."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(visible(segment.text, lines=True), segment.style)
